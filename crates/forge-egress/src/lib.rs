//! Egress: the only way out of a box that may reach named hosts, a proxy behind a socket.
//!
//! The box has a network of its own in which nothing is but a listening socket. [`Proxy::start`] accepts on it from
//! outside: plain HTTP requests with a whole URL, and `CONNECT` tunnels. Who may be reached is judged by
//! [`EgressRules`], after the name was resolved outside and by the address itself; the connection goes to the address
//! that was judged. A host that is to get a key sees it, the box sees a placeholder: TLS to such a host ends here, by
//! an authority that lives as long as the box, and goes on to the host verified. docs/egress.md says what that stops
//! and what not.

mod dial;
mod environment;
mod escapes;
mod head;
mod key_encodings;
mod key_injection;
mod log;
mod proxy_error;
mod relay;
mod serve;
mod tls;
mod tunnel;
mod wire;

pub use dial::NameResolver;
pub use environment::{CA_BUNDLE_PATH, proxy_environment};
use forge_types::{EgressRecord, EgressRules, ErrorClass, Timestamp};
pub use key_injection::EgressKey;
use key_injection::{KeyInjector, UnusableKey};
use log::EgressLog;
use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use tls::TlsInterceptor;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

/// Tells the time of day.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Whom the proxy trusts when it speaks TLS to a host that gets a key.
#[derive(Clone, Debug, Default)]
pub enum TrustRoots {
    /// The roots of the system.
    #[default]
    System,
    /// These certificates alone, DER.
    Only(Vec<Vec<u8>>),
}

/// What a box may ask of the proxy.
#[derive(Clone, Debug)]
pub struct ProxyLimits {
    /// Connections from the box at once; more wait.
    pub connections: usize,
    /// Longest head of a request or an answer, bytes.
    pub head_bytes: usize,
    /// Longest time from the first byte of a head to its last.
    pub head: Duration,
    /// How long a connection may stand between two requests.
    pub keep_alive: Duration,
    /// Longest time to resolve a name and to connect.
    pub connect: Duration,
    /// How long an exchange or a tunnel may stand without a byte either way.
    pub idle: Duration,
    /// Different attempts that are kept one by one until they are drained.
    pub records: usize,
}

impl Default for ProxyLimits {
    fn default() -> Self {
        Self {
            connections: default_max_connections(),
            head_bytes: 64 << 10,
            head: Duration::from_secs(30),
            keep_alive: Duration::from_secs(60),
            connect: Duration::from_secs(30),
            idle: Duration::from_secs(600),
            records: 1000,
        }
    }
}

/// Each connection has two descriptors here; a box must not use up those of the process.
fn default_max_connections() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(4096);
    usize::try_from(files / 4).unwrap_or(512).clamp(16, 512)
}

/// Why there is no proxy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket that the box reaches can't be used.
    #[error("the egress proxy can't accept connections from the box: {0}")]
    Listener(#[from] std::io::Error),
    /// A key is to be put in that is not there.
    #[error(
        "requests to a host are to get the key in `{variable}`, but it has no value; set it where Forge runs"
    )]
    NoKey {
        /// The variable.
        variable: String,
    },
    /// A key that can't stand in a header, or can't be told from ordinary text.
    #[error("the key in `{variable}` can't be put into requests: {why}")]
    BadKey {
        /// The variable.
        variable: String,
        /// What is wrong with its value.
        why: &'static str,
    },
    /// The box's own certificates can't be made.
    #[error("the certificates for hosts that get keys can't be made: {why}")]
    Tls {
        /// What went wrong.
        why: String,
    },
}

impl Error {
    /// What can be done about it.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Listener(_) => ErrorClass::Retry { after: None },
            Self::NoKey { .. } | Self::BadKey { .. } => ErrorClass::Invalid,
            Self::Tls { .. } => ErrorClass::Fatal,
        }
    }
}

impl From<UnusableKey> for Error {
    fn from(bad: UnusableKey) -> Self {
        match bad {
            UnusableKey::Missing(variable) => Self::NoKey { variable },
            UnusableKey::Unusable(variable, why) => Self::BadKey { variable, why },
        }
    }
}

/// A proxy that has not been started.
pub struct EgressProxy {
    /// Accepts connections from the box; it may belong to another network than this process.
    pub listener: TcpListener,
    /// Who may be reached.
    pub rules: EgressRules,
    /// The keys by their variables.
    pub keys: BTreeMap<String, EgressKey>,
    /// The time for the log.
    pub clock: TimeSource,
    /// Where names are resolved.
    pub names: NameResolver,
    /// Whom to trust.
    pub roots: TrustRoots,
    /// Limits.
    pub limits: ProxyLimits,
}

/// What all connections share.
struct ProxyState {
    rules: EgressRules,
    injectors: BTreeMap<String, KeyInjector>,
    tls: Option<TlsInterceptor>,
    names: NameResolver,
    limits: ProxyLimits,
    log: Arc<EgressLog>,
}

impl EgressProxy {
    /// A proxy with the usual limits, the system's names and its roots.
    pub fn new(
        listener: TcpListener,
        rules: EgressRules,
        keys: BTreeMap<String, EgressKey>,
        clock: TimeSource,
    ) -> Self {
        let (names, roots, limits) = Default::default();
        Self { listener, rules, keys, clock, names, roots, limits }
    }

    /// Begins to accept. Must be called inside a tokio runtime; it reads the system's roots if hosts get keys.
    ///
    /// # Errors
    /// The listener is no listener, a key is missing or can't be used, or certificates can't be made.
    pub fn start(self) -> Result<ProxyHandle, Error> {
        let swaps = key_injection::injectors_by_host(&self.rules, &self.keys)?;
        let tls = match swaps.is_empty() {
            true => None,
            false => Some(TlsInterceptor::new(swaps.keys(), self.roots)?),
        };
        let port = self.listener.local_addr()?.port();
        self.listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(self.listener)?;
        let log = Arc::new(EgressLog::new(self.clock, self.limits.records));
        let (rules, names, limits) = (self.rules, self.names, self.limits);
        let shared = Arc::new(ProxyState { rules, injectors: swaps, tls, names, limits, log });
        let accepting = tokio::spawn(accept_connections(listener, Arc::clone(&shared)));
        Ok(ProxyHandle { shared, accepting, port })
    }
}

impl fmt::Debug for EgressProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("listener", &self.listener)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

async fn accept_connections(listener: tokio::net::TcpListener, shared: Arc<ProxyState>) {
    let permits = Arc::new(Semaphore::new(shared.limits.connections));
    // Dropped with this task, and all connections with it.
    let mut connections = JoinSet::new();
    while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
        let accepted = loop {
            tokio::select! {
                accepted = listener.accept() => break accepted,
                Some(_) = connections.join_next() => {}
            }
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    serve::serve_connection(shared, stream).await;
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: connections that end will free some.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// A running proxy. Dropping it ends it and all its connections.
pub struct ProxyHandle {
    shared: Arc<ProxyState>,
    accepting: JoinHandle<()>,
    port: u16,
}

impl ProxyHandle {
    /// The port that it accepts on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The variables that programs in the box need.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        proxy_environment(&self.shared.rules, self.port)
    }

    /// Files that the variables name: path in the box and content. They hold no secrets.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.shared.tls.iter().map(|tls| (CA_BUNDLE_PATH.to_owned(), tls.bundle.clone())).collect()
    }

    /// What was tried since the last call.
    #[must_use]
    pub fn drain(&self) -> Vec<EgressRecord> {
        self.shared.log.drain()
    }

    /// Ends it; gives what was tried since the last [`ProxyHandle::drain`].
    pub async fn shutdown(mut self) -> Vec<EgressRecord> {
        self.accepting.abort();
        // An error says that it was ended, which is what was wanted.
        let _ = (&mut self.accepting).await;
        self.drain()
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl fmt::Debug for ProxyHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyHandle").field("port", &self.port).finish_non_exhaustive()
    }
}
