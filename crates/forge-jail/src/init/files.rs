//! File operations inside the box, so that its masks, owners and mounts apply to them as to every command.
//!
//! Nothing is checked first and used later: a path is resolved by the kernel, beneath the workspace, to a
//! descriptor, and what happens next happens to that descriptor or to one name in a folder that is open.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawMode, RenameFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::git_directories;
use crate::wire::{
    FaultKind, FileFault, FileKind, FileStat, Links, Raw, Removal, Replace, Reply, Request, Sync,
};

/// Longest chain of symbolic links that is followed, as in the kernel.
const MOST_LINKS: usize = 40;
/// Deepest folder that a removal descends into: one descriptor each.
const DEEPEST: usize = 48;

/// How the names of unfinished writes begin. They stand beside their destination, so that the last step is a rename.
/// A box that is killed in the middle of a write leaves one behind: whoever lists, compares or snapshots a workspace
/// passes over names that begin so, and whoever rebuilds one removes them.
pub const TEMP_PREFIX: &str = ".forge-tmp-";

type Outcome<T> = Result<T, FaultKind>;

/// A folder, and the file requests that are done below it. The init has one for the workspace; a caller that works
/// without a box can have its own, with the same rules but the rights of its own process.
pub struct Files {
    root: OwnedFd,
    temps: HashMap<u64, Temp>,
    next: u64,
    walls: Walls,
}

/// Whether the kernel keeps what is opened beneath the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walls {
    Beneath,
    /// For a test that must notice.
    Absent,
}

/// A file that is being written beside its destination.
struct Temp {
    /// The destination as it was asked for.
    path: Raw,
    folder: OwnedFd,
    name: CString,
    becomes: CString,
    file: OwnedFd,
}

/// A folder that is open and a name in it.
struct Place {
    folder: OwnedFd,
    name: CString,
    /// What stands there, links not followed.
    now: Option<FileStat>,
}

impl Files {
    /// Works below the folder that `root` is open on.
    #[must_use]
    pub fn new(root: OwnedFd) -> Self {
        Self { root, temps: HashMap::new(), next: 1, walls: Walls::Beneath }
    }

    /// The same without the rule that keeps paths beneath the folder, for a test that must notice.
    pub(super) fn without_walls(self) -> Self {
        let mut files = self;
        files.walls = Walls::Absent;
        files
    }

    /// Does one file request; requests of other kinds are refused. A descriptor comes with [`Reply::Opened`] and
    /// [`Reply::Temp`].
    pub fn perform(&mut self, request: Request) -> (Reply, Option<OwnedFd>) {
        let (path, done) = match request {
            Request::OpenRead { path } => {
                let done = self.open_read(&path);
                (path, done.map(|(stat, fd)| (Reply::Opened { stat }, Some(fd))))
            }
            Request::Stat { path, links } => {
                let done = self.stat(&path, links);
                (path, done.map(|stat| (Reply::Stat { stat }, None)))
            }
            Request::CreateTemp { path, mode } => {
                let done = self.create_temp(&path, mode);
                (path, done)
            }
            Request::CommitTemp { token, replace, sync } => {
                let path = self.temps.get(&token).map(|t| t.path.clone()).unwrap_or_default();
                let done = self.commit(token, replace, sync);
                (path, done.map(|()| (Reply::Done, None)))
            }
            Request::AbortTemp { token } => {
                let done = self.take(token).map(|temp| temp.discard());
                (Raw::default(), done.map(|()| (Reply::Done, None)))
            }
            Request::MakeDirs { path } => {
                let done = self.make_dirs(&path);
                (path, done.map(|()| (Reply::Done, None)))
            }
            Request::Remove { path, what } => {
                let done = self.remove(&path, what);
                (path, done.map(|()| (Reply::Done, None)))
            }
            Request::Rename { from, to, replace } => {
                let done = self.rename(&from, &to, replace);
                (from, done.map(|()| (Reply::Done, None)))
            }
            Request::Exec(_)
            | Request::Cancel { .. }
            | Request::Freeze
            | Request::Thaw
            | Request::Ping
            | Request::Shutdown => (Raw::default(), Err(FaultKind::Os(libc::EINVAL))),
        };
        match done {
            Ok(answer) => answer,
            Err(kind) => (Reply::Failed(FileFault { path, kind }), None),
        }
    }

    fn open(&self, path: &[u8], flags: OFlags) -> Outcome<OwnedFd> {
        if path.is_empty() || path.len() >= 4096 {
            return Err(FaultKind::BadPath);
        }
        let path = CString::new(path).map_err(|_| FaultKind::BadPath)?;
        let how = match self.walls {
            Walls::Beneath => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            Walls::Absent => ResolveFlags::empty(),
        };
        // The kernel asks to try again when a rename raced with `..`; a few times is enough, then it is an attack.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.root, &path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map_err(fault),
            }
        }
        Err(FaultKind::Outside)
    }

    fn open_read(&self, path: &Raw) -> Outcome<(FileStat, OwnedFd)> {
        // Not opened for reading before it is known to be a file: opening a device can have effects.
        let place = self.open(&path.0, OFlags::PATH)?;
        let seen = rustix::fs::fstat(&place).map_err(fault)?;
        if kind(seen.st_mode) != FileKind::File {
            return Err(FaultKind::NotRegular(kind(seen.st_mode)));
        }
        let file = self.open(&path.0, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&file).map_err(fault)?;
        // Somebody may have put another thing there in between; what was opened decides.
        match kind(stat.st_mode) {
            FileKind::File => Ok((describe(&stat), file)),
            other => Err(FaultKind::NotRegular(other)),
        }
    }

    fn stat(&self, path: &Raw, links: Links) -> Outcome<FileStat> {
        let flags = match links {
            Links::Follow => OFlags::PATH,
            Links::Keep => OFlags::PATH | OFlags::NOFOLLOW,
        };
        let fd = self.open(&path.0, flags)?;
        Ok(describe(&rustix::fs::fstat(&fd).map_err(fault)?))
    }

    /// The folder and name that `path` stands for, without following a link in the last part.
    fn place(&self, path: &[u8]) -> Outcome<Place> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let (folder, name) = match trimmed.iter().rposition(|b| *b == b'/') {
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (&b"."[..], trimmed),
        };
        let leaves = path.starts_with(b"/") && self.walls == Walls::Beneath;
        if matches!(name, b"" | b"." | b"..") || leaves {
            return Err(if name.is_empty() { FaultKind::BadPath } else { FaultKind::Outside });
        }
        let folder = self.open(folder, OFlags::PATH | OFlags::DIRECTORY)?;
        let name = CString::new(name).map_err(|_| FaultKind::BadPath)?;
        let now = match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(describe(&stat)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(fault(errno)),
        };
        Ok(Place { folder, name, now })
    }

    /// As [`Self::place`], but a link in the last part is followed to what it stands for, which must exist.
    fn target(&self, path: &[u8]) -> Outcome<Place> {
        let mut path = path.to_vec();
        for followed in 0..MOST_LINKS {
            let place = self.place(&path)?;
            match place.now {
                Some(stat) if stat.kind == FileKind::Symlink => {}
                None if followed > 0 => return Err(FaultKind::Dangling),
                _ => return Ok(place),
            }
            let link = rustix::fs::readlinkat(&place.folder, &place.name, Vec::new()).map_err(fault)?;
            let link = link.as_bytes();
            if link.starts_with(b"/") && self.walls == Walls::Beneath {
                return Err(FaultKind::Outside);
            }
            let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..=at]);
            path = [parent, link].concat();
        }
        Err(FaultKind::Loop)
    }

    /// As [`Self::place`], for a name that is made, replaced or removed.
    fn writable(&self, path: &[u8]) -> Outcome<Place> {
        let place = self.place(path)?;
        self.refuse_git(&place.folder, &place.name)?;
        Ok(place)
    }

    fn refuse_git(&self, folder: &OwnedFd, name: &CStr) -> Outcome<()> {
        match self.walls {
            Walls::Beneath => git_directories::refuse(&self.root, folder.as_fd(), name.to_bytes()),
            Walls::Absent => Ok(()),
        }
    }

    fn create_temp(&mut self, path: &Raw, mode: u32) -> Outcome<(Reply, Option<OwnedFd>)> {
        let place = self.target(&path.0)?;
        self.refuse_git(&place.folder, &place.name)?;
        if let Some(stat) = place.now {
            if stat.kind != FileKind::File {
                return Err(FaultKind::NotRegular(stat.kind));
            }
            // A file that may not be written is not replaced either, although the folder would allow it.
            let writable = rustix::fs::accessat(
                &place.folder,
                &place.name,
                rustix::fs::Access::WRITE_OK,
                AtFlags::EACCESS,
            );
            writable.map_err(fault)?;
        }
        let token = self.next;
        self.next += 1;
        let name = temp_name(token);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&place.folder, &name, flags, Mode::from_raw_mode(0o600)).map_err(fault)?;
        let mode = place.now.map_or(mode & 0o777, |stat| stat.mode & 0o777);
        let temp = Temp { path: path.clone(), folder: place.folder, name, becomes: place.name, file };
        let passed = rustix::fs::fchmod(&temp.file, Mode::from_raw_mode(mode))
            .and_then(|()| rustix::io::fcntl_dupfd_cloexec(&temp.file, 3));
        match passed {
            Ok(fd) => {
                self.temps.insert(token, temp);
                Ok((Reply::Temp { token, before: place.now }, Some(fd)))
            }
            Err(errno) => {
                temp.discard();
                Err(fault(errno))
            }
        }
    }

    fn take(&mut self, token: u64) -> Outcome<Temp> {
        self.temps.remove(&token).ok_or(FaultKind::NoSuchTemp)
    }

    fn commit(&mut self, token: u64, replace: Replace, sync: Sync) -> Outcome<()> {
        let temp = self.take(token)?;
        // What was made beside it meanwhile counts as well.
        if let Err(kind) = self.refuse_git(&temp.folder, &temp.becomes) {
            temp.discard();
            return Err(kind);
        }
        let flags = match replace {
            Replace::Yes => RenameFlags::empty(),
            Replace::No => RenameFlags::NOREPLACE,
        };
        let done = match sync {
            Sync::Yes => rustix::fs::fsync(&temp.file),
            Sync::No => Ok(()),
        }
        .and_then(|()| {
            rustix::fs::renameat_with(&temp.folder, &temp.name, &temp.folder, &temp.becomes, flags)
        });
        if let Err(errno) = done {
            temp.discard();
            return Err(fault(errno));
        }
        if sync == Sync::Yes {
            let folder =
                rustix::fs::openat(&temp.folder, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            folder.and_then(|f| rustix::fs::fsync(&f)).map_err(fault)?;
        }
        Ok(())
    }

    fn make_dirs(&self, path: &Raw) -> Outcome<()> {
        let mut end = 0;
        let path = path.0.strip_suffix(b"/").unwrap_or(&path.0);
        loop {
            end = path[end..].iter().position(|b| *b == b'/').map_or(path.len(), |at| end + at);
            let part = &path[..end];
            match self.open(part, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => {}
                Err(FaultKind::NotFound) => {
                    let place = self.writable(part)?;
                    match rustix::fs::mkdirat(&place.folder, &place.name, Mode::from_raw_mode(0o777)) {
                        // Made by somebody else meanwhile, or a link to nothing: the next round or caller sees.
                        Err(Errno::EXIST) if place.now.is_some() => return Err(FaultKind::Dangling),
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(fault(errno)),
                    }
                }
                Err(other) => return Err(other),
            }
            if end == path.len() {
                return Ok(());
            }
            end += 1;
        }
    }

    fn remove(&self, path: &Raw, what: Removal) -> Outcome<()> {
        let place = self.writable(&path.0)?;
        let now = place.now.ok_or(FaultKind::NotFound)?;
        match (what, now.kind) {
            (Removal::File, FileKind::Dir) => Err(FaultKind::NotRegular(FileKind::Dir)),
            (Removal::EmptyDir, FileKind::Dir) => {
                rustix::fs::unlinkat(&place.folder, &place.name, AtFlags::REMOVEDIR).map_err(fault)
            }
            (Removal::EmptyDir, _) => Err(FaultKind::NotDir),
            (Removal::Tree, FileKind::Dir) => remove_tree(place.folder.as_fd(), &place.name, 0),
            (Removal::File | Removal::Tree, _) => {
                rustix::fs::unlinkat(&place.folder, &place.name, AtFlags::empty()).map_err(fault)
            }
        }
    }

    fn rename(&self, from: &Raw, to: &Raw, replace: Replace) -> Outcome<()> {
        let (from, to) = (self.writable(&from.0)?, self.writable(&to.0)?);
        from.now.ok_or(FaultKind::NotFound)?;
        let flags = match replace {
            Replace::Yes => RenameFlags::empty(),
            Replace::No => RenameFlags::NOREPLACE,
        };
        rustix::fs::renameat_with(&from.folder, &from.name, &to.folder, &to.name, flags).map_err(fault)
    }
}

impl Drop for Files {
    /// Throws away every unfinished write.
    fn drop(&mut self) {
        for (_, temp) in self.temps.drain() {
            temp.discard();
        }
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("root", &self.root).field("unfinished", &self.temps.len()).finish()
    }
}

impl Temp {
    fn discard(self) {
        // Already gone is as good.
        let _ = rustix::fs::unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}

/// Removes a folder with everything below, through descriptors, never through a path that could be swapped.
fn remove_tree(folder: BorrowedFd<'_>, name: &CStr, depth: usize) -> Outcome<()> {
    if depth >= DEEPEST {
        return remove_deep(folder, name);
    }
    let inner = open_dir(folder, name)?;
    let mut entries = rustix::fs::Dir::read_from(&inner).map_err(fault)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(fault)?;
        let child = entry.file_name();
        if child == c"." || child == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&inner, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => remove_tree(inner.as_fd(), child, depth + 1)?,
            Err(errno) => return Err(fault(errno)),
        }
    }
    rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(fault)
}

/// Opens a folder for listing; one without permissions gets them first, since it is going to be removed.
fn open_dir(folder: BorrowedFd<'_>, name: &CStr) -> Outcome<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let usable = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|s| s.st_mode & 0o700 == 0o700);
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) if usable(&fd) => Ok(fd),
        Ok(fd) => {
            let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
            Ok(fd)
        }
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty()).map_err(fault)?;
            rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(fault)
        }
        Err(errno) => Err(fault(errno)),
    }
}

/// A very deep tree is flattened: folders in a folder are moved up beside it and removed there, one after the
/// other, so that the number of open descriptors stays bounded.
fn remove_deep(folder: BorrowedFd<'_>, name: &CStr) -> Outcome<()> {
    let mut work = vec![name.to_owned()];
    let mut moved = 0u64;
    while let Some(next) = work.pop() {
        let inner = open_dir(folder, &next)?;
        let mut entries = rustix::fs::Dir::read_from(&inner).map_err(fault)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(fault)?;
            let child = entry.file_name();
            if child == c"." || child == c".." {
                continue;
            }
            match rustix::fs::unlinkat(&inner, child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    // Moving a folder changes its `..`, so it must be writable itself.
                    drop(open_dir(inner.as_fd(), child)?);
                    moved += 1;
                    let beside =
                        CString::new(format!(".forge-gone-{moved}")).map_err(|_| FaultKind::BadPath)?;
                    let flags = RenameFlags::NOREPLACE;
                    rustix::fs::renameat_with(&inner, child, folder, &beside, flags).map_err(fault)?;
                    work.push(beside);
                }
                Err(errno) => return Err(fault(errno)),
            }
        }
        rustix::fs::unlinkat(folder, &next, AtFlags::REMOVEDIR).map_err(fault)?;
    }
    Ok(())
}

/// A name that nothing else uses: the kernel is told to fail if something does.
fn temp_name(token: u64) -> CString {
    let random = RandomState::new().build_hasher().finish();
    let name = format!("{TEMP_PREFIX}{token}-{random:016x}");
    CString::new(name).expect("letters and digits hold no NUL")
}

pub(super) fn fault(errno: Errno) -> FaultKind {
    match errno {
        Errno::NOENT => FaultKind::NotFound,
        // A mount point cannot be replaced or removed: that is what a mask is.
        Errno::ACCESS | Errno::PERM | Errno::BUSY | Errno::ROFS => FaultKind::Denied,
        Errno::XDEV => FaultKind::Outside,
        Errno::LOOP => FaultKind::Loop,
        Errno::NOTDIR => FaultKind::NotDir,
        Errno::EXIST => FaultKind::Exists,
        Errno::NOTEMPTY => FaultKind::NotEmpty,
        Errno::NOSPC | Errno::DQUOT => FaultKind::Full,
        Errno::NAMETOOLONG | Errno::INVAL => FaultKind::BadPath,
        other => FaultKind::Os(other.raw_os_error()),
    }
}

fn kind(mode: RawMode) -> FileKind {
    match FileType::from_raw_mode(mode) {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Dir,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        _ => FileKind::Device,
    }
}

fn describe(stat: &Stat) -> FileStat {
    FileStat {
        kind: kind(stat.st_mode),
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mode: stat.st_mode & 0o7777,
        mtime_ns: stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanos(stat)),
        links: link_count(stat),
    }
}

#[allow(clippy::useless_conversion, reason = "the field's width depends on the architecture")]
fn link_count(stat: &Stat) -> u64 {
    u64::from(stat.st_nlink)
}

fn nanos(stat: &Stat) -> i64 {
    i64::try_from(stat.st_mtime_nsec).unwrap_or(0)
}
