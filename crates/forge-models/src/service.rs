//! The adapter itself: the configured providers behind the port `Model`.

use std::collections::BTreeMap;
use std::time::Duration;

use forge_ports::model::Error;
use forge_ports::{Deltas, Model, async_trait};
use forge_types::{ErrorKind, ModelReply, ModelRequest, PartKind, Payload};

use crate::bearer::Bearer;
use crate::errors::{self, Asked};
use crate::http::{self, Clients, Keeping};
use crate::options::{Key, Options, ProviderOptions};
use crate::scripted::Script;
use crate::shape::Shape;
use crate::vendors::{KeyRule, VENDORS, Vendor, vendor};

/// A provider that can't be set up as configured.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// There is no such provider.
    #[error("there is no provider `{0}`; there are: {1}")]
    UnknownProvider(String, String),
    /// It has no address of its own.
    #[error("provider `{0}` needs a base URL: set `model.base_url`, such as http://127.0.0.1:8000/v1")]
    NoBaseUrl(String),
    /// The address is not one that can be used.
    #[error("the base URL `{url}` of provider `{provider}` can't be used: {why}")]
    BadBaseUrl {
        /// The provider.
        provider: String,
        /// The URL, without what may be secret in it.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The scripted provider has no script.
    #[error("provider `{0}` needs a script: a JSON file with its replies")]
    NoScript(String),
}

impl SetupError {
    /// What can be done about it: the configuration must change.
    pub const fn class(&self) -> forge_types::Class {
        forge_types::Class::Invalid
    }
}

/// A provider as it is asked.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) vendor: &'static Vendor,
    /// The cut base URL.
    base: String,
    /// Scheme, host and port.
    origin: String,
    pub(crate) key: Option<Key>,
    /// Asked for a token while there is no key.
    pub(crate) bearer: Option<Bearer>,
    organization: Option<String>,
    script: Option<Script>,
    pub(crate) keeping: Keeping,
}

impl Provider {
    fn new(options: &ProviderOptions) -> Result<Self, SetupError> {
        let vendor = vendor(&options.name).ok_or_else(|| {
            let names: Vec<_> = VENDORS.iter().map(|vendor| vendor.name).collect();
            SetupError::UnknownProvider(options.name.clone(), names.join(", "))
        })?;
        let mut provider = Self {
            vendor,
            base: String::new(),
            origin: String::new(),
            key: options.key.clone().filter(|key| vendor.key != KeyRule::None && !key.reveal().is_empty()),
            bearer: options.bearer.clone().filter(|_| vendor.key != KeyRule::None),
            organization: options.organization.clone().filter(|name| !name.is_empty()),
            script: None,
            keeping: Keeping::default(),
        };
        if vendor.shape == Shape::Scripted {
            let source = options.script.clone();
            let source = source.ok_or_else(|| SetupError::NoScript(options.name.clone()))?;
            provider.script = Some(Script::new(source));
            return Ok(provider);
        }
        let given = options.base_url.as_deref().filter(|url| !url.trim().is_empty()).or(vendor.base_url);
        let given = given.ok_or_else(|| SetupError::NoBaseUrl(options.name.clone()))?;
        provider.base = vendor.cut_base(given);
        provider.origin = origin(&provider.base).map_err(|(url, why)| SetupError::BadBaseUrl {
            provider: options.name.clone(),
            url,
            why,
        })?;
        Ok(provider)
    }

    pub(crate) fn asked<'a>(&'a self, model: &'a str, key: Option<&'a Key>) -> Asked<'a> {
        Asked { vendor: self.vendor, model, origin: &self.origin, key }
    }

    /// What a request authenticates with: the key, else a token; `None` if there is neither.
    pub(crate) async fn credential(&self) -> Result<Option<Key>, Error> {
        match (&self.key, &self.bearer) {
            (Some(key), _) => Ok(Some(key.clone())),
            (None, Some(bearer)) => Ok(Some(bearer.token().await?)),
            (None, None) => Ok(None),
        }
    }

    /// What stands in for a credential that was refused, if it was a token.
    async fn instead_of(&self, refused: Option<&Key>) -> Result<Option<Key>, Error> {
        match (&self.key, &self.bearer, refused) {
            (None, Some(bearer), Some(refused)) => Ok(Some(bearer.instead_of(refused).await?)),
            _ => Ok(None),
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        self.vendor.url(&self.base, path)
    }

    /// The URL of a path directly below the base, past any API version.
    pub(crate) fn root_url(&self, path: &str) -> String {
        format!("{}{path}", self.base.strip_suffix(self.vendor.version).unwrap_or(&self.base))
    }

    /// Headers of every request: the key, to this provider only, and the organization.
    pub(crate) fn headers(&self, key: Option<&Key>) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        headers.extend(key.map(|key| self.vendor.shape.key_header(key)));
        if let (Some(name), Some(value)) = (self.vendor.organization_header, &self.organization) {
            headers.push((name, value.clone()));
        }
        headers
    }
}

/// Scheme, host and port of a base URL, or what is wrong with it.
fn origin(base: &str) -> Result<String, (String, &'static str)> {
    let shown = || base.split('@').next_back().unwrap_or_default().to_owned();
    let Some((scheme, rest)) = base.split_once("://") else {
        return Err((shown(), "it must begin with http:// or https://"));
    };
    if scheme != "http" && scheme != "https" {
        return Err((shown(), "it must begin with http:// or https://"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err((shown(), "it must not hold a user name or password; keys have settings of their own"));
    }
    if host.is_empty() || host.contains(char::is_whitespace) || reqwest::Url::parse(base).is_err() {
        return Err((shown(), "it names no host"));
    }
    Ok(format!("{scheme}://{host}"))
}

/// All configured providers. Cheap to make: nothing is read, resolved or connected before the first call.
#[derive(Debug)]
pub struct Models {
    pub(crate) providers: BTreeMap<String, Provider>,
    pub(crate) clients: Clients,
    pub(crate) probe_timeout: Duration,
}

impl Models {
    /// Sets up the configured providers.
    ///
    /// # Errors
    /// The first provider that can't work as configured.
    pub fn new(options: &Options) -> Result<Self, SetupError> {
        let mut providers = BTreeMap::new();
        for provider in &options.providers {
            providers.insert(provider.name.clone(), Provider::new(provider)?);
        }
        Ok(Self { providers, clients: Clients::new(options), probe_timeout: options.probe_timeout })
    }
}

#[async_trait]
impl Model for Models {
    async fn reply(&self, request: ModelRequest, deltas: &dyn Deltas) -> Result<ModelReply, Error> {
        let name = &request.route.provider;
        let Some(provider) = self.providers.get(name) else {
            let message = format!("provider `{name}` is not set up; `forge doctor` lists those that are");
            return Err(errors::refused(message));
        };
        if !is_loaded(&request) {
            return Err(errors::refused("a text of the request is not loaded from the store".to_owned()));
        }
        if let Some(script) = &provider.script {
            return script.reply(&request, deltas);
        }
        let key = provider.credential().await?;
        if provider.vendor.key == KeyRule::Required && key.is_none() {
            let message = format!(
                "provider `{name}` has no key. Set {}, or choose a provider that needs none.",
                provider.vendor.key_env.first().copied().unwrap_or("its key")
            );
            return Err(Error { kind: ErrorKind::Auth, message, retry_after: None });
        }
        match http::ask(&self.clients, provider, key.as_ref(), &request, deltas).await {
            // A token that somebody revoked or that expired early. Nothing has been streamed yet.
            Err(error) if error.kind == ErrorKind::Auth => match provider.instead_of(key.as_ref()).await? {
                Some(renewed) => http::ask(&self.clients, provider, Some(&renewed), &request, deltas).await,
                None => Err(error),
            },
            answer => answer,
        }
    }
}

fn is_loaded(request: &ModelRequest) -> bool {
    let inline = |payload: &Payload| payload.inline().is_some();
    request.messages.iter().flat_map(|message| &message.parts).all(|part| match &part.kind {
        PartKind::Text { text } | PartKind::Reasoning { text } => inline(text),
        PartKind::Result(result) => inline(&result.content),
        PartKind::Call(_) => true,
    })
}
