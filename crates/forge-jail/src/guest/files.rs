//! File operations inside the sandbox, so that its masks, owners and mounts apply to them as to every command.
//!
//! No path is checked first and used later: the kernel resolves it, beneath the workspace, to a descriptor, and every
//! further step operates on that descriptor or on one name in an open directory.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::file_conversions::{fault_kind, file_kind, file_stat};
use super::git_directories;
use forge_jail_protocol::{
    FaultKind, FileFault, FileStat, FinalSymlink, JailFileKind, JailReply, JailRequest, RawBytes,
    RemovalScope, ReplaceExisting, SyncToDisk,
};

/// Longest chain of symbolic links that is followed, as in the kernel.
const MAX_SYMLINKS: usize = 40;
/// Deepest directory that a removal descends into, with one descriptor per level.
const MAX_REMOVE_DEPTH: usize = 48;

/// Prefix of the names of unfinished writes. They are next to their destination, so that the last step is a rename. A
/// sandbox killed during a write leaves one behind. It is an ordinary file, which the restore of a snapshot removes as
/// everything that the snapshot doesn't contain: any command can choose such a name, so no code may treat it specially.
const TEMP_PREFIX: &str = ".forge-tmp-";

type FileResult<T> = Result<T, FaultKind>;

/// A directory, and the file requests that are executed below it. The init has one for the workspace; a caller that
/// works without a sandbox can have its own, with the same rules but the privileges of its own process.
pub struct RootedFiles {
    root: OwnedFd,
    temps: HashMap<u64, PendingWrite>,
    next: u64,
    confinement: PathConfinement,
}

/// Whether the kernel confines opened paths to the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PathConfinement {
    Beneath,
    /// Left out, for a test that must detect this.
    Absent,
}

/// A file that is being written next to its destination.
struct PendingWrite {
    /// The destination as requested.
    path: RawBytes,
    directory: OwnedFd,
    name: CString,
    becomes: CString,
    file: OwnedFd,
}

/// An open directory and a name in it.
struct ParentEntry {
    directory: OwnedFd,
    name: CString,
    /// The file of that name, links not followed.
    now: Option<FileStat>,
}

impl RootedFiles {
    /// Executes requests below the directory that `root` refers to.
    #[must_use]
    pub fn new(root: OwnedFd) -> Self {
        Self { root, temps: HashMap::new(), next: 1, confinement: PathConfinement::Beneath }
    }

    /// Removes the rule that confines paths to the directory, for a test that must detect this.
    pub(super) fn without_confinement(self) -> Self {
        let mut files = self;
        files.confinement = PathConfinement::Absent;
        files
    }

    /// Executes one file request; requests of other kinds are refused. A descriptor is returned with
    /// [`JailReply::Opened`] and [`JailReply::Temp`].
    pub fn handle_request(&mut self, request: JailRequest) -> (JailReply, Option<OwnedFd>) {
        let (path, done) = match request {
            JailRequest::OpenRead { path } => {
                let done = self.open_read(&path);
                (path, done.map(|(stat, fd)| (JailReply::Opened { stat }, Some(fd))))
            }
            JailRequest::Stat { path, links } => {
                let done = self.stat_path(&path, links);
                (path, done.map(|stat| (JailReply::Stat { stat }, None)))
            }
            JailRequest::CreateTemp { path, mode } => {
                let done = self.create_temp(&path, mode);
                (path, done)
            }
            JailRequest::CommitTemp { token, replace, sync } => {
                let path = self.temps.get(&token).map(|t| t.path.clone()).unwrap_or_default();
                let done = self.commit_temp(token, replace, sync);
                (path, done.map(|()| (JailReply::Done, None)))
            }
            JailRequest::AbortTemp { token } => {
                let done = self.claim_temp(token).map(|temp| temp.discard());
                (RawBytes::default(), done.map(|()| (JailReply::Done, None)))
            }
            JailRequest::MakeDirs { path } => {
                let done = self.make_dirs(&path);
                (path, done.map(|()| (JailReply::Done, None)))
            }
            JailRequest::Remove { path, what } => {
                let done = self.remove_path(&path, what);
                (path, done.map(|()| (JailReply::Done, None)))
            }
            JailRequest::Rename { from, to, replace } => {
                let done = self.rename_path(&from, &to, replace);
                (from, done.map(|()| (JailReply::Done, None)))
            }
            JailRequest::Exec(_)
            | JailRequest::Cancel { .. }
            | JailRequest::Freeze
            | JailRequest::Thaw
            | JailRequest::Ping
            | JailRequest::Shutdown => (RawBytes::default(), Err(FaultKind::Os(libc::EINVAL))),
        };
        match done {
            Ok(answer) => answer,
            Err(kind) => (JailReply::Failed(FileFault { path, kind }), None),
        }
    }

    fn open_path(&self, path: &[u8], flags: OFlags) -> FileResult<OwnedFd> {
        if path.is_empty() || path.len() >= 4096 {
            return Err(FaultKind::BadPath);
        }
        let path = CString::new(path).map_err(|_| FaultKind::BadPath)?;
        let how = match self.confinement {
            PathConfinement::Beneath => ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS,
            PathConfinement::Absent => ResolveFlags::empty(),
        };
        // The kernel returns EAGAIN when a rename raced with `..`; after a few retries it must be an attack.
        for _ in 0..16 {
            match rustix::fs::openat2(&self.root, &path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other.map_err(fault_kind),
            }
        }
        Err(FaultKind::Outside)
    }

    fn open_read(&self, path: &RawBytes) -> FileResult<(FileStat, OwnedFd)> {
        // The file type is checked before opening for reading, because opening a device can have effects.
        let place = self.open_path(&path.0, OFlags::PATH)?;
        let seen = rustix::fs::fstat(&place).map_err(fault_kind)?;
        if file_kind(seen.st_mode) != JailFileKind::File {
            return Err(FaultKind::NotRegular(file_kind(seen.st_mode)));
        }
        let file = self.open_path(&path.0, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let stat = rustix::fs::fstat(&file).map_err(fault_kind)?;
        // Another process may have replaced the file in between; the opened file decides.
        match file_kind(stat.st_mode) {
            JailFileKind::File => Ok((file_stat(&stat), file)),
            other => Err(FaultKind::NotRegular(other)),
        }
    }

    fn stat_path(&self, path: &RawBytes, links: FinalSymlink) -> FileResult<FileStat> {
        let flags = match links {
            FinalSymlink::Follow => OFlags::PATH,
            FinalSymlink::NoFollow => OFlags::PATH | OFlags::NOFOLLOW,
        };
        let fd = self.open_path(&path.0, flags)?;
        Ok(file_stat(&rustix::fs::fstat(&fd).map_err(fault_kind)?))
    }

    /// Resolves the directory and the name of `path`, without following a link in the last part.
    fn resolve_parent(&self, path: &[u8]) -> FileResult<ParentEntry> {
        let trimmed = path.strip_suffix(b"/").unwrap_or(path);
        let (folder, name) = match trimmed.iter().rposition(|b| *b == b'/') {
            Some(at) => (&trimmed[..at], &trimmed[at + 1..]),
            None => (&b"."[..], trimmed),
        };
        let leaves = path.starts_with(b"/") && self.confinement == PathConfinement::Beneath;
        if matches!(name, b"" | b"." | b"..") || leaves {
            return Err(if name.is_empty() { FaultKind::BadPath } else { FaultKind::Outside });
        }
        let folder = self.open_path(folder, OFlags::PATH | OFlags::DIRECTORY)?;
        let name = CString::new(name).map_err(|_| FaultKind::BadPath)?;
        let now = match rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(file_stat(&stat)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(fault_kind(errno)),
        };
        Ok(ParentEntry { directory: folder, name, now })
    }

    /// Resolves like [`Self::resolve_parent`], but follows a link in the last part to its target, which must exist.
    fn resolve_target(&self, path: &[u8]) -> FileResult<ParentEntry> {
        let mut path = path.to_vec();
        for followed in 0..MAX_SYMLINKS {
            let place = self.resolve_parent(&path)?;
            match place.now {
                Some(stat) if stat.kind == JailFileKind::Symlink => {}
                None if followed > 0 => return Err(FaultKind::Dangling),
                _ => return Ok(place),
            }
            let link =
                rustix::fs::readlinkat(&place.directory, &place.name, Vec::new()).map_err(fault_kind)?;
            let link = link.as_bytes();
            if link.starts_with(b"/") && self.confinement == PathConfinement::Beneath {
                return Err(FaultKind::Outside);
            }
            let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..=at]);
            path = [parent, link].concat();
        }
        Err(FaultKind::Loop)
    }

    /// Resolves like [`Self::resolve_parent`], for a name that is created, replaced or removed.
    fn resolve_writable(&self, path: &[u8]) -> FileResult<ParentEntry> {
        let place = self.resolve_parent(path)?;
        self.refuse_git_write(&place.directory, &place.name)?;
        Ok(place)
    }

    fn refuse_git_write(&self, folder: &OwnedFd, name: &CStr) -> FileResult<()> {
        match self.confinement {
            PathConfinement::Beneath => {
                git_directories::refuse_git_write(&self.root, folder.as_fd(), name.to_bytes())
            }
            PathConfinement::Absent => Ok(()),
        }
    }

    fn create_temp(&mut self, path: &RawBytes, mode: u32) -> FileResult<(JailReply, Option<OwnedFd>)> {
        let place = self.resolve_target(&path.0)?;
        self.refuse_git_write(&place.directory, &place.name)?;
        if let Some(stat) = place.now {
            if stat.kind != JailFileKind::File {
                return Err(FaultKind::NotRegular(stat.kind));
            }
            // A read-only file is not replaced either, although the directory would allow it.
            let writable = rustix::fs::accessat(
                &place.directory,
                &place.name,
                rustix::fs::Access::WRITE_OK,
                AtFlags::EACCESS,
            );
            writable.map_err(fault_kind)?;
        }
        let token = self.next;
        self.next += 1;
        let name = temp_name(&token.to_string());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.directory, &name, flags, Mode::from_raw_mode(0o600))
            .map_err(fault_kind)?;
        let mode = place.now.map_or(mode & 0o777, |stat| stat.mode & 0o777);
        let temp =
            PendingWrite { path: path.clone(), directory: place.directory, name, becomes: place.name, file };
        let passed = rustix::fs::fchmod(&temp.file, Mode::from_raw_mode(mode))
            .and_then(|()| rustix::io::fcntl_dupfd_cloexec(&temp.file, 3));
        match passed {
            Ok(fd) => {
                self.temps.insert(token, temp);
                Ok((JailReply::Temp { token, before: place.now }, Some(fd)))
            }
            Err(errno) => {
                temp.discard();
                Err(fault_kind(errno))
            }
        }
    }

    fn claim_temp(&mut self, token: u64) -> FileResult<PendingWrite> {
        self.temps.remove(&token).ok_or(FaultKind::NoSuchTemp)
    }

    fn commit_temp(&mut self, token: u64, replace: ReplaceExisting, sync: SyncToDisk) -> FileResult<()> {
        let temp = self.claim_temp(token)?;
        // Entries created next to it meanwhile count as well.
        if let Err(kind) = self.refuse_git_write(&temp.directory, &temp.becomes) {
            temp.discard();
            return Err(kind);
        }
        let flags = match replace {
            ReplaceExisting::Yes => RenameFlags::empty(),
            ReplaceExisting::No => RenameFlags::NOREPLACE,
        };
        let done = match sync {
            SyncToDisk::Yes => rustix::fs::fsync(&temp.file),
            SyncToDisk::No => Ok(()),
        }
        .and_then(|()| {
            rustix::fs::renameat_with(&temp.directory, &temp.name, &temp.directory, &temp.becomes, flags)
        });
        if let Err(errno) = done {
            temp.discard();
            return Err(fault_kind(errno));
        }
        if sync == SyncToDisk::Yes {
            let folder =
                rustix::fs::openat(&temp.directory, c".", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            folder.and_then(|f| rustix::fs::fsync(&f)).map_err(fault_kind)?;
        }
        Ok(())
    }

    fn make_dirs(&self, path: &RawBytes) -> FileResult<()> {
        let mut end = 0;
        let path = path.0.strip_suffix(b"/").unwrap_or(&path.0);
        loop {
            end = path[end..].iter().position(|b| *b == b'/').map_or(path.len(), |at| end + at);
            let part = &path[..end];
            match self.open_path(part, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => {}
                Err(FaultKind::NotFound) => {
                    let place = self.resolve_writable(part)?;
                    match rustix::fs::mkdirat(&place.directory, &place.name, Mode::from_raw_mode(0o777)) {
                        // Created by another process meanwhile, or a dangling link: the next iteration or the caller
                        // detects it.
                        Err(Errno::EXIST) if place.now.is_some() => return Err(FaultKind::Dangling),
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(fault_kind(errno)),
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

    fn remove_path(&self, path: &RawBytes, what: RemovalScope) -> FileResult<()> {
        let place = self.resolve_writable(&path.0)?;
        let now = place.now.ok_or(FaultKind::NotFound)?;
        match (what, now.kind) {
            (RemovalScope::File, JailFileKind::Dir) => Err(FaultKind::NotRegular(JailFileKind::Dir)),
            (RemovalScope::EmptyDir, JailFileKind::Dir) => {
                rustix::fs::unlinkat(&place.directory, &place.name, AtFlags::REMOVEDIR).map_err(fault_kind)
            }
            (RemovalScope::EmptyDir, _) => Err(FaultKind::NotDir),
            (RemovalScope::Tree, JailFileKind::Dir) => remove_tree(place.directory.as_fd(), &place.name, 0),
            (RemovalScope::File | RemovalScope::Tree, _) => {
                rustix::fs::unlinkat(&place.directory, &place.name, AtFlags::empty()).map_err(fault_kind)
            }
        }
    }

    fn rename_path(&self, from: &RawBytes, to: &RawBytes, replace: ReplaceExisting) -> FileResult<()> {
        let (from, to) = (self.resolve_writable(&from.0)?, self.resolve_writable(&to.0)?);
        from.now.ok_or(FaultKind::NotFound)?;
        let flags = match replace {
            ReplaceExisting::Yes => RenameFlags::empty(),
            ReplaceExisting::No => RenameFlags::NOREPLACE,
        };
        rustix::fs::renameat_with(&from.directory, &from.name, &to.directory, &to.name, flags)
            .map_err(fault_kind)
    }
}

impl Drop for RootedFiles {
    /// Discards every unfinished write.
    fn drop(&mut self) {
        for (_, temp) in self.temps.drain() {
            temp.discard();
        }
    }
}

impl std::fmt::Debug for RootedFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("root", &self.root).field("unfinished", &self.temps.len()).finish()
    }
}

impl PendingWrite {
    fn discard(self) {
        // A file that is already gone is fine.
        let _ = rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty());
    }
}

/// Removes a directory with everything below, through descriptors, never through a path that could be swapped.
fn remove_tree(folder: BorrowedFd<'_>, name: &CStr, depth: usize) -> FileResult<()> {
    if depth >= MAX_REMOVE_DEPTH {
        return remove_deep(folder, name);
    }
    let inner = open_dir(folder, name)?;
    let mut entries = rustix::fs::Dir::read_from(&inner).map_err(fault_kind)?;
    while let Some(entry) = entries.read() {
        let entry = entry.map_err(fault_kind)?;
        let child = entry.file_name();
        if child == c"." || child == c".." {
            continue;
        }
        match rustix::fs::unlinkat(&inner, child, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => remove_tree(inner.as_fd(), child, depth + 1)?,
            Err(errno) => return Err(fault_kind(errno)),
        }
    }
    rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).map_err(fault_kind)
}

/// Opens a directory for listing; one without permissions gets them first, since it will be removed.
fn open_dir(folder: BorrowedFd<'_>, name: &CStr) -> FileResult<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let usable = |fd: &OwnedFd| rustix::fs::fstat(fd).is_ok_and(|s| s.st_mode & 0o700 == 0o700);
    match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(fd) if usable(&fd) => Ok(fd),
        Ok(fd) => {
            let _ = rustix::fs::fchmod(&fd, Mode::RWXU);
            Ok(fd)
        }
        Err(Errno::ACCESS) => {
            rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty()).map_err(fault_kind)?;
            rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(fault_kind)
        }
        Err(errno) => Err(fault_kind(errno)),
    }
}

/// Removes a very deep tree by flattening it: subdirectories are moved up next to its top and removed there, one after
/// the other, so that the number of open descriptors stays bounded.
fn remove_deep(folder: BorrowedFd<'_>, name: &CStr) -> FileResult<()> {
    let mut work = vec![name.to_owned()];
    while let Some(next) = work.pop() {
        let inner = open_dir(folder, &next)?;
        let mut entries = rustix::fs::Dir::read_from(&inner).map_err(fault_kind)?;
        while let Some(entry) = entries.read() {
            let entry = entry.map_err(fault_kind)?;
            let child = entry.file_name();
            if child == c"." || child == c".." {
                continue;
            }
            match rustix::fs::unlinkat(&inner, child, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR) => {
                    // Moving a directory changes its `..`, so it must be writable itself.
                    drop(open_dir(inner.as_fd(), child)?);
                    let beside = temp_name("removed");
                    let flags = RenameFlags::NOREPLACE;
                    rustix::fs::renameat_with(&inner, child, folder, &beside, flags).map_err(fault_kind)?;
                    work.push(beside);
                }
                Err(errno) => return Err(fault_kind(errno)),
            }
        }
        rustix::fs::unlinkat(folder, &next, AtFlags::REMOVEDIR).map_err(fault_kind)?;
    }
    Ok(())
}

/// Returns an unused name: its creation fails if the name exists. `purpose` consists of letters and digits.
pub(super) fn temp_name(purpose: &str) -> CString {
    let random = RandomState::new().build_hasher().finish();
    let name = format!("{TEMP_PREFIX}{purpose}-{random:016x}");
    CString::new(name).expect("letters and digits hold no NUL")
}
