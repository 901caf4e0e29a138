//! Connections from the sandbox. Their requests are handled in order, and each is checked separately. hyper parses each
//! request and writes it again for the host, so that nothing but these requests reaches it.

use super::ProxyState;
use super::dial::dial_host;
use super::head::{Authority, BadHead, MAX_HEADERS, check_request, encode_target, strip_hop_by_hop, tokens};
use super::key_injection::{KeyInjector, KeyRedactor};
use super::log::ByteMeter;
use super::proxy_error::ProxyError;
use super::relay::{Peer, RelayBody, prepare_response};
use super::tls::describe_tls_error;
use super::tunnel;
use super::wire::{ByteStream, SplitConnection};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as client, SendRequest};
use hyper::header::{ACCEPT_ENCODING, CONNECTION, HOST, HeaderMap, HeaderValue};
use hyper::http::request::Parts;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, Uri, Version};
use hyper_util::rt::TokioIo;
use std::collections::BTreeMap;
use std::future::{pending, poll_fn};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};

/// Maximum time for which a connection to a host is kept for the next request. Hosts may close them at any time, but
/// rarely do so soon after the last response.
const MAX_UPSTREAM_IDLE: Duration = Duration::from_secs(15);
/// Limits on the time and bytes for draining the program's input after the last response, so that the response arrives.
const MAX_LINGER_TIME_AND_BYTES: (Duration, u64) = (Duration::from_secs(1), 1 << 20);
/// Minimum size in bytes of a buffer that hyper accepts.
const MIN_BUFFER_BYTES: usize = 8 << 10;

/// The origin of requests.
pub(super) enum RequestSource {
    /// A program that speaks to a proxy.
    Open,
    /// A tunnel to one host that gets a key, with an existing connection.
    Inside {
        to: Authority,
        first: Option<TcpStream>,
        /// Whether the requests arrive by TLS and are therefore forwarded by TLS.
        secure: bool,
    },
}

/// A connection to a host.
struct UpstreamConnection {
    to: Authority,
    sender: SendRequest<RelayBody>,
    since: Instant,
}

/// A request that hyper has parsed, and the way to respond to it.
type ReceivedRequest = (Request<Incoming>, oneshot::Sender<Response<RelayBody>>);

/// The end of a request: the host if the program asks for a tunnel.
type RequestEnd = Result<Option<Authority>, ProxyError>;

/// The requests of one connection from the sandbox, and the state of the current one.
struct RequestSequence<'a> {
    shared: &'a ProxyState,
    scope: RequestSource,
    kept: Option<UpstreamConnection>,
    to: Option<Authority>,
    method: Method,
    /// Whether the program has received part of a response.
    answered: bool,
    /// Whether the program's connection can be kept after the response.
    keep: bool,
}

/// Serves a connection from the sandbox until it ends.
pub(super) async fn serve_connection(shared: Arc<ProxyState>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    serve_requests(&shared, SplitConnection::new(stream), RequestSource::Open).await;
}

/// Serves the requests of a connection until it ends.
pub(super) async fn serve_requests(
    shared: &Arc<ProxyState>,
    mut client: SplitConnection,
    scope: RequestSource,
) {
    let (kept, to, method) = (None, None, Method::default());
    let mut requests = RequestSequence { shared, scope, kept, to, method, answered: false, keep: true };
    while requests.keep {
        match requests.serve_next(&mut client).await {
            Ok(None) => {}
            Ok(Some(to)) => return tunnel::serve_connect(shared, client, to).await,
            Err(fault) if requests.answered => {
                shared.log.record_fault(requests.to.as_ref(), &fault);
                requests.keep = false;
            }
            Err(fault) => {
                let (to, method) = (requests.to.as_ref(), requests.method.as_str());
                requests.keep = send_refusal(shared, &mut client, to, &fault, method, requests.keep).await;
            }
        }
    }
    linger_close(client).await;
}

impl RequestSource {
    const fn host(&self) -> Option<&Authority> {
        match self {
            Self::Open => None,
            Self::Inside { to, .. } => Some(to),
        }
    }

    const fn is_secure(&self) -> bool {
        matches!(self, Self::Inside { secure: true, .. })
    }
}

/// Logs an error and sends it as a response. Returns whether the connection can be kept.
pub(super) async fn send_refusal(
    shared: &ProxyState,
    client: &mut SplitConnection,
    to: Option<&Authority>,
    fault: &ProxyError,
    method: &str,
    keep: bool,
) -> bool {
    shared.log.record_fault(to, fault);
    let sending = async {
        client.writer.write_all(&fault.to_response(method, keep)).await?;
        client.writer.flush().await
    };
    matches!(timeout(shared.limits.head, sending).await, Ok(Ok(()))) && keep
}

/// Closes a connection so that the last response arrives.
pub(super) async fn linger_close(mut client: SplitConnection) {
    let (time, most) = MAX_LINGER_TIME_AND_BYTES;
    let ending = async {
        client.writer.shutdown().await?;
        tokio::io::copy(&mut client.reader.from.take(most), &mut tokio::io::sink()).await
    };
    let _ = timeout(time, ending).await;
}

impl RequestSequence<'_> {
    /// Waits for the next request and serves it.
    async fn serve_next(&mut self, client: &mut SplitConnection) -> RequestEnd {
        (self.to, self.method) = (self.scope.host().cloned(), Method::default());
        (self.answered, self.keep) = (false, false);
        let (limits, reader) = (&self.shared.limits, &mut client.reader);
        if reader.pending.is_empty()
            && !matches!(timeout(limits.keep_alive, reader.fill_buffer()).await, Ok(Ok(1..)))
        {
            return Ok(None);
        }
        let head = match timeout(limits.head, reader.read_head(limits.head_bytes)).await {
            Ok(Ok(head)) => encode_target(&mut reader.pending, head),
            Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
                let most = limits.head_bytes;
                let why = format!("the request head is longer than {most} bytes");
                return Err(ProxyError::bad_request(431, why));
            }
            Ok(Err(_)) => return Ok(None),
            Err(_) => return Err(ProxyError::bad_request(408, "the request head did not arrive in time")),
        };
        let length = check_request(&reader.pending[..head])?;
        self.serve(client, head, length).await
    }

    /// Serves a request with a head and a body of these lengths. hyper gets a connection that ends behind it, so that it
    /// does not read the next request before the check of its head.
    async fn serve(&mut self, client: &mut SplitConnection, head: usize, length: Option<u64>) -> RequestEnd {
        let (requests, received) = mpsc::channel(1);
        let service = service_fn(move |request| {
            let (responder, response) = oneshot::channel();
            // A request that is not taken gets no response, which ends the connection.
            let _ = requests.try_send((request, responder));
            response
        });
        let most = length.map_or(u64::MAX, |length| length.saturating_add(head as u64));
        let bytes = io::Cursor::new(std::mem::take(&mut client.reader.pending));
        let input = bytes.chain(&mut client.reader.from).take(most);
        let mut connection = server::Builder::new()
            .half_close(true)
            .auto_date_header(false)
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MIN_BUFFER_BYTES.max(self.shared.limits.head_bytes).max(head))
            .serve_connection(TokioIo::new(tokio::io::join(input, &mut client.writer)), service);
        let outcome = tokio::select! {
            biased;
            done = poll_fn(|cx| connection.poll_without_shutdown(cx)) => {
                done.map(|()| None).map_err(|error| Peer::Program.describe_error(&error))
            }
            outcome = self.answer(received, head, length) => outcome,
        };
        let parts = connection.into_parts();
        let input = parts.io.into_inner().into_inner().0;
        self.keep &= parts.read_buf.is_empty() && input.limit() == 0;
        let bytes = input.into_inner().into_inner().0;
        let read = usize::try_from(bytes.position()).unwrap_or(usize::MAX);
        client.reader.pending = bytes.into_inner().split_off(read);
        outcome
    }

    /// Waits for the request from hyper, forwards it, and hands the response to hyper. Returns only if that fails.
    async fn answer(
        &mut self,
        mut received: mpsc::Receiver<ReceivedRequest>,
        head: usize,
        length: Option<u64>,
    ) -> RequestEnd {
        let Some((request, responder)) = received.recv().await else { return pending().await };
        let (mut request, body) = request.into_parts();
        self.method = request.method.clone();
        let closes = |name| tokens(&request.headers, name).any(|word| word.eq_ignore_ascii_case("close"));
        let keep =
            request.version == Version::HTTP_11 && !closes("connection") && !closes("proxy-connection");
        let to = interpret_request(&mut request, length, &self.scope, &mut self.to)?;
        if self.method == Method::CONNECT {
            return Ok(Some(to));
        }
        let harmless = length == Some(0) && matches!(self.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        let late = || ProxyError::failed(504, "the host did not respond in time");
        let mut body = Some(body);
        loop {
            self.keep = keep && length == Some(0);
            let (mut upstream, used) = self.acquire_upstream(&to).await?;
            self.keep = false;
            let shared = self.shared;
            let meter = Arc::new(ByteMeter::new(&shared.log, &to.host, to.port, shared.limits.idle));
            let mut attempt = request.clone();
            let redactor = inject_keys(&shared.injectors, &self.scope, &to, &mut attempt.headers);
            let outgoing = RelayBody::new(body.take(), Peer::Program, &meter, None);
            meter.add_sent(head);
            let sending = upstream.sender.send_request(Request::from_parts(attempt, outgoing));
            let response = tokio::select! {
                sent = sending => sent.map_err(|error| Peer::Host.describe_error(&error)),
                () = meter.wait_idle() => Err(late()),
            };
            match response.and_then(|response| prepare_response(response, redactor, &meter)) {
                Ok(mut response) => {
                    self.keep = keep && length.is_some();
                    if !self.keep {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    (self.kept, self.answered) = (Some(upstream), true);
                    // If hyper does not want the response, the connection with the program has ended.
                    let _ = responder.send(response);
                    meter.wait_idle().await;
                    return Err(late());
                }
                // The host closed a kept connection just as it was reused.
                Err(_) if used && harmless => {}
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Returns a connection to the host, and whether it was used before: the kept one if it is still open, otherwise a new
    /// one.
    async fn acquire_upstream(&mut self, to: &Authority) -> Result<(UpstreamConnection, bool), ProxyError> {
        let open = |kept: &UpstreamConnection| kept.to == *to && kept.since.elapsed() < MAX_UPSTREAM_IDLE;
        if let Some(mut upstream) = self.kept.take().filter(open)
            && matches!(timeout(self.shared.limits.connect, upstream.sender.ready()).await, Ok(Ok(())))
        {
            upstream.since = Instant::now();
            return Ok((upstream, true));
        }
        let first =
            if let RequestSource::Inside { first, .. } = &mut self.scope { first.take() } else { None };
        let stream = match first {
            Some(stream) => stream,
            None => dial_host(self.shared, to).await?,
        };
        let stream: Box<dyn ByteStream> = match (&self.shared.tls, self.scope.is_secure()) {
            (_, false) => Box::new(stream),
            (None, true) => return Err(ProxyError::failed(502, "TLS is not set up")),
            (Some(tls), true) => {
                let late = format!("the TLS handshake with {} did not finish in time", to.host);
                let connecting = timeout(self.shared.limits.connect, tls.connect(&to.host, stream)).await;
                let connected = connecting.map_err(|_| ProxyError::failed(504, late))?;
                Box::new(connected.map_err(|error| {
                    let why = describe_tls_error(&error);
                    ProxyError::failed(502, format!("TLS with {} failed: {why}", to.host))
                })?)
            }
        };
        let (sender, connection) = client::Builder::new()
            .title_case_headers(true)
            .preserve_header_case(true)
            .max_headers(MAX_HEADERS)
            .max_buf_size(self.shared.limits.head_bytes.max(MIN_BUFFER_BYTES))
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Peer::Host.describe_error(&error))?;
        // It ends when neither the sender nor a body is in use any more; the sender gets its error.
        tokio::spawn(connection);
        Ok((UpstreamConnection { to: to.clone(), sender, since: Instant::now() }, false))
    }
}

/// Checks a request and turns it into the one for the host, which it returns and stores as soon as it is known.
fn interpret_request(
    request: &mut Parts,
    length: Option<u64>,
    scope: &RequestSource,
    known: &mut Option<Authority>,
) -> Result<Authority, ProxyError> {
    let connect = request.method == Method::CONNECT;
    if connect && scope.host().is_some() {
        let why = "tunnels inside a tunnel to a host that gets a key are not supported";
        return Err(ProxyError::bad_request(405, why));
    }
    let to = match connect {
        true => Authority::parse(&request.uri.to_string(), None)?,
        false => parse_target(request, scope)?,
    };
    *known = Some(to.clone());
    if connect && length != Some(0) {
        return Err(ProxyError::bad_request(400, "a CONNECT request must not have a body"));
    }
    check_host_header(request, &to)?;
    if connect {
        return Ok(to);
    }
    if tokens(&request.headers, "upgrade").any(|word| word.eq_ignore_ascii_case("websocket")) {
        let why = "WebSockets work only through a CONNECT tunnel, and not to a host that gets a key";
        return Err(ProxyError::bad_request(501, why));
    }
    strip_hop_by_hop(&mut request.headers);
    let host = HeaderValue::from_str(&to.to_host_header(if scope.is_secure() { 443 } else { 80 }));
    request.headers.insert(HOST, host.map_err(|_| BadHead("the host is not ASCII"))?);
    request.uri = request.uri.path_and_query().cloned().map(Uri::from).unwrap_or_default();
    request.version = Version::HTTP_11;
    Ok(to)
}

/// Returns the host of a request other than CONNECT.
fn parse_target(request: &Parts, scope: &RequestSource) -> Result<Authority, ProxyError> {
    let uri = &request.uri;
    let starred = uri.path() == "*" && request.method != Method::OPTIONS;
    let why = match (scope, uri.scheme_str(), uri.authority()) {
        (RequestSource::Inside { to, .. }, None, None) if !starred => return Ok(to.clone()),
        (RequestSource::Inside { .. }, ..) => {
            "the request cannot be forwarded: inside a tunnel the target must be a path"
        }
        (_, Some("http"), Some(authority)) => return Ok(Authority::parse(authority.as_str(), Some(80))?),
        (_, None, None) => "this is a proxy: it accepts `GET http://host/path` and `CONNECT host:port`",
        _ => "only http:// URLs are forwarded; use CONNECT for anything else",
    };
    Err(ProxyError::bad_request(400, why))
}

/// Checks that the Host header names the permitted host; otherwise a front-end server could be asked for another host.
fn check_host_header(request: &Parts, to: &Authority) -> Result<(), ProxyError> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version == Version::HTTP_10 => return Ok(()),
        (None, _) => return Err(BadHead("the Host header is missing").into()),
        (Some(host), None) => host.to_str().map_err(|_| BadHead("the Host header is not ASCII"))?,
        _ => return Err(BadHead("there are two Host headers").into()),
    };
    let named = Authority::parse(host, Some(to.port))?;
    if named == *to {
        return Ok(());
    }
    let why = format!(
        "egress blocked: the Host header names {}, but the request goes to {}",
        named.to_host_header(0),
        to.to_host_header(0)
    );
    Err(ProxyError::refused(why, "Use the same host in the request target and the Host header."))
}

/// Headers that request part of a response, changes to it (RFC 3229), or another character encoding.
const PARTIAL_HEADERS: [&str; 4] = ["range", "if-range", "a-im", "accept-charset"];

/// Injects the keys of the host. Responses of such hosts are searched for keys, so they must be complete and unencoded.
fn inject_keys(
    swaps: &BTreeMap<String, KeyInjector>,
    scope: &RequestSource,
    to: &Authority,
    headers: &mut HeaderMap,
) -> Option<KeyRedactor> {
    let swaps = swaps.get(&to.host)?;
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    // Also where no key is injected: a host may still know one from before, and a partial response can contain part of
    // a key.
    for partial in PARTIAL_HEADERS {
        headers.remove(partial);
    }
    // No server uses plain HTTP on the TLS port, so the key would only be exposed on the wire.
    let shows_the_wire = !scope.is_secure() && to.port == 443;
    Some(if shows_the_wire { swaps.response_redactor() } else { swaps.inject_into(headers) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_injection::{EgressKey, injectors_by_host};
    use forge_types::{EgressRules, KeySwap};
    use hyper::header::HeaderName;

    #[test]
    fn where_no_key_is_put_in_an_answer_is_searched_all_the_same() {
        let swap = KeySwap { host: "h.test".into(), variable: "KEY".into() };
        let rules = EgressRules::new(&["h.test".to_owned()], vec![swap]).unwrap();
        let keys = BTreeMap::from([("KEY".to_owned(), EgressKey::new("sk-0123456789"))]);
        let swaps = injectors_by_host(&rules, &keys).ok().unwrap();
        let (plain, secure) = (RequestSource::Open, |secure| RequestSource::Inside {
            to: Authority { host: "h.test".into(), port: 443 },
            first: None,
            secure,
        });
        for (scope, port, put_in) in [
            (&plain, 80, true),
            (&plain, 443, false),
            (&secure(false), 443, false),
            (&secure(true), 443, true),
        ] {
            let mut headers: HeaderMap =
                [("x", "forge-key-key"), ("range", "bytes=0-4"), ("accept-encoding", "br")]
                    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
                    .into_iter()
                    .collect();
            let to = Authority { host: "h.test".into(), port };
            let redactor = inject_keys(&swaps, scope, &to, &mut headers).unwrap();
            assert_eq!(headers["x"] == "sk-0123456789", put_in, "{port}: {headers:?}");
            assert!(
                !headers.contains_key("range") && headers["accept-encoding"] == "identity",
                "{headers:?}"
            );
            let back = redactor.redact_complete(b"<sk-0123456789>");
            assert_eq!(back.as_deref(), Some(&b"<forge-key-key>"[..]), "{port}");
        }
    }
}
