//! File operations on a workspace, served by the init of a sandbox or, without a sandbox, by this process. Both apply
//! the same rules to a request; this module determines the order of the steps.

use forge_jail::{JailReply, JailRequest, RawBytes, RemovalScope, ReplaceExisting, ReplyWithFd, SyncToDisk};
use forge_ports::async_trait;
use forge_ports::sandbox::{Error, FileChunk};
use forge_workspace::paths;
use forge_workspace::run_blocking;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

/// A handler of file requests.
#[async_trait]
pub(crate) trait FileRequestHandler: Send + std::marker::Sync {
    /// Handles one request.
    async fn handle(&self, request: JailRequest) -> Result<ReplyWithFd, Error>;
}

/// Reads at most `limit` bytes of a regular file.
pub(crate) async fn read_file(
    door: &dyn FileRequestHandler,
    path: String,
    offset: u64,
    limit: usize,
) -> Result<FileChunk, Error> {
    let answer = door.handle(JailRequest::OpenRead { path: RawBytes::from(path.as_str()) }).await?;
    let (JailReply::Opened { stat }, Some(fd)) = (answer.reply, answer.fd) else {
        return Err(unexpected_reply());
    };
    let bytes = run_blocking(move || {
        read_chunk(&File::from(fd), offset, limit).map_err(|error| io_fault(&path, &error))
    })
    .await?;
    Ok(FileChunk { bytes, size: stat.size, mode: stat.mode })
}

fn read_chunk(file: &File, offset: u64, limit: usize) -> std::io::Result<Vec<u8>> {
    // The size reported by the file system is only a hint: grow as bytes arrive.
    let mut bytes = Vec::new();
    let mut piece = vec![0; limit.min(256 << 10)];
    while bytes.len() < limit {
        let want = piece.len().min(limit - bytes.len());
        let at = offset.saturating_add(bytes.len() as u64);
        match file.read_at(&mut piece[..want], at) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// Writes a whole file under a temporary name and moves it into place.
pub(crate) async fn write_file(
    door: &dyn FileRequestHandler,
    path: String,
    bytes: Vec<u8>,
) -> Result<(), Error> {
    if let Some((parent, _)) = path.rsplit_once('/') {
        door.handle(JailRequest::MakeDirs { path: RawBytes::from(parent) }).await?;
    }
    // New files get the conventional mode; the handler keeps the mode of an existing file.
    let answer =
        door.handle(JailRequest::CreateTemp { path: RawBytes::from(path.as_str()), mode: 0o644 }).await?;
    let (JailReply::Temp { token, .. }, Some(fd)) = (answer.reply, answer.fd) else {
        return Err(unexpected_reply());
    };
    if let Err(error) =
        run_blocking(move || write_contents(fd, &bytes).map_err(|error| io_fault(&path, &error))).await
    {
        // The first error is the one that counts; a file that cannot be removed is gone with the sandbox.
        let _ = door.handle(JailRequest::AbortTemp { token }).await;
        return Err(error);
    }
    door.handle(JailRequest::CommitTemp { token, replace: ReplaceExisting::Yes, sync: SyncToDisk::No })
        .await
        .map(drop)
}

/// Removes one file or symlink.
pub(crate) async fn remove_file(door: &dyn FileRequestHandler, path: String) -> Result<(), Error> {
    door.handle(JailRequest::Remove { path: RawBytes::from(path.as_str()), what: RemovalScope::File })
        .await
        .map(drop)
}

fn write_contents(fd: OwnedFd, bytes: &[u8]) -> std::io::Result<()> {
    File::from(fd).write_all(bytes)
}

fn io_fault(path: &str, error: &std::io::Error) -> Error {
    use forge_jail::{FaultKind, FileFault};
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => FaultKind::Full,
        _ => FaultKind::Os(error.raw_os_error().unwrap_or(0)),
    };
    paths::file_error(&FileFault { path: RawBytes::from(path), kind })
}

fn unexpected_reply() -> Error {
    Error::Died { why: "its reply does not match the request".to_owned() }
}
