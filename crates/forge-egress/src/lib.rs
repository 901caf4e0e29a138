//! Egress: a proxy behind a socket, the only connection from a sandbox to an allowlist of hosts.
//!
//! The sandbox has its own network namespace that contains only a listening socket. [`EgressProxy::start`] accepts on
//! it from outside: plain HTTP requests with a whole URL, and `CONNECT` tunnels. [`EgressRules`] decide which hosts may
//! be reached, based on the address after resolving the name outside the sandbox; the connection is made to that
//! address. A host that gets a key sees the key, the sandbox only a placeholder: TLS to such a host is terminated here
//! with an authority that lives as long as the sandbox, and re-established to the host with verification.
//! docs/egress.md describes what this prevents and what it does not.

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

/// A source of the current time.
pub type TimeSource = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The roots that the proxy trusts when it connects by TLS to a host that gets a key.
#[derive(Clone, Debug, Default)]
pub enum TrustRoots {
    /// The system's roots.
    #[default]
    System,
    /// Only these certificates (DER).
    Only(Vec<Vec<u8>>),
}

/// Limits on a sandbox's use of the proxy.
#[derive(Clone, Debug)]
pub struct ProxyLimits {
    /// Maximum number of simultaneous connections from the sandbox; further ones wait.
    pub connections: usize,
    /// Maximum size in bytes of the head of a request or response.
    pub head_bytes: usize,
    /// Maximum time from the first byte of a head to its last.
    pub head: Duration,
    /// Maximum idle time of a connection between two requests.
    pub keep_alive: Duration,
    /// Maximum time to resolve a name and connect.
    pub connect: Duration,
    /// Maximum time without traffic in an exchange or a tunnel.
    pub idle: Duration,
    /// Maximum number of different attempts recorded individually until they are drained.
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

/// Returns a limit that keeps a sandbox from exhausting the process's descriptors; each connection uses two.
fn default_max_connections() -> usize {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(4096);
    usize::try_from(files / 4).unwrap_or(512).clamp(16, 512)
}

/// Reasons why the proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket for the sandbox cannot be used.
    #[error("the egress proxy cannot accept connections from the sandbox: {0}")]
    Listener(#[from] std::io::Error),
    /// A key to be injected is not set.
    #[error(
        "requests to a host need the key in `{variable}`, which is not set; set it in Forge's environment"
    )]
    NoKey {
        /// Name of the variable.
        variable: String,
    },
    /// A key is not valid in a header or cannot be distinguished from ordinary text.
    #[error("the key in `{variable}` cannot be added to requests: {why}")]
    BadKey {
        /// Name of the variable.
        variable: String,
        /// Problem with its value.
        why: &'static str,
    },
    /// The certificates for the sandbox could not be created.
    #[error("cannot create the certificates for hosts that get keys: {why}")]
    Tls {
        /// Reason for the failure.
        why: String,
    },
}

impl Error {
    /// Returns the class of the error.
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
    /// Listener for connections from the sandbox; it may belong to a different network namespace than this process.
    pub listener: TcpListener,
    /// Rules about reachable hosts.
    pub rules: EgressRules,
    /// Keys by variable.
    pub keys: BTreeMap<String, EgressKey>,
    /// Clock for the log.
    pub clock: TimeSource,
    /// Name resolver.
    pub names: NameResolver,
    /// Trusted roots.
    pub roots: TrustRoots,
    /// Limits.
    pub limits: ProxyLimits,
}

/// State shared by all connections.
struct ProxyState {
    rules: EgressRules,
    injectors: BTreeMap<String, KeyInjector>,
    tls: Option<TlsInterceptor>,
    names: NameResolver,
    limits: ProxyLimits,
    log: Arc<EgressLog>,
}

impl EgressProxy {
    /// Creates a proxy with the default limits and the system's resolver and roots.
    pub fn new(
        listener: TcpListener,
        rules: EgressRules,
        keys: BTreeMap<String, EgressKey>,
        clock: TimeSource,
    ) -> Self {
        let (names, roots, limits) = Default::default();
        Self { listener, rules, keys, clock, names, roots, limits }
    }

    /// Starts accepting connections. Must be called inside a tokio runtime. Reads the system's roots if hosts get keys.
    ///
    /// # Errors
    /// The listener is unusable, a key is missing or unusable, or certificates cannot be created.
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
    // When this task is dropped, all connections are dropped with it.
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
            // Most likely the process is out of descriptors; connections that end will free some.
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
    /// Returns the port on which the proxy accepts connections.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns the variables that programs in the sandbox need.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        proxy_environment(&self.shared.rules, self.port)
    }

    /// Returns the files that the variables name, as path in the sandbox and content. They contain no secrets.
    #[must_use]
    pub fn files(&self) -> Vec<(String, Vec<u8>)> {
        self.shared.tls.iter().map(|tls| (CA_BUNDLE_PATH.to_owned(), tls.bundle.clone())).collect()
    }

    /// Returns the attempts since the last call.
    #[must_use]
    pub fn drain(&self) -> Vec<EgressRecord> {
        self.shared.log.drain()
    }

    /// Stops the proxy and returns the attempts since the last [`ProxyHandle::drain`].
    pub async fn shutdown(mut self) -> Vec<EgressRecord> {
        self.accepting.abort();
        // The error only reports the cancellation.
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
