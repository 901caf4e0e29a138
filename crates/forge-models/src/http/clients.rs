//! The HTTP clients.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forge_ports::model::Error;
use reqwest::Client;

use crate::connection_reuse::ConnectionReuse;
use crate::errors;
use crate::options::Options;

/// The HTTP clients, each created on first use: a program that only uses a local server never loads the system's
/// certificates.
#[derive(Debug)]
pub(crate) struct HttpClients {
    http: [OnceLock<Result<Client, String>>; 2],
    https: [OnceLock<Result<Client, String>>; 2],
    connect_timeout: Duration,
    proxy: Option<String>,
}

impl HttpClients {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            http: Default::default(),
            https: Default::default(),
            connect_timeout: options.connect_timeout,
            proxy: options.proxy.clone(),
        }
    }

    /// Returns the client for a URL's scheme.
    pub(super) fn for_url(&self, url: &str, reuse: ConnectionReuse) -> Result<&Client, Error> {
        let place = usize::from(reuse == ConnectionReuse::Fresh);
        let client = if url.starts_with("https:") {
            self.https[place].get_or_init(|| self.https_client(reuse))
        } else {
            self.http[place].get_or_init(|| self.http_client(reuse))
        };
        client.as_ref().map_err(|why| errors::invalid_request(format!("can't create an HTTP client: {why}")))
    }

    fn base_builder(&self, reuse: ConnectionReuse) -> reqwest::ClientBuilder {
        Client::builder()
            .pool_max_idle_per_host(if reuse == ConnectionReuse::Pooled { usize::MAX } else { 0 })
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
    }

    fn http_client(&self, reuse: ConnectionReuse) -> Result<Client, String> {
        // An empty set of roots: nothing is read from disk, and no TLS server is trusted.
        let tls = rustls::ClientConfig::builder_with_provider(crypto_provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        self.base_builder(reuse).tls_backend_preconfigured(tls).build().map_err(|error| root_cause(&error))
    }

    fn https_client(&self, reuse: ConnectionReuse) -> Result<Client, String> {
        // reqwest uses the process's crypto provider; one that is installed already works as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = self.base_builder(reuse);
        if let Some(proxy) = &self.proxy {
            let proxy =
                reqwest::Proxy::all(proxy.as_str()).map_err(|_| "the proxy URL is invalid".to_owned())?;
            builder = builder.proxy(proxy);
        }
        builder.build().map_err(|error| {
            format!("{} (are the system's root certificates installed?)", root_cause(&error))
        })
    }
}

fn crypto_provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Returns the error and its causes on one line, without the URL, which callers add in their own form.
pub(crate) fn root_cause(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}
