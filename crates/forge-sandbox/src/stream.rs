//! The two output streams of a command: read as data arrives, kept in bounded memory.

use crate::capture::OutputCapture;
use forge_ports::sandbox::{CapturedOutput, OutputSink, StdStream};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Maximum number of bytes to read at once.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// The two output streams of a command.
pub(crate) struct CommandStreams {
    stdout: OutputCapture,
    stderr: OutputCapture,
}

impl CommandStreams {
    /// Creates streams that keep at most `limit` bytes each.
    pub(crate) fn new(limit: usize) -> Self {
        Self { stdout: OutputCapture::new(limit), stderr: OutputCapture::new(limit) }
    }

    /// Reads both streams until they end.
    pub(crate) async fn drain(
        &mut self,
        stdout: impl AsyncRead + Unpin,
        stderr: impl AsyncRead + Unpin,
        output: &dyn OutputSink,
    ) {
        tokio::join!(
            drain_stream(stdout, StdStream::Stdout, &mut self.stdout, output),
            drain_stream(stderr, StdStream::Stderr, &mut self.stderr, output)
        );
    }

    /// Returns the captured standard output and standard error.
    pub(crate) fn finish(self) -> (CapturedOutput, CapturedOutput) {
        (self.stdout.finish(), self.stderr.finish())
    }
}

async fn drain_stream(
    mut pipe: impl AsyncRead + Unpin,
    stream: StdStream,
    kept: &mut OutputCapture,
    output: &dyn OutputSink,
) {
    let mut buffer = vec![0; READ_CHUNK_BYTES];
    // A read error counts as the end of the pipe.
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.push(&buffer[..read]);
        output.write_output(stream, &buffer[..read]);
    }
}
