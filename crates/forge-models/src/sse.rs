//! Server-sent events and newline-delimited JSON, taken apart while the bytes arrive.
//!
//! The grammar is that of the WHATWG HTML standard, "Parsing an event stream", without what no provider uses
//! (`id`, `retry`). Pieces may end anywhere: inside a character, a field name, a line end. One copy per payload
//! byte, no allocation per event once the buffers have grown.

use std::ops::ControlFlow;

/// The longest line or event taken, in bytes; more is a server gone wrong.
const LONGEST: usize = 64 << 20;

/// One event: its name (empty if it has none) and its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event:` field; always empty for lines.
    pub name: &'a [u8],
    /// The `data:` fields joined by line feeds, or the line.
    pub data: &'a [u8],
}

/// A line or event that is longer than anything a provider sends.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {} MiB", LONGEST >> 20)]
pub struct TooLong;

/// Splits bytes into lines that end in LF, CR or CRLF.
#[derive(Debug, Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Whether the last byte was a CR, so that an LF now belongs to it.
    after_cr: bool,
}

impl Lines {
    /// Hands each complete line to `take` until that says stop.
    fn push<B>(
        &mut self,
        mut bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr) && bytes[0] == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
                self.keep(bytes)?;
                break;
            };
            self.after_cr = bytes[end] == b'\r';
            let flow = if self.partial.is_empty() {
                take(&bytes[..end])
            } else {
                self.keep(&bytes[..end])?;
                let flow = take(&self.partial);
                self.partial.clear();
                flow
            };
            if flow.is_break() {
                return Ok(flow);
            }
            bytes = &bytes[end + 1..];
        }
        Ok(ControlFlow::Continue(()))
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.partial.len() + bytes.len() > LONGEST {
            return Err(TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

/// The fields of the event that is being read.
#[derive(Debug, Default)]
struct Fields {
    name: Vec<u8>,
    data: Vec<u8>,
    /// Whether a `data` field was there, be it empty.
    any: bool,
    /// Whether the first line has been seen: a byte order mark may stand before it.
    begun: bool,
    too_long: bool,
}

impl Fields {
    fn line<B>(
        &mut self,
        mut line: &[u8],
        take: &mut impl FnMut(Event<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch(take);
        }
        let (field, value) = match memchr::memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.any {
                    self.data.push(b'\n');
                }
                self.any = true;
                self.too_long |= self.data.len() + value.len() > LONGEST;
                if !self.too_long {
                    self.data.extend_from_slice(value);
                }
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // Comments (an empty field name), `id`, `retry` and whatever is invented later.
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn dispatch<B>(&mut self, take: &mut impl FnMut(Event<'_>) -> ControlFlow<B>) -> ControlFlow<B> {
        let flow = if self.any {
            take(Event { name: &self.name, data: &self.data })
        } else {
            ControlFlow::Continue(())
        };
        self.name.clear();
        self.data.clear();
        self.any = false;
        flow
    }
}

/// A parser of server-sent events.
#[derive(Debug, Default)]
pub struct Sse {
    lines: Lines,
    fields: Fields,
}

impl Sse {
    /// A parser at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece of the stream and hands each complete event to `take` until that says stop; the
    /// rest of the piece is dropped then. An event without its closing empty line is never handed out.
    ///
    /// # Errors
    /// [`TooLong`] if a line or event grows beyond all measure.
    pub fn push<B>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Event<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        let Self { lines, fields } = self;
        let flow = lines.push(bytes, &mut |line| fields.line(line, &mut take))?;
        if fields.too_long { Err(TooLong) } else { Ok(flow) }
    }
}

/// A splitter of newline-delimited JSON.
#[derive(Debug, Default)]
pub struct Ndjson {
    lines: Lines,
}

impl Ndjson {
    /// A splitter at the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next piece and hands each complete line that is not blank to `take` until that says stop.
    ///
    /// # Errors
    /// [`TooLong`] if a line grows beyond all measure.
    pub fn push<B>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(Event<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        self.lines.push(bytes, &mut |line| {
            if line.trim_ascii().is_empty() {
                return ControlFlow::Continue(());
            }
            take(Event { name: b"", data: line })
        })
    }

    /// The last line if the stream ended without a line end.
    pub fn rest(&self) -> Option<Event<'_>> {
        let line = self.lines.partial.trim_ascii();
        (!line.is_empty()).then_some(Event { name: b"", data: line })
    }
}
