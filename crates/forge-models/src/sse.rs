//! Incremental parsers for server-sent events and newline-delimited JSON.
//!
//! The grammar is that of the WHATWG HTML standard, "Parsing an event stream", without the parts that no provider uses
//! (`id`, `retry`). Chunks may end anywhere: inside a character, a field name, a line end. An event that lies within
//! one chunk is passed on without a copy; others are copied once, into buffers that are reused.

use std::ops::ControlFlow;

/// Largest size in bytes of a line or event; more means a faulty server.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// An event with its name (empty if it has none) and its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameEvent<'a> {
    /// Value of the `event:` field; always empty for lines.
    pub name: &'a [u8],
    /// Values of the `data:` fields joined by line feeds, or the line.
    pub data: &'a [u8],
}

/// A line or event that exceeds the size limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of more than {} MiB", MAX_EVENT_BYTES >> 20)]
pub struct TooLong;

/// A splitter for lines that end in LF, CR or CRLF.
#[derive(Debug, Default)]
struct LineSplitter {
    /// Beginning of a line that is not complete yet.
    partial: Vec<u8>,
    /// Whether the last byte was a CR, so that a following LF belongs to it.
    after_cr: bool,
}

impl LineSplitter {
    /// Passes each complete line to `take` until it returns `Break`.
    fn push<B>(
        &mut self,
        mut bytes: &[u8],
        take: &mut impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        while !bytes.is_empty() {
            let (flow, rest) = self.next_line(bytes, take)?;
            if flow.is_break() {
                return Ok(flow);
            }
            bytes = rest;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Passes the first complete line, if there is one, to `take` and returns the bytes after it.
    fn next_line<'b, B>(
        &mut self,
        mut bytes: &'b [u8],
        take: &mut impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<(ControlFlow<B>, &'b [u8]), TooLong> {
        if std::mem::take(&mut self.after_cr)
            && let Some(rest) = bytes.strip_prefix(b"\n")
        {
            bytes = rest;
        }
        let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else {
            self.buffer_partial(bytes)?;
            return Ok((ControlFlow::Continue(()), &[]));
        };
        self.after_cr = bytes[end] == b'\r';
        let flow = if self.partial.is_empty() {
            take(&bytes[..end])
        } else {
            self.buffer_partial(&bytes[..end])?;
            let flow = take(&self.partial);
            self.partial.clear();
            flow
        };
        Ok((flow, &bytes[end + 1..]))
    }

    /// Returns whether the next byte begins a line.
    fn is_between(&self) -> bool {
        self.partial.is_empty() && !self.after_cr
    }

    fn buffer_partial(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        if self.partial.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(TooLong);
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }
}

/// The fields of the event being read.
#[derive(Debug, Default)]
struct EventFields {
    name: Vec<u8>,
    data: Vec<u8>,
    /// Whether there was a `data` field, even an empty one.
    any: bool,
    /// Whether the first line has been seen, which a byte order mark may precede.
    started: bool,
    too_long: bool,
}

impl EventFields {
    fn push_line<B>(
        &mut self,
        mut line: &[u8],
        take: &mut impl FnMut(FrameEvent<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line);
        }
        if line.is_empty() {
            return self.dispatch_event(take);
        }
        // Most lines are `data` lines, which are recognized without a search for the colon.
        let (field, value) = match line.strip_prefix(b"data:") {
            Some(value) => (&b"data"[..], value),
            None => match memchr::memchr(b':', line) {
                Some(at) => (&line[..at], &line[at + 1..]),
                None => (line, &[][..]),
            },
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                if self.any {
                    self.data.push(b'\n');
                }
                self.any = true;
                self.too_long |= self.data.len() + value.len() > MAX_EVENT_BYTES;
                if !self.too_long {
                    self.data.extend_from_slice(value);
                }
            }
            b"event" => {
                self.name.clear();
                self.name.extend_from_slice(value);
            }
            // Comments (an empty field name), `id`, `retry` and future fields.
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn dispatch_event<B>(
        &mut self,
        take: &mut impl FnMut(FrameEvent<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let flow = if self.any {
            take(FrameEvent { name: &self.name, data: &self.data })
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
    lines: LineSplitter,
    fields: EventFields,
}

impl Sse {
    /// Creates a parser for the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk of the stream and passes each complete event to `take` until it returns `Break`; the rest
    /// of the chunk is dropped then. An event without its closing empty line is never passed on.
    ///
    /// # Errors
    /// [`TooLong`] if a line or event exceeds the size limit.
    pub fn push<B>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(FrameEvent<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        let Self { lines, fields } = self;
        let mut bytes = bytes;
        while !bytes.is_empty() {
            if fields.started && !fields.any && fields.name.is_empty() && lines.is_between() {
                while let Some((event, rest)) = split_event(bytes) {
                    bytes = rest;
                    let flow = take(event);
                    if flow.is_break() {
                        return Ok(flow);
                    }
                }
            }
            let (flow, rest) = lines.next_line(bytes, &mut |line| fields.push_line(line, &mut take))?;
            if fields.too_long {
                return Err(TooLong);
            }
            if flow.is_break() {
                return Ok(flow);
            }
            bytes = rest;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Returns the event at the beginning of `bytes`, and the bytes after it, if the event has the most common form: at
/// most a name, one line of data and an empty line, each ended by a line feed.
fn split_event(bytes: &[u8]) -> Option<(FrameEvent<'_>, &[u8])> {
    let (name, rest) = match bytes.strip_prefix(b"event:") {
        Some(rest) => split_line(rest)?,
        None => (&[][..], bytes),
    };
    let (data, rest) = split_line(rest.strip_prefix(b"data:")?)?;
    Some((FrameEvent { name, data }, rest.strip_prefix(b"\n")?))
}

/// Returns a field's value up to its line feed, and the bytes after that.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end =
        memchr::memchr2(b'\n', b'\r', bytes).filter(|end| bytes[*end] == b'\n' && *end <= MAX_EVENT_BYTES)?;
    let value = &bytes[..end];
    Some((value.strip_prefix(b" ").unwrap_or(value), &bytes[end + 1..]))
}

/// A splitter of newline-delimited JSON.
#[derive(Debug, Default)]
pub struct Ndjson {
    lines: LineSplitter,
}

impl Ndjson {
    /// Creates a splitter for the beginning of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk and passes each complete line that is not blank to `take` until it returns `Break`.
    ///
    /// # Errors
    /// [`TooLong`] if a line exceeds the size limit.
    pub fn push<B>(
        &mut self,
        bytes: &[u8],
        mut take: impl FnMut(FrameEvent<'_>) -> ControlFlow<B>,
    ) -> Result<ControlFlow<B>, TooLong> {
        self.lines.push(bytes, &mut |line| {
            if line.trim_ascii().is_empty() {
                return ControlFlow::Continue(());
            }
            take(FrameEvent { name: b"", data: line })
        })
    }

    /// Returns the last line if the stream ended without a line end.
    pub fn last_line(&self) -> Option<FrameEvent<'_>> {
        let line = self.lines.partial.trim_ascii();
        (!line.is_empty()).then_some(FrameEvent { name: b"", data: line })
    }
}
