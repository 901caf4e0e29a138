//! The HTTP clients, and what is known of a server's way with connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forge_ports::model::Error;
use reqwest::Client;

use crate::errors;
use crate::options::Options;

/// Whether a request may go over a connection that an earlier one left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Yes.
    Kept,
    /// No, it gets a connection of its own.
    Fresh,
}

/// What is known of a provider's way with connections that stay open.
///
/// llama.cpp's server promises to keep a connection and then closes it under the next request. Such a request was
/// never looked at (RFC 9112, 9.3.1), so it is sent again over a connection of its own, within the same attempt;
/// from then on that server gets no other kind.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Whether a request has left a connection open.
    any: AtomicBool,
    /// Whether one died under a request.
    broken: AtomicBool,
}

impl Keeping {
    pub(super) fn reuse(&self) -> Reuse {
        if self.broken.load(Ordering::Relaxed) { Reuse::Fresh } else { Reuse::Kept }
    }

    /// Whether a request may meet a connection that an earlier one left open.
    pub(super) fn kept(&self) -> bool {
        self.reuse() == Reuse::Kept && self.any.load(Ordering::Relaxed)
    }

    /// A request has left a connection open, or not.
    pub(super) fn left(&self, open: bool) {
        self.any.fetch_or(open, Ordering::Relaxed);
    }

    /// A kept connection died under a request.
    pub(super) fn broke(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }
}

/// The HTTP clients, each built at its first use: a program that talks to a local server never loads the system's
/// certificates.
#[derive(Debug)]
pub(crate) struct Clients {
    plain: [OnceLock<Result<Client, String>>; 2],
    secure: [OnceLock<Result<Client, String>>; 2],
    connect_timeout: Duration,
    proxy: Option<String>,
}

impl Clients {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            plain: Default::default(),
            secure: Default::default(),
            connect_timeout: options.connect_timeout,
            proxy: options.proxy.clone(),
        }
    }

    /// The client for a URL's scheme.
    pub(super) fn for_url(&self, url: &str, reuse: Reuse) -> Result<&Client, Error> {
        let place = usize::from(reuse == Reuse::Fresh);
        let client = if url.starts_with("https:") {
            self.secure[place].get_or_init(|| self.secure_client(reuse))
        } else {
            self.plain[place].get_or_init(|| self.plain_client(reuse))
        };
        client.as_ref().map_err(|why| errors::refused(format!("no HTTP client can be had: {why}")))
    }

    fn base(&self, reuse: Reuse) -> reqwest::ClientBuilder {
        Client::builder()
            .pool_max_idle_per_host(if reuse == Reuse::Kept { usize::MAX } else { 0 })
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
    }

    fn plain_client(&self, reuse: Reuse) -> Result<Client, String> {
        // An empty set of roots: nothing is read from disk, and no TLS server would be trusted.
        let tls = rustls::ClientConfig::builder_with_provider(ring())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        self.base(reuse).tls_backend_preconfigured(tls).build().map_err(|error| chain(&error))
    }

    fn secure_client(&self, reuse: Reuse) -> Result<Client, String> {
        // reqwest takes the process's provider; if somebody installed one already, theirs is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = self.base(reuse);
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest::Proxy::all(proxy.as_str())
                .map_err(|_| "the proxy's URL is not one that can be used".to_owned())?;
            builder = builder.proxy(proxy);
        }
        builder
            .build()
            .map_err(|error| format!("{} (are the system's root certificates installed?)", chain(&error)))
    }
}

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The error and its causes in one line, without the URL (which callers name in their own way).
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
