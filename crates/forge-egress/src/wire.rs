//! Reading messages from a connection: heads, and bodies by their framing.

use super::head::{BodyFraming, head_length};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf};

/// Bytes read from a socket at once.
const READ_CHUNK_BYTES: usize = 16 << 10;
/// Maximum length of a line before a chunk, and of all trailers of a body together.
const MAX_CHUNK_LINE_BYTES: usize = 4 << 10;

/// A connection, with or without TLS.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A connection that can be read and written at the same time.
pub(super) struct SplitConnection {
    pub(super) reader: ConnectionReader,
    pub(super) writer: ConnectionWriter,
}

/// The writing half.
pub(super) type ConnectionWriter = WriteHalf<Box<dyn ByteStream>>;

/// The reading half, with a buffer of unprocessed bytes.
pub(super) struct ConnectionReader {
    from: ReadHalf<Box<dyn ByteStream>>,
    pending: Vec<u8>,
}

impl SplitConnection {
    pub(super) fn new(stream: impl ByteStream + 'static) -> Self {
        let stream: Box<dyn ByteStream> = Box::new(stream);
        let (from, writer) = tokio::io::split(stream);
        Self { reader: ConnectionReader { from, pending: Vec::new() }, writer }
    }
}

impl ConnectionReader {
    /// Reads more into the buffer. Cancel-safe.
    pub(super) async fn fill_buffer(&mut self) -> io::Result<usize> {
        self.pending.reserve(READ_CHUNK_BYTES);
        self.from.read_buf(&mut self.pending).await
    }

    /// Returns the unprocessed bytes.
    pub(super) fn buffered(&self) -> &[u8] {
        &self.pending
    }

    /// Returns a reader for the buffer and everything that follows.
    pub(super) fn into_rest(self) -> impl AsyncRead + Unpin + Send + 'static {
        io::Cursor::new(self.pending).chain(self.from)
    }

    /// Removes and returns the first `count` bytes of the buffer.
    pub(super) fn consume(&mut self, count: usize) -> Vec<u8> {
        let rest = self.pending.split_off(count.min(self.pending.len()));
        std::mem::replace(&mut self.pending, rest)
    }

    /// Reads the next head, including its empty line; returns `None` if the connection ended before its first byte.
    pub(super) async fn read_head(&mut self, limit: usize) -> io::Result<Option<Vec<u8>>> {
        let mut seen: usize = 0;
        loop {
            // The end of the head may have started in bytes seen before.
            let from = seen.saturating_sub(3);
            let found = head_length(&self.pending[from..]).map(|length| from + length);
            seen = self.pending.len();
            if found.unwrap_or(self.pending.len()) > limit {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the head is too long"));
            }
            if let Some(length) = found {
                return Ok(Some(self.consume(length)));
            }
            if self.fill_buffer().await? == 0 {
                return if self.pending.is_empty() { Ok(None) } else { Err(truncated_error()) };
            }
        }
    }

    /// Reads a line without its CR LF.
    async fn read_line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.pending.iter().position(|&b| b == b'\n') {
                let mut line = self.consume(at + 1);
                line.truncate(at);
                return if line.pop() == Some(b'\r') && !line.contains(&b'\r') {
                    Ok(line)
                } else {
                    Err(invalid_data_error("a line of a chunked body does not end with CR LF"))
                };
            }
            if self.pending.len() > MAX_CHUNK_LINE_BYTES {
                return Err(invalid_data_error("a line of a chunked body is too long"));
            }
            if self.fill_buffer().await? == 0 {
                return Err(truncated_error());
            }
        }
    }
}

/// A body that is being read.
pub(super) struct BodyReader {
    framing: BodyFraming,
    /// Bytes left of the body or of the chunk.
    left: u64,
    /// Whether a chunk was started, so that its CR LF is still to come.
    in_chunk: bool,
    done: bool,
}

impl BodyReader {
    pub(super) fn new(framing: BodyFraming) -> Self {
        let left = if let BodyFraming::Length(bytes) = framing { bytes } else { 0 };
        let done = matches!(framing, BodyFraming::Empty | BodyFraming::Length(0));
        Self { framing, left, in_chunk: false, done }
    }

    /// Reads the next bytes of the content; returns `None` at its end.
    pub(super) async fn next_piece(&mut self, from: &mut ConnectionReader) -> io::Result<Option<Vec<u8>>> {
        if self.done {
            return Ok(None);
        }
        match self.framing {
            BodyFraming::Empty => Ok(None),
            BodyFraming::Close => {
                if from.pending.is_empty() && from.fill_buffer().await? == 0 {
                    self.done = true;
                    return Ok(None);
                }
                Ok(Some(std::mem::take(&mut from.pending)))
            }
            BodyFraming::Length(_) => {
                let piece = self.read_piece(from).await?;
                self.done = self.left == 0;
                Ok(Some(piece))
            }
            BodyFraming::Chunked => {
                if self.left == 0 && !self.read_chunk_header(from).await? {
                    self.done = true;
                    return Ok(None);
                }
                self.read_piece(from).await.map(Some)
            }
        }
    }

    async fn read_piece(&mut self, from: &mut ConnectionReader) -> io::Result<Vec<u8>> {
        if from.pending.is_empty() && from.fill_buffer().await? == 0 {
            return Err(truncated_error());
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(from.pending.len());
        self.left -= count as u64;
        Ok(from.consume(count))
    }

    /// Reads the size of the next chunk and, after the last one, the trailers, which are dropped.
    async fn read_chunk_header(&mut self, from: &mut ConnectionReader) -> io::Result<bool> {
        if std::mem::replace(&mut self.in_chunk, true) && !from.read_line().await?.is_empty() {
            return Err(invalid_data_error("a chunk is longer than its declared size"));
        }
        let line = from.read_line().await?;
        let size = line.split(|&b| b == b';').next().unwrap_or_default().trim_ascii_end();
        let hex = (1..=15).contains(&size.len()) && size.iter().all(u8::is_ascii_hexdigit);
        let size =
            std::str::from_utf8(size).ok().and_then(|s| u64::from_str_radix(s, 16).ok()).filter(|_| hex);
        self.left = size.ok_or_else(|| invalid_data_error("the size of a chunk is not a number"))?;
        if self.left > 0 {
            return Ok(true);
        }
        let mut trailers = 0;
        loop {
            let line = from.read_line().await?;
            if line.is_empty() {
                return Ok(false);
            }
            trailers += line.len();
            if trailers > MAX_CHUNK_LINE_BYTES {
                return Err(invalid_data_error("the trailers are too long"));
            }
        }
    }
}

/// Encodes content as a chunk. Empty content gives no bytes because an empty chunk would end the body.
pub(super) fn encode_chunk(content: &[u8]) -> Vec<u8> {
    if content.is_empty() {
        return Vec::new();
    }
    let mut out = format!("{:x}\r\n", content.len()).into_bytes();
    out.extend_from_slice(content);
    out.extend_from_slice(b"\r\n");
    out
}

/// The end of a chunked body.
pub(super) const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

fn truncated_error() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended in the middle of a message")
}

fn invalid_data_error(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
