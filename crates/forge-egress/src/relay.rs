//! Bodies and responses on their way through the proxy.

use super::dial::describe_io_error;
use super::head::{check_response, strip_hop_by_hop, tokens};
use super::key_injection::KeyRedactor;
use super::log::ByteMeter;
use super::proxy_error::ProxyError;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use hyper::{Response, StatusCode, Version};
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// The sender of a message.
#[derive(Clone, Copy)]
pub(super) enum Peer {
    Program,
    Host,
}

impl Peer {
    /// Describes why an exchange with the peer failed.
    pub(super) fn describe_error(self, error: &hyper::Error) -> ProxyError {
        if let Some(fault) = error.source().and_then(|e| e.downcast_ref::<ProxyError>()) {
            return fault.clone();
        }
        let io = error.source().and_then(|e| e.downcast_ref::<io::Error>());
        match (self, io.map(io::Error::kind)) {
            (Self::Host, _) if error.is_parse() => unusable_response(&error.to_string()),
            (Self::Host, _) => {
                let why = io.map_or_else(|| error.to_string(), describe_io_error);
                ProxyError::failed(502, format!("the connection to the host failed: {why}"))
            }
            (Self::Program, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) => {
                let why = io.map(ToString::to_string).unwrap_or_default();
                ProxyError::bad_request(400, format!("the request cannot be forwarded: {why}"))
            }
            (Self::Program, _) => ProxyError::failed(400, "the program closed the connection"),
        }
    }
}

/// A body that is being relayed, without its trailers.
pub(super) struct RelayBody {
    from: Option<Incoming>,
    sender: Peer,
    meter: Arc<ByteMeter>,
    /// Redactor that replaces keys with placeholders.
    redactor: Option<KeyRedactor>,
}

impl RelayBody {
    pub(super) fn new(
        from: Option<Incoming>,
        sender: Peer,
        meter: &Arc<ByteMeter>,
        redactor: Option<KeyRedactor>,
    ) -> Self {
        let from = from.filter(|body| !body.is_end_stream());
        let redactor = redactor.filter(|_| from.is_some());
        Self { from, sender, meter: Arc::clone(meter), redactor }
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        let Some(from) = &mut this.from else { return Poll::Ready(None) };
        loop {
            let piece = match ready!(Pin::new(&mut *from).poll_frame(cx)) {
                Some(Err(error)) => return Poll::Ready(Some(Err(this.sender.describe_error(&error)))),
                Some(Ok(frame)) => {
                    let Ok(piece) = frame.into_data() else { continue };
                    match this.sender {
                        Peer::Program => this.meter.add_sent(piece.len()),
                        Peer::Host => this.meter.add_received(piece.len()),
                    }
                    match &mut this.redactor {
                        Some(redactor) => redactor.push(&piece).into(),
                        None => piece,
                    }
                }
                None => match this.redactor.take() {
                    Some(mut redactor) => redactor.finish().into(),
                    None => return Poll::Ready(None),
                },
            };
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.redactor.is_none() && self.from.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.from {
            None => SizeHint::with_exact(0),
            Some(from) if self.redactor.is_none() => from.size_hint(),
            Some(_) => SizeHint::new(),
        }
    }
}

fn unusable_response(why: &str) -> ProxyError {
    ProxyError::failed(502, format!("the host's response cannot be forwarded: {why}"))
}

/// Prepares the response of a host for the program.
pub(super) fn prepare_response(
    mut response: Response<Incoming>,
    redactor: Option<KeyRedactor>,
    meter: &Arc<ByteMeter>,
) -> Result<Response<RelayBody>, ProxyError> {
    let headers = response.headers();
    let lines = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    meter.add_received(lines.sum::<usize>() + "HTTP/1.1 200 OK\r\n\r\n".len());
    check_response(headers).map_err(|bad| unusable_response(bad.0))?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(unusable_response("it switches protocols without being asked to"));
    }
    strip_hop_by_hop(response.headers_mut());
    response.headers_mut().remove(TRANSFER_ENCODING);
    *response.version_mut() = Version::HTTP_11;
    if let Some(redactor) = &redactor {
        if let Some(why) = unsearchable_reason(&response) {
            return Err(unusable_response(why));
        }
        redact_head(redactor, &mut response);
    }
    Ok(response.map(|body| RelayBody::new(Some(body), Peer::Host, meter, redactor)))
}

/// Redacts keys in a head. hyper reads names in lower case, so they are searched regardless of case.
fn redact_head(redactor: &KeyRedactor, response: &mut Response<Incoming>) {
    let clean = |by: &KeyRedactor, text: &[u8]| by.redact_complete(text).unwrap_or_else(|| text.to_vec());
    let names = redactor.to_lower_case();
    response.headers_mut().remove(CONTENT_LENGTH);
    let mut headers = HeaderMap::new();
    for (name, value) in response.headers() {
        let name = HeaderName::from_bytes(&clean(&names, name.as_str().as_bytes()));
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&clean(redactor, value.as_bytes()))) {
            headers.append(name, value);
        }
    }
    *response.headers_mut() = headers;
    let reason = response.extensions().get().map(|reason: &ReasonPhrase| clean(redactor, reason.as_bytes()));
    // The extensions also contain the names in their original case.
    response.extensions_mut().clear();
    if let Some(Ok(reason)) = reason.map(ReasonPhrase::try_from) {
        response.extensions_mut().insert(reason);
    }
}

/// Returns why a response cannot be searched for keys: it is encoded or partial, although neither was requested.
fn unsearchable_reason(response: &Response<Incoming>) -> Option<&'static str> {
    let coded = |word: &str| !word.is_empty() && !word.eq_ignore_ascii_case("identity");
    let ranges = |kind: &str| kind.to_ascii_lowercase().starts_with("multipart/byteranges");
    let headers = response.headers();
    if tokens(headers, "content-encoding").any(coded) {
        Some("it is compressed although that was not requested, and might contain the key")
    } else if matches!(response.status().as_u16(), 206 | 226)
        || headers.contains_key(CONTENT_RANGE)
        || tokens(headers, "content-type").any(ranges)
    {
        Some("it is partial although all of it was requested, and might contain a part of the key")
    } else {
        None
    }
}
