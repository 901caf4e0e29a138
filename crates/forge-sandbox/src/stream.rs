//! A command's two streams: read while they come, kept in bounded memory.

use crate::capture::Capture;
use forge_ports::sandbox::{Kept, OutputSink, Stream};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How much is read at once.
const PIECE: usize = 64 << 10;

/// Both streams of a command.
pub(crate) struct Streams {
    stdout: Capture,
    stderr: Capture,
}

impl Streams {
    /// Keeps at most `limit` bytes of each.
    pub(crate) fn new(limit: usize) -> Self {
        Self { stdout: Capture::new(limit), stderr: Capture::new(limit) }
    }

    /// Reads both until they end.
    pub(crate) async fn drain(
        &mut self,
        stdout: impl AsyncRead + Unpin,
        stderr: impl AsyncRead + Unpin,
        output: &dyn OutputSink,
    ) {
        tokio::join!(
            one(stdout, Stream::Stdout, &mut self.stdout, output),
            one(stderr, Stream::Stderr, &mut self.stderr, output)
        );
    }

    /// What was kept of standard output and standard error.
    pub(crate) fn finish(self) -> (Kept, Kept) {
        (self.stdout.finish(), self.stderr.finish())
    }
}

async fn one(mut pipe: impl AsyncRead + Unpin, stream: Stream, kept: &mut Capture, output: &dyn OutputSink) {
    let mut buffer = vec![0; PIECE];
    // A pipe that fails has ended as far as anybody can tell.
    while let Ok(read @ 1..) = pipe.read(&mut buffer).await {
        kept.push(&buffer[..read]);
        output.output(stream, &buffer[..read]);
    }
}
