//! What this adapter wants to be told, composed by the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Catalog;

use crate::oauth_token::SharedTokenSource;

/// A credential. It shows itself to nobody: `Debug` prints a placeholder.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// Wraps a credential; surrounding white space, a common paste error, is dropped.
    pub fn new(secret: impl AsRef<str>) -> Self {
        Self(secret.as_ref().trim().to_owned())
    }

    /// The credential itself, for whoever renews it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(hidden)")
    }
}

/// Where the scripted provider finds its replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ScriptSource {
    /// A JSON file, read at the first call.
    File(PathBuf),
    /// The text of such a file.
    Text(String),
}

/// Settings of one provider. What is `None` follows [`crate::vendors`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderOptions {
    /// The provider's name in [`crate::vendors`].
    pub name: String,
    /// Base URL; a full endpoint is cut to its base.
    pub base_url: Option<String>,
    /// The key.
    pub key: Option<ApiKey>,
    /// Where tokens come from that stand in for a key while there is none.
    pub bearer: Option<SharedTokenSource>,
    /// The organization that is charged, for vendors that know such a thing.
    pub organization: Option<String>,
    /// Replies of the scripted provider.
    pub script: Option<ScriptSource>,
}

impl ProviderOptions {
    /// A provider with everything as the table of vendors has it.
    pub fn with_name(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}

/// How much of a reply is taken before it counts as endless: a server may send signs of life for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Longest time from the first byte to the last.
    pub longest: Duration,
    /// Most bytes.
    pub largest: u64,
}

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { longest: Duration::from_secs(30 * 60), largest: 256 << 20 }
    }
}

/// Settings of the whole adapter.
#[derive(Clone, Debug)]
pub struct Options {
    /// The providers that may be asked.
    pub providers: Vec<ProviderOptions>,
    /// Longest time until a connection stands.
    pub connect_timeout: Duration,
    /// Longest time that looking for a local server may take, per server.
    pub probe_timeout: Duration,
    /// An HTTP proxy for `https` endpoints, such as `http://proxy:3128`.
    pub proxy: Option<String>,
    /// How much of a reply is taken.
    pub limits: ReplyLimits,
    /// The table of models; `None`: the one that is built in.
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
