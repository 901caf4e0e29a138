//! The adapter: the configured providers behind the port `Model`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forge_catalog::vendors::{EmbeddingApi, KeyRule, ProviderAddress, VENDORS, Vendor, find_vendor};
use forge_catalog::{Catalog, WireFormat};
use forge_ports::model::Error;
use forge_ports::{DeltaSink, Embedder, Model, async_trait};
use forge_types::{EmbedRequest, Embeddings, ErrorKind, ModelReply, ModelRequest, PartKind, Payload};

use crate::errors::{self, ErrorContext};
use crate::http::{self, HttpClients, ReuseTracker};
use crate::key::ApiKey;
use crate::oauth_token::SharedTokenSource;
use crate::options::{Options, ProviderOptions, ReplyLimits};
use crate::probe::HealthCache;
use crate::scripted::ModelScript;
use crate::wire_format::{ConversationKey, key_header};

/// An invalid provider configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderSetupError {
    /// The provider does not exist.
    #[error("unknown provider `{0}`; known providers: {1}")]
    UnknownProvider(String, String),
    /// The provider has no address.
    #[error("provider `{0}` needs a base URL: set `model.base_url`, such as http://127.0.0.1:8000/v1")]
    NoBaseUrl(String),
    /// The address is invalid.
    #[error("the base URL `{url}` of provider `{provider}` is invalid: {why}")]
    BadBaseUrl {
        /// Name of the provider.
        provider: String,
        /// URL without its secret parts.
        url: String,
        /// Description of the error.
        why: &'static str,
    },
    /// The scripted provider has no script.
    #[error("provider `{0}` needs a script: a JSON file with its replies")]
    NoScript(String),
}

impl ProviderSetupError {
    /// Returns the class of the error: the configuration must change.
    pub const fn class(&self) -> forge_types::ErrorClass {
        forge_types::ErrorClass::Invalid
    }
}

/// A configured provider.
#[derive(Debug)]
pub(crate) struct ConfiguredProvider {
    pub(crate) vendor: &'static Vendor,
    /// Address and wire format.
    pub(crate) address: ProviderAddress,
    /// Scheme, host and port.
    origin: String,
    pub(crate) key: Option<ApiKey>,
    /// Source of tokens, used while there is no API key.
    pub(crate) bearer: Option<SharedTokenSource>,
    organization: Option<String>,
    script: Option<ModelScript>,
    pub(crate) reuse_tracker: ReuseTracker,
    pub(crate) slots: SlotCache,
}

/// The conversation in each slot of a server, as far as the server reported it.
#[derive(Debug, Default)]
pub(crate) struct SlotCache(Mutex<HashMap<ConversationKey, u64>>);

impl SlotCache {
    /// Largest number of remembered slots, more than any server has.
    const MAX_SLOTS: usize = 1024;

    pub(crate) fn get(&self, talk: ConversationKey) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&talk).copied()
    }

    pub(crate) fn insert(&self, talk: ConversationKey, slot: u64) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= Self::MAX_SLOTS {
            slots.clear();
        }
        slots.insert(talk, slot);
    }

    pub(crate) fn remove(&self, talk: ConversationKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&talk);
    }
}

impl ConfiguredProvider {
    fn new(options: &ProviderOptions) -> Result<Self, ProviderSetupError> {
        let vendor = find_vendor(&options.name).ok_or_else(|| {
            let names: Vec<_> = VENDORS.iter().map(|vendor| vendor.name).collect();
            ProviderSetupError::UnknownProvider(options.name.clone(), names.join(", "))
        })?;
        let mut provider = Self {
            vendor,
            address: vendor.parse_address(""),
            origin: String::new(),
            key: options.key.clone().filter(|key| vendor.key != KeyRule::None && !key.reveal().is_empty()),
            bearer: options.bearer.clone().filter(|_| vendor.key != KeyRule::None),
            organization: options.organization.clone().filter(|name| !name.is_empty()),
            script: None,
            reuse_tracker: ReuseTracker::default(),
            slots: SlotCache::default(),
        };
        if vendor.wire_format == WireFormat::Scripted {
            let source = options.script.clone();
            let source = source.ok_or_else(|| ProviderSetupError::NoScript(options.name.clone()))?;
            provider.script = Some(ModelScript::new(source));
            return Ok(provider);
        }
        let given = options.base_url.as_deref().filter(|url| !url.trim().is_empty()).or(vendor.base_url);
        let given = given.ok_or_else(|| ProviderSetupError::NoBaseUrl(options.name.clone()))?;
        provider.address = vendor.parse_address(given);
        provider.origin = parse_origin(&provider.address.base).map_err(|(url, why)| {
            ProviderSetupError::BadBaseUrl { provider: options.name.clone(), url, why }
        })?;
        Ok(provider)
    }

    pub(crate) fn wire_format(&self) -> WireFormat {
        self.address.wire_format
    }

    pub(crate) fn error_context<'a>(&'a self, model: &'a str, key: Option<&'a ApiKey>) -> ErrorContext<'a> {
        ErrorContext {
            vendor: self.vendor,
            wire_format: self.wire_format(),
            model,
            origin: &self.origin,
            key,
        }
    }

    /// Returns the credential of a request: the API key, else a token; `None` if there is neither.
    pub(crate) async fn credential(&self) -> Result<Option<ApiKey>, Error> {
        match (&self.key, &self.bearer) {
            (Some(key), _) => Ok(Some(key.clone())),
            (None, Some(bearer)) => Ok(Some(bearer.valid_token().await?)),
            (None, None) => Ok(None),
        }
    }

    /// Returns a replacement for a refused credential, if that was a token.
    async fn refresh_after_rejection(&self, refused: Option<&ApiKey>) -> Result<Option<ApiKey>, Error> {
        match (&self.key, &self.bearer, refused) {
            (None, Some(bearer), Some(refused)) => Ok(Some(bearer.refresh_after_rejection(refused).await?)),
            _ => Ok(None),
        }
    }

    /// Returns the URL of a path directly below the base, outside any API version.
    pub(crate) fn root_url(&self, path: &str) -> String {
        format!("{}{path}", self.vendor.root_url(&self.address))
    }

    /// Returns the headers of every request: the API key, for this provider only, and the organization, where the
    /// request's own takes precedence.
    pub(crate) fn request_headers(
        &self,
        key: Option<&ApiKey>,
        organization: Option<&str>,
    ) -> Vec<(&'static str, String)> {
        let mut headers = Vec::new();
        headers.extend(key.map(|key| key_header(self.wire_format(), key)));
        let organization = organization.filter(|name| !name.is_empty()).or(self.organization.as_deref());
        if let (Some(name), Some(value)) = (self.vendor.organization_header, organization) {
            headers.push((name, value.to_owned()));
        }
        headers
    }

    /// Returns the credential of a request, or an error if the provider requires one and there is none.
    async fn require_credential(&self) -> Result<Option<ApiKey>, Error> {
        let key = self.credential().await?;
        if self.vendor.key != KeyRule::Required || key.is_some() {
            return Ok(key);
        }
        let message = format!(
            "provider `{}` has no API key. Set {1}, store it with `forge secret set {1}`, or choose a provider that needs none.",
            self.vendor.name,
            self.vendor.key_env.first().copied().unwrap_or("its key")
        );
        Err(Error { kind: ErrorKind::Auth, message, retry_after: None })
    }
}

/// Returns scheme, host and port of a base URL, or a description of its error.
fn parse_origin(base: &str) -> Result<String, (String, &'static str)> {
    let shown = || base.split('@').next_back().unwrap_or_default().to_owned();
    let Some((scheme, rest)) = base.split_once("://") else {
        return Err((shown(), "it must begin with http:// or https://"));
    };
    if scheme != "http" && scheme != "https" {
        return Err((shown(), "it must begin with http:// or https://"));
    }
    let host = rest.split('/').next().unwrap_or_default();
    if host.contains('@') {
        return Err((
            shown(),
            "it must not contain a user name or password; API keys are configured separately",
        ));
    }
    if host.is_empty() || host.contains(char::is_whitespace) || reqwest::Url::parse(base).is_err() {
        return Err((shown(), "it has no host"));
    }
    Ok(format!("{scheme}://{host}"))
}

/// All configured providers. Creation is cheap: nothing is read, resolved or connected before the first call.
#[derive(Debug)]
pub struct ModelProviders {
    pub(crate) providers: BTreeMap<String, ConfiguredProvider>,
    pub(crate) clients: HttpClients,
    pub(crate) probe_timeout: Duration,
    pub(crate) limits: ReplyLimits,
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) health: HealthCache,
}

impl ModelProviders {
    /// Sets up the configured providers.
    ///
    /// # Errors
    /// The first provider with an invalid configuration.
    pub fn new(options: &Options) -> Result<Self, ProviderSetupError> {
        let mut providers = BTreeMap::new();
        for provider in &options.providers {
            providers.insert(provider.name.clone(), ConfiguredProvider::new(provider)?);
        }
        Ok(Self {
            providers,
            clients: HttpClients::new(options),
            probe_timeout: options.probe_timeout,
            limits: options.limits,
            catalog: options.catalog.clone().unwrap_or_else(|| Arc::clone(Catalog::builtin())),
            health: HealthCache::default(),
        })
    }

    /// Returns the table of models.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Returns the names of the configured providers.
    pub fn provider_names(&self) -> impl Iterator<Item = &str> {
        self.providers.keys().map(String::as_str)
    }

    /// Returns the wire format of a provider; a base URL that is a full endpoint selects it.
    pub fn wire_format(&self, provider: &str) -> Option<WireFormat> {
        self.providers.get(provider).map(ConfiguredProvider::wire_format)
    }

    /// Returns whether a provider supports embeddings.
    pub fn supports_embeddings(&self, provider: &str) -> bool {
        self.providers.get(provider).is_some_and(|known| known.vendor.embedding != EmbeddingApi::None)
    }

    fn find_provider(&self, name: &str) -> Result<&ConfiguredProvider, Error> {
        self.providers.get(name).ok_or_else(|| {
            errors::invalid_request(format!(
                "provider `{name}` is not configured; `forge doctor` lists the configured ones"
            ))
        })
    }
}

#[async_trait]
impl Model for ModelProviders {
    async fn request_reply(
        &self,
        request: ModelRequest,
        deltas: &dyn DeltaSink,
    ) -> Result<ModelReply, Error> {
        let provider = self.find_provider(&request.route.provider)?;
        if !is_loaded(&request) {
            return Err(errors::invalid_request(
                "a text of the request is not loaded from the store".to_owned(),
            ));
        }
        if let Some(script) = &provider.script {
            return script.reply_for(&request, deltas);
        }
        let key = provider.require_credential().await?;
        match http::request_reply(self, provider, key.as_ref(), &request, deltas).await {
            // The token was revoked or expired early. Nothing has been streamed yet.
            Err(error) if error.kind == ErrorKind::Auth => match provider
                .refresh_after_rejection(key.as_ref())
                .await?
            {
                Some(renewed) => http::request_reply(self, provider, Some(&renewed), &request, deltas).await,
                None => Err(error),
            },
            answer => answer,
        }
    }
}

#[async_trait]
impl Embedder for ModelProviders {
    async fn embed(&self, request: EmbedRequest) -> Result<Embeddings, Error> {
        let provider = self.find_provider(&request.route.provider)?;
        if request.texts.is_empty() {
            return Err(errors::invalid_request("no texts were given for embedding".to_owned()));
        }
        let key = match provider.vendor.embedding {
            // Reported before a missing API key, because a key would not help.
            EmbeddingApi::None => None,
            _ => provider.require_credential().await?,
        };
        match http::request_embeddings(self, provider, key.as_ref(), &request).await {
            Err(error) if error.kind == ErrorKind::Auth => {
                match provider.refresh_after_rejection(key.as_ref()).await? {
                    Some(renewed) => http::request_embeddings(self, provider, Some(&renewed), &request).await,
                    None => Err(error),
                }
            }
            answer => answer,
        }
    }
}

fn is_loaded(request: &ModelRequest) -> bool {
    let inline = |payload: &Payload| payload.inline_text().is_some();
    request.messages.iter().flat_map(|message| &message.parts).all(|part| match &part.kind {
        PartKind::Text { text } | PartKind::Reasoning { text } => inline(text),
        PartKind::Result(result) => inline(&result.content),
        PartKind::Call(_) => true,
    })
}
