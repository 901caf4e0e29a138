//! Copies of file contents: reflinks where the file system supports them, holes preserved, no user-space buffer
//! where the kernel copies.

use crate::bounds::WorkBounds;
use forge_types::Digest;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Bytes that are read or hashed between two stop checks.
const READ_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes that the kernel copies between two stop checks.
const KERNEL_CHUNK_BYTES: usize = 16 << 20;
/// The contents of a hole.
static ZERO_CHUNK: [u8; READ_CHUNK_BYTES] = [0; READ_CHUNK_BYTES];

/// The method used to copy a content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMethod {
    /// The blocks are shared until one of the files is written to.
    Reflink,
    /// The bytes were copied.
    Bytes,
}

/// Copies `size` bytes into an empty file. If the source is shorter, so is the copy.
pub fn copy_content(from: &File, to: &File, size: u64, bounds: &WorkBounds) -> io::Result<CopyMethod> {
    bounds.check_stopped()?;
    if size > 0 && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(CopyMethod::Reflink);
    }
    let mut at = 0;
    while at < size {
        bounds.check_stopped()?;
        // Copies only data; if the file system reports no holes, everything is data.
        let (start, end) = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(start) => {
                let end = rustix::fs::seek(from, SeekFrom::Hole(start)).unwrap_or(size);
                (start.min(size), end.min(size))
            }
            // A hole up to the end, or a file that was truncated.
            Err(Errno::NXIO) => break,
            Err(_) => (at, size),
        };
        if start < end && !copy_range(from, to, start, end, bounds)? {
            return Ok(CopyMethod::Bytes);
        }
        at = end.max(at + 1);
    }
    let there = from.metadata()?.len().min(size);
    if to.metadata()?.len() < there {
        to.set_len(there)?;
    }
    Ok(CopyMethod::Bytes)
}

/// Copies a range; returns whether the source contained all of it.
fn copy_range(from: &File, to: &File, start: u64, end: u64, bounds: &WorkBounds) -> io::Result<bool> {
    let mut at = start;
    while at < end {
        bounds.check_stopped()?;
        let (mut read, mut write) = (at, at);
        let most = usize::try_from(end - at).unwrap_or(usize::MAX).min(KERNEL_CHUNK_BYTES);
        match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), most) {
            Ok(0) => return copy_by_reading(from, to, at, end, bounds),
            Ok(n) => at += n as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM | Errno::IO) => {
                return copy_by_reading(from, to, at, end, bounds);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(true)
}

fn copy_by_reading(from: &File, to: &File, start: u64, end: u64, bounds: &WorkBounds) -> io::Result<bool> {
    let mut piece = vec![0; READ_CHUNK_BYTES];
    let mut at = start;
    while at < end {
        bounds.check_stopped()?;
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

/// Returns the digest of a whole file and its size in bytes. Skips reading holes, because their contents are known.
pub fn hash_file(file: &File, bounds: &WorkBounds) -> io::Result<(Digest, u64)> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; READ_CHUNK_BYTES];
    let (mut at, mut data_ends) = (0, 0);
    loop {
        bounds.check_stopped()?;
        if at >= data_ends {
            let size = file.metadata()?.len();
            let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(data) => data,
                // A hole up to the end.
                Err(Errno::NXIO) => size.max(at),
                // If the file system reports no holes, everything is data.
                Err(_) => at,
            };
            hash_zeros(&mut hash, data.saturating_sub(at), bounds)?;
            at = at.max(data);
            data_ends = rustix::fs::seek(file, SeekFrom::Hole(at)).unwrap_or(u64::MAX);
        }
        let most = usize::try_from(data_ends - at).unwrap_or(usize::MAX).min(piece.len());
        match file.read_at(&mut piece[..most], at) {
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

/// Hashes `count` zeros.
fn hash_zeros(hash: &mut Sha256, mut count: u64, bounds: &WorkBounds) -> io::Result<()> {
    while count > 0 {
        bounds.check_stopped()?;
        let some = usize::try_from(count).unwrap_or(usize::MAX).min(ZERO_CHUNK.len());
        hash.update(&ZERO_CHUNK[..some]);
        count -= some as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_file_has_the_digest_of_its_bytes_and_its_copy_is_sparse() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (path, copy) = (folder.path().join("sparse"), folder.path().join("copy"));
        let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        for (at, bytes) in [(3 << 20, "in the middle"), (9 << 20, "further")] {
            file.write_all_at(bytes.as_bytes(), at).unwrap();
        }
        for size in [9 << 20, (9 << 20) + 7, 12 << 20] {
            file.set_len(size).unwrap();
            let wanted = Digest::of_bytes(&std::fs::read(&path).unwrap());
            assert_eq!(hash_file(&file, WorkBounds::unbounded()).unwrap(), (wanted, size), "{size}");
            let to = File::options().read(true).write(true).create(true).truncate(true).open(&copy).unwrap();
            copy_content(&file, &to, size, WorkBounds::unbounded()).unwrap();
            assert_eq!(hash_file(&to, WorkBounds::unbounded()).unwrap(), (wanted, size), "{size}");
            let blocks = |file: &File| file.metadata().unwrap().blocks();
            assert!(blocks(&to) <= blocks(&file) + 8, "{} of {}", blocks(&to), blocks(&file));
        }
    }
}
