//! Copying contents from file to file: shared blocks where the file system can, holes kept, no user-space buffer where
//! the kernel copies.

use forge_types::Digest;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How a content was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copied {
    /// The blocks are shared until one of the two is written to.
    Reflink,
    /// The bytes were copied.
    Bytes,
}

/// Copies `size` bytes into an empty file. Bytes that the source does not have are not made up: the copy is shorter.
pub(crate) fn content(from: &File, to: &File, size: u64) -> io::Result<Copied> {
    if size > 0 && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(Copied::Reflink);
    }
    let mut at = 0;
    while at < size {
        // Only what holds data is copied; what a file system cannot say is data.
        let (start, end) = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => {
                let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size);
                (start.min(size), end.min(size))
            }
            // A hole up to the end, or a file that became shorter.
            Err(Errno::NXIO) => break,
            Err(_) => (at, size),
        };
        if start < end && !range(from, to, start, end)? {
            return Ok(Copied::Bytes);
        }
        at = end.max(at + 1);
    }
    let there = from.metadata()?.len().min(size);
    if to.metadata()?.len() < there {
        to.set_len(there)?;
    }
    Ok(Copied::Bytes)
}

/// Copies a range; returns whether the source had all of it.
fn range(from: &File, to: &File, start: u64, end: u64) -> io::Result<bool> {
    let mut at = start;
    while at < end {
        let (mut read, mut write) = (at, at);
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), most) {
            Ok(0) => return by_hand(from, to, at, end),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::IO) => {
                return by_hand(from, to, at, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn by_hand(from: &File, to: &File, start: u64, end: u64) -> io::Result<bool> {
    let mut piece = vec![0; 256 * 1024];
    let mut at = start;
    while at < end {
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(piece.len());
        match from.read_at(&mut piece[..most], at) {
            Ok(0) => return Ok(false),
            Ok(n) => {
                to.write_all_at(&piece[..n], at)?;
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

/// The digest of a file from its beginning, and how many bytes it had.
pub(crate) fn digest(file: &File) -> io::Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 128 * 1024];
    let mut at = 0;
    loop {
        match file.read_at(&mut piece, at) {
            Ok(0) => return Ok((Digest::from_bytes(hash.finalize().into()), at)),
            Ok(n) => {
                hash.update(&piece[..n]);
                at += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
