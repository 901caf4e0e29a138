//! Detection of local servers and connection tests.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forge_catalog::vendors::{DetectionRule, KeyRule};
use serde_json::Value;

use crate::http::{self, elapsed_millis};
use crate::service::{ConfiguredProvider, ModelProviders};

/// A local server that answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocalServerInfo {
    /// Models that the server lists.
    pub models: Vec<String>,
    /// Context window in tokens, if the server reports it.
    pub window: Option<u64>,
}

/// The outcome of a connection test (PROV-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionTest {
    /// Whether the provider answered and accepted the API key.
    pub success: bool,
    /// Message for people, without the API key.
    pub message: String,
    /// Milliseconds from the request to the response.
    pub latency_ms: u64,
}

/// Longest time for a connection test.
const CONNECTION_TEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for which the result of a connection test is used as a provider's health (PROV-10).
const MAX_HEALTH_AGE: Duration = Duration::from_secs(300);

/// The results of connection tests with the time of each test.
#[derive(Debug, Default)]
pub(crate) struct HealthCache(Mutex<HashMap<String, (tokio::time::Instant, ConnectionTest)>>);

impl HealthCache {
    fn get(&self, provider: &str) -> Option<ConnectionTest> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, test) = known.get(provider)?;
        (at.elapsed() < MAX_HEALTH_AGE).then(|| test.clone())
    }

    fn insert(&self, provider: &str, test: &ConnectionTest) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(provider.to_owned(), (tokio::time::Instant::now(), test.clone()));
    }
}

impl ModelProviders {
    /// Detects the local server of a provider. An open port is no proof, because any program could own it; the server
    /// is recognized by a response specific to it. `None` for providers that are detected by their API key.
    pub async fn find_local_server(&self, provider: &str) -> Option<LocalServerInfo> {
        let provider = self.providers.get(provider)?;
        let DetectionRule::Probe { path, members } = provider.vendor.detect else { return None };
        let url = provider.root_url(path);
        let (status, body) = http::get_text(
            &self.clients,
            &url,
            provider.request_headers(provider.key.as_ref(), None),
            self.probe_timeout,
        )
        .await
        .ok()?;
        let body: Value = serde_json::from_str(&body).ok()?;
        (status == 200 && members.iter().any(|member| body.get(member).is_some()))
            .then(|| parse_server_info(&body))
    }

    /// Requests the list of models, the cheapest request that needs the API key. The result also reports if the list is
    /// complete and does not contain `model`.
    pub async fn test_connection(&self, provider: &str, model: Option<&str>) -> ConnectionTest {
        let Some(known) = self.providers.get(provider) else {
            let message = format!("provider `{provider}` is not configured");
            return ConnectionTest { success: false, message, latency_ms: 0 };
        };
        if known.vendor.models_path.is_empty() {
            let message = format!("{provider} needs no connection");
            return ConnectionTest { success: true, message, latency_ms: 0 };
        }
        let started = Instant::now();
        let url = known.vendor.vendor_url(&known.address, known.vendor.models_path);
        let version = [("anthropic-version", "2023-06-01".to_owned())];
        let key = match known.credential().await {
            Ok(key) => key,
            Err(error) => return ConnectionTest { success: false, message: error.message, latency_ms: 0 },
        };
        let headers = known.request_headers(key.as_ref(), None).into_iter().chain(version);
        let answer = http::get_text(&self.clients, &url, headers, CONNECTION_TEST_TIMEOUT).await;
        let latency_ms = elapsed_millis(started);
        let (success, message) = match answer {
            Ok((200, body)) => judge_model_list(known, model, &url, &body),
            Ok((status, body)) => {
                let error = crate::errors::from_status(
                    &known.error_context("any", key.as_ref()),
                    status,
                    &body,
                    None,
                );
                (false, error.message)
            }
            Err(why) => {
                (false, crate::errors::unreachable(&known.error_context("any", key.as_ref()), &why).message)
            }
        };
        let test = ConnectionTest { success, message, latency_ms };
        if model.is_none() {
            self.health.insert(provider, &test);
        }
        test
    }

    /// Returns whether a provider is usable, by a connection test that is at most 300 s old or a new one.
    pub async fn check_health(&self, provider: &str) -> ConnectionTest {
        match self.health.get(provider) {
            Some(test) => test,
            None => self.test_connection(provider, None).await,
        }
    }
}

/// Interprets a list of models.
fn judge_model_list(
    known: &ConfiguredProvider,
    model: Option<&str>,
    url: &str,
    body: &str,
) -> (bool, String) {
    let name = known.vendor.name;
    let Ok(body) = serde_json::from_str::<Value>(body) else {
        return (false, format!("{name} at {url} answers, but not like an API: check the base URL"));
    };
    let (Some(model), Some(names)) = (model, complete_model_list(&body)) else {
        return (true, format!("{name} answers at {url}"));
    };
    let bare = |name: &str| name.trim_start_matches("models/").trim_end_matches(":latest").to_owned();
    if names.iter().any(|name| bare(name) == bare(model)) {
        return (true, format!("{name} answers at {url} and has `{model}`"));
    }
    if known.vendor.key == KeyRule::None && names.len() == 1 {
        // A server with one model serves it under any name.
        return (true, format!("{name} answers at {url}; it has `{}`", names[0]));
    }
    let some: Vec<_> = names.iter().take(8).map(String::as_str).collect();
    let more = if names.len() > some.len() { ", …" } else { "" };
    (false, format!("{name} answers at {url}, but has no model `{model}`; it has {}{more}", some.join(", ")))
}

/// Returns the names in a list of models; `None` if it is one page of several or not a list.
fn complete_model_list(body: &Value) -> Option<Vec<String>> {
    if body["has_more"] == true || body["nextPageToken"].is_string() {
        return None;
    }
    let list = body["data"].as_array().or_else(|| body["models"].as_array())?;
    let name = |model: &Value| model["id"].as_str().or_else(|| model["name"].as_str()).map(str::to_owned);
    Some(list.iter().filter_map(name).collect())
}

fn parse_server_info(body: &Value) -> LocalServerInfo {
    let listed = body["models"].as_array().into_iter().flatten();
    let mut models: Vec<String> =
        listed.filter_map(|model| model["name"].as_str()).map(str::to_owned).collect();
    models.extend(body["model_path"].as_str().map(str::to_owned));
    LocalServerInfo { models, window: body["default_generation_settings"]["n_ctx"].as_u64() }
}
