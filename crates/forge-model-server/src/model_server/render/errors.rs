//! The vendors' error bodies, by meaning.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::VendorFormat;

/// What a vendor error means; status and body are the vendor's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VendorErrorKind {
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

const CONTEXT_ERRORS: [&str; 4] = [
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
const fn family(shape: VendorFormat) -> VendorFormat {
    match shape {
        VendorFormat::Responses | VendorFormat::Completion => VendorFormat::OpenAi,
        VendorFormat::Generate => VendorFormat::Ollama,
        own => own,
    }
}

/// Status and body.
pub(super) fn error_response(asked: VendorFormat, model: &str, kind: VendorErrorKind) -> (u16, Value) {
    let shape = family(asked);
    let status = match (kind, shape) {
        (VendorErrorKind::Auth, VendorFormat::Gemini) => 400,
        (VendorErrorKind::Auth, _) => 401,
        (VendorErrorKind::Forbidden, _) => 403,
        (VendorErrorKind::Billing, VendorFormat::OpenAi) => 429,
        (VendorErrorKind::Billing, _) => 402,
        (VendorErrorKind::RateLimit, _) => 429,
        (VendorErrorKind::Overloaded, VendorFormat::Anthropic) => 529,
        (VendorErrorKind::Overloaded, _) => 503,
        (VendorErrorKind::Server, _) => 500,
        (VendorErrorKind::Timeout, VendorFormat::OpenAi) => 408,
        (VendorErrorKind::Timeout, _) => 504,
        (VendorErrorKind::ContextOverflow | VendorErrorKind::Format, _) => 400,
        (VendorErrorKind::UnknownModel, _) => 404,
    };
    let message = match kind {
        VendorErrorKind::Auth if shape == VendorFormat::Gemini => {
            "API key not valid. Please pass a valid API key.".to_owned()
        }
        VendorErrorKind::Auth => "Incorrect API key provided.".to_owned(),
        VendorErrorKind::Forbidden => "This key may not use this resource.".to_owned(),
        VendorErrorKind::Billing => {
            "You exceeded your current quota, please check your plan and billing.".to_owned()
        }
        VendorErrorKind::RateLimit => "Rate limit reached, please slow down.".to_owned(),
        VendorErrorKind::Overloaded => "The model is overloaded. Please try again later.".to_owned(),
        VendorErrorKind::Server => "The server had an error while processing your request.".to_owned(),
        VendorErrorKind::Timeout => "The request timed out.".to_owned(),
        VendorErrorKind::ContextOverflow if asked == VendorFormat::Completion => LLAMA_CONTEXT.to_owned(),
        VendorErrorKind::ContextOverflow => CONTEXT_ERRORS[format_index(shape)].to_owned(),
        VendorErrorKind::Format => "Unrecognized request argument supplied: frobnicate".to_owned(),
        VendorErrorKind::UnknownModel => unknown_model(shape, model),
    };
    let mut whole = error_body(shape, status, &message);
    match shape {
        VendorFormat::OpenAi if asked == VendorFormat::Completion => {
            whole["error"]["code"] = json!(status);
            if kind == VendorErrorKind::ContextOverflow {
                whole["error"]["type"] = json!("exceed_context_size_error");
            } else if let Some(code) = openai_code(kind) {
                whole["error"]["type"] = json!(code);
            }
        }
        VendorFormat::OpenAi => whole["error"]["code"] = json!(openai_code(kind)),
        VendorFormat::Anthropic => whole["error"]["type"] = json!(anthropic_type(kind)),
        VendorFormat::Gemini if kind == VendorErrorKind::Auth => {
            whole["error"]["details"] = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID", "domain": "googleapis.com"}]);
        }
        VendorFormat::Gemini if kind == VendorErrorKind::RateLimit => {
            whole["error"]["details"] =
                json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"}]);
        }
        _ => {}
    }
    (status, whole)
}

/// The plain error body of a status.
pub(super) fn error_body(shape: VendorFormat, status: u16, message: &str) -> Value {
    match family(shape) {
        VendorFormat::OpenAi => json!({"error": {"message": message, "type": "invalid_request_error",
            "param": null, "code": null}}),
        VendorFormat::Anthropic => json!({"type": "error", "request_id": "req_scripted",
            "error": {"type": anthropic_status(status), "message": message}}),
        VendorFormat::Gemini => json!({"error": {"code": status, "message": message,
            "status": gemini_status(status)}}),
        _ => json!({"error": message}),
    }
}

fn format_index(shape: VendorFormat) -> usize {
    match shape {
        VendorFormat::OpenAi => 0,
        VendorFormat::Anthropic => 1,
        VendorFormat::Gemini => 2,
        _ => 3,
    }
}

fn unknown_model(shape: VendorFormat, model: &str) -> String {
    match shape {
        VendorFormat::OpenAi => {
            format!("The model `{model}` does not exist or you do not have access to it.")
        }
        VendorFormat::Anthropic => format!("model: {model}"),
        VendorFormat::Gemini => {
            format!("models/{model} is not found for API version v1beta, or is not supported.")
        }
        _ => format!("model '{model}' not found"),
    }
}

fn openai_code(kind: VendorErrorKind) -> Option<&'static str> {
    match kind {
        VendorErrorKind::Auth => Some("invalid_api_key"),
        VendorErrorKind::Billing => Some("insufficient_quota"),
        VendorErrorKind::RateLimit => Some("rate_limit_exceeded"),
        VendorErrorKind::ContextOverflow => Some("context_length_exceeded"),
        VendorErrorKind::UnknownModel => Some("model_not_found"),
        _ => None,
    }
}

fn anthropic_type(kind: VendorErrorKind) -> &'static str {
    match kind {
        VendorErrorKind::Auth => "authentication_error",
        VendorErrorKind::Forbidden => "permission_error",
        VendorErrorKind::Billing => "billing_error",
        VendorErrorKind::RateLimit => "rate_limit_error",
        VendorErrorKind::Overloaded => "overloaded_error",
        VendorErrorKind::Server => "api_error",
        VendorErrorKind::Timeout => "timeout_error",
        VendorErrorKind::ContextOverflow | VendorErrorKind::Format => "invalid_request_error",
        VendorErrorKind::UnknownModel => "not_found_error",
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
