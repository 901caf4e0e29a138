//! Errors of the proxy and their HTTP responses.

use super::head::BadHead;
use forge_types::EgressVerdict;

/// A refusal or failure, as logged and sent to the program.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why}")]
pub(super) struct ProxyError {
    pub(super) status: u16,
    pub(super) verdict: EgressVerdict,
    /// Description in one line.
    pub(super) why: String,
    /// Suggested fix; may be empty.
    hint: String,
}

impl ProxyError {
    /// Creates an error for a host that must not be reached.
    pub(super) fn refused(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: 403, verdict: EgressVerdict::Refused, why: why.into(), hint: hint.into() }
    }

    /// Creates an error for a request that is invalid or not supported.
    pub(super) fn bad_request(status: u16, why: impl Into<String>) -> Self {
        Self { status, verdict: EgressVerdict::Refused, why: why.into(), hint: String::new() }
    }

    /// Creates an error for a permitted host that could not be reached.
    pub(super) fn failed(status: u16, why: impl Into<String>) -> Self {
        Self { status, verdict: EgressVerdict::Failed, why: why.into(), hint: String::new() }
    }

    /// Returns the error with another response status.
    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Builds the response. The reason is also in the status line because many programs show nothing else of a response
    /// to CONNECT.
    pub(super) fn to_response(&self, method: &str, keep: bool) -> Vec<u8> {
        let mut text = format!("{}\n", self.why);
        if !self.hint.is_empty() {
            text.push_str(&self.hint);
            text.push('\n');
        }
        let reason: String = self
            .why
            .chars()
            .take(200)
            .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
            .collect();
        let mut out = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: {}\r\n\r\n",
            self.status,
            text.len(),
            if keep { "keep-alive" } else { "close" },
        )
        .into_bytes();
        if method != "HEAD" {
            out.extend_from_slice(text.as_bytes());
        }
        out
    }
}

impl From<BadHead> for ProxyError {
    fn from(BadHead(why): BadHead) -> Self {
        Self::bad_request(400, format!("the request cannot be forwarded: {why}"))
    }
}
