//! An authorization server for tests of logins: real HTTP, the authorization code flow with PKCE (RFC 6749, 7636) as
//! strict as real providers are, refresh tokens that rotate, and faults on demand.
//!
//! ```
//! use forge_model_server::auth_server::AuthServer;
//!
//! let server = AuthServer::start();
//! assert!(server.authorize_url().starts_with("http://127.0.0.1:"));
//! assert_eq!(server.renewal_count(), 0);
//! ```
//!
//! [`visit_url`] is the browser: it opens an address and follows redirects like a person's browser would.

mod grants;
mod wire;

pub use wire::{BrowserVisit, visit_url};

use grants::Grants;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use wire::AuthRequest;

/// The client that the server knows.
pub const CLIENT_ID: &str = "app_for_tests";

/// What the server does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthFault {
    /// Nothing.
    #[default]
    None,
    /// The person says no in the browser.
    Denied,
    /// The browser comes back with another login's state.
    WrongState,
    /// The browser comes back without a code.
    NoCode,
    /// The browser brings a code that was used before.
    UsedCode,
    /// The code belongs to another login's challenge.
    OtherChallenge,
    /// The token endpoint closes connections without an answer.
    Down,
    /// The token endpoint fails with 503.
    Overloaded,
    /// The token endpoint never answers.
    Silent,
    /// The token endpoint answers with a web page and 200.
    Page,
    /// The token endpoint answers with 200 and an error.
    ErrorIn200,
    /// The token endpoint answers with 200 and no token.
    NoToken,
}

/// What a request came to.
enum AuthReply {
    /// Status, content type and body.
    Body(u16, &'static str, String),
    /// A redirect.
    Redirect(String),
    /// The connection is closed.
    Nothing,
    /// The connection stays open and silent until the server ends.
    Silence,
}

struct AuthServerState {
    fault: Mutex<AuthFault>,
    grants: Mutex<Grants>,
    ended: AtomicBool,
    end: (Mutex<bool>, Condvar),
}

/// A running server. It ends when dropped.
pub struct AuthServer {
    state: Arc<AuthServerState>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl AuthServer {
    /// Starts a server on a free port.
    ///
    /// # Panics
    /// If no port can be had.
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound port");
        let state = Arc::new(AuthServerState {
            fault: Mutex::default(),
            grants: Mutex::default(),
            ended: AtomicBool::new(false),
            end: (Mutex::new(false), Condvar::new()),
        });
        let shared = state.clone();
        let thread = std::thread::spawn(move || accept_connections(&listener, &shared));
        Self { state, address, thread: Some(thread) }
    }

    /// Where the browser goes.
    pub fn authorize_url(&self) -> String {
        format!("http://{}/oauth/authorize", self.address)
    }

    /// Where tokens come from.
    pub fn token_url(&self) -> String {
        format!("http://{}/oauth/token", self.address)
    }

    /// What it does wrong from now on.
    pub fn set_fault(&self, fault: AuthFault) {
        *lock(&self.state.fault) = fault;
    }

    /// How long access tokens live from now on, in seconds.
    pub fn set_lifetime(&self, seconds: u64) {
        self.lock_grants().lifetime = seconds;
    }

    /// Ends every refresh token: the person logged out elsewhere, or it is too old.
    pub fn end_logins(&self) {
        self.lock_grants().refresh_tokens.clear();
    }

    /// Ends every access token before its time.
    pub fn end_access(&self) {
        self.lock_grants().access_tokens.clear();
    }

    /// Whether an access token is good.
    pub fn accepts_token(&self, token: &str) -> bool {
        self.lock_grants().access_tokens.iter().any(|good| good == token)
    }

    /// The newest access token.
    pub fn newest_token(&self) -> Option<String> {
        self.lock_grants().access_tokens.last().cloned()
    }

    /// Every token that was ever given.
    pub fn issued_tokens(&self) -> Vec<String> {
        self.lock_grants().issued.clone()
    }

    /// How often a refresh token was exchanged.
    pub fn renewal_count(&self) -> usize {
        self.lock_grants().renewals
    }

    /// How many requests came to the token endpoint.
    pub fn token_requests(&self) -> usize {
        self.lock_grants().requests
    }

    fn lock_grants(&self) -> MutexGuard<'_, Grants> {
        lock(&self.state.grants)
    }
}

impl Drop for AuthServer {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        *lock(&self.state.end.0) = true;
        self.state.end.1.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept_connections(listener: &TcpListener, state: &Arc<AuthServerState>) {
    for stream in listener.incoming() {
        if state.ended.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(stream) = stream {
            let state = state.clone();
            std::thread::spawn(move || serve_connection(stream, &state));
        }
    }
}

fn serve_connection(mut stream: TcpStream, state: &AuthServerState) {
    let Some(request) = wire::read_request(&mut stream) else { return };
    match route_request(&request, state) {
        AuthReply::Body(status, kind, body) => wire::write_response(&mut stream, status, kind, &body),
        AuthReply::Redirect(location) => wire::write_redirect(&mut stream, &location),
        AuthReply::Nothing => {}
        AuthReply::Silence => {
            let mut ended = lock(&state.end.0);
            while !*ended {
                state.end.1.wait(&mut ended);
            }
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

fn route_request(request: &AuthRequest, state: &AuthServerState) -> AuthReply {
    let fault = *lock(&state.fault);
    let mut grants = lock(&state.grants);
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/oauth/authorize") => grants.authorize(&request.query, fault),
        ("POST", "/oauth/token") => grants.handle_token_request(&request.form, fault),
        _ => AuthReply::Body(404, "text/plain", "no such page".to_owned()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}
