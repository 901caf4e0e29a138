//! Looking for providers: is a local server there, does a connection work.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http;
use crate::service::Models;
use crate::vendors::Detect;

/// A local server that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting {
    /// The models it has, as far as it says.
    pub models: Vec<String>,
    /// The window it serves, in tokens, if it says.
    pub window: Option<u64>,
}

/// The outcome of a connection test (PROV-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionTest {
    /// Whether the provider answered and took the key.
    pub success: bool,
    /// What it said, for people; holds no key.
    pub message: String,
    /// Milliseconds from the question to the answer.
    pub latency_ms: u64,
}

/// Longest time for a connection test.
const TEST_LIMIT: Duration = Duration::from_secs(15);

impl Models {
    /// Looks whether the local server of a provider is there: not by an open port, which could be anybody's, but
    /// by an answer only it gives. `None` for providers that are found by their key.
    pub async fn find(&self, provider: &str) -> Option<Sighting> {
        let provider = self.providers.get(provider)?;
        let Detect::Probe { path, members } = provider.vendor.detect else { return None };
        let url = provider.root_url(path);
        let (status, body) =
            http::get(&self.clients, &url, provider.headers(provider.key.as_ref()), self.probe_timeout)
                .await
                .ok()?;
        let body: Value = serde_json::from_str(&body).ok()?;
        (status == 200 && members.iter().any(|member| body.get(member).is_some())).then(|| sighting(&body))
    }

    /// Asks a provider for its list of models: the cheapest question that needs the key.
    pub async fn test(&self, provider: &str) -> ConnectionTest {
        let Some(known) = self.providers.get(provider) else {
            let message = format!("provider `{provider}` is not set up");
            return ConnectionTest { success: false, message, latency_ms: 0 };
        };
        if known.vendor.models_path.is_empty() {
            let message = format!("{provider} needs no connection");
            return ConnectionTest { success: true, message, latency_ms: 0 };
        }
        let started = Instant::now();
        let url = known.url(known.vendor.models_path);
        let version = [("anthropic-version", "2023-06-01".to_owned())];
        let key = match known.credential().await {
            Ok(key) => key,
            Err(error) => return ConnectionTest { success: false, message: error.message, latency_ms: 0 },
        };
        let headers = known.headers(key.as_ref()).into_iter().chain(version);
        let answer = http::get(&self.clients, &url, headers, TEST_LIMIT).await;
        let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let (success, message) = match answer {
            Ok((200, _)) => (true, format!("{provider} answers at {url}")),
            Ok((status, body)) => {
                let error =
                    crate::errors::from_status(&known.asked("any", key.as_ref()), status, &body, None);
                (false, error.message)
            }
            Err(why) => (false, crate::errors::unreachable(&known.asked("any", key.as_ref()), &why).message),
        };
        ConnectionTest { success, message, latency_ms }
    }
}

fn sighting(body: &Value) -> Sighting {
    let listed = body["models"].as_array().into_iter().flatten();
    let mut models: Vec<String> =
        listed.filter_map(|model| model["name"].as_str()).map(str::to_owned).collect();
    models.extend(body["model_path"].as_str().map(str::to_owned));
    Sighting { models, window: body["default_generation_settings"]["n_ctx"].as_u64() }
}
