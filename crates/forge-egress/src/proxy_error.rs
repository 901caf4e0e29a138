//! Why the proxy does not do what it was asked, and how it says so.

use super::head::{BadHead, HeaderList, Response};
use forge_types::EgressVerdict;

/// A refusal or a failure, as it is logged and answered.
#[derive(Clone, Debug)]
pub(super) struct ProxyError {
    pub(super) status: u16,
    pub(super) verdict: EgressVerdict,
    /// What happened, in one line.
    pub(super) why: String,
    /// What to do about it; may be empty.
    hint: String,
}

impl ProxyError {
    /// It may not be reached.
    pub(super) fn refused(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: 403, verdict: EgressVerdict::Refused, why: why.into(), hint: hint.into() }
    }

    /// A request that makes no sense or that the proxy does not serve.
    pub(super) fn bad_request(status: u16, why: impl Into<String>) -> Self {
        Self { status, verdict: EgressVerdict::Refused, why: why.into(), hint: String::new() }
    }

    /// It may be reached but could not.
    pub(super) fn failed(status: u16, why: impl Into<String>) -> Self {
        Self { status, verdict: EgressVerdict::Failed, why: why.into(), hint: String::new() }
    }

    /// The same, answered with another status.
    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The answer. The reason stands in the status line too, since that is all many programs show of an answer to
    /// CONNECT.
    pub(super) fn to_response(&self, method: &str, keep: bool) -> Vec<u8> {
        let mut text = format!("{}\n", self.why);
        if !self.hint.is_empty() {
            text.push_str(&self.hint);
            text.push('\n');
        }
        let mut headers = HeaderList::default();
        headers.add("Content-Type", "text/plain; charset=utf-8");
        headers.add("Content-Length", text.len().to_string());
        headers.add("Cache-Control", "no-store");
        headers.add("Connection", if keep { "keep-alive" } else { "close" });
        let reason: String = self
            .why
            .chars()
            .take(200)
            .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' })
            .collect();
        let head = Response { minor: 1, status: self.status, reason: reason.into_bytes(), headers };
        let mut out = head.to_bytes();
        if method != "HEAD" {
            out.extend_from_slice(text.as_bytes());
        }
        out
    }
}

impl From<BadHead> for ProxyError {
    fn from(BadHead(why): BadHead) -> Self {
        Self::bad_request(400, format!("the request can't be passed on: {why}"))
    }
}
