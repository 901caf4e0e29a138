//! One HTTP attempt: send, check, read the stream chunk by chunk. There are no retries, redirects or cookies.

mod clients;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use forge_catalog::{Catalog, WireFormat};
use forge_ports::DeltaSink;
use forge_ports::model::Error;
use forge_types::{EmbedRequest, Embeddings, ModelReply, ModelRequest, OnSchemaMismatch, ReplyFormat, Usage};
use reqwest::Response;
use reqwest::header::HeaderValue;
use serde_json::Value;

use crate::connection_reuse::ConnectionReuse;
use crate::errors::{self, ErrorContext};
use crate::key::ApiKey;
use crate::options::{Options, ReplyLimits};
use crate::provider::ConfiguredProvider;
use crate::reply_builder::{ReplyBuilder, StreamError};
use crate::retry_after::retry_after;
use crate::sse::{FrameEvent, Ndjson, Sse};
use crate::wire_format::{
    ConversationKey, EncodedRequest, StreamDecoder, StreamFraming, StreamProgress, WireRequest,
    encode_request, encode_template_request, new_decoder, stream_framing,
};
use crate::{embed, structured};

pub(crate) use clients::{HttpClients, root_cause};

/// Largest number of bytes read of an error body.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// Number of bytes kept from the start of a stream without events, to describe its content.
const MAX_HEAD_BYTES: usize = 4 << 10;
/// Time to wait for the end of the body after the terminal event, so that the connection can be reused.
const DRAIN_TIMEOUT: Duration = Duration::from_millis(50);
/// Bytes per token for estimated usage: the value for English text and code, rounded down.
const BYTES_PER_TOKEN: u64 = 4;

/// The HTTP clients and the limits on replies, shared by all providers.
#[derive(Debug)]
pub(crate) struct HttpTransport {
    pub(crate) clients: HttpClients,
    limits: ReplyLimits,
}

impl HttpTransport {
    pub(crate) fn new(options: &Options) -> Self {
        Self { clients: HttpClients::new(options), limits: options.limits }
    }
}

/// One exchange with a provider: the provider, its credentials, and the limit on silence.
pub(crate) struct ProviderExchange<'a> {
    transport: &'a HttpTransport,
    provider: &'a ConfiguredProvider,
    asked: ErrorContext<'a>,
    organization: Option<&'a str>,
    silence: Duration,
}

impl<'a> ProviderExchange<'a> {
    pub(crate) fn new(
        transport: &'a HttpTransport,
        provider: &'a ConfiguredProvider,
        key: Option<&'a ApiKey>,
        model: &'a str,
        organization: Option<&'a str>,
        timeout_ms: u64,
    ) -> Self {
        let silence = Duration::from_millis(timeout_ms.max(1));
        Self { transport, provider, asked: provider.error_context(model, key), organization, silence }
    }
}

/// Sends the request and reads the reply to its end.
pub(crate) async fn request_reply(
    transport: &HttpTransport,
    catalog: &Catalog,
    provider: &ConfiguredProvider,
    key: Option<&ApiKey>,
    request: &ModelRequest,
    deltas: &dyn DeltaSink,
) -> Result<ModelReply, Error> {
    let (organization, timeout) = (request.organization.as_deref(), request.settings.timeout_ms);
    let exchange =
        ProviderExchange::new(transport, provider, key, &request.route.model, organization, timeout);
    let started = Instant::now();
    let wire_format = provider.wire_format();
    let mut call = WireRequest::new(provider.vendor, wire_format, catalog, request);
    if let Some((form, _)) = call.json {
        structured::check_format(form).map_err(errors::invalid_request)?;
    }
    let talk = (wire_format == WireFormat::Completion).then(|| ConversationKey::from_request(&call));
    if let Some(talk) = talk {
        call.prompt = exchange.render_template(&call).await?;
        call.slot = provider.slots.get(talk);
    }
    let encoded = encode_request(wire_format, &call);
    let prompt_bytes = encoded.body.len() as u64;
    let url = provider.address.url(&encoded.path);
    let mut reply = ReplyBuilder::new(request, deltas);
    let heard =
        exchange.stream_reply(&url, encoded, new_decoder(wire_format, &call).as_mut(), &mut reply).await;
    if let (Some(talk), Err(_)) = (talk, &heard) {
        // A request for a slot that no longer exists would wait forever.
        provider.slots.remove(talk);
    }
    let response = heard?;
    let latency_ms = elapsed_millis(started);
    provider.reuse_tracker.record_open(drain_body(response).await);
    if let (Some(talk), Some(slot)) = (talk, reply.slot) {
        provider.slots.insert(talk, slot);
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
        match (structured::validate_reply(&mut reply, form), form.unfit) {
            (Err(why), OnSchemaMismatch::Refuse) => return Err(errors::schema_mismatch(asked, &why)),
            (Ok(()), _) | (Err(_), OnSchemaMismatch::Pass) => {}
        }
    }
    Ok(reply)
}

/// Requests embeddings.
pub(crate) async fn request_embeddings(
    transport: &HttpTransport,
    provider: &ConfiguredProvider,
    key: Option<&ApiKey>,
    request: &EmbedRequest,
) -> Result<Embeddings, Error> {
    let organization = request.organization.as_deref();
    let exchange = ProviderExchange::new(
        transport,
        provider,
        key,
        &request.route.model,
        organization,
        request.timeout_ms,
    );
    let asked = &exchange.asked;
    let (path, body) = embed::encode_embed_request(provider, request)?;
    let url = provider.vendor.vendor_url(&provider.address, &path);
    let (status, body, after) = exchange
        .fetch_body(
            &url,
            EncodedRequest { path, headers: Vec::new(), body },
            provider.reuse_tracker.reuse_policy(),
        )
        .await?;
    let text = || String::from_utf8_lossy(&body);
    if status != 200 {
        return Err(errors::from_status(asked, status, &text(), after));
    }
    let reported = serde_json::from_slice(&body).unwrap_or(Value::Null);
    if reported.get("error").is_some_and(|error| !error.is_null()) {
        return Err(errors::from_report(asked, &reported, after));
    }
    embed::decode_embeddings(provider.vendor.embedding, request, &body).map_err(|why| {
        match text().trim_start() {
            page if page.starts_with('<') => errors::no_stream(asked, "a web page"),
            _ => errors::malformed(asked, &why),
        }
    })
}

/// Returns the milliseconds since a moment.
pub(crate) fn elapsed_millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn header_value(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

impl ProviderExchange<'_> {
    /// Renders the conversation with the server's own template; `None` if the server has none.
    async fn render_template(&self, call: &WireRequest<'_>) -> Result<Option<String>, Error> {
        let question = encode_template_request(call);
        let url = self.provider.address.url(&question.path);
        // On a new connection, so that the actual request, the only attempt, does not reuse this one.
        let (status, body, after) = self.fetch_body(&url, question, ConnectionReuse::Fresh).await?;
        match status {
            200 => {
                let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
                let prompt = json["prompt"].as_str().map(str::to_owned);
                let missing = || errors::malformed(&self.asked, "`/apply-template` returned no prompt");
                prompt.map(Some).ok_or_else(missing)
            }
            404 | 405 | 501 => Ok(None),
            _ => Err(errors::from_status(&self.asked, status, &String::from_utf8_lossy(&body), after)),
        }
    }

    /// Sends a request and reads the stream to its terminal event.
    async fn stream_reply(
        &self,
        url: &str,
        encoded: EncodedRequest,
        decoder: &mut dyn StreamDecoder,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<Response, Error> {
        let mut response =
            self.send_request(url, encoded, self.provider.reuse_tracker.reuse_policy()).await?;
        let framing = stream_framing(self.asked.wire_format);
        check_response(&self.asked, framing, &mut response, self.silence).await?;
        self.read_events(framing, decoder, &mut response, reply).await?;
        Ok(response)
    }

    /// Sends a request and reads a response that is not a stream: status, body and requested retry delay.
    async fn fetch_body(
        &self,
        url: &str,
        encoded: EncodedRequest,
        reuse: ConnectionReuse,
    ) -> Result<(u16, Vec<u8>, Option<Duration>), Error> {
        let asked = &self.asked;
        let mut response = self.send_request(url, encoded, reuse).await?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            match tokio::time::timeout(self.silence, response.chunk()).await {
                Err(_) => {
                    return Err(errors::silence_timeout(asked, self.silence, "in the middle of its answer"));
                }
                Ok(Err(error)) => return Err(errors::stream_cut(asked, &root_cause(&error))),
                Ok(Ok(None)) => break,
                Ok(Ok(Some(piece))) if (body.len() + piece.len()) as u64 > self.transport.limits.largest => {
                    return Err(errors::reply_too_long(asked, self.transport.limits));
                }
                Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            }
        }
        self.provider.reuse_tracker.record_open(reuse == ConnectionReuse::Pooled);
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let after = retry_after(&|name| header_value(&response, name), &json);
        Ok((status, body, after))
    }

    async fn send_request(
        &self,
        url: &str,
        encoded: EncodedRequest,
        reuse: ConnectionReuse,
    ) -> Result<Response, Error> {
        let asked = &self.asked;
        let mut headers = encoded.headers;
        headers.extend(self.provider.request_headers(asked.key, self.organization));
        let post = async |reuse: ConnectionReuse, body: Vec<u8>| {
            let mut call = self
                .transport
                .clients
                .for_url(url, reuse)?
                .post(url)
                .header("content-type", "application/json")
                .header("accept", "text/event-stream, application/x-ndjson, application/json");
            for (name, value) in &headers {
                call = with_header(call, name, value);
            }
            match tokio::time::timeout(self.silence, call.body(body).send()).await {
                Err(_) => Err(errors::silence_timeout(asked, self.silence, "after the request")),
                Ok(answer) => Ok(answer),
            }
        };
        let keeping = &self.provider.reuse_tracker;
        let spare = (reuse == ConnectionReuse::Pooled && keeping.may_reuse()).then(|| encoded.body.clone());
        let mut answer = post(reuse, encoded.body).await?;
        if let (Some(body), Err(error)) = (spare, &answer)
            && !error.is_connect()
            && !error.is_builder()
        {
            keeping.record_broken();
            answer = post(ConnectionReuse::Fresh, body).await?;
        }
        answer.map_err(|error| {
            let why = root_cause(&error);
            if error.is_connect() {
                errors::unreachable(asked, &why)
            } else if error.is_builder() {
                errors::invalid_request(format!("the request to {} can't be sent: {why}", asked.origin))
            } else {
                errors::no_answer(asked, &why)
            }
        })
    }
}

/// Turns everything but a stream with a success status into an error.
async fn check_response(
    asked: &ErrorContext<'_>,
    framing: StreamFraming,
    response: &mut Response,
    silence: Duration,
) -> Result<(), Error> {
    let status = response.status().as_u16();
    let kind = header_value(response, "content-type").unwrap_or_default();
    let is_document = kind.starts_with("text/html")
        || (framing == StreamFraming::Sse && kind.starts_with("application/json"));
    if status == 200 && !is_document {
        return Ok(());
    }
    let body = error_body(response, silence).await;
    let json = serde_json::from_str(&body).unwrap_or(Value::Null);
    let after = retry_after(&|name| header_value(response, name), &json);
    if status != 200 {
        return Err(errors::from_status(asked, status, &body, after));
    }
    if json["error"].is_null() {
        return Err(errors::no_stream(asked, &format!("`{kind}`")));
    }
    Err(errors::from_report(asked, &json, after))
}

/// Reads as much of an error body as arrives in time; a missing rest is not reported as a second error.
async fn error_body(response: &mut Response, silence: Duration) -> String {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BYTES {
        match tokio::time::timeout(silence, response.chunk()).await {
            Ok(Ok(Some(piece))) => body.extend_from_slice(&piece),
            _ => break,
        }
    }
    body.truncate(MAX_ERROR_BYTES);
    String::from_utf8_lossy(&body).into_owned()
}

enum FrameSplitter {
    Sse(Sse),
    Lines(Ndjson),
}

/// The result of processing one chunk of the stream.
type StreamFlow = ControlFlow<Result<(), StreamError>>;

impl FrameSplitter {
    fn push(&mut self, piece: &[u8], take: impl FnMut(FrameEvent<'_>) -> StreamFlow) -> StreamFlow {
        let flow = match self {
            Self::Sse(sse) => sse.push(piece, take),
            Self::Lines(lines) => lines.push(piece, take),
        };
        flow.unwrap_or_else(|error| ControlFlow::Break(Err(StreamError::Malformed(error.to_string()))))
    }
}

impl ProviderExchange<'_> {
    /// Reads events until the terminal one.
    async fn read_events(
        &self,
        framing: StreamFraming,
        decoder: &mut dyn StreamDecoder,
        response: &mut Response,
        reply: &mut ReplyBuilder<'_>,
    ) -> Result<(), Error> {
        let asked = &self.asked;
        let mut frames = match framing {
            StreamFraming::Sse => FrameSplitter::Sse(Sse::new()),
            StreamFraming::Lines => FrameSplitter::Lines(Ndjson::new()),
        };
        let end = tokio::time::Instant::now() + self.transport.limits.longest;
        // Bytes before the first event: they describe a body without events.
        let (mut head, mut events, mut bytes) = (Vec::new(), 0_u64, 0_u64);
        loop {
            let next = tokio::time::timeout(self.silence, response.chunk());
            let piece = match tokio::time::timeout_at(end, next).await {
                Err(_) => return Err(errors::reply_too_long(asked, self.transport.limits)),
                Ok(Err(_)) => {
                    return Err(errors::silence_timeout(asked, self.silence, "in the middle of its answer"));
                }
                Ok(Ok(Err(error))) => return Err(errors::stream_cut(asked, &root_cause(&error))),
                Ok(Ok(Ok(piece))) => piece,
            };
            let flow = match &piece {
                Some(piece) => {
                    bytes += piece.len() as u64;
                    if bytes > self.transport.limits.largest {
                        return Err(errors::reply_too_long(asked, self.transport.limits));
                    }
                    if events == 0 && head.len() < MAX_HEAD_BYTES {
                        head.extend_from_slice(&piece[..piece.len().min(MAX_HEAD_BYTES)]);
                    }
                    frames.push(piece, |event| {
                        events += 1;
                        handle_event(decoder, event, reply)
                    })
                }
                None => decode_last_line(&frames, decoder, reply),
            };
            match flow {
                ControlFlow::Break(Ok(())) => return Ok(()),
                ControlFlow::Break(Err(StreamError::Malformed(why))) => {
                    return Err(errors::malformed(asked, &why));
                }
                ControlFlow::Break(Err(StreamError::Reported(json))) => {
                    return Err(errors::from_report(asked, &json, retry_after(&|_| None, &json)));
                }
                ControlFlow::Continue(()) if piece.is_some() => {}
                ControlFlow::Continue(()) if decoder.is_complete_without_terminal(reply) => return Ok(()),
                ControlFlow::Continue(()) if events == 0 => return Err(no_events(asked, &head)),
                ControlFlow::Continue(()) => return Err(errors::stream_cut(asked, "the end is missing")),
            }
        }
    }
}

/// Returns the error for a body with a success status that contained no event.
fn no_events(asked: &ErrorContext<'_>, head: &[u8]) -> Error {
    let text = String::from_utf8_lossy(head);
    let text = text.trim();
    let json: Value = serde_json::from_str(text).unwrap_or(Value::Null);
    match text {
        "" => errors::stream_cut(asked, "it is empty"),
        _ if json.get("error").is_some_and(|error| !error.is_null()) => {
            errors::from_report(asked, &json, retry_after(&|_| None, &json))
        }
        _ if !json.is_null() => errors::no_stream(asked, "one JSON value"),
        _ if text.starts_with('<') => errors::no_stream(asked, "a web page"),
        _ => errors::stream_cut(asked, "the end is missing"),
    }
}

/// Decodes the last line of NDJSON, which needs no line end.
fn decode_last_line(
    frames: &FrameSplitter,
    decoder: &mut dyn StreamDecoder,
    reply: &mut ReplyBuilder<'_>,
) -> StreamFlow {
    let FrameSplitter::Lines(lines) = frames else { return ControlFlow::Continue(()) };
    match lines.last_line().map(|event| decoder.decode_event(event, reply)) {
        Some(Ok(StreamProgress::Done)) => ControlFlow::Break(Ok(())),
        // An incomplete line is invalid JSON because the stream was cut, which is reported already.
        _ => ControlFlow::Continue(()),
    }
}

fn handle_event(
    decoder: &mut dyn StreamDecoder,
    event: FrameEvent<'_>,
    reply: &mut ReplyBuilder<'_>,
) -> StreamFlow {
    match decoder.decode_event(event, reply) {
        Ok(StreamProgress::More) => ControlFlow::Continue(()),
        Ok(StreamProgress::Done) => ControlFlow::Break(Ok(())),
        Err(fault) => ControlFlow::Break(Err(fault)),
    }
}

/// Reads the rest of the body so that the connection returns to the pool; returns whether it does.
async fn drain_body(mut response: Response) -> bool {
    let rest = async {
        loop {
            match response.chunk().await {
                Ok(Some(_)) => {}
                end => return end.is_ok(),
            }
        }
    };
    // A server that does not end its body in time costs a new connection and nothing else.
    tokio::time::timeout(DRAIN_TIMEOUT, rest).await.unwrap_or(false)
}

/// Adds a header that may hold an API key, marked as sensitive so that the HTTP client never logs it.
fn with_header(call: reqwest::RequestBuilder, name: &'static str, value: &str) -> reqwest::RequestBuilder {
    match HeaderValue::from_str(value) {
        Ok(mut header) => {
            header.set_sensitive(true);
            call.header(name, header)
        }
        // An invalid value is reported when the request is sent.
        Err(_) => call.header(name, value),
    }
}

/// Sends a small request, such as for the list of models, and returns status and JSON, within `limit` in total.
pub(crate) async fn get_text(
    clients: &HttpClients,
    url: &str,
    headers: impl IntoIterator<Item = (&'static str, String)>,
    limit: Duration,
) -> Result<(u16, String), String> {
    let mut call = clients.for_url(url, ConnectionReuse::Fresh).map_err(|error| error.message)?.get(url);
    for (name, value) in headers {
        call = with_header(call, name, &value);
    }
    let answer = async {
        let response = call.send().await.map_err(|error| root_cause(&error))?;
        let status = response.status().as_u16();
        let body = response.text().await.map_err(|error| root_cause(&error))?;
        Ok((status, body))
    };
    tokio::time::timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} ms", limit.as_millis())))
}
