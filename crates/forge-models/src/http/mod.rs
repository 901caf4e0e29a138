//! One HTTP attempt: send, check, read the stream piece by piece. No retry, no redirect, no cookie.

mod clients;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use forge_ports::Deltas;
use forge_ports::model::Error;
use forge_types::{EmbedRequest, Embeddings, ModelReply, ModelRequest, ReplyFormat, Unfit, Usage};
use reqwest::Response;
use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::assembly::{Assembly, Fault};
use crate::errors::{self, Asked};
use crate::options::Key;
use crate::retry_after::retry_after;
use crate::service::{Models, Provider};
use crate::shape::{Call, Conversation, Decode, Encoded, Framing, Progress, Shape, template};
use crate::sse::{Event, Ndjson, Sse};
use crate::{embed, structured};

pub(crate) use clients::{Clients, Keeping, Reuse, chain};

/// The longest error body read, in bytes.
const ERROR_BYTES: usize = 64 << 10;
/// How much of a stream without any event is kept to tell what it is, in bytes.
const HEAD_BYTES: usize = 4 << 10;
/// How long the end of the body is waited for after the terminal event, so that the connection can be used again.
const DRAIN: Duration = Duration::from_millis(50);
/// Bytes per token when usage must be estimated; what English text and code come to, rounded down.
const BYTES_PER_TOKEN: u64 = 4;

/// One exchange with a provider: who is asked, on whose account, and how long silence may last.
pub(crate) struct Exchange<'a> {
    models: &'a Models,
    provider: &'a Provider,
    asked: Asked<'a>,
    organization: Option<&'a str>,
    silence: Duration,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        models: &'a Models,
        provider: &'a Provider,
        key: Option<&'a Key>,
        model: &'a str,
        organization: Option<&'a str>,
        timeout_ms: u64,
    ) -> Self {
        let silence = Duration::from_millis(timeout_ms.max(1));
        Self { models, provider, asked: provider.asked(model, key), organization, silence }
    }
}

/// Sends the request and reads the reply to its end.
pub(crate) async fn ask(
    models: &Models,
    provider: &Provider,
    key: Option<&Key>,
    request: &ModelRequest,
    deltas: &dyn Deltas,
) -> Result<ModelReply, Error> {
    let (organization, timeout) = (request.organization.as_deref(), request.settings.timeout_ms);
    let exchange = Exchange::new(models, provider, key, &request.route.model, organization, timeout);
    let started = Instant::now();
    let shape = provider.shape();
    let mut call = Call::new(provider.vendor, shape, &models.catalog, request);
    if let Some((form, _)) = call.json {
        structured::usable(form).map_err(errors::refused)?;
    }
    let talk = (shape == Shape::Completion).then(|| Conversation::of(&call));
    if let Some(talk) = talk {
        call.prompt = exchange.rendered(&call).await?;
        call.slot = provider.slots.of(talk);
    }
    let encoded = shape.encode(&call);
    let prompt_bytes = encoded.body.len() as u64;
    let url = provider.address.url(&encoded.path);
    let mut reply = Assembly::new(request, deltas);
    let heard = exchange.stream(&url, encoded, shape.decoder(&call).as_mut(), &mut reply).await;
    if let (Some(talk), Err(_)) = (talk, &heard) {
        // A slot that is gone would be waited for without end.
        provider.slots.forget(talk);
    }
    let response = heard?;
    let latency_ms = millis(started);
    provider.keeping.left(drain(response).await);
    if let (Some(talk), Some(slot)) = (talk, reply.slot) {
        provider.slots.remember(talk, slot);
    }
    let asked = &exchange.asked;
    let finish = reply.finish.ok_or_else(|| errors::malformed(asked, "no finish reason"))?;
    let usage = reply.usage.unwrap_or(Usage {
        input: prompt_bytes.div_ceil(BYTES_PER_TOKEN),
        output: reply.output_bytes.div_ceil(BYTES_PER_TOKEN),
        cached: 0,
        cache_write: 0,
        known: false,
    });
    let model = reply.model.take().filter(|model| !model.is_empty());
    let model = model.unwrap_or_else(|| request.route.model.clone());
    let mut reply = ModelReply { model, parts: reply.parts, usage, finish, latency_ms };
    if let ReplyFormat::Json(form) = &request.format {
        match (structured::settle(&mut reply, form), form.unfit) {
            (Err(why), Unfit::Refuse) => return Err(errors::misshapen(asked, &why)),
            (Ok(()), _) | (Err(_), Unfit::Pass) => {}
        }
    }
    Ok(reply)
}

/// Asks for vectors.
pub(crate) async fn embed(
    models: &Models,
    provider: &Provider,
    key: Option<&Key>,
    request: &EmbedRequest,
) -> Result<Embeddings, Error> {
    let organization = request.organization.as_deref();
    let exchange =
        Exchange::new(models, provider, key, &request.route.model, organization, request.timeout_ms);
    let asked = &exchange.asked;
    let (path, body) = embed::encode(provider, request)?;
    let url = provider.vendor.own_url(&provider.address, &path);
    let (status, body, after) =
        exchange.whole(&url, Encoded { path, headers: Vec::new(), body }, provider.keeping.reuse()).await?;
    let text = || String::from_utf8_lossy(&body);
    if status != 200 {
        return Err(errors::from_status(asked, status, &text(), after));
    }
    let reported = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if reported.get("error").is_some_and(|error| !error.is_null()) {
        return Err(errors::from_report(asked, &reported, after));
    }
    embed::decode(provider.vendor.embedding, request, &body).map_err(|why| match text().trim_start() {
        page if page.starts_with('<') => errors::no_stream(asked, "a web page"),
        _ => errors::malformed(asked, &why),
    })
}

/// Milliseconds since a moment.
pub(crate) fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

impl Exchange<'_> {
    /// The conversation as the server's own template has it; `None` if the server knows none.
    async fn rendered(&self, call: &Call<'_>) -> Result<Option<String>, Error> {
        let question = template(call);
        let url = self.provider.address.url(&question.path);
        // Not over a connection that the question itself would then be asked over: that must be the only attempt.
        let (status, body, after) = self.whole(&url, question, Reuse::Fresh).await?;
        match status {
            200 => {
                let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let prompt = json["prompt"].as_str().map(str::to_owned);
                let missing = || errors::malformed(&self.asked, "`/apply-template` gave no prompt");
                prompt.map(Some).ok_or_else(missing)
            }
            404 | 405 | 501 => Ok(None),
            _ => Err(errors::from_status(&self.asked, status, &String::from_utf8_lossy(&body), after)),
        }
    }

    /// Sends and reads a stream to its terminal event.
    async fn stream(
        &self,
        url: &str,
        encoded: Encoded,
        decoder: &mut dyn Decode,
        reply: &mut Assembly<'_>,
    ) -> Result<Response, Error> {
        let mut response = self.send(url, encoded, self.provider.keeping.reuse()).await?;
        let framing = self.asked.shape.framing();
        check(&self.asked, framing, &mut response, self.silence).await?;
        self.read(framing, decoder, &mut response, reply).await?;
        Ok(response)
    }

    /// Sends and reads an answer that is no stream: status, body and the wait that is asked for.
    async fn whole(
        &self,
        url: &str,
        encoded: Encoded,
        reuse: Reuse,
    ) -> Result<(u16, Vec<u8>, Option<Duration>), Error> {
        let asked = &self.asked;
        let mut response = self.send(url, encoded, reuse).await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            match tokio::time::timeout(self.silence, response.chunk()).await {
                Err(_) => return Err(errors::silent(asked, self.silence, "in the middle of its answer")),
                Ok(Err(error)) => return Err(errors::cut(asked, &chain(&error))),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(piece))) if (body.len() + piece.len()) as u64 > self.models.limits.largest => {
                    return Err(errors::endless(asked, self.models.limits));
                }
                Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            }
        }
        self.provider.keeping.left(reuse == Reuse::Kept);
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let after = retry_after(&|name| header(&response, name), &json);
        Ok((status, body, after))
    }

    async fn send(&self, url: &str, encoded: Encoded, reuse: Reuse) -> Result<Response, Error> {
        let asked = &self.asked;
        let mut headers = encoded.headers;
        headers.extend(self.provider.headers(asked.key, self.organization));
        let post = async |reuse: Reuse, body: Vec<u8>| {
            let mut call = self
                .models
                .clients
                .for_url(url, reuse)?
                .post(url)
                .header("content-type", "application/json")
                .header("accept", "text/event-stream, application/x-ndjson, application/json");
            for (name, value) in &headers {
                call = with_header(call, name, value);
            }
            match tokio::time::timeout(self.silence, call.body(body).send()).await {
                Err(_) => Err(errors::silent(asked, self.silence, "after the request")),
                Ok(answer) => Ok(answer),
            }
        };
        let keeping = &self.provider.keeping;
        let spare = (reuse == Reuse::Kept && keeping.kept()).then(|| encoded.body.clone());
        let mut answer = post(reuse, encoded.body).await?;
        if let (Some(body), Err(error)) = (spare, &answer)
            && !error.is_connect()
            && !error.is_builder()
        {
            keeping.broke();
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
}

/// Turns anything but a stream with a good status into an error.
async fn check(
    asked: &Asked<'_>,
    framing: Framing,
    response: &mut Response,
    silence: Duration,
) -> Result<(), Error> {
    let status = response.status().as_u16();
    let kind = header(response, "content-type").unwrap_or_default();
    let is_document =
        kind.starts_with("text/html") || (framing == Framing::Sse && kind.starts_with("application/json"));
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
        return Err(errors::no_stream(asked, &format!("`{kind}`")));
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

impl Exchange<'_> {
    /// Reads events until the terminal one.
    async fn read(
        &self,
        framing: Framing,
        decoder: &mut dyn Decode,
        response: &mut Response,
        reply: &mut Assembly<'_>,
    ) -> Result<(), Error> {
        let asked = &self.asked;
        let mut frames = match framing {
            Framing::Sse => Frames::Sse(Sse::new()),
            Framing::Lines => Frames::Lines(Ndjson::new()),
        };
        let end = tokio::time::Instant::now() + self.models.limits.longest;
        // What came before the first event: a body that has none is told by its beginning.
        let (mut head, mut events, mut bytes) = (Vec::new(), 0_u64, 0_u64);
        loop {
            let next = tokio::time::timeout(self.silence, response.chunk());
            let piece = match tokio::time::timeout_at(end, next).await {
                Err(_) => return Err(errors::endless(asked, self.models.limits)),
                Ok(Err(_)) => return Err(errors::silent(asked, self.silence, "in the middle of its answer")),
                Ok(Ok(Err(error))) => return Err(errors::cut(asked, &chain(&error))),
                Ok(Ok(Ok(piece))) => piece,
            };
            let flow = match &piece {
                Some(piece) => {
                    bytes += piece.len() as u64;
                    if bytes > self.models.limits.largest {
                        return Err(errors::endless(asked, self.models.limits));
                    }
                    if events == 0 && head.len() < HEAD_BYTES {
                        head.extend_from_slice(&piece[..piece.len().min(HEAD_BYTES)]);
                    }
                    frames.push(piece, |event| {
                        events += 1;
                        step(decoder, event, reply)
                    })
                }
                None => last_line(&frames, decoder, reply),
            };
            match flow {
                ControlFlow::Break(Ok(())) => return Ok(()),
                ControlFlow::Break(Err(Fault::Malformed(why))) => return Err(errors::malformed(asked, &why)),
                ControlFlow::Break(Err(Fault::Reported(json))) => {
                    return Err(errors::from_report(asked, &json, retry_after(&|_| None, &json)));
                }
                ControlFlow::Continue(()) if piece.is_some() => {}
                ControlFlow::Continue(()) if decoder.whole_without_terminal(reply) => return Ok(()),
                ControlFlow::Continue(()) if events == 0 => return Err(no_events(asked, &head)),
                ControlFlow::Continue(()) => return Err(errors::cut(asked, "its end never came")),
            }
        }
    }
}

/// What a body with a good status was that held not one event.
fn no_events(asked: &Asked<'_>, head: &[u8]) -> Error {
    let text = String::from_utf8_lossy(head);
    let text = text.trim();
    let json: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    match text {
        "" => errors::cut(asked, "it was empty"),
        _ if json.get("error").is_some_and(|error| !error.is_null()) => {
            errors::from_report(asked, &json, retry_after(&|_| None, &json))
        }
        _ if !json.is_null() => errors::no_stream(asked, "one JSON value"),
        _ if text.starts_with('<') => errors::no_stream(asked, "a web page"),
        _ => errors::cut(asked, "its end never came"),
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

/// The request with a header that may hold a key: marked, so that no log of the HTTP client shows it.
fn with_header(call: reqwest::RequestBuilder, name: &'static str, value: &str) -> reqwest::RequestBuilder {
    match HeaderValue::from_str(value) {
        Ok(mut header) => {
            header.set_sensitive(true);
            call.header(name, header)
        }
        // What can't be sent is told of when it is sent.
        Err(_) => call.header(name, value),
    }
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
        call = with_header(call, name, &value);
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
