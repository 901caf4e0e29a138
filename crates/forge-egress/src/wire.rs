//! Connections from the sandbox, with a buffer in front of which heads are read before hyper sees them.

use super::head::head_length;
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadHalf, WriteHalf};

/// Bytes read from a socket at once.
const READ_CHUNK_BYTES: usize = 16 << 10;

/// A connection, with or without TLS.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A connection that can be read and written at the same time.
pub(super) struct SplitConnection {
    pub(super) reader: ConnectionReader,
    pub(super) writer: WriteHalf<Box<dyn ByteStream>>,
}

/// The reading half, with a buffer of unprocessed bytes.
pub(super) struct ConnectionReader {
    pub(super) from: ReadHalf<Box<dyn ByteStream>>,
    pub(super) pending: Vec<u8>,
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

    /// Returns a reader for the buffer and everything that follows.
    pub(super) fn into_rest(self) -> impl AsyncRead + Unpin + Send + 'static {
        io::Cursor::new(self.pending).chain(self.from)
    }

    /// Reads until the buffer begins with a complete head and returns its length.
    pub(super) async fn read_head(&mut self, limit: usize) -> io::Result<usize> {
        let mut seen: usize = 0;
        loop {
            // The end of the head may have started in bytes seen before.
            let from = seen.saturating_sub(3);
            let found = head_length(&self.pending[from..]).map(|length| from + length);
            seen = self.pending.len();
            if found.unwrap_or(seen) > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            match found {
                Some(length) => return Ok(length),
                None if self.fill_buffer().await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
        }
    }
}
