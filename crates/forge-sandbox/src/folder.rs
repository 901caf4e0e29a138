//! Files of a workspace through a folder descriptor: no path is checked as text and opened later.
//!
//! `openat2` with `RESOLVE_BENEATH` lets the kernel refuse whatever leaves the folder, `..` and symlinks included.

use forge_ports::sandbox::{Error, FileChunk, PathFault};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

/// A workspace's root, held open.
#[derive(Debug)]
pub(crate) struct Folder {
    root: OwnedFd,
}

impl Folder {
    pub(crate) fn open(path: &Path) -> std::io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())? })
    }

    pub(crate) fn read(&self, path: &str, offset: u64, limit: usize) -> Result<FileChunk, Error> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&self.root, path, flags, Mode::empty(), BENEATH)
            .map_err(|e| fault(path, e))?;
        let stat = rustix::fs::fstat(&fd).map_err(|e| fault(path, e))?;
        regular(path, FileType::from_raw_mode(stat.st_mode))?;
        let mut file = File::from(fd);
        let io = |error: std::io::Error| Error::Path {
            path: path.to_owned(),
            why: error.to_string(),
            kind: PathFault::Other,
        };
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes).map_err(io)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        Ok(FileChunk { bytes, size, mode: stat.st_mode & 0o7777 })
    }

    pub(crate) fn write(&self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.target(path)?;
        let (parent, name) = path.rsplit_once('/').unwrap_or((".", path.as_str()));
        self.make_parents(parent)?;
        let dir_flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
        let dir = rustix::fs::openat2(&self.root, parent, dir_flags, Mode::empty(), BENEATH)
            .map_err(|e| fault(&path, e))?;
        let mode = existing_mode(&dir, name, &path)?;
        let temporary = format!(".{name}.forge-{}", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let _ = rustix::fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty());
        let fd = rustix::fs::openat(&dir, temporary.as_str(), flags, Mode::from_raw_mode(0o666))
            .map_err(|e| fault(&path, e))?;
        let written =
            fill(fd, bytes, mode).and_then(|()| rustix::fs::renameat(&dir, temporary.as_str(), &dir, name));
        written.map_err(|error| {
            let _ = rustix::fs::unlinkat(&dir, temporary.as_str(), AtFlags::empty());
            fault(&path, error)
        })
    }

    /// Where a write through a symlink goes: to what it names, if that stays inside.
    fn target(&self, path: &str) -> Result<String, Error> {
        let mut path = path.trim_end_matches('/').to_owned();
        for _ in 0..8 {
            let Ok(link) = rustix::fs::readlinkat(&self.root, path.as_str(), Vec::new()) else {
                return Ok(path);
            };
            let link = link.to_string_lossy().into_owned();
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            path = if link.starts_with('/') || parent.is_empty() { link } else { format!("{parent}/{link}") };
        }
        Err(fault(&path, Errno::LOOP))
    }

    fn make_parents(&self, parent: &str) -> Result<(), Error> {
        let mut made = String::new();
        for part in parent.split('/').filter(|part| !part.is_empty() && *part != ".") {
            let within = if made.is_empty() { "." } else { made.as_str() };
            let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
            let dir = rustix::fs::openat2(&self.root, within, flags, Mode::empty(), BENEATH)
                .map_err(|e| fault(parent, e))?;
            if part != ".." {
                match rustix::fs::mkdirat(&dir, part, Mode::from_raw_mode(0o777)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(fault(parent, error)),
                }
            }
            if !made.is_empty() {
                made.push('/');
            }
            made.push_str(part);
        }
        Ok(())
    }
}

fn existing_mode(dir: impl AsFd, name: &str, path: &str) -> Result<Option<u32>, Error> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => {
            regular(path, FileType::from_raw_mode(stat.st_mode))?;
            Ok(Some(stat.st_mode & 0o7777))
        }
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(fault(path, error)),
    }
}

fn fill(fd: OwnedFd, bytes: &[u8], mode: Option<u32>) -> Result<(), Errno> {
    let mut file = File::from(fd);
    file.write_all(bytes).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    match mode {
        Some(mode) => rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)),
        None => Ok(()),
    }
}

fn regular(path: &str, kind: FileType) -> Result<(), Error> {
    let (why, kind) = match kind {
        FileType::RegularFile => return Ok(()),
        FileType::Directory => ("it is a directory", PathFault::IsDirectory),
        FileType::Fifo => ("it is a FIFO, not a regular file", PathFault::Special),
        FileType::Socket => ("it is a socket, not a regular file", PathFault::Special),
        FileType::Symlink => ("it is a symbolic link", PathFault::Special),
        _ => ("it is a device, not a regular file", PathFault::Special),
    };
    Err(Error::Path { path: path.to_owned(), why: why.to_owned(), kind })
}

fn fault(path: &str, error: Errno) -> Error {
    let (why, kind) = match error {
        Errno::NOENT => ("there is no such file or directory", PathFault::NotFound),
        Errno::XDEV | Errno::LOOP => ("it leads out of the workspace", PathFault::Escapes),
        Errno::ISDIR => ("it is a directory", PathFault::IsDirectory),
        Errno::NOTDIR => ("a part of the path is a file, not a directory", PathFault::NotDirectory),
        Errno::NXIO => ("it is a socket or a FIFO, not a regular file", PathFault::Special),
        Errno::ACCESS | Errno::PERM => ("permission denied", PathFault::Denied),
        Errno::ROFS => ("it is read-only", PathFault::Denied),
        Errno::NOSPC | Errno::DQUOT => ("no space is left on the disk", PathFault::NoSpace),
        _ => return Error::Path { path: path.to_owned(), why: error.to_string(), kind: PathFault::Other },
    };
    Error::Path { path: path.to_owned(), why: why.to_owned(), kind }
}
