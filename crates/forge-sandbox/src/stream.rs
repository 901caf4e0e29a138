//! A command's two streams: read while they come, kept in bounded memory.

use crate::capture::OutputCapture;
use forge_ports::sandbox::{CapturedOutput, OutputSink, StdStream};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is read at once.
const READ_CHUNK_BYTES: usize = 64 << 10;

/// Both streams of a command.
pub(crate) struct CommandStreams {
    stdout: OutputCapture,
    stderr: OutputCapture,
}

impl CommandStreams {
    /// Keeps at most `limit` bytes of each.
    pub(crate) fn new(limit: usize) -> Self {
        Self { stdout: OutputCapture::new(limit), stderr: OutputCapture::new(limit) }
    }

    /// Reads both until they end.
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

    /// What was kept of standard output and standard error.
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
    // A pipe that fails has ended as far as anybody can tell.
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.push(&buffer[..read]);
        output.write_output(stream, &buffer[..read]);
    }
}
