//! Relay of one request and its response between a program in the sandbox and a host.

use super::head::{BodyFraming, Request, Response};
use super::key_injection::KeyRedactor;
use super::log::ByteMeter;
use super::proxy_error::ProxyError;
use super::wire::{
    BodyReader, ConnectionReader, ConnectionWriter, LAST_CHUNK, SplitConnection, encode_chunk,
};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::AsyncWriteExt as _;

/// A request that is ready to be sent.
#[derive(Clone)]
pub(super) struct OutboundRequest {
    /// Request for the host, with hop-by-hop headers and framing replaced.
    pub(super) request: Request,
    /// HTTP/1 minor version that the program uses.
    pub(super) minor: u8,
    pub(super) framing: BodyFraming,
    /// Whether the program wants to keep its connection.
    pub(super) keep: bool,
    /// Redactor that replaces keys in the response with placeholders.
    pub(super) redactor: Option<KeyRedactor>,
}

/// Result of an exchange.
pub(super) enum ExchangeOutcome {
    /// Both messages were relayed completely.
    Complete { client_again: bool, upstream_again: bool },
    /// The exchange failed; `answered` is set if the program has received part of a response.
    Broken { answered: bool, fault: ProxyError },
}

/// A failure and the side on which it occurred.
enum RelayError {
    Client(io::Error),
    Upstream(io::Error),
    Answer(&'static str),
}

/// Sends the request and relays the response at the same time, because a response may arrive before the request is
/// complete.
pub(super) async fn run_exchange(
    client: &mut SplitConnection,
    upstream: &mut SplitConnection,
    ready: &mut OutboundRequest,
    meter: &ByteMeter,
    limit: usize,
) -> ExchangeOutcome {
    let answered = AtomicBool::new(false);
    let (framing, keep) = (ready.framing, ready.keep);
    let head = ready.request.to_bytes();
    let scrubber = ready.redactor.take();
    let way_back = ResponseRelay { ready, redactor: scrubber, answered: &answered, meter, limit };
    let mut up = pin!(send_request(&mut client.reader, &mut upstream.writer, head, framing, meter));
    let mut down = pin!(way_back.run(&mut upstream.reader, &mut client.writer));
    let mut sent = None;
    let broken = loop {
        tokio::select! {
            done = &mut down => match done {
                Ok(after) => {
                    let whole = matches!(sent, Some(true));
                    return ExchangeOutcome::Complete {
                        client_again: keep && whole && after.client,
                        upstream_again: whole && after.upstream,
                    };
                }
                Err(broken) => break broken,
            },
            done = &mut up, if sent.is_none() => match done {
                Ok(()) => sent = Some(true),
                // The host may have responded already and may not want the rest.
                Err(RelayError::Upstream(_)) => sent = Some(false),
                Err(broken) => break broken,
            },
            () = meter.wait_idle() => break RelayError::Upstream(io::ErrorKind::TimedOut.into()),
        }
    };
    ExchangeOutcome::Broken { answered: answered.load(Ordering::Relaxed), fault: to_proxy_error(broken) }
}

fn to_proxy_error(broken: RelayError) -> ProxyError {
    match broken {
        RelayError::Client(error) if error.kind() == io::ErrorKind::InvalidData => {
            ProxyError::bad_request(400, format!("the request cannot be forwarded: {error}"))
        }
        RelayError::Client(_) => ProxyError::failed(400, "the program closed the connection"),
        RelayError::Upstream(error) if error.kind() == io::ErrorKind::TimedOut => {
            ProxyError::failed(504, "the host did not respond in time")
        }
        RelayError::Upstream(error) => ProxyError::failed(
            502,
            format!("the connection to the host failed: {}", super::dial::describe_io_error(&error)),
        ),
        RelayError::Answer(why) => {
            ProxyError::failed(502, format!("the host's response cannot be forwarded: {why}"))
        }
    }
}

async fn send_request(
    from: &mut ConnectionReader,
    to: &mut ConnectionWriter,
    head: Vec<u8>,
    framing: BodyFraming,
    meter: &ByteMeter,
) -> Result<(), RelayError> {
    write_bytes(to, &head, |n| meter.add_sent(n)).await.map_err(RelayError::Upstream)?;
    let mut body = BodyReader::new(framing);
    while let Some(piece) = body.next_piece(from).await.map_err(RelayError::Client)? {
        let piece = if framing == BodyFraming::Chunked { encode_chunk(&piece) } else { piece };
        write_bytes(to, &piece, |n| meter.add_sent(n)).await.map_err(RelayError::Upstream)?;
    }
    if framing == BodyFraming::Chunked {
        write_bytes(to, LAST_CHUNK, |n| meter.add_sent(n)).await.map_err(RelayError::Upstream)?;
    }
    Ok(())
}

async fn write_bytes(to: &mut ConnectionWriter, bytes: &[u8], moved: impl Fn(usize)) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes).await?;
    to.flush().await?;
    moved(bytes.len());
    Ok(())
}

/// The connections that can be reused according to the response.
struct ReusableConnections {
    client: bool,
    upstream: bool,
}

/// The relay of a response.
struct ResponseRelay<'a> {
    ready: &'a OutboundRequest,
    redactor: Option<KeyRedactor>,
    answered: &'a AtomicBool,
    meter: &'a ByteMeter,
    limit: usize,
}

impl ResponseRelay<'_> {
    async fn run(
        mut self,
        from: &mut ConnectionReader,
        to: &mut ConnectionWriter,
    ) -> Result<ReusableConnections, RelayError> {
        loop {
            let mut answer = self.read_head(from).await?;
            let framing =
                answer.body_framing(&self.ready.request.method).map_err(|bad| RelayError::Answer(bad.0))?;
            if answer.status == 101 {
                return Err(RelayError::Answer("it switches protocols without being asked to"));
            }
            if answer.status >= 200 {
                return self.relay_final(answer, framing, from, to).await;
            }
            if self.ready.minor == 1 {
                answer.headers.strip_hop_by_hop();
                self.redact_head(&mut answer);
                self.forward_bytes(to, &answer.to_bytes()).await?;
            }
        }
    }

    async fn read_head(&self, from: &mut ConnectionReader) -> Result<Response, RelayError> {
        let head = from.read_head(self.limit).await.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => RelayError::Answer("its head is too long"),
            _ => RelayError::Upstream(error),
        })?;
        let head = head.ok_or_else(|| {
            RelayError::Upstream(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "it was closed without a response",
            ))
        })?;
        self.meter.add_received(head.len());
        Response::parse(&head).map_err(|bad| RelayError::Answer(bad.0))
    }

    /// Relays the final response.
    async fn relay_final(
        &mut self,
        mut answer: Response,
        framing: BodyFraming,
        from: &mut ConnectionReader,
        to: &mut ConnectionWriter,
    ) -> Result<ReusableConnections, RelayError> {
        if self.redactor.is_some()
            && let Some(why) = unsearchable_reason(&answer)
        {
            return Err(RelayError::Answer(why));
        }
        let upstream = answer.is_persistent() && framing != BodyFraming::Close;
        let scrubs = self.redactor.is_some();
        let outside = match framing {
            BodyFraming::Empty => BodyFraming::Empty,
            BodyFraming::Length(0) => BodyFraming::Length(0),
            BodyFraming::Length(length) if !scrubs => BodyFraming::Length(length),
            _ if self.ready.minor == 1 => BodyFraming::Chunked,
            _ => BodyFraming::Close,
        };
        // A response without a body still states the length of the one it describes.
        let told = answer.headers.get_all("content-length").next().map(<[u8]>::to_vec);
        answer.headers.strip_hop_by_hop();
        answer.headers.add_framing(outside);
        if let (BodyFraming::Empty, Some(length), false, 200..=203 | 205..) =
            (outside, told, scrubs, answer.status)
        {
            answer.headers.add("Content-Length", length);
        }
        let again = self.ready.keep && outside != BodyFraming::Close;
        if !again {
            answer.headers.add("Connection", "close");
        } else if self.ready.minor == 0 {
            answer.headers.add("Connection", "keep-alive");
        }
        self.redact_head(&mut answer);
        self.forward_bytes(to, &answer.to_bytes()).await?;
        self.relay_body(framing, outside, from, to).await?;
        Ok(ReusableConnections { client: again, upstream })
    }

    async fn relay_body(
        &mut self,
        framing: BodyFraming,
        outside: BodyFraming,
        from: &mut ConnectionReader,
        to: &mut ConnectionWriter,
    ) -> Result<(), RelayError> {
        let mut body = BodyReader::new(framing);
        while let Some(piece) = body.next_piece(from).await.map_err(RelayError::Upstream)? {
            self.meter.add_received(piece.len());
            let piece = self.redactor.as_mut().map_or_else(|| piece.clone(), |s| s.push(&piece));
            self.forward_bytes(to, &frame_piece(outside, piece)).await?;
        }
        let rest = self.redactor.as_mut().map(KeyRedactor::finish).unwrap_or_default();
        self.forward_bytes(to, &frame_piece(outside, rest)).await?;
        if outside == BodyFraming::Chunked {
            self.forward_bytes(to, LAST_CHUNK).await?;
        }
        Ok(())
    }

    /// Redacts keys in the head as well.
    fn redact_head(&self, answer: &mut Response) {
        let Some(scrubber) = &self.redactor else { return };
        for header in &mut answer.headers.0 {
            if let Some(clean) = scrubber.redact_complete(header.name.as_bytes()) {
                header.name = String::from_utf8_lossy(&clean).into_owned();
            }
        }
        for value in answer.headers.0.iter_mut().map(|h| &mut h.value).chain([&mut answer.reason]) {
            if let Some(clean) = scrubber.redact_complete(value) {
                *value = clean;
            }
        }
    }

    async fn forward_bytes(&self, to: &mut ConnectionWriter, bytes: &[u8]) -> Result<(), RelayError> {
        if !bytes.is_empty() {
            self.answered.store(true, Ordering::Relaxed);
        }
        write_bytes(to, bytes, |_| self.meter.add_received(0)).await.map_err(RelayError::Client)
    }
}

/// Returns why a response cannot be searched for keys: it is encoded or partial, although neither was requested.
fn unsearchable_reason(answer: &Response) -> Option<&'static str> {
    let coded = |word: &str| !word.is_empty() && !word.eq_ignore_ascii_case("identity");
    let ranges = |kind: &str| kind.to_ascii_lowercase().starts_with("multipart/byteranges");
    let headers = &answer.headers;
    if headers.tokens("content-encoding").any(coded) {
        Some("it is compressed although that was not requested, and might contain the key")
    } else if matches!(answer.status, 206 | 226)
        || headers.get_all("content-range").next().is_some()
        || headers.tokens("content-type").any(ranges)
    {
        Some("it is partial although all of it was requested, and might contain a part of the key")
    } else {
        None
    }
}

fn frame_piece(framing: BodyFraming, piece: Vec<u8>) -> Vec<u8> {
    if framing == BodyFraming::Chunked { encode_chunk(&piece) } else { piece }
}
