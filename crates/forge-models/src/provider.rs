//! A configured provider: its address, credentials and headers, and the state of its connections and slots.

use parking_lot::Mutex;
use std::collections::HashMap;

use forge_catalog::WireFormat;
use forge_catalog::vendors::{KeyRule, ProviderAddress, Vendor, find_vendor, vendor_names};
use forge_ports::model::Error;
use forge_types::{ErrorKind, NextStep};

use crate::connection_reuse::ReuseTracker;
use crate::errors::ErrorContext;
use crate::key::ApiKey;
use crate::oauth_token::SharedTokenSource;
use crate::options::ProviderOptions;
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

    /// Returns the name of the provider.
    pub fn provider(&self) -> &str {
        match self {
            Self::UnknownProvider(provider, _)
            | Self::NoBaseUrl(provider)
            | Self::BadBaseUrl { provider, .. }
            | Self::NoScript(provider) => provider,
        }
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
    pub(crate) script: Option<ModelScript>,
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
        self.0.lock().get(&talk).copied()
    }

    pub(crate) fn insert(&self, talk: ConversationKey, slot: u64) {
        let mut slots = self.0.lock();
        if slots.len() >= Self::MAX_SLOTS {
            slots.clear();
        }
        slots.insert(talk, slot);
    }

    pub(crate) fn remove(&self, talk: ConversationKey) {
        self.0.lock().remove(&talk);
    }
}

impl ConfiguredProvider {
    pub(crate) fn new(options: &ProviderOptions) -> Result<Self, ProviderSetupError> {
        let vendor = find_vendor(&options.name).ok_or_else(|| {
            let names: Vec<_> = vendor_names().collect();
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
    pub(crate) async fn refresh_after_rejection(
        &self,
        refused: Option<&ApiKey>,
    ) -> Result<Option<ApiKey>, Error> {
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
    pub(crate) async fn require_credential(&self) -> Result<Option<ApiKey>, Error> {
        let key = self.credential().await?;
        if self.vendor.key != KeyRule::Required || key.is_some() {
            return Ok(key);
        }
        let key_name = self.vendor.key_env.first().copied();
        let message = format!(
            "provider `{}` has no API key. Set {}, or choose a provider that needs none",
            self.vendor.name,
            key_name.unwrap_or("its key")
        );
        let next_steps = vec![NextStep::SetSecret { name: key_name.map(str::to_owned) }];
        Err(Error { kind: ErrorKind::Auth, message, retry_after: None, next_steps })
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
