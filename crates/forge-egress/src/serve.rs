//! One connection from the box: its requests, one after the other, each judged for itself.

use super::Shared;
use super::authority::tls_words;
use super::dial::dial;
use super::fault::Fault;
use super::head::{Authority, Framing, Request};
use super::log::Meter;
use super::relay::{Ended, Ready, exchange};
use super::swap::Swaps;
use super::tunnel;
use super::wire::Wire;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

/// How long a connection to a host is kept for the next request. Hosts close them when they like; soon after the last
/// answer they hardly do.
const FRESH: Duration = Duration::from_secs(15);
/// How long and how far what a program still sends is read after the last answer, so that the answer arrives.
const LINGER: (Duration, usize) = (Duration::from_secs(1), 1 << 20);

/// Where requests come from.
pub(super) enum Scope {
    /// From a program that speaks to a proxy.
    Open,
    /// From inside a tunnel to one host that gets a key, with a connection that is there already.
    Inside {
        to: Authority,
        first: Option<TcpStream>,
        /// Whether they come inside TLS, so that they go on inside TLS.
        secure: bool,
    },
}

/// A connection to a host.
struct Upstream {
    to: Authority,
    wire: Wire,
    since: Instant,
    used: bool,
}

/// What a request asks for.
enum Call {
    Tunnel(Authority),
    Forward(Authority, Box<Ready>),
}

/// Serves a connection from the box until it ends.
pub(super) async fn connection(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    requests(&shared, Wire::new(stream), Scope::Open).await;
}

/// Serves the requests of a connection until it ends.
pub(super) async fn requests(shared: &Arc<Shared>, mut client: Wire, mut scope: Scope) {
    let mut kept = None;
    loop {
        let request = match next(shared, &mut client).await {
            Ok(Some(request)) => request,
            Ok(None) => return close(client).await,
            Err(fault) => {
                refuse(shared, &mut client, scope.host(), &fault, "", false).await;
                return close(client).await;
            }
        };
        let method = request.method.clone();
        let call = match understand(request, &scope) {
            Ok(call) => call,
            Err((to, fault)) => {
                refuse(shared, &mut client, to.as_ref().or(scope.host()), &fault, &method, false).await;
                return close(client).await;
            }
        };
        let again = match call {
            Call::Tunnel(to) => return tunnel::open(shared, client, to).await,
            Call::Forward(to, ready) => forward(shared, &mut client, &mut kept, &mut scope, to, *ready).await,
        };
        if !again {
            return close(client).await;
        }
    }
}

impl Scope {
    const fn host(&self) -> Option<&Authority> {
        match self {
            Self::Open => None,
            Self::Inside { to, .. } => Some(to),
        }
    }
}

/// Notes and answers a fault; gives whether the connection goes on.
pub(super) async fn refuse(
    shared: &Shared,
    client: &mut Wire,
    to: Option<&Authority>,
    fault: &Fault,
    method: &str,
    keep: bool,
) -> bool {
    let (host, port) = to.map_or(("", 0), |to| (to.host.as_str(), to.port));
    shared.log.note(host, port, fault.verdict, &fault.why);
    let sending = async {
        client.writer.write_all(&fault.answer(method, keep)).await?;
        client.writer.flush().await
    };
    matches!(timeout(shared.limits.head, sending).await, Ok(Ok(()))) && keep
}

/// Ends a connection so that what was written last arrives.
pub(super) async fn close(mut client: Wire) {
    let (time, most) = LINGER;
    let ending = async {
        client.writer.shutdown().await?;
        let mut read = 0;
        while read < most {
            match client.reader.fill().await? {
                0 => break,
                count => read += count,
            }
            client.reader.take(usize::MAX);
        }
        io::Result::Ok(())
    };
    let _ = timeout(time, ending).await;
}

/// The next request; `None` if there is none any more.
async fn next(shared: &Shared, client: &mut Wire) -> Result<Option<Request>, Fault> {
    let limits = &shared.limits;
    if client.reader.held().is_empty()
        && !matches!(timeout(limits.keep_alive, client.reader.fill()).await, Ok(Ok(1..)))
    {
        return Ok(None);
    }
    match timeout(limits.head, client.reader.head(limits.head_bytes)).await {
        Err(_) => Err(Fault::request(408, "the head of the request did not come in time")),
        Ok(Err(error)) if error.kind() == io::ErrorKind::FileTooLarge => {
            let most = limits.head_bytes;
            Err(Fault::request(431, format!("the head of the request is longer than {most} bytes")))
        }
        Ok(Err(_) | Ok(None)) => Ok(None),
        Ok(Ok(Some(head))) => Request::parse(&head).map(Some).map_err(Fault::from),
    }
}

/// What the request asks for, ready to be sent. An error names the host as far as it is known.
fn understand(mut request: Request, scope: &Scope) -> Result<Call, (Option<Authority>, Fault)> {
    let framing = request.framing().map_err(|bad| (None, bad.into()))?;
    if request.method == "CONNECT" {
        return connect(&request, framing, scope);
    }
    let (to, path) = target(&request, scope).map_err(|fault| (None, fault))?;
    let default = scope.default_port();
    let bad = |fault: Fault| (Some(to.clone()), fault);
    same_host(&request, &to).map_err(bad)?;
    if request.headers.words("upgrade").any(|w| w.eq_ignore_ascii_case("websocket")) {
        let why = "WebSockets only go through a CONNECT tunnel, and not to a host that gets a key";
        return Err(bad(Fault::request(501, why)));
    }
    let (minor, keep) = (request.minor, request.keeps_alive());
    request.target = path;
    request.headers.strip_hop_by_hop();
    request.headers.remove("host");
    request
        .headers
        .0
        .insert(0, super::head::Header { name: "Host".into(), value: to.written(default).into_bytes() });
    request.headers.frame(framing);
    let ready = Ready { request, minor, framing, keep, scrubber: None };
    Ok(Call::Forward(to, Box::new(ready)))
}

impl Scope {
    const fn is_secure(&self) -> bool {
        matches!(self, Self::Inside { secure: true, .. })
    }

    const fn default_port(&self) -> u16 {
        if self.is_secure() { 443 } else { 80 }
    }
}

fn connect(request: &Request, framing: Framing, scope: &Scope) -> Result<Call, (Option<Authority>, Fault)> {
    if matches!(scope, Scope::Inside { .. }) {
        return Err((
            None,
            Fault::request(405, "there are no tunnels inside a tunnel to a host that gets a key"),
        ));
    }
    let to = Authority::parse(&request.target, None).map_err(|bad| (None, bad.into()))?;
    if !matches!(framing, Framing::Empty | Framing::Length(0)) {
        return Err((Some(to), Fault::request(400, "a CONNECT request has no body")));
    }
    match same_host(request, &to) {
        Ok(()) => Ok(Call::Tunnel(to)),
        Err(fault) => Err((Some(to), fault)),
    }
}

/// Host and path of a request.
fn target(request: &Request, scope: &Scope) -> Result<(Authority, String), Fault> {
    let target = request.target.as_str();
    if target.contains('#') {
        return Err(Fault::request(400, "the request can't be passed on: a fragment is not sent"));
    }
    if let Scope::Inside { to, .. } = scope {
        return if target.starts_with('/') || (target == "*" && request.method == "OPTIONS") {
            Ok((to.clone(), target.to_owned()))
        } else {
            Err(Fault::request(400, "the request can't be passed on: inside a tunnel the target is a path"))
        };
    }
    let rest = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => &target[7..],
        _ if target.starts_with('/') || target == "*" => {
            let why = "this is a proxy: it takes `GET http://host/path` and `CONNECT host:port`";
            return Err(Fault::request(400, why));
        }
        _ => {
            return Err(Fault::request(400, "only http:// goes through here; for anything else use CONNECT"));
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

/// The Host header names the host that was judged; else a front server would be asked for another one behind it.
fn same_host(request: &Request, to: &Authority) -> Result<(), Fault> {
    let Some(host) = request.host()? else { return Ok(()) };
    let named = Authority::parse(host, Some(to.port))?;
    if named == *to {
        return Ok(());
    }
    let why = format!(
        "egress blocked: the Host header names {}, the request goes to {}",
        named.written(0),
        to.written(0)
    );
    Err(Fault::refused(why, "Ask for the host that is meant."))
}

/// Passes a request on; gives whether the program's connection goes on.
async fn forward(
    shared: &Shared,
    client: &mut Wire,
    kept: &mut Option<Upstream>,
    scope: &mut Scope,
    to: Authority,
    ready: Ready,
) -> bool {
    let method = ready.request.method.clone();
    let bodiless = matches!(ready.framing, Framing::Empty | Framing::Length(0));
    let harmless = bodiless && matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS");
    let fault = loop {
        let mut upstream = match upstream(shared, kept, scope, &to).await {
            Ok(upstream) => upstream,
            Err(fault) => {
                let keep = ready.keep && bodiless;
                return refuse(shared, client, Some(&to), &fault, &method, keep).await;
            }
        };
        let mut attempt = ready.clone();
        put_in_keys(&shared.swaps, scope, &to, &mut attempt);
        let used = std::mem::replace(&mut upstream.used, true);
        let meter = Meter::new(&shared.log, &to.host, to.port, shared.limits.idle);
        match exchange(client, &mut upstream.wire, &mut attempt, &meter, shared.limits.head_bytes).await {
            Ended::Whole { client_again, upstream_again } => {
                upstream.since = Instant::now();
                *kept = Some(upstream).filter(|_| upstream_again);
                return client_again;
            }
            // The host closed a connection that was kept just when it was used again.
            Ended::Broken { answered: false, .. } if used && harmless => {}
            Ended::Broken { answered: true, fault } => {
                shared.log.note(&to.host, to.port, fault.verdict, &fault.why);
                return false;
            }
            Ended::Broken { fault, .. } => break fault,
        }
    };
    refuse(shared, client, Some(&to), &fault, &method, false).await
}

/// Headers that ask for a part of an answer, for what changed in it (RFC 3229), or for other bytes than those of the text.
const PARTIAL: [&str; 4] = ["range", "if-range", "a-im", "accept-charset"];

/// Puts the keys of the host in. Answers of such hosts are searched for them, so they must come as plain text and whole.
fn put_in_keys(swaps: &BTreeMap<String, Swaps>, scope: &Scope, to: &Authority, ready: &mut Ready) {
    let Some(swaps) = swaps.get(&to.host) else { return };
    let headers = &mut ready.request.headers;
    headers.remove("accept-encoding");
    headers.add("Accept-Encoding", "identity");
    // Also where no key is put in: a host may keep one from before, and a part of an answer can hold a part of a key.
    for partial in PARTIAL {
        headers.remove(partial);
    }
    // Nobody speaks plain HTTP at the port of TLS: the key would only be shown to the wire.
    let shows_the_wire = !scope.is_secure() && to.port == 443;
    let scrubber = if shows_the_wire { swaps.search() } else { swaps.put_in(headers) };
    ready.scrubber = Some(scrubber);
}

/// A connection to the host: the one that was kept, if it still stands, or a new one.
async fn upstream(
    shared: &Shared,
    kept: &mut Option<Upstream>,
    scope: &mut Scope,
    to: &Authority,
) -> Result<Upstream, Fault> {
    if let Some(mut upstream) = kept.take().filter(|u| u.to == *to && u.since.elapsed() < FRESH) {
        // Nothing is to come before the next request: what comes, an end above all, makes it unusable.
        let silent = timeout(Duration::ZERO, upstream.wire.reader.fill()).await.is_err();
        if silent && upstream.wire.reader.held().is_empty() {
            return Ok(upstream);
        }
    }
    let first = if let Scope::Inside { first, .. } = scope { first.take() } else { None };
    let stream = match first {
        Some(stream) => stream,
        None => dial(shared, to).await?,
    };
    let wire = match scope.is_secure() {
        false => Wire::new(stream),
        true => {
            let tls = shared.tls.as_ref().ok_or_else(|| Fault::failed(502, "there is no TLS here"))?;
            match timeout(shared.limits.connect, tls.connect(&to.host, stream)).await {
                Ok(Ok(stream)) => Wire::new(stream),
                Ok(Err(error)) => {
                    return Err(Fault::failed(
                        502,
                        format!("TLS with {} failed: {}", to.host, tls_words(&error)),
                    ));
                }
                Err(_) => {
                    return Err(Fault::failed(504, format!("TLS with {} was not done in time", to.host)));
                }
            }
        }
    };
    Ok(Upstream { to: to.clone(), wire, since: Instant::now(), used: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swap::{Secret, by_host};
    use forge_types::{EgressRules, KeySwap};
    use std::collections::BTreeMap;

    #[test]
    fn where_no_key_is_put_in_an_answer_is_searched_all_the_same() {
        let swap = KeySwap { host: "h.test".into(), variable: "KEY".into() };
        let rules = EgressRules::new(&["h.test".to_owned()], vec![swap]).unwrap();
        let keys = BTreeMap::from([("KEY".to_owned(), Secret::new("sk-0123456789"))]);
        let swaps = by_host(&rules, &keys).ok().unwrap();
        let (plain, secure) = (Scope::Open, |secure| Scope::Inside {
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
            let mut ready = Ready { request, minor: 1, framing: Framing::Empty, keep: true, scrubber: None };
            let to = Authority { host: "h.test".into(), port };
            put_in_keys(&swaps, scope, &to, &mut ready);
            let said = String::from_utf8(ready.request.bytes()).unwrap();
            assert_eq!(said.contains("sk-0123456789"), put_in, "{port}: {said}");
            assert!(!said.contains("Range") && said.contains("Accept-Encoding: identity"), "{said}");
            let back = ready.scrubber.unwrap().whole(b"<sk-0123456789>");
            assert_eq!(back.as_deref(), Some(&b"<forge-key-key>"[..]), "{port}");
        }
    }
}
