//! One HTTP attempt: send, check, read the stream piece by piece. No retry, no redirect, no cookie.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use forge_ports::Deltas;
use forge_ports::model::Error;
use forge_types::{ModelReply, ModelRequest, Usage};
use reqwest::{Client, Response};
use serde_json::Value;

use crate::assembly::{Assembly, Fault};
use crate::errors::{self, Asked};
use crate::options::{Key, Options};
use crate::retry_after::retry_after;
use crate::service::Provider;
use crate::shape::{Decode, Encoded, Framing, Progress};
use crate::sse::{Event, Ndjson, Sse};

/// The longest error body read, in bytes.
const ERROR_BYTES: usize = 64 << 10;
/// How long the end of the body is waited for after the terminal event, so that the connection can be used again.
const DRAIN: Duration = Duration::from_millis(50);
/// Bytes per token when usage must be estimated; what English text and code come to, rounded down.
const BYTES_PER_TOKEN: u64 = 4;

/// Whether a request may go over a connection that an earlier one left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// Yes.
    Kept,
    /// No, it gets a connection of its own.
    Fresh,
}

/// What is known of a provider's way with connections that stay open.
///
/// llama.cpp's server promises to keep a connection and then closes it under the next request. Such a request was
/// never looked at (RFC 9112, 9.3.1), so it is sent again over a connection of its own, within the same attempt;
/// from then on that server gets no other kind.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// Whether a request has left a connection open.
    any: AtomicBool,
    /// Whether one died under a request.
    broken: AtomicBool,
}

impl Keeping {
    fn reuse(&self) -> Reuse {
        if self.broken.load(Ordering::Relaxed) { Reuse::Fresh } else { Reuse::Kept }
    }

    fn kept(&self) -> bool {
        self.reuse() == Reuse::Kept && self.any.load(Ordering::Relaxed)
    }
}

/// The HTTP clients, each built at its first use: a program that talks to a local server never loads the system's
/// certificates.
#[derive(Debug)]
pub(crate) struct Clients {
    plain: [OnceLock<Result<Client, String>>; 2],
    secure: [OnceLock<Result<Client, String>>; 2],
    connect_timeout: Duration,
    proxy: Option<String>,
}

impl Clients {
    pub(crate) fn new(options: &Options) -> Self {
        Self {
            plain: Default::default(),
            secure: Default::default(),
            connect_timeout: options.connect_timeout,
            proxy: options.proxy.clone(),
        }
    }

    /// The client for a URL's scheme.
    fn for_url(&self, url: &str, reuse: Reuse) -> Result<&Client, Error> {
        let place = usize::from(reuse == Reuse::Fresh);
        let client = if url.starts_with("https:") {
            self.secure[place].get_or_init(|| self.secure_client(reuse))
        } else {
            self.plain[place].get_or_init(|| self.plain_client(reuse))
        };
        client.as_ref().map_err(|why| errors::refused(format!("no HTTP client can be had: {why}")))
    }

    fn base(&self, reuse: Reuse) -> reqwest::ClientBuilder {
        Client::builder()
            .pool_max_idle_per_host(if reuse == Reuse::Kept { usize::MAX } else { 0 })
            .user_agent(concat!("forge/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .tcp_nodelay(true)
    }

    fn plain_client(&self, reuse: Reuse) -> Result<Client, String> {
        // An empty set of roots: nothing is read from disk, and no TLS server would be trusted.
        let tls = rustls::ClientConfig::builder_with_provider(ring())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        self.base(reuse).tls_backend_preconfigured(tls).build().map_err(|error| chain(&error))
    }

    fn secure_client(&self, reuse: Reuse) -> Result<Client, String> {
        // reqwest takes the process's provider; if somebody installed one already, theirs is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = self.base(reuse);
        if let Some(proxy) = &self.proxy {
            let proxy = reqwest::Proxy::all(proxy.as_str())
                .map_err(|_| "the proxy's URL is not one that can be used".to_owned())?;
            builder = builder.proxy(proxy);
        }
        builder
            .build()
            .map_err(|error| format!("{} (are the system's root certificates installed?)", chain(&error)))
    }
}

fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The error and its causes in one line, without the URL (which callers name in their own way).
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Sends the request and reads the reply to its end.
pub(crate) async fn ask(
    clients: &Clients,
    provider: &Provider,
    key: Option<&Key>,
    request: &ModelRequest,
    deltas: &dyn Deltas,
) -> Result<ModelReply, Error> {
    let asked = provider.asked(&request.route.model, key);
    let silence = Duration::from_millis(request.settings.timeout_ms.max(1));
    let started = Instant::now();
    let encoded = provider.vendor.shape.encode(provider.vendor, request);
    let prompt_bytes = encoded.body.len() as u64;
    let mut response = send(clients, provider, &asked, encoded, silence).await?;
    check(&asked, provider, &mut response, silence).await?;
    let mut reply = Assembly::new(request, deltas);
    read(&asked, provider, &mut response, &mut reply, silence).await?;
    let latency_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let open = drain(response).await;
    provider.keeping.any.fetch_or(open, Ordering::Relaxed);
    let finish = reply.finish.ok_or_else(|| errors::malformed(&asked, "no finish reason"))?;
    let usage = reply.usage.unwrap_or(Usage {
        input: prompt_bytes.div_ceil(BYTES_PER_TOKEN),
        output: reply.output_bytes.div_ceil(BYTES_PER_TOKEN),
        cached: 0,
        cache_write: 0,
        known: false,
    });
    let model = reply.model.take().filter(|model| !model.is_empty());
    Ok(ModelReply {
        model: model.unwrap_or_else(|| request.route.model.clone()),
        parts: reply.parts,
        usage,
        finish,
        latency_ms,
    })
}

async fn send(
    clients: &Clients,
    provider: &Provider,
    asked: &Asked<'_>,
    encoded: Encoded,
    silence: Duration,
) -> Result<Response, Error> {
    let url = provider.url(&encoded.path);
    let mut headers = encoded.headers;
    headers.extend(provider.headers(asked.key));
    let post = async |reuse: Reuse, body: Vec<u8>| {
        let mut call = clients
            .for_url(&url, reuse)?
            .post(&url)
            .header("content-type", "application/json")
            .header("accept", "text/event-stream, application/x-ndjson, application/json");
        for (name, value) in &headers {
            call = call.header(*name, value);
        }
        match tokio::time::timeout(silence, call.body(body).send()).await {
            Err(_) => Err(errors::silent(asked, silence, "after the request")),
            Ok(answer) => Ok(answer),
        }
    };
    let keeping = &provider.keeping;
    let spare = keeping.kept().then(|| encoded.body.clone());
    let mut answer = post(keeping.reuse(), encoded.body).await?;
    if let (Some(body), Err(error)) = (spare, &answer)
        && !error.is_connect()
        && !error.is_builder()
    {
        keeping.broken.store(true, Ordering::Relaxed);
        answer = post(Reuse::Fresh, body).await?;
    }
    answer.map_err(|error| {
        let why = chain(&error);
        if error.is_connect() {
            errors::unreachable(asked, &why)
        } else if error.is_builder() {
            errors::refused(format!("the request to {} can't be sent: {why}", asked.origin))
        } else {
            errors::no_answer(asked, &why)
        }
    })
}

/// Turns anything but a stream with a good status into an error.
async fn check(
    asked: &Asked<'_>,
    provider: &Provider,
    response: &mut Response,
    silence: Duration,
) -> Result<(), Error> {
    let status = response.status().as_u16();
    let header = |response: &Response, name: &str| {
        response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let kind = header(response, "content-type").unwrap_or_default();
    let sse = provider.vendor.shape.framing() == Framing::Sse;
    let is_document = kind.starts_with("text/html") || (sse && kind.starts_with("application/json"));
    if status == 200 && !is_document {
        return Ok(());
    }
    let body = error_body(response, silence).await;
    let json = serde_json::from_str(&body).unwrap_or(Value::Null);
    let after = retry_after(&|name| header(response, name), &json);
    if status != 200 {
        return Err(errors::from_status(asked, status, &body, after));
    }
    if json["error"].is_null() {
        return Err(errors::malformed(asked, &format!("the body is `{kind}`, not a stream of events")));
    }
    Err(errors::from_report(asked, &json, after))
}

/// As much of an error's body as comes in time; what is missing is no second error.
async fn error_body(response: &mut Response, silence: Duration) -> String {
    let mut body = Vec::new();
    while body.len() < ERROR_BYTES {
        match tokio::time::timeout(silence, response.chunk()).await {
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            _ => break,
        }
    }
    body.truncate(ERROR_BYTES);
    String::from_utf8_lossy(&body).into_owned()
}

enum Frames {
    Sse(Sse),
    Lines(Ndjson),
}

/// What a piece of the stream came to.
type Flow = ControlFlow<Result<(), Fault>>;

impl Frames {
    fn push(&mut self, piece: &[u8], take: impl FnMut(Event<'_>) -> Flow) -> Flow {
        let flow = match self {
            Self::Sse(sse) => sse.push(piece, take),
            Self::Lines(lines) => lines.push(piece, take),
        };
        flow.unwrap_or_else(|error| ControlFlow::Break(Err(Fault::Malformed(error.to_string()))))
    }
}

/// Reads events until the terminal one.
async fn read(
    asked: &Asked<'_>,
    provider: &Provider,
    response: &mut Response,
    reply: &mut Assembly<'_>,
    silence: Duration,
) -> Result<(), Error> {
    let mut decoder = provider.vendor.shape.decoder();
    let mut frames = match provider.vendor.shape.framing() {
        Framing::Sse => Frames::Sse(Sse::new()),
        Framing::Lines => Frames::Lines(Ndjson::new()),
    };
    loop {
        let piece = match tokio::time::timeout(silence, response.chunk()).await {
            Err(_) => return Err(errors::silent(asked, silence, "in the middle of its answer")),
            Ok(Err(error)) => return Err(errors::cut(asked, &chain(&error))),
            Ok(Ok(piece)) => piece,
        };
        let flow = match &piece {
            Some(piece) => frames.push(piece, |event| step(decoder.as_mut(), event, reply)),
            None => last_line(&frames, decoder.as_mut(), reply),
        };
        match flow {
            ControlFlow::Break(Ok(())) => return Ok(()),
            ControlFlow::Break(Err(Fault::Malformed(why))) => return Err(errors::malformed(asked, &why)),
            ControlFlow::Break(Err(Fault::Reported(json))) => {
                return Err(errors::from_report(asked, &json, retry_after(&|_| None, &json)));
            }
            ControlFlow::Continue(()) if piece.is_some() => {}
            ControlFlow::Continue(()) if decoder.whole_without_terminal(reply) => return Ok(()),
            ControlFlow::Continue(()) => return Err(errors::cut(asked, "its end never came")),
        }
    }
}

/// The last line of NDJSON needs no line end.
fn last_line(frames: &Frames, decoder: &mut dyn Decode, reply: &mut Assembly<'_>) -> Flow {
    let Frames::Lines(lines) = frames else { return ControlFlow::Continue(()) };
    match lines.rest().map(|event| decoder.event(event, reply)) {
        Some(Ok(Progress::Done)) => ControlFlow::Break(Ok(())),
        // A line that was cut is no JSON: that is the cut, not another fault.
        _ => ControlFlow::Continue(()),
    }
}

fn step(decoder: &mut dyn Decode, event: Event<'_>, reply: &mut Assembly<'_>) -> Flow {
    match decoder.event(event, reply) {
        Ok(Progress::More) => ControlFlow::Continue(()),
        Ok(Progress::Done) => ControlFlow::Break(Ok(())),
        Err(fault) => ControlFlow::Break(Err(fault)),
    }
}

/// Reads what is left of the body so that the connection goes back to the pool; says whether it does.
async fn drain(mut response: Response) -> bool {
    let rest = async {
        loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                end => return end.is_ok(),
            }
        }
    };
    // A server that does not end its body in time costs a new connection, nothing else.
    tokio::time::timeout(DRAIN, rest).await.unwrap_or(false)
}

/// Asks a small question (which models, who are you) and gives status and JSON, within `limit` in all.
pub(crate) async fn get(
    clients: &Clients,
    url: &str,
    headers: impl IntoIterator<Item = (&'static str, String)>,
    limit: Duration,
) -> Result<(u16, String), String> {
    let mut call = clients.for_url(url, Reuse::Fresh).map_err(|error| error.message)?.get(url);
    for (name, value) in headers {
        call = call.header(name, value);
    }
    let answer = async {
        let response = call.send().await.map_err(|error| chain(&error))?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(|error| chain(&error))?;
        Ok((status, body))
    };
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}
