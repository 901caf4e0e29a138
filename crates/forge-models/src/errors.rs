//! Errors of model calls, classified as in the specification (1.3), with messages that suggest the next step.

use std::time::Duration;

use forge_catalog::WireFormat;
use forge_catalog::vendors::Vendor;
use forge_ports::model::Error;
use forge_types::ErrorKind;
use serde_json::Value;

use crate::key::ApiKey;
use crate::options::ReplyLimits;

/// Largest number of characters of a provider's message that are passed on.
const MAX_MESSAGE_CHARS: usize = 600;

/// The provider of a request, for messages.
pub(crate) struct ErrorContext<'a> {
    pub(crate) vendor: &'a Vendor,
    pub(crate) wire_format: WireFormat,
    pub(crate) model: &'a str,
    /// Scheme, host and port, without secrets.
    pub(crate) origin: &'a str,
    pub(crate) key: Option<&'a ApiKey>,
}

/// An error reported by a provider, independent of the wire format.
struct ReportedError {
    status: Option<u16>,
    /// Codes, types and the message in lower case, which are searched for known texts.
    haystack: String,
    message: String,
}

/// Texts that are more precise than the status. The first match counts; `None` is any wire format.
const ERROR_SIGNS: &[(Option<WireFormat>, &str, ErrorKind)] = &[
    (None, "context_length_exceeded", ErrorKind::ContextOverflow),
    (None, "exceed_context_size", ErrorKind::ContextOverflow),
    (None, "maximum context length", ErrorKind::ContextOverflow),
    (None, "available context size", ErrorKind::ContextOverflow),
    (None, "exceed context limit", ErrorKind::ContextOverflow),
    (None, "context window", ErrorKind::ContextOverflow),
    (None, "prompt is too long", ErrorKind::ContextOverflow),
    (None, "maximum number of tokens allowed", ErrorKind::ContextOverflow),
    (None, "exceeds the context length", ErrorKind::ContextOverflow),
    (None, "context length exceeded", ErrorKind::ContextOverflow),
    (None, "request_too_large", ErrorKind::ContextOverflow),
    (None, "insufficient_quota", ErrorKind::Billing),
    (None, "billing_hard_limit", ErrorKind::Billing),
    (None, "billing_not_active", ErrorKind::Billing),
    (None, "credit balance is too low", ErrorKind::Billing),
    (None, "billing_error", ErrorKind::Billing),
    (Some(WireFormat::Gemini), "api_key_invalid", ErrorKind::Auth),
    (Some(WireFormat::Gemini), "api key not valid", ErrorKind::Auth),
    (Some(WireFormat::Gemini), "api key expired", ErrorKind::Auth),
];

/// Hints for a refused request by the content of its message, which must contain all of the texts.
const ERROR_HINTS: &[(&[&str], &str)] = &[
    (&["not support", "tool"], " This model can't call tools: choose another with `model.name`."),
    (&["support tool use"], " This model can't call tools: choose another with `model.name`."),
    (&["response_format"], REPLY_FORM_HINT),
    (&["json_schema"], REPLY_FORM_HINT),
    (&["responsejsonschema"], REPLY_FORM_HINT),
    (&["failed to parse grammar"], REPLY_FORM_HINT),
    (&["invalid schema for function"], TOOL_SCHEMA_HINT),
    (&["function_declarations"], TOOL_SCHEMA_HINT),
    (&["input_schema"], TOOL_SCHEMA_HINT),
    (&["tools[", "schema"], TOOL_SCHEMA_HINT),
    (&["tools[", "parameters"], TOOL_SCHEMA_HINT),
    (&["tools.", "schema"], TOOL_SCHEMA_HINT),
    (&["tool", "schema"], TOOL_SCHEMA_HINT),
];

const TOOL_SCHEMA_HINT: &str = " The provider does not accept the parameters of a tool: remove the named tool from \
                       `tools.enabled`, or choose another model.";
const REPLY_FORM_HINT: &str = " The provider does not accept the schema of the reply: choose another model, or the \
                       provider `custom` with the same base URL, which describes the schema in the prompt.";

/// Status by error name, for errors inside a stream, which have no status.
const STATUS_BY_NAME: &[(&str, u16)] = &[
    ("authentication_error", 401),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("rate_limit", 429),
    ("resource_exhausted", 429),
    ("overloaded", 529),
    ("timeout", 504),
    ("deadline_exceeded", 504),
    ("unavailable", 503),
    ("invalid_request", 400),
    ("invalid_argument", 400),
    ("api_error", 500),
    ("server_error", 500),
    ("internal", 500),
];

/// Returns the error for a response with an error status.
pub(crate) fn from_status(
    asked: &ErrorContext<'_>,
    status: u16,
    body: &str,
    after: Option<Duration>,
) -> Error {
    let json = serde_json::from_str(body).unwrap_or(Value::Null);
    let mut said = parse_error_body(&json);
    if said.message.is_empty() {
        said.message = body_snippet(body);
    }
    said.status = Some(status);
    build_error(asked, &said, after)
}

/// Returns the error that a provider reports inside a stream, or in a body with a success status.
pub(crate) fn from_report(asked: &ErrorContext<'_>, json: &Value, after: Option<Duration>) -> Error {
    let mut said = parse_error_body(json);
    let named = || {
        let name = STATUS_BY_NAME.iter().find(|(name, _)| said.haystack.contains(name));
        // A server that fails in the middle of a reply may succeed the next time.
        name.map_or(500, |(_, status)| *status)
    };
    said.status = Some(said.status.filter(|status| *status >= 400).unwrap_or_else(named));
    build_error(asked, &said, after)
}

fn build_error(asked: &ErrorContext<'_>, said: &ReportedError, after: Option<Duration>) -> Error {
    let status = said.status.unwrap_or(0);
    let kind = classify_error(asked.wire_format, status, &said.haystack);
    let name = asked.vendor.name;
    let what = match kind {
        ErrorKind::Auth => "refused the key",
        ErrorKind::Billing => "has no credit left for this key",
        ErrorKind::RateLimit => "rate limited the request",
        ErrorKind::Timeout => "timed out",
        ErrorKind::Overloaded => "is overloaded or failing",
        ErrorKind::ContextOverflow => "does not accept a prompt of this length",
        ErrorKind::Format => "refused the request",
        _ => "returned an error",
    };
    let mut message = format!("{name} at {} {what} (status {status})", asked.origin);
    if !said.message.is_empty() {
        message.push_str(": ");
        message.push_str(&redact_message(&said.message, asked.key));
    }
    let hint = match (kind, status) {
        (ErrorKind::Auth, _) => match asked.vendor.key_env.first() {
            Some(variable) => format!(" Check {variable}."),
            None => " Check the configured API key.".to_owned(),
        },
        (ErrorKind::Billing, _) => " Add credit with the provider, or choose another one.".to_owned(),
        (ErrorKind::Format, 405 | 501 | 505) => {
            " The server does not support this request: check that the base URL points to an API.".to_owned()
        }
        (ErrorKind::Format, 404) => {
            format!(" Check the model's name (`{}`) and the base URL.", asked.model)
        }
        (ErrorKind::Format, 300..400) => {
            " Redirects are not followed, because they would send the key to another host: \
             set the base URL to the final address of the server."
                .to_owned()
        }
        (ErrorKind::ContextOverflow, _) => {
            " Shorten the conversation, or choose a model with a larger window.".to_owned()
        }
        (ErrorKind::Format, _) => hint_for(&said.haystack).to_owned(),
        _ => String::new(),
    };
    message.push_str(&hint);
    Error { kind, message, retry_after: after, next_steps: Vec::new() }
}

/// Returns a hint about a refused request, derived from its message.
fn hint_for(haystack: &str) -> &'static str {
    let fits = |texts: &[&str]| texts.iter().all(|text| haystack.contains(text));
    ERROR_HINTS.iter().find(|(texts, _)| fits(texts)).map_or("", |(_, way)| *way)
}

fn classify_error(wire_format: WireFormat, status: u16, haystack: &str) -> ErrorKind {
    let sign = ERROR_SIGNS.iter().find(|(of, text, _)| {
        of.is_none_or(|of| of == wire_format) && status >= 400 && haystack.contains(text)
    });
    if let Some((_, _, kind)) = sign {
        return *kind;
    }
    match status {
        401 | 403 => ErrorKind::Auth,
        402 => ErrorKind::Billing,
        408 | 504 | 524 => ErrorKind::Timeout,
        413 => ErrorKind::ContextOverflow,
        429 => ErrorKind::RateLimit,
        // Not implemented: a retry changes nothing.
        501 | 505 => ErrorKind::Format,
        500.. => ErrorKind::Overloaded,
        300..=499 => ErrorKind::Format,
        _ => ErrorKind::Unknown,
    }
}

/// Extracts message and codes from the error bodies of all vendors: `{"error": {"message", "code", "type", "status"}}`,
/// `{"error": "…"}`, `{"message": "…"}`, `{"detail": "…"}`, and a list of one of them (Gemini without `alt=sse`).
fn parse_error_body(json: &Value) -> ReportedError {
    let json = json.as_array().and_then(|list| list.first()).unwrap_or(json);
    let error = &json["error"];
    let message = [&error["message"], error, &json["message"], &json["detail"]];
    let message = message.into_iter().find_map(Value::as_str).unwrap_or_default().to_owned();
    let mut haystack = message.to_lowercase();
    for code in [&error["code"], &error["type"], &error["status"], &json["type"]] {
        if let Some(text) = code.as_str() {
            haystack.push(' ');
            haystack.push_str(&text.to_lowercase());
        }
    }
    for detail in error["details"].as_array().into_iter().flatten() {
        haystack.push(' ');
        haystack.push_str(&detail["reason"].as_str().unwrap_or_default().to_lowercase());
    }
    let status = error["code"].as_u64().and_then(|code| u16::try_from(code).ok());
    ReportedError { status, haystack, message }
}

/// Returns the beginning of a body that is not JSON; a web page is only named as such.
fn body_snippet(body: &str) -> String {
    let text = body.trim();
    if text.starts_with('<') { "(a web page, not an API response)".to_owned() } else { text.to_owned() }
}

/// Returns a provider's text, limited in length, with the API key redacted, because some providers repeat it.
fn redact_message(text: &str, key: Option<&ApiKey>) -> String {
    let text = match key.map(ApiKey::reveal).filter(|key| !key.is_empty()) {
        Some(key) => text.replace(key, "[key]"),
        None => text.to_owned(),
    };
    match text.char_indices().nth(MAX_MESSAGE_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Returns the error for a host that can't be reached.
pub(crate) fn unreachable(asked: &ErrorContext<'_>, why: &str) -> Error {
    Error {
        kind: ErrorKind::Unavailable,
        message: format!(
            "can't connect to {} at {}: {why}. Check the server, the base URL and the network.",
            asked.vendor.name, asked.origin
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a connection that broke before the reply began.
pub(crate) fn no_answer(asked: &ErrorContext<'_>, why: &str) -> Error {
    Error {
        kind: ErrorKind::Unavailable,
        message: format!(
            "{} at {} closed the connection without a response: {why}.",
            asked.vendor.name, asked.origin
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a server that sent nothing for longer than allowed.
pub(crate) fn silence_timeout(asked: &ErrorContext<'_>, limit: Duration, when: &str) -> Error {
    Error {
        kind: ErrorKind::Timeout,
        message: format!(
            "{} at {} sent nothing for {} {when}. `model.timeout_seconds` sets how long to wait.",
            asked.vendor.name,
            asked.origin,
            format_seconds(limit)
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a stream that ended early. The cause is the connection and not the provider's output, so this
/// is not a malformed reply, which is retried fewer times.
pub(crate) fn stream_cut(asked: &ErrorContext<'_>, why: &str) -> Error {
    Error {
        kind: ErrorKind::Unavailable,
        message: format!(
            "the response of {} at {} was cut off: {why}. It was discarded.",
            asked.vendor.name, asked.origin
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a stream that violates its format.
pub(crate) fn malformed(asked: &ErrorContext<'_>, why: &str) -> Error {
    Error {
        kind: ErrorKind::MalformedResponse,
        message: format!(
            "the response of {} at {} is malformed: {why}. It was discarded.",
            asked.vendor.name, asked.origin
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a response with a success status that is not a stream.
pub(crate) fn no_stream(asked: &ErrorContext<'_>, what: &str) -> Error {
    Error {
        kind: ErrorKind::MalformedResponse,
        message: format!(
            "{} at {} returned {what} instead of a stream of events. Check that the base URL points to its API and not \
             to a proxy or login page.",
            asked.vendor.name, asked.origin
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for an endless reply.
pub(crate) fn reply_too_long(asked: &ErrorContext<'_>, limits: ReplyLimits) -> Error {
    Error {
        kind: ErrorKind::Timeout,
        message: format!(
            "the response of {} at {} exceeded the limit of {} or {} MiB. It was discarded. \
             `model.max_tokens` limits the length of a reply.",
            asked.vendor.name,
            asked.origin,
            format_seconds(limits.longest),
            limits.largest >> 20
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a reply that does not match the requested schema.
pub(crate) fn schema_mismatch(asked: &ErrorContext<'_>, why: &str) -> Error {
    Error {
        kind: ErrorKind::MalformedResponse,
        message: format!(
            "the reply of {}/{} does not match the requested schema: {why}",
            asked.vendor.name, asked.model
        ),
        retry_after: None,
        next_steps: Vec::new(),
    }
}

/// Returns the error for a request that can't be sent.
pub(crate) fn invalid_request(message: String) -> Error {
    Error { kind: ErrorKind::Format, message, retry_after: None, next_steps: Vec::new() }
}

fn format_seconds(limit: Duration) -> String {
    if limit.subsec_millis() == 0 {
        format!("{} s", limit.as_secs())
    } else {
        format!("{} ms", limit.as_millis())
    }
}
