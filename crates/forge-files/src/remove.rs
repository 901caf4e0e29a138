//! Removal of whole trees that cannot be redirected out of the tree.
//!
//! Every entry is named relative to the open directory that contains it. No symbolic link is followed and no mount is
//! crossed. Depth, path length and modes are no obstacle. For the way back up, the descriptors of the nearest ancestors
//! are kept. Those above are reopened as the parent of their child, and the walk continues only if they are the same
//! directories as before: moving a directory while it is being emptied ends the removal.

use crate::identity::FileIdentity;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Number of ancestors with an open descriptor. A limit of 64 descriptors is enough for the deepest tree.
const MAX_OPEN_ANCESTORS: usize = 16;
/// Maximum number of subdirectory names queued per level.
const MAX_WAITING_NAMES: usize = 256;
/// Unit in which the kernel counts the blocks of a file.
const BLOCK_BYTES: u64 = 512;

const DIRECTORY_FLAGS: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const HANDLE_FLAGS: OFlags = DIRECTORY_FLAGS.union(OFlags::PATH);

/// Required owner of the top of a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequiredOwner {
    /// Any user: the caller knows that only this user can create entries there.
    Any,
    /// This user, checked on the descriptor.
    Own,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WalkAction {
    Count,
    Remove,
}

/// Removes the file or directory tree at `path`. For places that only this user can write to, such as the data
/// directory: files there that belong to sandbox users are removed as well. Returns the bytes freed on disk; entries
/// that cannot be removed are kept.
pub fn remove_tree(path: &Path) -> u64 {
    remove_path(path, RequiredOwner::Any)
}

/// Removes the file or tree at `path` like [`remove_tree`], but only if it belongs to this user. For places where other
/// users can create files. Returns the bytes freed on disk; another user's tree is not touched.
pub fn remove_own_tree(path: &Path) -> u64 {
    remove_path(path, RequiredOwner::Own)
}

/// Counts the bytes that a tree uses on disk, without anything mounted in it.
#[must_use]
pub fn count_tree_bytes(path: &Path) -> u64 {
    let Ok(top) = rustix::fs::openat(CWD, path, DIRECTORY_FLAGS, Mode::empty()) else { return 0 };
    FileIdentity::of_file(top.as_fd())
        .map_or(0, |identity| DirTreeWalk::new(top, identity, WalkAction::Count).run())
}

fn remove_path(path: &Path, owner: RequiredOwner) -> u64 {
    let Some(name) = path.file_name().and_then(|name| CString::new(name.as_bytes()).ok()) else { return 0 };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Links in the parent path come from the caller.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(parent) = rustix::fs::openat(CWD, parent, flags, Mode::empty()) else { return 0 };
    remove_at(parent.as_fd(), &name, owner)
}

/// Removes the entry with this name from a directory.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &CString, owner: RequiredOwner) -> u64 {
    let Ok(stat) = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) else { return 0 };
    if owner == RequiredOwner::Own && !is_own(stat.st_uid) {
        return 0;
    }
    if !is_directory(&stat) {
        let removed = rustix::fs::unlinkat(parent, name, AtFlags::empty()).is_ok();
        return if removed { released_bytes(&stat) } else { 0 };
    }
    // The entry may have been replaced since it was checked by name.
    let wanted = |identity: &FileIdentity| owner == RequiredOwner::Any || is_own(identity.uid);
    let above = FileIdentity::of_file(parent);
    let top = above.and_then(|above| open_subdirectory(parent, name, WalkAction::Remove, &above, wanted));
    let Some((top, identity)) = top else { return 0 };
    let bytes = released_bytes(&stat) + DirTreeWalk::new(top, identity, WalkAction::Remove).run();
    let _ = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
    bytes
}

pub(crate) fn is_own(uid: u32) -> bool {
    uid == rustix::process::geteuid().as_raw()
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Returns the bytes attributed to one name. A file with several names counts as zero because removing one of them
/// frees nothing.
fn released_bytes(stat: &Stat) -> u64 {
    let counts = is_directory(stat) || stat.st_nlink == 1;
    if counts { u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK_BYTES } else { 0 }
}

/// Opens a subdirectory on the same mount. If it is to be emptied, its owner is first given access to it.
fn open_subdirectory(
    parent: BorrowedFd<'_>,
    name: &CString,
    action: WalkAction,
    above: &FileIdentity,
    wanted: impl Fn(&FileIdentity) -> bool,
) -> Option<(OwnedFd, FileIdentity)> {
    let accepted = |identity: &FileIdentity| identity.is_same_mount(above) && wanted(identity);
    match open_below(parent, name, DIRECTORY_FLAGS) {
        Ok(opened) => {
            let identity = FileIdentity::of_file(opened.as_fd()).filter(accepted)?;
            if action == WalkAction::Remove && identity.mode & 0o700 != 0o700 {
                let _ = rustix::fs::fchmod(&opened, Mode::from_raw_mode(0o700));
            }
            Some((opened, identity))
        }
        Err(Errno::ACCESS) if action == WalkAction::Remove => {
            let handle = open_below(parent, name, HANDLE_FLAGS).ok()?;
            let identity = FileIdentity::of_file(handle.as_fd()).filter(accepted)?;
            let by_handle = format!("/proc/self/fd/{}", handle.as_raw_fd());
            rustix::fs::chmod(by_handle, Mode::from_raw_mode(0o700)).ok()?;
            Some((rustix::fs::openat(&handle, c".", DIRECTORY_FLAGS, Mode::empty()).ok()?, identity))
        }
        Err(_) => None,
    }
}

fn open_below(parent: BorrowedFd<'_>, name: &CString, flags: OFlags) -> Result<OwnedFd, Errno> {
    let stay = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), stay) {
        // Without the system call, or behind a filter that blocks it, only the identity reveals a mount.
        Err(Errno::NOSYS | Errno::PERM) => rustix::fs::openat(parent, name, flags, Mode::empty()),
        opened => opened,
    }
}

/// A directory on the path from the top to the current one.
struct TreeLevel {
    /// Name in the level above.
    name: CString,
    identity: FileIdentity,
    /// Descriptor; `None` if dropped, to be reopened on the way back up.
    opened: Option<OwnedFd>,
    entries: Option<Dir>,
    /// Number of entries read so far.
    read: usize,
    waiting: Vec<CString>,
    /// Whether all entries were read.
    done: bool,
    /// Whether reading has been started before.
    started: bool,
    /// Whether anything was removed since reading started.
    progress: bool,
    /// Whether reading was restarted because the directory was not empty at the end.
    again: bool,
}

impl TreeLevel {
    const fn new(name: CString, opened: OwnedFd, identity: FileIdentity) -> Self {
        Self {
            name,
            identity,
            opened: Some(opened),
            entries: None,
            read: 0,
            waiting: Vec::new(),
            done: false,
            started: false,
            progress: false,
            again: false,
        }
    }

    /// Reads entries until enough directories are queued. All other entries are counted or removed at once.
    fn read_entries(&mut self, action: WalkAction, sum: &mut u64) {
        if self.entries.is_none() {
            self.start_reading(action);
        }
        let (Some(opened), Some(entries)) = (&self.opened, &mut self.entries) else {
            self.done = true;
            return;
        };
        while self.waiting.len() < MAX_WAITING_NAMES {
            let Some(Ok(entry)) = entries.read() else {
                self.done = true;
                break;
            };
            self.read += 1;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(stat) = rustix::fs::statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            *sum += released_bytes(&stat);
            if is_directory(&stat) {
                self.waiting.push(name.to_owned());
            } else if action == WalkAction::Remove {
                self.progress |= rustix::fs::unlinkat(opened, name, AtFlags::empty()).is_ok();
            }
        }
    }

    /// Starts reading, a second time if the descriptor was dropped in between.
    fn start_reading(&mut self, action: WalkAction) {
        // Entries that survived a whole round in which nothing was removed will not be removed in the next one.
        if action == WalkAction::Remove && self.started && !self.progress {
            return;
        }
        self.entries = self.opened.as_ref().and_then(|opened| Dir::read_from(opened).ok());
        if action == WalkAction::Count {
            // Counted entries, unlike removed ones, appear again and must be skipped.
            for _ in 0..self.read {
                let _ = self.entries.as_mut().and_then(Dir::read);
            }
        }
        (self.started, self.progress) = (true, false);
    }

    /// Restarts reading if an entry was removed that may have hidden others; returns whether a restart makes sense.
    fn restart_reading(&mut self) -> bool {
        let again = self.progress && !self.again;
        if again {
            (self.entries, self.done, self.again) = (None, false, true);
        }
        again
    }
}

/// A walk over a tree, down and up by descriptors.
struct DirTreeWalk {
    levels: Vec<TreeLevel>,
    action: WalkAction,
    sum: u64,
}

impl DirTreeWalk {
    fn new(top: OwnedFd, identity: FileIdentity, action: WalkAction) -> Self {
        Self { levels: vec![TreeLevel::new(CString::default(), top, identity)], action, sum: 0 }
    }

    fn run(mut self) -> u64 {
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.waiting.pop() {
                let (action, above) = (self.action, level.identity);
                let opened = level.opened.as_ref();
                let below = opened
                    .and_then(|opened| open_subdirectory(opened.as_fd(), &name, action, &above, |_| true));
                if let Some((opened, identity)) = below {
                    self.go_down(name, opened, identity);
                }
            } else if !level.done {
                level.read_entries(self.action, &mut self.sum);
            } else if !self.go_up() {
                break;
            }
        }
        self.sum
    }

    fn go_down(&mut self, name: CString, opened: OwnedFd, identity: FileIdentity) {
        self.levels.push(TreeLevel::new(name, opened, identity));
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN_ANCESTORS + 1) {
            let far = &mut self.levels[far];
            (far.opened, far.entries) = (None, None);
        }
    }

    /// Leaves the lowest directory when it is done; returns `false` when the walk is over.
    fn go_up(&mut self) -> bool {
        let Some(mut left) = self.levels.pop() else { return false };
        let Some(above) = self.levels.last_mut() else { return false };
        if above.opened.is_none() {
            let Some(opened) = &left.opened else { return false };
            let parent = rustix::fs::openat(opened, c"..", DIRECTORY_FLAGS, Mode::empty()).ok();
            // A directory other than the one that was left was moved there by another process.
            above.opened = parent.filter(|parent| {
                FileIdentity::of_file(parent.as_fd()).is_some_and(|found| found.is_same_file(&above.identity))
            });
        }
        let Some(opened) = &above.opened else { return false };
        if self.action == WalkAction::Remove {
            match rustix::fs::unlinkat(opened, &left.name, AtFlags::REMOVEDIR) {
                Ok(()) => above.progress = true,
                // Entries were added while the directory was emptied, or reading skipped some.
                Err(Errno::NOTEMPTY | Errno::EXIST) if left.restart_reading() => self.levels.push(left),
                Err(_) => {}
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The walk is deep in the tree when an ancestor is moved next to a directory that must not be touched.
    #[test]
    fn a_directory_that_is_moved_while_it_is_emptied_leads_nowhere() {
        for depth in [3, 2 * MAX_OPEN_ANCESTORS] {
            let root = tempfile::tempdir().unwrap();
            let (top, outside) = (root.path().join("top"), root.path().join("outside"));
            let way: std::path::PathBuf = std::iter::repeat_n("way", depth).collect();
            fs::create_dir_all(top.join(&way)).unwrap();
            // The pending entry of each level has the same name as a directory outside.
            for level in way.ancestors() {
                fs::create_dir(top.join(level).join("home")).unwrap();
            }
            fs::create_dir_all(outside.join("home/precious")).unwrap();
            let opened = rustix::fs::openat(CWD, &top, DIRECTORY_FLAGS, Mode::empty()).unwrap();
            let identity = FileIdentity::of_file(opened.as_fd()).unwrap();
            let mut walk = DirTreeWalk::new(opened, identity, WalkAction::Remove);
            for _ in 0..depth {
                let level = walk.levels.last_mut().unwrap();
                level.read_entries(WalkAction::Remove, &mut walk.sum);
                level.waiting.retain(|name| name.as_c_str() != c"way");
                let opened = level.opened.as_ref().unwrap().as_fd();
                let (opened, identity) =
                    open_subdirectory(opened, &c"way".into(), WalkAction::Remove, &level.identity, |_| true)
                        .unwrap();
                walk.go_down(c"way".into(), opened, identity);
            }
            fs::rename(top.join("way/way"), outside.join("way")).unwrap();
            walk.run();
            assert!(outside.join("home/precious").is_dir(), "depth {depth}");
            // Entries really in the tree were removed as far as this could be determined.
            assert!(!outside.join(way.strip_prefix("way/way").unwrap()).join("home").exists());
        }
    }
}
