//! Reading messages from a connection: heads, and bodies by their framing.

use super::head::{Framing, head_length};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf};

/// Read from a socket at once.
const PIECE: usize = 16 << 10;
/// Longest line before a chunk, and all trailers of a body together.
const CHUNK_LINE: usize = 4 << 10;

/// A connection, with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// A connection that can be read and written at the same time.
pub(super) struct Wire {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

/// The writing half.
pub(super) type Writer = WriteHalf<Box<dyn Stream>>;

/// The reading half, with what was read but not used yet.
pub(super) struct Reader {
    from: ReadHalf<Box<dyn Stream>>,
    held: Vec<u8>,
}

impl Wire {
    pub(super) fn new(stream: impl Stream + 'static) -> Self {
        let stream: Box<dyn Stream> = Box::new(stream);
        let (from, writer) = tokio::io::split(stream);
        Self { reader: Reader { from, held: Vec::new() }, writer }
    }
}

impl Reader {
    /// Reads more. Safe to drop before it is done.
    pub(super) async fn fill(&mut self) -> io::Result<usize> {
        self.held.reserve(PIECE);
        self.from.read_buf(&mut self.held).await
    }

    /// What was read but not used yet.
    pub(super) fn held(&self) -> &[u8] {
        &self.held
    }

    /// All that comes, what was read but not used first.
    pub(super) fn rest(self) -> impl AsyncRead + Unpin + Send + 'static {
        io::Cursor::new(self.held).chain(self.from)
    }

    /// Takes the first `count` of the bytes that are there.
    pub(super) fn take(&mut self, count: usize) -> Vec<u8> {
        let rest = self.held.split_off(count.min(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }

    /// The next head with its empty line; `None` if the connection ended before its first byte.
    pub(super) async fn head(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut seen: usize = 0;
        loop {
            // The end may have begun in what was seen before.
            let from = seen.saturating_sub(3);
            let found = head_length(&self.held[from..]).map(|length| from + length);
            seen = self.held.len();
            if found.unwrap_or(self.held.len()) > limit {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the head is too long"));
            }
            if let Some(length) = found {
                return Ok(Some(self.take(length)));
            }
            if self.fill().await? == 0 {
                return if self.held.is_empty() { Ok(None) } else { Err(cut()) };
            }
        }
    }

    /// A line without its CR LF.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.held.iter().position(|&b| b == b'\n') {
                let mut line = self.take(at + 1);
                line.truncate(at);
                return if line.pop() == Some(b'\r') && !line.contains(&b'\r') {
                    Ok(line)
                } else {
                    Err(broken("a line of a chunked body does not end with CR LF"))
                };
            }
            if self.held.len() > CHUNK_LINE {
                return Err(broken("a line of a chunked body is too long"));
            }
            if self.fill().await? == 0 {
                return Err(cut());
            }
        }
    }
}

/// A body that is being read.
pub(super) struct Body {
    framing: Framing,
    /// Bytes left of the body or of the chunk.
    left: u64,
    /// Whether a chunk was begun, so that its CR LF is still to come.
    in_chunk: bool,
    done: bool,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(bytes) = framing { bytes } else { 0 };
        let done = matches!(framing, Framing::Empty | Framing::Length(0));
        Self { framing, left, in_chunk: false, done }
    }

    /// The next bytes of the content; `None` at its end.
    pub(super) async fn next(&mut self, from: &mut Reader) -> io::Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        match self.framing {
            Framing::Empty => Ok(None),
            Framing::Close => {
                if from.held.is_empty() && from.fill().await? == 0 {
                    self.done = true;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut from.held)))
            }
            Framing::Length(_) => {
                let piece = self.piece(from).await?;
                self.done = self.left == 0;
                Ok(Some(piece))
            }
            Framing::Chunked => {
                if self.left == 0 && !self.next_chunk(from).await? {
                    self.done = true;
                    return Ok(None);
                }
                self.piece(from).await.map(Some)
            }
        }
    }

    async fn piece(&mut self, from: &mut Reader) -> io::Result<Vec<u8>> {
        if from.held.is_empty() && from.fill().await? == 0 {
            return Err(cut());
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(from.held.len());
        self.left -= count as u64;
        Ok(from.take(count))
    }

    /// Reads the size of the next chunk; at the last one also the trailers, which are dropped.
    async fn next_chunk(&mut self, from: &mut Reader) -> io::Result<bool> {
        if std::mem::replace(&mut self.in_chunk, true) && !from.line().await?.is_empty() {
            return Err(broken("a chunk is longer than it says"));
        }
        let line = from.line().await?;
        let size = line.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
        let hex = (1..=15).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        let size =
            std::str::from_utf8(size).ok().and_then(|s| u64::from_str_radix(s, 16).ok()).filter(|_| hex);
        self.left = size.ok_or_else(|| broken("the size of a chunk is no number"))?;
        if self.left > 0 {
            return Ok(true);
        }
        let mut trailers = 0;
        loop {
            let line = from.line().await?;
            if line.is_empty() {
                return Ok(false);
            }
            trailers += line.len();
            if trailers > CHUNK_LINE {
                return Err(broken("the trailers are too long"));
            }
        }
    }
}

/// Content as a chunk. Nothing for nothing, since an empty chunk would end the body.
pub(super) fn chunk(content: &[u8]) -> Vec<u8> {
    if content.is_empty() {
        return Vec::new();
    }
    let mut out = format!("{:x}\r\n", content.len()).into_bytes();
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
    out
}

/// What ends a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended in the middle of a message")
}

fn broken(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
