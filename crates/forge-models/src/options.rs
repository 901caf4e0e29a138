//! Options of this adapter, derived from the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forge_catalog::Catalog;

use crate::key::ApiKey;
use crate::oauth_token::SharedTokenSource;

/// Source of the scripted provider's replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptSource {
    /// A JSON file, read at the first call.
    File(PathBuf),
    /// The content of such a file.
    Text(String),
}

/// Settings of one provider. Fields that are `None` have the value in [`forge_catalog::vendors`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderOptions {
    /// Name of the provider in [`forge_catalog::vendors`].
    pub name: String,
    /// Base URL; a full endpoint is cut to its base.
    pub base_url: Option<String>,
    /// API key.
    pub key: Option<ApiKey>,
    /// Source of tokens that replace a missing API key.
    pub bearer: Option<SharedTokenSource>,
    /// Organization that is billed, for vendors that support this.
    pub organization: Option<String>,
    /// Replies of the scripted provider.
    pub script: Option<ScriptSource>,
}

impl ProviderOptions {
    /// Creates the settings of a provider with all defaults of the vendor table.
    pub fn with_name(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// Limits on a reply, beyond which it counts as endless: a server may send keep-alive data forever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Longest time from the first byte to the last.
    pub longest: Duration,
    /// Largest number of bytes.
    pub largest: u64,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { longest: Duration::from_secs(30 * 60), largest: 256 << 20 }
    }
}

/// Settings of the adapter.
#[derive(Clone, Debug)]
pub struct Options {
    /// Available providers.
    pub providers: Vec<ProviderOptions>,
    /// Longest time to establish a connection.
    pub connect_timeout: Duration,
    /// Longest time to detect one local server.
    pub probe_timeout: Duration,
    /// HTTP proxy for `https` endpoints, such as `http://proxy:3128`.
    pub proxy: Option<String>,
    /// Limits on a reply.
    pub limits: ReplyLimits,
    /// Table of models; `None` means the built-in one.
    pub catalog: Option<Arc<Catalog>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            providers: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            probe_timeout: Duration::from_millis(300),
            proxy: None,
            limits: ReplyLimits::default(),
            catalog: None,
        }
    }
}
