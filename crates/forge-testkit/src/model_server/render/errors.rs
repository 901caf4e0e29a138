//! The vendors' error bodies, by meaning.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::Shape;

/// What a vendor error means; status and body are the vendor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The key is missing or wrong.
    Auth,
    /// The key is right but may not do this.
    Forbidden,
    /// No credit left.
    Billing,
    /// Too many requests.
    RateLimit,
    /// The service is overloaded (529 at Anthropic, 503 elsewhere).
    Overloaded,
    /// An internal error (500).
    Server,
    /// The service gave up waiting (504; 408 at OpenAI).
    Timeout,
    /// The prompt is longer than the model's window.
    ContextOverflow,
    /// The request is refused as malformed.
    Format,
    /// The model does not exist.
    UnknownModel,
}

const CONTEXT: [&str; 4] = [
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 140022 tokens. \
     Please reduce the length of the messages.",
    "prompt is too long: 208310 tokens > 200000 maximum",
    "The input token count (1189213) exceeds the maximum number of tokens allowed (1048576).",
    "the input length exceeds the context length",
];

/// llama.cpp's words for a prompt that is too long.
const LLAMA_CONTEXT: &str =
    "the request exceeds the available context size. try increasing the context size or enable context shift";

/// The shape whose error bodies these are.
const fn family(shape: Shape) -> Shape {
    match shape {
        Shape::Responses | Shape::Completion => Shape::OpenAi,
        Shape::Generate => Shape::Ollama,
        own => own,
    }
}

/// Status and body.
pub(super) fn error(asked: Shape, model: &str, kind: ErrorKind) -> (u16, Value) {
    let shape = family(asked);
    let status = match (kind, shape) {
        (ErrorKind::Auth, Shape::Gemini) => 400,
        (ErrorKind::Auth, _) => 401,
        (ErrorKind::Forbidden, _) => 403,
        (ErrorKind::Billing, Shape::OpenAi) => 429,
        (ErrorKind::Billing, _) => 402,
        (ErrorKind::RateLimit, _) => 429,
        (ErrorKind::Overloaded, Shape::Anthropic) => 529,
        (ErrorKind::Overloaded, _) => 503,
        (ErrorKind::Server, _) => 500,
        (ErrorKind::Timeout, Shape::OpenAi) => 408,
        (ErrorKind::Timeout, _) => 504,
        (ErrorKind::ContextOverflow | ErrorKind::Format, _) => 400,
        (ErrorKind::UnknownModel, _) => 404,
    };
    let message = match kind {
        ErrorKind::Auth if shape == Shape::Gemini => {
            "API key not valid. Please pass a valid API key.".to_owned()
        }
        ErrorKind::Auth => "Incorrect API key provided.".to_owned(),
        ErrorKind::Forbidden => "This key may not use this resource.".to_owned(),
        ErrorKind::Billing => {
            "You exceeded your current quota, please check your plan and billing.".to_owned()
        }
        ErrorKind::RateLimit => "Rate limit reached, please slow down.".to_owned(),
        ErrorKind::Overloaded => "The model is overloaded. Please try again later.".to_owned(),
        ErrorKind::Server => "The server had an error while processing your request.".to_owned(),
        ErrorKind::Timeout => "The request timed out.".to_owned(),
        ErrorKind::ContextOverflow if asked == Shape::Completion => LLAMA_CONTEXT.to_owned(),
        ErrorKind::ContextOverflow => CONTEXT[place(shape)].to_owned(),
        ErrorKind::Format => "Unrecognized request argument supplied: frobnicate".to_owned(),
        ErrorKind::UnknownModel => unknown_model(shape, model),
    };
    let mut whole = body(shape, status, &message);
    match shape {
        Shape::OpenAi if asked == Shape::Completion => {
            whole["error"]["code"] = json!(status);
            if kind == ErrorKind::ContextOverflow {
                whole["error"]["type"] = json!("exceed_context_size_error");
            } else if let Some(code) = openai_code(kind) {
                whole["error"]["type"] = json!(code);
            }
        }
        Shape::OpenAi => whole["error"]["code"] = json!(openai_code(kind)),
        Shape::Anthropic => whole["error"]["type"] = json!(anthropic_type(kind)),
        Shape::Gemini if kind == ErrorKind::Auth => {
            whole["error"]["details"] = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]);
        }
        Shape::Gemini if kind == ErrorKind::RateLimit => {
            whole["error"]["details"] =
                json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}]);
        }
        _ => {}
    }
    (status, whole)
}

/// The plain error body of a status.
pub(super) fn body(shape: Shape, status: u16, message: &str) -> Value {
    match family(shape) {
        Shape::OpenAi => json!({"error": {"message": message, "type": "invalid_request_error",
            "param": null, "code": null}}),
        Shape::Anthropic => json!({"type": "error", "request_id": "req_scripted",
            "error": {"type": anthropic_status(status), "message": message}}),
        Shape::Gemini => json!({"error": {"code": status, "message": message,
            "status": gemini_status(status)}}),
        _ => json!({"error": message}),
    }
}

fn place(shape: Shape) -> usize {
    match shape {
        Shape::OpenAi => 0,
        Shape::Anthropic => 1,
        Shape::Gemini => 2,
        _ => 3,
    }
}

fn unknown_model(shape: Shape, model: &str) -> String {
    match shape {
        Shape::OpenAi => format!("The model `{model}` does not exist or you do not have access to it."),
        Shape::Anthropic => format!("model: {model}"),
        Shape::Gemini => {
            format!("models/{model} is not found for API version v1beta, or is not supported.")
        }
        _ => format!("model '{model}' not found"),
    }
}

fn openai_code(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Auth => Some("invalid_api_key"),
        ErrorKind::Billing => Some("insufficient_quota"),
        ErrorKind::RateLimit => Some("rate_limit_exceeded"),
        ErrorKind::ContextOverflow => Some("context_length_exceeded"),
        ErrorKind::UnknownModel => Some("model_not_found"),
        _ => None,
    }
}

fn anthropic_type(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Auth => "authentication_error",
        ErrorKind::Forbidden => "permission_error",
        ErrorKind::Billing => "billing_error",
        ErrorKind::RateLimit => "rate_limit_error",
        ErrorKind::Overloaded => "overloaded_error",
        ErrorKind::Server => "api_error",
        ErrorKind::Timeout => "timeout_error",
        ErrorKind::ContextOverflow | ErrorKind::Format => "invalid_request_error",
        ErrorKind::UnknownModel => "not_found_error",
    }
}

fn anthropic_status(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        code if code >= 500 => "api_error",
        _ => "invalid_request_error",
    }
}

fn gemini_status(status: u16) -> &'static str {
    match status {
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        500 => "INTERNAL",
        503 => "UNAVAILABLE",
        504 => "DEADLINE_EXCEEDED",
        _ => "INVALID_ARGUMENT",
    }
}
