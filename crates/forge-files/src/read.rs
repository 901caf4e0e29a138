//! Reading whole files up to a size limit.

use crate::error::Error;
use crate::open::{open, open_below, open_within};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::Path;

/// Reads the regular file at `path`, of at most `max_bytes`. Symbolic links are followed.
///
/// # Errors
/// As [`open`]; [`Error::TooLarge`] before more than `max_bytes` are held in memory.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    read_from(path, open(path)?, max_bytes)
}

/// Reads the regular file at `relative` below `root` like [`read`], without following symbolic links.
///
/// # Errors
/// As [`open_within`]; [`Error::TooLarge`].
pub fn read_within(root: &Path, relative: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let file = open_within(root, relative)?;
    read_from(&root.join(relative), file, max_bytes)
}

/// Reads a file like [`read_within`], below a directory that the caller has open. Its path `root` is for messages.
///
/// # Errors
/// As [`read_within`].
pub fn read_below(
    directory: impl AsFd,
    root: &Path,
    relative: &Path,
    max_bytes: u64,
) -> Result<Vec<u8>, Error> {
    let file = open_below(directory, root, relative)?;
    read_from(&root.join(relative), file, max_bytes)
}

/// Reads a UTF-8 file like [`read`].
///
/// # Errors
/// As [`read`]; [`Error::NotText`].
pub fn read_text(path: &Path, max_bytes: u64) -> Result<String, Error> {
    decode_utf8(path, read(path, max_bytes)?)
}

/// Reads a UTF-8 file like [`read_within`].
///
/// # Errors
/// As [`read_within`]; [`Error::NotText`].
pub fn read_text_within(root: &Path, relative: &Path, max_bytes: u64) -> Result<String, Error> {
    decode_utf8(&root.join(relative), read_within(root, relative, max_bytes)?)
}

/// Reads a UTF-8 file like [`read_below`].
///
/// # Errors
/// As [`read_below`]; [`Error::NotText`].
pub fn read_text_below(
    directory: impl AsFd,
    root: &Path,
    relative: &Path,
    max_bytes: u64,
) -> Result<String, Error> {
    decode_utf8(&root.join(relative), read_below(directory, root, relative, max_bytes)?)
}

/// Reads at most the first `max_bytes` of the regular file at `path`. Symbolic links are followed.
///
/// # Errors
/// As [`open`].
pub fn read_prefix(path: &Path, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    open(path)?.take(max_bytes).read_to_end(&mut bytes).map_err(|source| Error::from_io(path, source))?;
    Ok(bytes)
}

/// Reads an open file of at most `max_bytes` to its end; `path` is used in errors.
///
/// # Errors
/// [`Error::TooLarge`] or a system error.
pub fn read_from(path: &Path, file: File, max_bytes: u64) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { path: path.to_owned(), limit: max_bytes };
    let size = file.metadata().map_err(|source| Error::from_io(path, source))?.len();
    if size > max_bytes {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    // The file may grow while it is read, so the limit applies to the bytes read rather than the reported size.
    let more = max_bytes.saturating_add(1);
    file.take(more).read_to_end(&mut bytes).map_err(|source| Error::from_io(path, source))?;
    if bytes.len() as u64 > max_bytes { Err(too_large()) } else { Ok(bytes) }
}

fn decode_utf8(path: &Path, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| Error::NotText { path: path.to_owned() })
}
