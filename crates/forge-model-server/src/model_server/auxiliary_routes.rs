//! What a server is asked beside conversations: which models are there, who are you, embeddings, templates.

use std::io;
use std::net::TcpStream;

use serde_json::{Value, json};

use super::connection::{ConnectionFlow, send_json};
use super::seen::{RecordedRequest, array_items};
use super::{ModelServerState, TemplateMode, native};

/// The small questions around a model call: which models are there, who are you.
pub(super) fn answer_auxiliary(
    stream: &TcpStream,
    state: &ModelServerState,
    request: &RecordedRequest,
) -> io::Result<ConnectionFlow> {
    let names = state.settings.models.clone().unwrap_or_else(|| vec!["scripted".to_owned()]);
    let path = request.path.split('?').next().unwrap_or_default();
    let body = match path {
        "/api/tags" => {
            let models: Vec<Value> =
                names.iter().map(|name| json!({"name": name, "model": name, "size": 0})).collect();
            json!({"models": models})
        }
        "/api/version" => json!({"version": "0.12.0"}),
        "/health" => json!({"status": "ok"}),
        "/props" => match &state.settings.props {
            Some(props) => props.clone(),
            None => return send_json(stream, 404, &[], "{\"error\": \"not found\"}"),
        },
        "/apply-template" => match state.settings.template {
            TemplateMode::ChatMl => json!({"prompt": native::chat_ml(&request.json)}),
            TemplateMode::Missing => return send_json(stream, 404, &[], "{\"error\": \"not found\"}"),
        },
        _ if path.ends_with("/embeddings")
            || path.ends_with("/api/embed")
            || path.ends_with(":batchEmbedContents") =>
        {
            let (status, body) = answer_embeddings(state, request, path);
            return send_json(stream, status, &[], &body.to_string());
        }
        _ if path.ends_with("/v1beta/models") => {
            let models: Vec<Value> =
                names.iter().map(|name| json!({"name": format!("models/{name}")})).collect();
            json!({"models": models})
        }
        _ if path.ends_with("/models") => {
            let models: Vec<Value> = names
                .iter()
                .map(|name| json!({"id": name, "object": "model", "type": "model", "owned_by": "scripted"}))
                .collect();
            json!({"object": "list", "data": models, "has_more": false})
        }
        _ => {
            let body = json!({"error": {"message": format!("unknown path {path}"), "code": 404}});
            return send_json(stream, 404, &[], &body.to_string());
        }
    };
    send_json(stream, 200, &[], &body.to_string())
}

/// Vectors that depend on nothing but the text: its length, the sum of its bytes, its first byte.
fn answer_embeddings(state: &ModelServerState, request: &RecordedRequest, path: &str) -> (u16, Value) {
    let keys = ["authorization", "x-goog-api-key"].into_iter().filter_map(|name| request.header(name));
    let mut given = keys.map(|value| value.trim_start_matches("Bearer "));
    if let Some(key) = &state.settings.key
        && !given.any(|given| given == key)
    {
        return (401, json!({"error": {"message": "Incorrect API key provided.", "code": 401}}));
    }
    let vector = |text: &str| {
        let sum: u64 = text.bytes().map(u64::from).sum();
        json!([text.len(), sum as f64 / 1000.0, text.bytes().next().unwrap_or(0)])
    };
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let body = &request.json;
    if path.ends_with(":batchEmbedContents") {
        let texts = array_items(&body["requests"]).map(|one| text_of(&one["content"]["parts"][0]["text"]));
        let vectors: Vec<Value> = texts.map(|text| json!({"values": vector(&text)})).collect();
        return (200, json!({"embeddings": vectors}));
    }
    let texts: Vec<String> = array_items(&body["input"]).map(text_of).collect();
    let tokens: usize = texts.iter().map(|text| text.len().div_ceil(4)).sum();
    if path.ends_with("/api/embed") {
        let vectors: Vec<Value> = texts.iter().map(|text| vector(text)).collect();
        return (200, json!({"model": body["model"], "embeddings": vectors, "prompt_eval_count": tokens}));
    }
    // Backwards: clients have to look at the index.
    let data = texts
        .iter()
        .enumerate()
        .rev()
        .map(|(index, text)| json!({"object": "embedding", "index": index, "embedding": vector(text)}));
    let data: Vec<Value> = data.collect();
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    (200, json!({"object": "list", "data": data, "model": body["model"], "usage": usage}))
}
