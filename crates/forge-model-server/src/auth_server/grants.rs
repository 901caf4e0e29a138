//! What the server has given out, and what it takes back in.

use super::wire::{encode_pairs, first_value};
use super::{AuthFault, AuthReply, CLIENT_ID};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// A code and what it was given for.
struct IssuedCode {
    code: String,
    challenge: String,
    redirect: String,
    used: bool,
}

/// Everything given out.
pub(super) struct Grants {
    codes: Vec<IssuedCode>,
    pub(super) access_tokens: Vec<String>,
    pub(super) refresh_tokens: Vec<String>,
    pub(super) issued: Vec<String>,
    pub(super) renewals: usize,
    pub(super) requests: usize,
    pub(super) lifetime: u64,
    serial: u64,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            codes: Vec::new(),
            access_tokens: Vec::new(),
            refresh_tokens: Vec::new(),
            issued: Vec::new(),
            renewals: 0,
            requests: 0,
            lifetime: 3600,
            serial: 0,
        }
    }
}

type FormPairs = [(String, String)];

impl Grants {
    /// Something that nobody can guess in a test.
    fn new_secret(&mut self, kind: &str) -> String {
        self.serial += 1;
        let hash = Sha256::digest(format!("{kind} {} {:p}", self.serial, self).as_bytes());
        format!("{kind}-{}", URL_SAFE_NO_PAD.encode(hash))
    }

    /// The page that asks the person; here the answer is known.
    pub(super) fn authorize(&mut self, query: &FormPairs, fault: AuthFault) -> AuthReply {
        let get = |name: &str| first_value(query, name).unwrap_or_default();
        let refused =
            |why: &str| AuthReply::Body(400, "text/html", format!("<h1>invalid request: {why}</h1>"));
        let redirect = get("redirect_uri");
        if get("client_id") != CLIENT_ID {
            return refused("unknown client");
        }
        if !redirect.starts_with("http://localhost:") || !redirect.ends_with("/auth/callback") {
            return refused("redirect_uri is not registered");
        }
        let state = if fault == AuthFault::WrongState { "another-login".to_owned() } else { get("state") };
        let back = |pairs: &[(&str, &str)]| {
            let mut all: Vec<(&str, &str)> = pairs.to_vec();
            all.push(("state", &state));
            AuthReply::Redirect(format!("{redirect}?{}", encode_pairs(&all)))
        };
        if get("response_type") != "code" || get("code_challenge_method") != "S256" || state.is_empty() {
            return back(&[("error", "invalid_request")]);
        }
        match fault {
            AuthFault::Denied => {
                return back(&[
                    ("error", "access_denied"),
                    ("error_description", "The person said no <script>alert(1)</script>"),
                ]);
            }
            AuthFault::NoCode => return back(&[]),
            _ => {}
        }
        let challenge = match fault {
            AuthFault::OtherChallenge => "of-another-login".to_owned(),
            _ => get("code_challenge"),
        };
        let code = self.new_secret("code");
        let used = fault == AuthFault::UsedCode;
        self.codes.push(IssuedCode { code: code.clone(), challenge, redirect: redirect.clone(), used });
        back(&[("code", &code)])
    }

    /// The token endpoint.
    pub(super) fn handle_token_request(&mut self, form: &FormPairs, fault: AuthFault) -> AuthReply {
        self.requests += 1;
        match fault {
            AuthFault::Down => return AuthReply::Nothing,
            AuthFault::Silent => return AuthReply::Silence,
            AuthFault::Overloaded => {
                return AuthReply::Body(503, "text/html", "<h1>try later</h1>".to_owned());
            }
            AuthFault::Page => return AuthReply::Body(200, "text/html", "<html>welcome</html>".to_owned()),
            AuthFault::ErrorIn200 => {
                let sent = first_value(form, "code")
                    .or_else(|| first_value(form, "refresh_token"))
                    .unwrap_or_default();
                let body = json!({"error": {"code": "broken", "message": format!("bad grant {sent}")}});
                return AuthReply::Body(200, "application/json", body.to_string());
            }
            AuthFault::NoToken => return AuthReply::Body(200, "application/json", "{}".to_owned()),
            _ => {}
        }
        let get = |name: &str| first_value(form, name).unwrap_or_default();
        if get("client_id") != CLIENT_ID {
            return error_reply("invalid_client", "unknown client");
        }
        match get("grant_type").as_str() {
            "authorization_code" => {
                self.exchange_code(&get("code"), &get("code_verifier"), &get("redirect_uri"))
            }
            "refresh_token" => self.renew_token(&get("refresh_token")),
            _ => error_reply("unsupported_grant_type", "no such grant"),
        }
    }

    fn exchange_code(&mut self, code: &str, verifier: &str, redirect: &str) -> AuthReply {
        let Some(found) = self.codes.iter_mut().find(|known| known.code == code) else {
            return error_reply("invalid_grant", "there is no such code");
        };
        if std::mem::replace(&mut found.used, true) {
            return error_reply("invalid_grant", "the code was used before");
        }
        let long_enough = (43..=128).contains(&verifier.len());
        if !long_enough || URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes())) != found.challenge {
            return error_reply("invalid_grant", "the verifier does not fit the challenge");
        }
        if found.redirect != redirect {
            return error_reply("invalid_grant", "another redirect_uri");
        }
        self.issue_tokens()
    }

    fn renew_token(&mut self, token: &str) -> AuthReply {
        let Some(at) = self.refresh_tokens.iter().position(|known| known == token) else {
            let message = "Your refresh token is too old or was used before.";
            let body = json!({"error": {"message": message, "code": "refresh_token_expired"}});
            return AuthReply::Body(401, "application/json", body.to_string());
        };
        // Each is good once.
        self.refresh_tokens.remove(at);
        self.renewals += 1;
        self.issue_tokens()
    }

    fn issue_tokens(&mut self) -> AuthReply {
        let (access, refresh) = (self.new_secret("access"), self.new_secret("refresh"));
        self.access_tokens.push(access.clone());
        self.refresh_tokens.push(refresh.clone());
        self.issued.extend([access.clone(), refresh.clone()]);
        let claims = URL_SAFE_NO_PAD.encode(r#"{"email":"ada@example.com"}"#);
        let body = json!({
            "token_type": "Bearer", "access_token": access, "refresh_token": refresh,
            "expires_in": self.lifetime, "id_token": format!("e30.{claims}.c2ln"),
        });
        AuthReply::Body(200, "application/json", body.to_string())
    }
}

fn error_reply(error: &str, description: &str) -> AuthReply {
    let body = json!({"error": error, "error_description": description});
    AuthReply::Body(400, "application/json", body.to_string())
}
