//! The login itself: what the browser brings, what the server says, and what the person reads.

use forge_secrets::login::start_login;
use forge_secrets::{Credentials, ExposeSecret as _, LoginEndpoints, LoginError};
use forge_testkit::auth_server::{AuthFault, AuthServer, BrowserVisit, CLIENT_ID, visit_url};
use forge_testkit::clock::TestClock;
use forge_types::Timestamp;
use std::time::Duration;

pub(crate) fn endpoints(server: &AuthServer) -> LoginEndpoints {
    LoginEndpoints {
        authorize_url: server.authorize_url(),
        token_url: server.token_url(),
        client_id: CLIENT_ID.to_owned(),
        port: 0,
        timeout: Duration::from_secs(20),
        ..LoginEndpoints::for_provider("openai").unwrap()
    }
}

pub(crate) fn clock() -> TestClock {
    TestClock::at(Timestamp::from_micros(1_800_000_000_000_000))
}

/// Logs in with a browser that does what the server tells it.
async fn log_in(endpoints: LoginEndpoints) -> (Result<Credentials, LoginError>, Option<BrowserVisit>) {
    let pending = start_login(endpoints).await.unwrap();
    let url = pending.url().to_owned();
    let browser = tokio::task::spawn_blocking(move || visit_url(&url));
    let got = pending.finish(Duration::from_secs(30), &clock()).await;
    (got, browser.await.unwrap())
}

async fn fails(server: &AuthServer, fault: AuthFault) -> (LoginError, BrowserVisit) {
    server.set_fault(fault);
    let (got, page) = log_in(endpoints(server)).await;
    let (error, page) = (got.unwrap_err(), page.unwrap());
    assert_eq!(page.status, 400, "{fault:?}");
    assert!(page.text.contains("You are not logged in"), "{}", page.text);
    for token in server.issued_tokens() {
        assert!(!error.to_string().contains(&token) && !page.text.contains(&token));
    }
    (error, page)
}

#[tokio::test]
async fn a_login_gives_tokens_and_tells_the_browser() {
    let server = AuthServer::start();
    let (got, page) = log_in(endpoints(&server)).await;
    let (got, page) = (got.unwrap(), page.unwrap());
    assert!(server.accepts_token(got.access.expose_secret()));
    assert_eq!(got.account.as_deref(), Some("ada@example.com"));
    assert_eq!(got.expires.unwrap().since(got.obtained), Duration::from_secs(3600));
    assert_eq!((page.status, page.text.contains("You are logged in")), (200, true));
    assert!(!page.text.contains(got.access.expose_secret()) && !page.text.contains("code-"));
    assert!(!format!("{got:?}").contains(got.access.expose_secret()));
}

#[tokio::test]
async fn the_address_holds_what_the_protocol_wants_and_no_verifier() {
    let server = AuthServer::start();
    let first = start_login(endpoints(&server)).await.unwrap();
    let second = start_login(endpoints(&server)).await.unwrap();
    for part in ["response_type=code", "code_challenge_method=S256", "redirect_uri=http%3A%2F%2Flocalhost"] {
        assert!(first.url().contains(part), "{}", first.url());
    }
    let state = |url: &str| url.split("state=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    assert_ne!(state(first.url()), state(second.url()));
    assert!(state(first.url()).len() >= 43);
    assert!(!first.url().contains("verifier"));
}

#[tokio::test]
async fn the_real_addresses_are_data() {
    let openai = LoginEndpoints::for_provider("openai").unwrap();
    assert_eq!((openai.port, openai.path.as_str()), (1455, "/auth/callback"));
    assert!(openai.authorize_url.starts_with("https://") && openai.token_url.starts_with("https://"));
    assert_eq!(LoginEndpoints::for_provider("anthropic"), None);
}

#[tokio::test]
async fn a_no_in_the_browser_is_told_in_its_words_and_harmless_on_the_page() {
    let server = AuthServer::start();
    let (error, page) = fails(&server, AuthFault::Denied).await;
    assert!(matches!(error, LoginError::Refused { .. }));
    let text = error.to_string();
    assert!(text.contains("access_denied") && text.contains("said no"));
    assert_eq!(error.next_steps().len(), 2);
    assert!(!page.text.contains("<script>"), "{}", page.text);
    assert_eq!(server.token_requests(), 0);
}

#[tokio::test]
async fn an_answer_to_another_login_is_not_used() {
    let server = AuthServer::start();
    let (error, _) = fails(&server, AuthFault::WrongState).await;
    assert!(matches!(error, LoginError::WrongState { .. }) && error.next_steps().len() == 1);
    assert_eq!(server.token_requests(), 0);
}

#[tokio::test]
async fn codes_that_are_missing_used_or_of_another_login_are_refused() {
    let server = AuthServer::start();
    for (fault, words) in [
        (AuthFault::NoCode, "no code"),
        (AuthFault::UsedCode, "used before"),
        (AuthFault::OtherChallenge, "does not fit the challenge"),
        (AuthFault::ErrorIn200, "[redacted]"),
    ] {
        let (error, _) = fails(&server, fault).await;
        assert!(matches!(error, LoginError::Refused { .. }), "{fault:?}: {error}");
        assert!(error.to_string().contains(words), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_is_down_or_talks_nonsense_is_named() {
    let server = AuthServer::start();
    for fault in [AuthFault::Down, AuthFault::Overloaded] {
        let (error, _) = fails(&server, fault).await;
        assert!(matches!(error, LoginError::Unreachable { .. }), "{fault:?}: {error}");
        assert!(error.to_string().contains("127.0.0.1:"), "{error}");
    }
    for fault in [AuthFault::Page, AuthFault::NoToken] {
        let (error, _) = fails(&server, fault).await;
        assert!(matches!(error, LoginError::Malformed { .. }), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    let server = AuthServer::start();
    server.set_fault(AuthFault::Silent);
    let hasty = LoginEndpoints { timeout: Duration::from_millis(50), ..endpoints(&server) };
    let (got, page) = log_in(hasty).await;
    assert!(matches!(got, Err(LoginError::Slow { .. })));
    assert!(page.unwrap().text.contains("did not answer"));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_the_way_out() {
    let server = AuthServer::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = start_login(LoginEndpoints { port, ..endpoints(&server) }).await.unwrap_err();
    assert!(matches!(error, LoginError::PortTaken { .. }));
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[tokio::test]
async fn nobody_in_the_browser_ends_the_wait() {
    let server = AuthServer::start();
    let pending = start_login(endpoints(&server)).await.unwrap();
    let got = pending.finish(Duration::from_millis(20), &clock()).await;
    assert!(matches!(got, Err(LoginError::NobodyCame { .. })));
}

#[tokio::test]
async fn other_paths_and_silent_connections_do_not_disturb_a_login() {
    let server = AuthServer::start();
    let pending = start_login(endpoints(&server)).await.unwrap();
    let url = pending.url().to_owned();
    let port = url.split("localhost%3A").nth(1).unwrap().split('%').next().unwrap().to_owned();
    let browser = tokio::task::spawn_blocking(move || {
        let idle = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
        let icon = visit_url(&format!("http://127.0.0.1:{port}/favicon.ico")).unwrap();
        let page = visit_url(&url).unwrap();
        drop(idle);
        (icon, page)
    });
    let got = pending.finish(Duration::from_secs(30), &clock()).await;
    let (icon, page) = browser.await.unwrap();
    assert!(got.is_ok());
    assert_eq!((icon.status, page.status), (404, 200));
}

#[tokio::test]
async fn nonsense_on_the_port_does_not_disturb_a_login() {
    use std::io::Write as _;
    let server = AuthServer::start();
    let pending = start_login(endpoints(&server)).await.unwrap();
    let url = pending.url().to_owned();
    let port = url.split("localhost%3A").nth(1).unwrap().split('%').next().unwrap().to_owned();
    let browser = tokio::task::spawn_blocking(move || {
        let long = [b"GET /auth/callback?code=".to_vec(), vec![b'x'; 100_000]].concat();
        for bytes in
            [&b"\r\n\r\n"[..], b"GET", b"POST /auth/callback?code=x HTTP/1.1\r\n\r\n", &[0xff; 300], &long]
        {
            let mut stream = std::net::TcpStream::connect(format!("127.0.0.1:{port}")).unwrap();
            // The other side may hang up in the middle of it.
            let _ = stream.write_all(bytes);
        }
        visit_url(&url).unwrap()
    });
    let got = pending.finish(Duration::from_secs(30), &clock()).await;
    assert_eq!((browser.await.unwrap().status, got.is_ok()), (200, true));
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_named() {
    let server = AuthServer::start();
    let bad = LoginEndpoints { authorize_url: "nonsense".to_owned(), ..endpoints(&server) };
    assert!(start_login(bad).await.unwrap_err().to_string().contains("login.authorize_url"));
}
