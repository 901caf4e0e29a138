//! One request and its answer, between a program in the box and a host.

use super::fault::Fault;
use super::head::{Framing, Request, Response};
use super::log::Meter;
use super::swap::Scrubber;
use super::wire::{Body, LAST_CHUNK, Reader, Wire, Writer, chunk};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::io::AsyncWriteExt as _;

/// A request that is ready to be sent.
#[derive(Clone)]
pub(super) struct Ready {
    /// As the host gets it, hop-by-hop headers and framing replaced.
    pub(super) request: Request,
    /// The HTTP/1 version that the program speaks.
    pub(super) minor: u8,
    pub(super) framing: Framing,
    /// Whether the program wants to go on with its connection.
    pub(super) keep: bool,
    /// Brings keys in the answer back to placeholders.
    pub(super) scrubber: Option<Scrubber>,
}

/// How an exchange ended.
pub(super) enum Ended {
    /// Both messages are through.
    Whole { client_again: bool, upstream_again: bool },
    /// It broke off; `answered` says whether the program has seen the beginning of an answer.
    Broken { answered: bool, fault: Fault },
}

/// What broke, and on which side.
enum Break {
    Client(io::Error),
    Upstream(io::Error),
    Answer(&'static str),
}

/// Sends the request and brings back the answer, both at once: an answer may come before the request is through.
pub(super) async fn exchange(
    client: &mut Wire,
    upstream: &mut Wire,
    ready: &mut Ready,
    meter: &Meter,
    limit: usize,
) -> Ended {
    let answered = AtomicBool::new(false);
    let (framing, keep) = (ready.framing, ready.keep);
    let head = ready.request.bytes();
    let scrubber = ready.scrubber.take();
    let way_back = Back { ready, scrubber, answered: &answered, meter, limit };
    let mut up = pin!(upload(&mut client.reader, &mut upstream.writer, head, framing, meter));
    let mut down = pin!(way_back.run(&mut upstream.reader, &mut client.writer));
    let mut sent = None;
    let broken = loop {
        tokio::select! {
            done = &mut down => match done {
                Ok(after) => {
                    let whole = matches!(sent, Some(true));
                    return Ended::Whole {
                        client_again: keep && whole && after.client,
                        upstream_again: whole && after.upstream,
                    };
                }
                Err(broken) => break broken,
            },
            done = &mut up, if sent.is_none() => match done {
                Ok(()) => sent = Some(true),
                // The host may have answered already and not want the rest.
                Err(Break::Upstream(_)) => sent = Some(false),
                Err(broken) => break broken,
            },
            () = meter.idle() => break Break::Upstream(io::ErrorKind::TimedOut.into()),
        }
    };
    Ended::Broken { answered: answered.load(Ordering::Relaxed), fault: fault(broken) }
}

fn fault(broken: Break) -> Fault {
    match broken {
        Break::Client(error) if error.kind() == io::ErrorKind::InvalidData => {
            Fault::request(400, format!("the request can't be passed on: {error}"))
        }
        Break::Client(_) => Fault::failed(400, "the program ended the connection"),
        Break::Upstream(error) if error.kind() == io::ErrorKind::TimedOut => {
            Fault::failed(504, "the host did not answer in time")
        }
        Break::Upstream(error) => {
            Fault::failed(502, format!("the host broke the connection off: {}", super::dial::words(&error)))
        }
        Break::Answer(why) => Fault::failed(502, format!("the host's answer can't be passed on: {why}")),
    }
}

async fn upload(
    from: &mut Reader,
    to: &mut Writer,
    head: Vec<u8>,
    framing: Framing,
    meter: &Meter,
) -> Result<(), Break> {
    send(to, &head, |n| meter.sent(n)).await.map_err(Break::Upstream)?;
    let mut body = Body::new(framing);
    while let Some(piece) = body.next(from).await.map_err(Break::Client)? {
        let piece = if framing == Framing::Chunked { chunk(&piece) } else { piece };
        send(to, &piece, |n| meter.sent(n)).await.map_err(Break::Upstream)?;
    }
    if framing == Framing::Chunked {
        send(to, LAST_CHUNK, |n| meter.sent(n)).await.map_err(Break::Upstream)?;
    }
    Ok(())
}

async fn send(to: &mut Writer, bytes: &[u8], moved: impl Fn(usize)) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    to.write_all(bytes).await?;
    to.flush().await?;
    moved(bytes.len());
    Ok(())
}

/// Which connections can be used again, as far as the answer says.
struct After {
    client: bool,
    upstream: bool,
}

/// The way of the answer.
struct Back<'a> {
    ready: &'a Ready,
    scrubber: Option<Scrubber>,
    answered: &'a AtomicBool,
    meter: &'a Meter,
    limit: usize,
}

impl Back<'_> {
    async fn run(mut self, from: &mut Reader, to: &mut Writer) -> Result<After, Break> {
        loop {
            let mut answer = self.head(from).await?;
            let framing = answer.framing(&self.ready.request.method).map_err(|bad| Break::Answer(bad.0))?;
            if answer.status == 101 {
                return Err(Break::Answer("it changes the protocol, which was not asked for"));
            }
            if answer.status >= 200 {
                return self.last(answer, framing, from, to).await;
            }
            if self.ready.minor == 1 {
                answer.headers.strip_hop_by_hop();
                self.clean(&mut answer);
                self.pass(to, &answer.bytes()).await?;
            }
        }
    }

    async fn head(&self, from: &mut Reader) -> Result<Response, Break> {
        let head = from.head(self.limit).await.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => Break::Answer("its head is too long"),
            _ => Break::Upstream(error),
        })?;
        let head = head.ok_or_else(|| {
            Break::Upstream(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed without an answer"))
        })?;
        self.meter.received(head.len());
        Response::parse(&head).map_err(|bad| Break::Answer(bad.0))
    }

    /// The final answer.
    async fn last(
        &mut self,
        mut answer: Response,
        framing: Framing,
        from: &mut Reader,
        to: &mut Writer,
    ) -> Result<After, Break> {
        if self.scrubber.is_some()
            && let Some(why) = unsearchable(&answer)
        {
            return Err(Break::Answer(why));
        }
        let upstream = answer.keeps_alive() && framing != Framing::Close;
        let scrubs = self.scrubber.is_some();
        let outside = match framing {
            Framing::Empty => Framing::Empty,
            Framing::Length(0) => Framing::Length(0),
            Framing::Length(length) if !scrubs => Framing::Length(length),
            _ if self.ready.minor == 1 => Framing::Chunked,
            _ => Framing::Close,
        };
        // An answer without a body still tells the length of the one it stands for.
        let told = answer.headers.all("content-length").next().map(<[u8]>::to_vec);
        answer.headers.strip_hop_by_hop();
        answer.headers.frame(outside);
        if let (Framing::Empty, Some(length), false, 200..=203 | 205..) =
            (outside, told, scrubs, answer.status)
        {
            answer.headers.add("Content-Length", length);
        }
        let again = self.ready.keep && outside != Framing::Close;
        if !again {
            answer.headers.add("Connection", "close");
        } else if self.ready.minor == 0 {
            answer.headers.add("Connection", "keep-alive");
        }
        self.clean(&mut answer);
        self.pass(to, &answer.bytes()).await?;
        self.content(framing, outside, from, to).await?;
        Ok(After { client: again, upstream })
    }

    async fn content(
        &mut self,
        framing: Framing,
        outside: Framing,
        from: &mut Reader,
        to: &mut Writer,
    ) -> Result<(), Break> {
        let mut body = Body::new(framing);
        while let Some(piece) = body.next(from).await.map_err(Break::Upstream)? {
            self.meter.received(piece.len());
            let piece = self.scrubber.as_mut().map_or_else(|| piece.clone(), |s| s.push(&piece));
            self.pass(to, &framed(outside, piece)).await?;
        }
        let rest = self.scrubber.as_mut().map(Scrubber::finish).unwrap_or_default();
        self.pass(to, &framed(outside, rest)).await?;
        if outside == Framing::Chunked {
            self.pass(to, LAST_CHUNK).await?;
        }
        Ok(())
    }

    /// Keys in the head go no further either.
    fn clean(&self, answer: &mut Response) {
        let Some(scrubber) = &self.scrubber else { return };
        for header in &mut answer.headers.0 {
            if let Some(clean) = scrubber.whole(header.name.as_bytes()) {
                header.name = String::from_utf8_lossy(&clean).into_owned();
            }
        }
        for value in answer.headers.0.iter_mut().map(|h| &mut h.value).chain([&mut answer.reason]) {
            if let Some(clean) = scrubber.whole(value) {
                *value = clean;
            }
        }
    }

    async fn pass(&self, to: &mut Writer, bytes: &[u8]) -> Result<(), Break> {
        if !bytes.is_empty() {
            self.answered.store(true, Ordering::Relaxed);
        }
        send(to, bytes, |_| self.meter.received(0)).await.map_err(Break::Client)
    }
}

/// Why an answer can't be searched for keys: it is encoded, or only a part. Neither was asked for.
fn unsearchable(answer: &Response) -> Option<&'static str> {
    let coded = |word: &str| !word.is_empty() && !word.eq_ignore_ascii_case("identity");
    let ranges = |kind: &str| kind.to_ascii_lowercase().starts_with("multipart/byteranges");
    let headers = &answer.headers;
    if headers.words("content-encoding").any(coded) {
        Some("it is compressed although that was not asked for, and might hold the key")
    } else if matches!(answer.status, 206 | 226)
        || headers.all("content-range").next().is_some()
        || headers.words("content-type").any(ranges)
    {
        Some("it is a part of an answer although the whole was asked for, and might hold a part of the key")
    } else {
        None
    }
}

fn framed(framing: Framing, piece: Vec<u8>) -> Vec<u8> {
    if framing == Framing::Chunked { chunk(&piece) } else { piece }
}
