//! The adapter itself: the configured providers behind the port `Model`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge_ports::model::Error;
use forge_ports::{Deltas, Embedder, Model, async_trait};
use forge_types::{EmbedRequest, Embeddings, ErrorKind, ModelReply, ModelRequest, PartKind, Payload};

use crate::bearer::Bearer;
use crate::catalog::{self, Catalog};
use crate::errors::{self, Asked};
use crate::http::{self, Clients, Keeping};
use crate::options::{Key, Limits, Options, ProviderOptions};
use crate::probe::Health;
use crate::scripted::Script;
use crate::shape::{Conversation, Shape};
use crate::vendors::{Address, Embedding, KeyRule, VENDORS, Vendor, vendor};

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
    /// Where it is, and in which shape it is asked.
    pub(crate) address: Address,
    /// Scheme, host and port.
    origin: String,
    pub(crate) key: Option<Key>,
    /// Asked for a token while there is no key.
    pub(crate) bearer: Option<Bearer>,
    organization: Option<String>,
    script: Option<Script>,
    pub(crate) keeping: Keeping,
    pub(crate) slots: Slots,
}

/// Which slot of a server holds which conversation, as far as the server said.
#[derive(Debug, Default)]
pub(crate) struct Slots(Mutex<HashMap<Conversation, u64>>);

impl Slots {
    /// More than any server has, and little to keep.
    const MOST: usize = 1024;

    pub(crate) fn of(&self, talk: Conversation) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&talk).copied()
    }

    pub(crate) fn remember(&self, talk: Conversation, slot: u64) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= Self::MOST {
            slots.clear();
        }
        slots.insert(talk, slot);
    }

    pub(crate) fn forget(&self, talk: Conversation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&talk);
    }
}

impl Provider {
    fn new(options: &ProviderOptions) -> Result<Self, SetupError> {
        let vendor = vendor(&options.name).ok_or_else(|| {
            let names: Vec<_> = VENDORS.iter().map(|vendor| vendor.name).collect();
            SetupError::UnknownProvider(options.name.clone(), names.join(", "))
        })?;
        let mut provider = Self {
            vendor,
            address: vendor.address(""),
            origin: String::new(),
            key: options.key.clone().filter(|key| vendor.key != KeyRule::None && !key.reveal().is_empty()),
            bearer: options.bearer.clone().filter(|_| vendor.key != KeyRule::None),
            organization: options.organization.clone().filter(|name| !name.is_empty()),
            script: None,
            keeping: Keeping::default(),
            slots: Slots::default(),
        };
        if vendor.shape == Shape::Scripted {
            let source = options.script.clone();
            let source = source.ok_or_else(|| SetupError::NoScript(options.name.clone()))?;
            provider.script = Some(Script::new(source));
            return Ok(provider);
        }
        let given = options.base_url.as_deref().filter(|url| !url.trim().is_empty()).or(vendor.base_url);
        let given = given.ok_or_else(|| SetupError::NoBaseUrl(options.name.clone()))?;
        provider.address = vendor.address(given);
        provider.origin = origin(&provider.address.base).map_err(|(url, why)| SetupError::BadBaseUrl {
            provider: options.name.clone(),
            url,
            why,
        })?;
        Ok(provider)
    }

    pub(crate) fn shape(&self) -> Shape {
        self.address.shape
    }

    pub(crate) fn asked<'a>(&'a self, model: &'a str, key: Option<&'a Key>) -> Asked<'a> {
        Asked { vendor: self.vendor, shape: self.shape(), model, origin: &self.origin, key }
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

    /// The URL of a path directly below the base, past any API version.
    pub(crate) fn root_url(&self, path: &str) -> String {
        format!("{}{path}", self.vendor.root(&self.address))
    }

    /// Headers of every request: the key, to this provider only, and the organization, a request's own first.
    pub(crate) fn headers(
        &self,
        key: Option<&Key>,
        organization: Option<&str>,
    ) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        headers.extend(key.map(|key| self.shape().key_header(key)));
        let organization = organization.filter(|name| !name.is_empty()).or(self.organization.as_deref());
        if let (Some(name), Some(value)) = (self.vendor.organization_header, organization) {
            headers.push((name, value.to_owned()));
        }
        headers
    }

    /// The credential of a request; what can't succeed without one is refused.
    async fn authenticated(&self) -> Result<Option<Key>, Error> {
        let key = self.credential().await?;
        if self.vendor.key != KeyRule::Required || key.is_some() {
            return Ok(key);
        }
        let message = format!(
            "provider `{}` has no key. Set {1}, keep one with `forge secret set {1}`, or choose a provider that needs none.",
            self.vendor.name,
            self.vendor.key_env.first().copied().unwrap_or("its key")
        );
        Err(Error { kind: ErrorKind::Auth, message, retry_after: None })
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
    pub(crate) limits: Limits,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) health: Health,
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
        Ok(Self {
            providers,
            clients: Clients::new(options),
            probe_timeout: options.probe_timeout,
            limits: options.limits,
            catalog: options.catalog.clone().unwrap_or_else(|| Arc::clone(catalog::shared())),
            health: Health::default(),
        })
    }

    /// The table of models that is used.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The names of the providers that are set up.
    pub fn providers(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    /// In which wire shape a provider is asked; a base URL that is a full endpoint chooses it.
    pub fn shape(&self, provider: &str) -> Option<Shape> {
        self.providers.get(provider).map(Provider::shape)
    }

    /// Whether a provider turns texts into vectors.
    pub fn embeds(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|known| known.vendor.embedding != Embedding::None)
    }

    fn provider(&self, name: &str) -> Result<&Provider, Error> {
        self.providers.get(name).ok_or_else(|| {
            errors::refused(format!("provider `{name}` is not set up; `forge doctor` lists those that are"))
        })
    }
}

#[async_trait]
impl Model for Models {
    async fn reply(&self, request: ModelRequest, deltas: &dyn Deltas) -> Result<ModelReply, Error> {
        let provider = self.provider(&request.route.provider)?;
        if !is_loaded(&request) {
            return Err(errors::refused("a text of the request is not loaded from the store".to_owned()));
        }
        if let Some(script) = &provider.script {
            return script.reply(&request, deltas);
        }
        let key = provider.authenticated().await?;
        match http::ask(self, provider, key.as_ref(), &request, deltas).await {
            // A token that somebody revoked or that expired early. Nothing has been streamed yet.
            Err(error) if error.kind == ErrorKind::Auth => match provider.instead_of(key.as_ref()).await? {
                Some(renewed) => http::ask(self, provider, Some(&renewed), &request, deltas).await,
                None => Err(error),
            },
            answer => answer,
        }
    }
}

#[async_trait]
impl Embedder for Models {
    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Error> {
        let provider = self.provider(&request.route.provider)?;
        if request.texts.is_empty() {
            return Err(errors::refused("no texts are given to be turned into vectors".to_owned()));
        }
        let key = match provider.vendor.embedding {
            // What it can't do is said before a key is missed.
            Embedding::None => None,
            _ => provider.authenticated().await?,
        };
        match http::embed(self, provider, key.as_ref(), &request).await {
            Err(error) if error.kind == ErrorKind::Auth => match provider.instead_of(key.as_ref()).await? {
                Some(renewed) => http::embed(self, provider, Some(&renewed), &request).await,
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
