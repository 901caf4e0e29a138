//! File system access by descriptors: never follows a symbolic link and never blocks on a named pipe.

use crate::node::RelPath;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT,
};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longer paths are opened in pieces, because the kernel accepts at most 4,095 bytes at once.
const MAX_OPEN_PATH_BYTES: usize = 3_800;

/// Flags for opening a directory.
pub const DIR_OPEN_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device 0:0: marks a removed path in the upper layer of an overlay.
    Whiteout,
    /// A socket or a device, which is not part of a tree.
    Other,
}

/// The metadata of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// The file type.
    pub kind: NodeKind,
    /// Permission bits (`0o7777`).
    pub mode: u32,
    /// Size in bytes.
    pub size: u64,
    /// Time of the last content change, in nanoseconds since the epoch.
    pub mtime_ns: i64,
    /// Time of the last inode change, in nanoseconds since the epoch.
    pub ctime_ns: i64,
    /// Number of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Whether the file has further hard links.
    pub linked: bool,
}

impl FileStamp {
    /// Returns the stamp of `name` in an open directory; does not follow a symbolic link.
    pub fn stat_at(folder: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Self> {
        Ok(Self::from_stat(&rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    /// Returns the stamp of an open file.
    pub fn stat_open(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::from_stat(&rustix::fs::fstat(file)?))
    }

    /// Returns the stamp of a path below an open directory, following no symbolic link; `None` if the path does not
    /// exist.
    pub fn stat_below(root: impl AsFd, path: &RelPath) -> io::Result<Option<Self>> {
        let Some((parent, name)) = split_path(path) else {
            return Self::stat_open(root).map(Some);
        };
        let found = match open_below(root.as_fd(), parent, OFlags::PATH | DIR_OPEN_FLAGS) {
            Ok(parent) => Self::stat_at(&parent, name),
            Err(error) => Err(error),
        };
        match found {
            Ok(stamp) => Ok(Some(stamp)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Converts the kernel's `stat` to a stamp.
    #[allow(clippy::unnecessary_cast, reason = "the types differ between architectures")]
    pub fn from_stat(stat: &Stat) -> Self {
        let raw = stat.st_mode as u32;
        let kind = match FileType::from_raw_mode(raw) {
            FileType::RegularFile => NodeKind::File,
            FileType::Directory => NodeKind::Dir,
            FileType::Symlink => NodeKind::Symlink,
            FileType::Fifo => NodeKind::Fifo,
            FileType::CharacterDevice if stat.st_rdev == 0 => NodeKind::Whiteout,
            _ => NodeKind::Other,
        };
        let nanos = |secs: i64, nanos: i64| secs.saturating_mul(1_000_000_000).saturating_add(nanos);
        Self {
            kind,
            mode: raw & 0o7777,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime_ns: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime_ns: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            uid: stat.st_uid,
            gid: stat.st_gid,
            linked: stat.st_nlink > 1,
        }
    }

    /// Returns whether both stamps describe the same file in the same state.
    pub fn is_same_state(&self, other: &Self) -> bool {
        (self.kind, self.size, self.mtime_ns, self.ctime_ns, self.ino, self.dev)
            == (other.kind, other.size, other.mtime_ns, other.ctime_ns, other.ino, other.dev)
    }
}

/// Returns whether an error indicates that a path does not exist or that one of its ancestors is not a directory.
pub fn is_absent(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

/// Returns whether an error is a permission error.
pub fn is_denied(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::ACCESS | Errno::PERM))
}

/// Splits a path into its directory and its last name; `None` for the root.
pub fn split_path(path: &RelPath) -> Option<(&[u8], &[u8])> {
    let bytes = path.as_bytes();
    match bytes.iter().rposition(|b| *b == b'/') {
        Some(at) => Some((&bytes[..at], &bytes[at + 1..])),
        None if bytes.is_empty() => None,
        None => Some((b"", bytes)),
    }
}

/// Opens the root of a tree. The only function that follows links, because the caller names the path.
pub fn open_root(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens a directory by its path below `root`, following no symbolic link. Supports paths of any length.
pub fn open_below(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let mut rest = path;
    let mut at: Option<OwnedFd> = None;
    loop {
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        if rest.len() <= MAX_OPEN_PATH_BYTES {
            return open_short_path(from, if rest.is_empty() { b"." } else { rest }, flags);
        }
        let end = rest[..MAX_OPEN_PATH_BYTES].iter().rposition(|b| *b == b'/').unwrap_or(MAX_OPEN_PATH_BYTES);
        let next = open_short_path(from, &rest[..end], OFlags::PATH | DIR_OPEN_FLAGS)?;
        rest = &rest[end + 1..];
        at = Some(next);
    }
}

fn open_short_path(from: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(from, path, flags, Mode::empty(), resolve) {
        Err(Errno::NOSYS | Errno::PERM) => {}
        done => return Ok(done?),
    }
    // One component at a time, for kernels before 5.6 and seccomp filters without the call.
    let mut parts = path.split(|b| *b == b'/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let from = at.as_ref().map_or(from, AsFd::as_fd);
        let how = if parts.peek().is_some() { OFlags::PATH | DIR_OPEN_FLAGS } else { flags };
        at = Some(rustix::fs::openat(from, part, how, Mode::empty())?);
    }
    at.ok_or_else(|| Errno::NOENT.into())
}

/// Opens a regular file for reading. Never blocks and never follows a link.
pub fn open_file(folder: impl AsFd, name: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    if FileStamp::stat_open(&file)?.kind != NodeKind::File {
        return Err(Errno::INVAL.into());
    }
    Ok(File::from(file))
}

/// Opens a regular file of the current user although its mode forbids it: grants the owner access, opens the file
/// and restores the mode.
pub fn open_file_by_force(folder: impl AsFd, name: &[u8]) -> io::Result<File> {
    match open_file(folder.as_fd(), name) {
        Err(error) if is_denied(&error) => {}
        done => return done,
    }
    let (place, stamp) = open_path_fd(folder.as_fd(), name)?;
    if stamp.kind != NodeKind::File {
        return Err(Errno::INVAL.into());
    }
    set_mode(&place, stamp.mode | 0o400)?;
    let opened = open_file(folder, name);
    set_mode(&place, stamp.mode)?;
    opened
}

/// Opens `name` as a path-only descriptor and returns it with its stamp.
pub fn open_path_fd(folder: impl AsFd, name: &[u8]) -> io::Result<(OwnedFd, FileStamp)> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(folder, name, flags, Mode::empty())?;
    let stamp = FileStamp::stat_open(&place)?;
    Ok((place, stamp))
}

/// Sets the permission bits of the descriptor's file; path-only descriptors are supported.
pub fn set_mode(place: &OwnedFd, mode: u32) -> io::Result<()> {
    let path: PathBuf = format!("/proc/self/fd/{}", place.as_raw_fd()).into();
    Ok(rustix::fs::chmod(path, Mode::from_raw_mode(mode))?)
}

/// Sets the permission bits of a file or directory in an open directory; fails for a symbolic link.
pub fn set_mode_at(folder: impl AsFd, name: &[u8], mode: u32) -> io::Result<()> {
    set_mode_if(folder, name, mode, |_| true)
}

/// Sets the permission bits like [`set_mode_at`], if `name` still refers to the expected file: the directory's
/// owner, if another user, could have moved a private file of the current user there.
pub fn set_mode_if(
    folder: impl AsFd,
    name: &[u8],
    mode: u32,
    is_meant: impl FnOnce(&FileStamp) -> bool,
) -> io::Result<()> {
    let (place, stamp) = open_path_fd(folder, name)?;
    match stamp.kind {
        _ if !is_meant(&stamp) => Err(replaced()),
        NodeKind::Symlink => Err(Errno::LOOP.into()),
        _ if stamp.mode == mode => Ok(()),
        _ => set_mode(&place, mode),
    }
}

/// Opens a path-only descriptor of a file without content that this process has just created in an open directory.
///
/// # Errors
/// Fails if the name refers to another file: the directory's owner can replace it, and that file must not change its
/// owner.
pub fn open_made(folder: impl AsFd, name: &[u8], kind: NodeKind) -> io::Result<OwnedFd> {
    let (place, stamp) = open_path_fd(folder, name)?;
    let own = stamp.kind == kind && stamp.uid == rustix::process::geteuid().as_raw();
    if !own || (kind != NodeKind::Dir && stamp.linked) {
        return Err(replaced());
    }
    if kind == NodeKind::Dir {
        let listed = rustix::fs::openat(&place, ".", DIR_OPEN_FLAGS, Mode::empty())?;
        for entry in rustix::fs::Dir::read_from(&listed)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Err(replaced());
            }
        }
    }
    Ok(place)
}

fn replaced() -> io::Error {
    io::Error::other("it was replaced by another file in the meantime")
}

/// Sets the owner of the descriptor's file; path-only descriptors are supported.
pub fn set_owner(place: &OwnedFd, uid: Option<Uid>, gid: Option<Gid>) -> io::Result<()> {
    Ok(rustix::fs::chownat(place, c"", uid, gid, AtFlags::EMPTY_PATH)?)
}

/// Returns the target of a symbolic link.
pub fn read_link(folder: impl AsFd, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(folder, name, Vec::new())?.into_bytes())
}

/// Makes the entries of a directory durable: created, renamed and removed names.
pub fn sync_directory(path: &Path) -> io::Result<()> {
    let folder = rustix::fs::openat(CWD, path, DIR_OPEN_FLAGS, Mode::empty())?;
    Ok(rustix::fs::fsync(folder)?)
}

/// Writes a small file atomically: after a crash, it has either the old or the new content.
pub fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        std::fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_directory(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// Sets the modification time of an open file; preserves the access time.
pub fn set_time(file: impl AsFd, mtime_ns: i64) -> io::Result<()> {
    Ok(rustix::fs::futimens(file, &mtime_timestamps(mtime_ns))?)
}

/// Sets the modification time like [`set_time`], for a name in an open directory; does not follow a link.
pub fn set_time_at(folder: impl AsFd, name: &[u8], mtime_ns: i64) -> io::Result<()> {
    Ok(rustix::fs::utimensat(folder, name, &mtime_timestamps(mtime_ns), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn mtime_timestamps(mtime_ns: i64) -> Timestamps {
    let mtime = Timespec {
        tv_sec: mtime_ns.div_euclid(1_000_000_000),
        tv_nsec: mtime_ns.rem_euclid(1_000_000_000) as _,
    };
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ }, last_modification: mtime }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_the_place_of_something_new_gets_neither_owner_nor_mode() {
        let dir = tempfile::tempdir().unwrap();
        let root = open_root(dir.path()).unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("secret"), "x").unwrap();
        std::fs::create_dir(at("full")).unwrap();
        std::fs::write(at("full/x"), "x").unwrap();
        std::fs::create_dir(at("empty")).unwrap();
        std::os::unix::fs::symlink("secret", at("link")).unwrap();
        for (name, kind) in [
            ("secret", NodeKind::Fifo),
            ("secret", NodeKind::Symlink),
            ("secret", NodeKind::Dir),
            ("full", NodeKind::Dir),
            ("link", NodeKind::Fifo),
        ] {
            assert!(open_made(&root, name.as_bytes(), kind).is_err(), "{name}");
        }
        assert!(open_made(&root, b"empty", NodeKind::Dir).is_ok());
        assert!(open_made(&root, b"link", NodeKind::Symlink).is_ok());
        std::fs::hard_link(at("link"), at("again")).unwrap();
        assert!(open_made(&root, b"link", NodeKind::Symlink).is_err(), "it has another name");
        let before = FileStamp::stat_at(&root, "secret").unwrap();
        assert!(set_mode_if(&root, b"secret", 0o777, |now| now.kind == NodeKind::Dir).is_err());
        assert_eq!(FileStamp::stat_at(&root, "secret").unwrap().mode, before.mode);
        set_mode_if(&root, b"secret", 0o640, |now| now.ino == before.ino).unwrap();
        assert_eq!(FileStamp::stat_at(&root, "secret").unwrap().mode, 0o640);
    }
}
