//! `forge login`, `forge logout`: an account in the browser in place of a key.

mod browser;

use crate::args::{Login, Logout};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::text::one_line;
use forge_runtime::{LoginError, LoginState, LoginStatus};
use forge_types::Class;
use std::path::Path;

/// Logs in, or shows the logins there are.
pub(crate) async fn login(session: &Session, args: Login) -> Result<Exit, CliError> {
    let loaded = session.load(Path::new("."), &Overlay::default())?;
    if args.what == "status" {
        return Ok(status(session, &forge_runtime::logins(&loaded)));
    }
    let provider = args.what.as_str();
    let under_way = forge_runtime::begin_login(&loaded, provider).await?;
    let url = under_way.url();
    let opened = !args.no_browser && browser::open(&session.env, url);
    let words = if opened {
        "Your browser opens. If it does not, open this address yourself:"
    } else {
        "Open this address in a browser on this machine:"
    };
    session.ui.say(&format!("{words}\n\n  {url}\n\nWaiting for you to log in there (Ctrl-C gives up)…"));
    let done = tokio::select! {
        done = under_way.finish() => done?,
        _ = tokio::signal::ctrl_c() => {
            session.ui.say("given up; nothing was changed");
            return Ok(Exit::Signal);
        }
    };
    match session.ui.format {
        Format::Json => session.ui.json(&done),
        Format::Text => {
            session.ui.line(&format!("logged in {}; kept in {}", whom(&done), done.path.display()))
        }
    }
    if let (Some(variable), Some(origin)) =
        (loaded.secrets.variable(provider), loaded.secrets.origin(provider))
    {
        session.ui.warn(&format!("{variable} is there as well ({origin}): a key is used before a login"));
    }
    Ok(Exit::Done)
}

/// Forgets a login.
pub(crate) fn logout(session: &Session, args: &Logout) -> Result<Exit, CliError> {
    let loaded = session.load(Path::new("."), &Overlay::default())?;
    let known = forge_runtime::login_providers();
    if !known.contains(&args.provider.as_str()) {
        return Err(CliError::usage(format!("there are no logins at {}", one_line(&args.provider)))
            .hint(format!("there may be one at {}", known.join(", "))));
    }
    let was = forge_runtime::logout(&loaded, &args.provider)?;
    match (session.ui.format, was) {
        (Format::Json, was) => {
            session.ui.json(&serde_json::json!({"provider": args.provider, "logged_out": was}));
        }
        (Format::Text, true) => session.ui.line(&format!("logged out at {}", args.provider)),
        (Format::Text, false) => session.ui.line(&format!("you were not logged in at {}", args.provider)),
    }
    Ok(Exit::Done)
}

fn status(session: &Session, logins: &[LoginStatus]) -> Exit {
    if session.ui.format == Format::Json {
        session.ui.json(&logins);
        return Exit::Done;
    }
    for login in logins {
        let line = match login.state {
            LoginState::None => {
                format!("not logged in at {0}. Log in with: forge login {0}", login.provider)
            }
            LoginState::Valid => {
                let until = login.expires.map_or_else(String::new, |time| format!(", token until {time}"));
                format!("logged in {}{until} (renewed by itself)", whom(login))
            }
            LoginState::Renewable => {
                format!("logged in {}; the token is renewed when it is used next", whom(login))
            }
            LoginState::Expired => {
                format!("the login {} has expired. Log in again: forge login {}", whom(login), login.provider)
            }
            LoginState::Broken => login.problem.clone().unwrap_or_default(),
        };
        session.ui.line(&crate::ui::text::clean(&line));
    }
    Exit::Done
}

fn whom(login: &LoginStatus) -> String {
    match &login.account {
        Some(account) => format!("at {} as {}", login.provider, one_line(account)),
        None => format!("at {}", login.provider),
    }
}

impl From<LoginError> for CliError {
    fn from(error: LoginError) -> Self {
        match error.class() {
            Class::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
