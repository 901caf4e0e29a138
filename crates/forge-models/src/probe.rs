//! Detection of local servers and connection tests.

use std::time::{Duration, Instant};

use forge_catalog::vendors::{DetectionRule, KeyRule};
use serde_json::Value;

use crate::errors;
use crate::http::{self, HttpTransport, elapsed_millis};
use crate::provider::ConfiguredProvider;

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

impl ConnectionTest {
    /// Creates the outcome of a test in which no request was sent.
    pub(crate) const fn failed(message: String) -> Self {
        Self { success: false, message, latency_ms: 0 }
    }
}

/// Longest time for a connection test.
const CONNECTION_TEST_TIMEOUT: Duration = Duration::from_secs(15);
/// Detects the local server of a provider.
pub(crate) async fn find_local_server(
    transport: &HttpTransport,
    provider: &ConfiguredProvider,
    timeout: Duration,
) -> Option<LocalServerInfo> {
    let DetectionRule::Probe { path, members } = provider.vendor.detect else { return None };
    let url = provider.root_url(path);
    let headers = provider.request_headers(provider.key.as_ref(), None);
    let (status, body) = http::get_text(&transport.clients, &url, headers, timeout).await.ok()?;
    let body: Value = serde_json::from_str(&body).ok()?;
    (status == 200 && members.iter().any(|member| body.get(member).is_some()))
        .then(|| parse_server_info(&body))
}

/// Requests the list of models of a provider.
pub(crate) async fn test_connection(
    transport: &HttpTransport,
    provider: &ConfiguredProvider,
    model: Option<&str>,
) -> ConnectionTest {
    let vendor = provider.vendor;
    if vendor.models_path.is_empty() {
        let message = format!("{} needs no connection", vendor.name);
        return ConnectionTest { success: true, message, latency_ms: 0 };
    }
    let started = Instant::now();
    let url = vendor.vendor_url(&provider.address, vendor.models_path);
    let version = [("anthropic-version", "2023-06-01".to_owned())];
    let key = match provider.credential().await {
        Ok(key) => key,
        Err(error) => return ConnectionTest::failed(error.message),
    };
    let headers = provider.request_headers(key.as_ref(), None).into_iter().chain(version);
    let answer = http::get_text(&transport.clients, &url, headers, CONNECTION_TEST_TIMEOUT).await;
    let latency_ms = elapsed_millis(started);
    let asked = provider.error_context("any", key.as_ref());
    let (success, message) = match answer {
        Ok((200, body)) => judge_model_list(provider, model, &url, &body),
        Ok((status, body)) => (false, errors::from_status(&asked, status, &body, None).message),
        Err(why) => (false, errors::unreachable(&asked, &why).message),
    };
    ConnectionTest { success, message, latency_ms }
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
