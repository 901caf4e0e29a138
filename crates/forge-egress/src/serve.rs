//! Connections from the sandbox. Their requests are handled in order, and each is checked separately.

use super::ProxyState;
use super::dial::dial_host;
use super::head::{Authority, BodyFraming, Request};
use super::key_injection::KeyInjector;
use super::log::ByteMeter;
use super::proxy_error::ProxyError;
use super::relay::{ExchangeOutcome, OutboundRequest, run_exchange};
use super::tls::describe_tls_error;
use super::tunnel;
use super::wire::SplitConnection;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// Maximum time for which a connection to a host is kept for the next request. Hosts may close them at any time, but
/// rarely do so soon after the last response.
const MAX_UPSTREAM_IDLE: Duration = Duration::from_secs(15);
/// Limits on the time and bytes for draining the program's input after the last response, so that the response arrives.
const MAX_LINGER_TIME_AND_BYTES: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

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
    wire: SplitConnection,
    since: Instant,
    used: bool,
}

/// The action that a request asks for.
enum RequestAction {
    Tunnel(Authority),
    Forward(Authority, Box<OutboundRequest>),
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
    mut scope: RequestSource,
) {
    let mut kept = None;
    loop {
        let request = match next_request(shared, &mut client).await {
            Ok(Some(request)) => request,
            Ok(None) => return linger_close(client).await,
            Err(fault) => {
                send_refusal(shared, &mut client, scope.host(), &fault, "", false).await;
                return linger_close(client).await;
            }
        };
        let method = request.method.clone();
        let call = match interpret_request(request, &scope) {
            Ok(call) => call,
            Err((to, fault)) => {
                send_refusal(shared, &mut client, to.as_ref().or(scope.host()), &fault, &method, false).await;
                return linger_close(client).await;
            }
        };
        let again = match call {
            RequestAction::Tunnel(to) => return tunnel::serve_connect(shared, client, to).await,
            RequestAction::Forward(to, ready) => {
                forward_request(shared, &mut client, &mut kept, &mut scope, to, *ready).await
            }
        };
        if !again {
            return linger_close(client).await;
        }
    }
}

impl RequestSource {
    const fn host(&self) -> Option<&Authority> {
        match self {
            Self::Open => None,
            Self::Inside { to, .. } => Some(to),
        }
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
    let (host, port) = to.map_or(("", 0), |to| (to.host.as_str(), to.port));
    shared.log.record_attempt(host, port, fault.verdict, &fault.why);
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
        let mut read = 0;
        while read < most {
            match client.reader.fill_buffer().await? {
                0 => break,
                count => read += count,
            }
            client.reader.consume(usize::MAX);
        }
        io::Result::Ok(())
    };
    let _ = timeout(time, ending).await;
}

/// Reads the next request; returns `None` if there are no more.
async fn next_request(
    shared: &ProxyState,
    client: &mut SplitConnection,
) -> Result<Option<Request>, ProxyError> {
    let limits = &shared.limits;
    if client.reader.buffered().is_empty()
        && !matches!(timeout(limits.keep_alive, client.reader.fill_buffer()).await, Ok(Ok(1..)))
    {
        return Ok(None);
    }
    match timeout(limits.head, client.reader.read_head(limits.head_bytes)).await {
        Err(_) => Err(ProxyError::bad_request(408, "the request head did not arrive in time")),
        Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
            let most = limits.head_bytes;
            Err(ProxyError::bad_request(431, format!("the request head is longer than {most} bytes")))
        }
        Ok(Err(_) | Ok(None)) => Ok(None),
        Ok(Ok(Some(head))) => Request::parse(&head).map(Some).map_err(ProxyError::from),
    }
}

/// Converts a request into an action that is ready to be performed. An error names the host as far as it is known.
fn interpret_request(
    mut request: Request,
    scope: &RequestSource,
) -> Result<RequestAction, (Option<Authority>, ProxyError)> {
    let framing = request.body_framing().map_err(|bad| (None, bad.into()))?;
    if request.method == "CONNECT" {
        return interpret_connect(&request, framing, scope);
    }
    let (to, path) = parse_target(&request, scope).map_err(|fault| (None, fault))?;
    let default = scope.default_port();
    let bad = |fault: ProxyError| (Some(to.clone()), fault);
    check_host_header(&request, &to).map_err(bad)?;
    if request.headers.tokens("upgrade").any(|w| w.eq_ignore_ascii_case("websocket")) {
        let why = "WebSockets work only through a CONNECT tunnel, and not to a host that gets a key";
        return Err(bad(ProxyError::bad_request(501, why)));
    }
    let (minor, keep) = (request.minor, request.is_persistent());
    request.target = path;
    request.headers.strip_hop_by_hop();
    request.headers.remove("host");
    request.headers.0.insert(
        0,
        super::head::HeaderLine { name: "Host".into(), value: to.to_host_header(default).into_bytes() },
    );
    request.headers.add_framing(framing);
    let ready = OutboundRequest { request, minor, framing, keep, redactor: None };
    Ok(RequestAction::Forward(to, Box::new(ready)))
}

impl RequestSource {
    const fn is_secure(&self) -> bool {
        matches!(self, Self::Inside { secure: true, .. })
    }

    const fn default_port(&self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }
}

fn interpret_connect(
    request: &Request,
    framing: BodyFraming,
    scope: &RequestSource,
) -> Result<RequestAction, (Option<Authority>, ProxyError)> {
    if matches!(scope, RequestSource::Inside { .. }) {
        return Err((
            None,
            ProxyError::bad_request(
                405,
                "tunnels inside a tunnel to a host that gets a key are not supported",
            ),
        ));
    }
    let to = Authority::parse(&request.target, None).map_err(|bad| (None, bad.into()))?;
    if !matches!(framing, BodyFraming::Empty | BodyFraming::Length(0)) {
        return Err((Some(to), ProxyError::bad_request(400, "a CONNECT request must not have a body")));
    }
    match check_host_header(request, &to) {
        Ok(()) => Ok(RequestAction::Tunnel(to)),
        Err(fault) => Err((Some(to), fault)),
    }
}

/// Returns the host and path of a request.
fn parse_target(request: &Request, scope: &RequestSource) -> Result<(Authority, String), ProxyError> {
    let target = request.target.as_str();
    if target.contains('#') {
        return Err(ProxyError::bad_request(
            400,
            "the request cannot be forwarded: its target contains a fragment",
        ));
    }
    if let RequestSource::Inside { to, .. } = scope {
        return if target.starts_with('/') || (target == "*" && request.method == "OPTIONS") {
            Ok((to.clone(), target.to_owned()))
        } else {
            Err(ProxyError::bad_request(
                400,
                "the request cannot be forwarded: inside a tunnel the target must be a path",
            ))
        };
    }
    let rest = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => &target[7..],
        _ if target.starts_with('/') || target == "*" => {
            let why = "this is a proxy: it accepts `GET http://host/path` and `CONNECT host:port`";
            return Err(ProxyError::bad_request(400, why));
        }
        _ => {
            return Err(ProxyError::bad_request(
                400,
                "only http:// URLs are forwarded; use CONNECT for anything else",
            ));
        }
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path {
        "" if request.method == "OPTIONS" => "*".to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("/{path}"),
    };
    Ok((Authority::parse(authority, Some(80))?, path))
}

/// Checks that the Host header names the permitted host; otherwise a front-end server could be asked for another host.
fn check_host_header(request: &Request, to: &Authority) -> Result<(), ProxyError> {
    let Some(host) = request.host_header()? else { return Ok(()) };
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

/// Forwards a request; returns whether the program's connection can be kept.
async fn forward_request(
    shared: &ProxyState,
    client: &mut SplitConnection,
    kept: &mut Option<UpstreamConnection>,
    scope: &mut RequestSource,
    to: Authority,
    ready: OutboundRequest,
) -> bool {
    let method = ready.request.method.clone();
    let bodiless = matches!(ready.framing, BodyFraming::Empty | BodyFraming::Length(0));
    let harmless = bodiless && matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS");
    let fault = loop {
        let mut upstream = match acquire_upstream(shared, kept, scope, &to).await {
            Ok(upstream) => upstream,
            Err(fault) => {
                let keep = ready.keep && bodiless;
                return send_refusal(shared, client, Some(&to), &fault, &method, keep).await;
            }
        };
        let mut attempt = ready.clone();
        inject_keys(&shared.injectors, scope, &to, &mut attempt);
        let used = std::mem::replace(&mut upstream.used, true);
        let meter = ByteMeter::new(&shared.log, &to.host, to.port, shared.limits.idle);
        match run_exchange(client, &mut upstream.wire, &mut attempt, &meter, shared.limits.head_bytes).await {
            ExchangeOutcome::Complete { client_again, upstream_again } => {
                upstream.since = Instant::now();
                *kept = Some(upstream).filter(|_| upstream_again);
                return client_again;
            }
            // The host closed a kept connection just as it was reused.
            ExchangeOutcome::Broken { answered: false, .. } if used && harmless => {}
            ExchangeOutcome::Broken { answered: true, fault } => {
                shared.log.record_attempt(&to.host, to.port, fault.verdict, &fault.why);
                return false;
            }
            ExchangeOutcome::Broken { fault, .. } => break fault,
        }
    };
    send_refusal(shared, client, Some(&to), &fault, &method, false).await
}

/// Headers that request part of a response, changes to it (RFC 3229), or another character encoding.
const PARTIAL_HEADERS: [&str; 4] = ["range", "if-range", "a-im", "accept-charset"];

/// Injects the keys of the host. Responses of such hosts are searched for keys, so they must be complete and unencoded.
fn inject_keys(
    swaps: &BTreeMap<String, KeyInjector>,
    scope: &RequestSource,
    to: &Authority,
    ready: &mut OutboundRequest,
) {
    let Some(swaps) = swaps.get(&to.host) else { return };
    let headers = &mut ready.request.headers;
    headers.remove("accept-encoding");
    headers.add("Accept-Encoding", "identity");
    // Also where no key is injected: a host may still know one from before, and a partial response can contain part of
    // a key.
    for partial in PARTIAL_HEADERS {
        headers.remove(partial);
    }
    // No server uses plain HTTP on the TLS port, so the key would only be exposed on the wire.
    let shows_the_wire = !scope.is_secure() && to.port == 443;
    let scrubber = if shows_the_wire { swaps.response_redactor() } else { swaps.inject_into(headers) };
    ready.redactor = Some(scrubber);
}

/// Returns a connection to the host: the kept one if it is still open, otherwise a new one.
async fn acquire_upstream(
    shared: &ProxyState,
    kept: &mut Option<UpstreamConnection>,
    scope: &mut RequestSource,
    to: &Authority,
) -> Result<UpstreamConnection, ProxyError> {
    if let Some(mut upstream) = kept.take().filter(|u| u.to == *to && u.since.elapsed() < MAX_UPSTREAM_IDLE) {
        // Nothing may arrive before the next request: any data, and above all an end of file, makes the connection
        // unusable.
        let silent = timeout(Duration::ZERO, upstream.wire.reader.fill_buffer()).await.is_err();
        if silent && upstream.wire.reader.buffered().is_empty() {
            return Ok(upstream);
        }
    }
    let first = if let RequestSource::Inside { first, .. } = scope { first.take() } else { None };
    let stream = match first {
        Some(stream) => stream,
        None => dial_host(shared, to).await?,
    };
    let wire = match scope.is_secure() {
        false => SplitConnection::new(stream),
        true => {
            let tls = shared.tls.as_ref().ok_or_else(|| ProxyError::failed(502, "TLS is not set up"))?;
            match timeout(shared.limits.connect, tls.connect(&to.host, stream)).await {
                Ok(Ok(stream)) => SplitConnection::new(stream),
                Ok(Err(error)) => {
                    return Err(ProxyError::failed(
                        502,
                        format!("TLS with {} failed: {}", to.host, describe_tls_error(&error)),
                    ));
                }
                Err(_) => {
                    return Err(ProxyError::failed(
                        504,
                        format!("the TLS handshake with {} did not finish in time", to.host),
                    ));
                }
            }
        }
    };
    Ok(UpstreamConnection { to: to.clone(), wire, since: Instant::now(), used: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_injection::{EgressKey, injectors_by_host};
    use forge_types::{EgressRules, KeySwap};
    use std::collections::BTreeMap;

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
            let head =
                b"GET / HTTP/1.1\r\nX: forge-key-key\r\nRange: bytes=0-4\r\nAccept-Encoding: br\r\n\r\n";
            let request = Request::parse(head).unwrap();
            let mut ready = OutboundRequest {
                request,
                minor: 1,
                framing: BodyFraming::Empty,
                keep: true,
                redactor: None,
            };
            let to = Authority { host: "h.test".into(), port };
            inject_keys(&swaps, scope, &to, &mut ready);
            let said = String::from_utf8(ready.request.to_bytes()).unwrap();
            assert_eq!(said.contains("sk-0123456789"), put_in, "{port}: {said}");
            assert!(!said.contains("Range") && said.contains("Accept-Encoding: identity"), "{said}");
            let back = ready.redactor.unwrap().redact_complete(b"<sk-0123456789>");
            assert_eq!(back.as_deref(), Some(&b"<forge-key-key>"[..]), "{port}");
        }
    }
}
