//! Embeddings: one request, one JSON response. The formats are those of the references of OpenAI's `POST
//! /v1/embeddings` (also used by llama.cpp, vLLM and OpenRouter), Gemini's `:batchEmbedContents` and Ollama's `POST
//! /api/embed`.

use forge_catalog::vendors::EmbeddingApi;
use forge_ports::model::Error;
use forge_types::{EmbedRequest, Embeddings, Usage};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors;
use crate::provider::ConfiguredProvider;
use crate::wire_format::model_segment;

/// Returns the path below the provider's API version and the body.
pub(crate) fn encode_embed_request(
    provider: &ConfiguredProvider,
    request: &EmbedRequest,
) -> Result<(String, Vec<u8>), Error> {
    let (model, texts) = (&request.route.model, &request.texts);
    let (path, body) = match provider.vendor.embedding {
        EmbeddingApi::OpenAi => {
            ("/embeddings".to_owned(), json!({"model": model, "input": texts, "encoding_format": "float"}))
        }
        EmbeddingApi::Gemini => {
            let named = format!("models/{}", model.strip_prefix("models/").unwrap_or(model));
            let one = |text| json!({"model": named, "content": {"parts": [{"text": text}]}});
            let requests: Vec<Value> = texts.iter().map(one).collect();
            (format!("/models/{}:batchEmbedContents", model_segment(model)), json!({"requests": requests}))
        }
        EmbeddingApi::Ollama => ("/embed".to_owned(), json!({"model": model, "input": texts})),
        EmbeddingApi::None => {
            return Err(errors::invalid_request(format!(
                "provider `{}` does not support embeddings. `docs/models.md` lists the providers that do.",
                provider.vendor.name
            )));
        }
    };
    Ok((path, body.to_string().into_bytes()))
}

#[derive(Deserialize)]
struct OpenAiEmbeddings {
    data: Vec<OpenAiEmbedding>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<EmbeddingUsage>,
}

#[derive(Deserialize)]
struct OpenAiEmbedding {
    #[serde(default)]
    index: Option<usize>,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct EmbeddingUsage {
    #[serde(default)]
    prompt_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct GeminiEmbeddings {
    embeddings: Vec<GeminiEmbedding>,
}

#[derive(Deserialize)]
struct GeminiEmbedding {
    values: Vec<f32>,
}

#[derive(Deserialize)]
struct OllamaEmbeddings {
    embeddings: Vec<Vec<f32>>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    prompt_eval_count: Option<u64>,
}

/// Extracts the vectors from a response with a success status.
///
/// # Errors
/// A description of the malformed part.
pub(crate) fn decode_embeddings(
    embedding: EmbeddingApi,
    request: &EmbedRequest,
    body: &[u8],
) -> Result<Embeddings, String> {
    let wrong = |error: serde_json::Error| format!("it contains no vectors ({error})");
    let (vectors, model, tokens) = match embedding {
        EmbeddingApi::OpenAi | EmbeddingApi::None => {
            let mut answer: OpenAiEmbeddings = serde_json::from_slice(body).map_err(wrong)?;
            answer.data.sort_by_key(|vector| vector.index);
            let vectors = answer.data.into_iter().map(|vector| vector.embedding).collect();
            (vectors, answer.model, answer.usage.and_then(|usage| usage.prompt_tokens))
        }
        EmbeddingApi::Gemini => {
            let answer: GeminiEmbeddings = serde_json::from_slice(body).map_err(wrong)?;
            (answer.embeddings.into_iter().map(|vector| vector.values).collect(), None, None)
        }
        EmbeddingApi::Ollama => {
            let answer: OllamaEmbeddings = serde_json::from_slice(body).map_err(wrong)?;
            (answer.embeddings, answer.model, answer.prompt_eval_count)
        }
    };
    check_vectors(&vectors, request.texts.len())?;
    let bytes: usize = request.texts.iter().map(String::len).sum();
    let usage = Usage {
        input: tokens.unwrap_or_else(|| (bytes as u64).div_ceil(4)),
        output: 0,
        cached: 0,
        cache_write: 0,
        known: tokens.is_some(),
    };
    let model = model.filter(|model| !model.is_empty()).unwrap_or_else(|| request.route.model.clone());
    Ok(Embeddings { vectors, usage, model })
}

fn check_vectors(vectors: &[Vec<f32>], texts: usize) -> Result<(), String> {
    if vectors.len() != texts {
        return Err(format!("{texts} texts were sent, but {} vectors returned", vectors.len()));
    }
    let length = vectors.first().map_or(0, Vec::len);
    if texts > 0 && length == 0 {
        return Err("a vector is empty".to_owned());
    }
    if vectors.iter().any(|vector| vector.len() != length) {
        return Err("the vectors differ in length".to_owned());
    }
    if vectors.iter().flatten().any(|value| !value.is_finite()) {
        return Err("a vector contains a number that is not finite".to_owned());
    }
    Ok(())
}
