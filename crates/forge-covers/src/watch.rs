//! Detection of credentials that are created in a repository while a run works in it.
//!
//! The kernel reports new names and written files (inotify). If that is not possible because there are too many
//! directories or watches are exhausted, the times of all directories are polled instead, at intervals that keep the
//! cost a small share of the time.

use crate::inspect::{self, open_root};
use crate::names::{FileOrigin, RevealedPaths};
use crate::scan;
use forge_snapshot::{BaseManifest, FileStamp, NodeKind, RelPath};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Inverse of the maximum share of the user's watches to use: editors and builds need theirs.
const WATCH_SHARE_DIVISOR: usize = 4;
/// Maximum number of watches; with more directories, polling is used instead.
const MAX_WATCHES: usize = 65_536;
/// Maximum delay of file times.
const RACY_NS: i64 = 2_000_000_000;
/// Pause after a scan of all directories, as a multiple of its duration.
const RESCAN_REST_FACTOR: u32 = 20;
/// Maximum number of entries inspected below a new directory.
const MAX_NEW_ENTRIES: usize = 1_000_000;

/// A covered path.
#[derive(Clone, Debug)]
pub struct CoveredPath {
    /// The path in the repository.
    pub path: PathBuf,
    /// Inode number of the file when it was covered, if there was one.
    pub number: Option<u64>,
}

/// The files to watch, and what is known about them.
#[derive(Debug)]
pub struct WatchTarget<'a> {
    /// The repository.
    pub root: &'a Path,
    /// Contents of the repository at the start of the run.
    pub base: &'a BaseManifest,
    /// Paths that are not covered.
    pub revealed: RevealedPaths,
    /// Paths that are covered.
    pub covered: Vec<CoveredPath>,
    /// Upper layer with the run's own changes, if they are not made in the repository itself; its files hide those
    /// below.
    pub upper: Option<PathBuf>,
}

/// The watch described in the module documentation.
#[derive(Debug)]
pub struct CredentialWatch {
    path: PathBuf,
    root: OwnedFd,
    revealed: RevealedPaths,
    covered: HashMap<PathBuf, Option<u64>>,
    numbers: HashSet<u64>,
    /// Credentials in the repository that the run created itself.
    own: HashMap<PathBuf, u64>,
    upper: Option<PathBuf>,
    /// Time before which changed files were already checked.
    since_ns: i64,
    /// Last known change time of each inspected directory. The root is the empty path.
    directories: HashMap<PathBuf, i64>,
    means: WatchMode,
}

#[derive(Debug)]
enum WatchMode {
    /// Notification by the kernel, with the directory of each watch descriptor.
    Inotify { inotify: OwnedFd, by_number: HashMap<i32, PathBuf> },
    /// Polling, at this time at the earliest.
    Polling { next: Instant },
}

impl CredentialWatch {
    /// Watches a repository from the time of its manifest. Returns `None` if it can no longer be watched.
    #[must_use]
    pub fn new(watched: WatchTarget<'_>) -> Option<Self> {
        Self::with_limit(watched, watch_limit())
    }

    /// Like [`CredentialWatch::new`], with at most `most` kernel watches.
    #[must_use]
    pub fn with_limit(watched: WatchTarget<'_>, most: usize) -> Option<Self> {
        let WatchTarget { root: path, base, revealed, covered, upper } = watched;
        let root = open_root(path).ok()?;
        let mut directories = HashMap::new();
        let mut waiting = vec![RelPath::default()];
        while let Some(directory) = waiting.pop() {
            let below = base
                .children(&directory)
                .filter(|(name, item)| item.kind == NodeKind::Dir && *name != b".git");
            waiting.extend(below.map(|(name, _)| directory.join(name)));
            let changed = base.get(&directory).map_or(0, |item| item.ctime_ns);
            directories.insert(directory.as_path().to_owned(), changed);
        }
        let means = WatchMode::Polling { next: Instant::now() };
        let since_ns = base.scanned_at_ns();
        let path = path.to_owned();
        let numbers = covered.iter().filter_map(|covered| covered.number).collect();
        let covered = covered.into_iter().map(|covered| (covered.path, covered.number)).collect();
        let mut watch = Self {
            path,
            root,
            revealed,
            covered,
            numbers,
            own: HashMap::new(),
            upper,
            since_ns,
            directories,
            means,
        };
        if watch.directories.len() <= most
            && let Ok(inotify) = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
        {
            watch.means = WatchMode::Inotify { inotify, by_number: HashMap::new() };
            let all: Vec<PathBuf> = watch.directories.keys().cloned().collect();
            all.iter().for_each(|directory| watch.add_watch(directory));
        }
        Some(watch)
    }

    /// Returns cheaply whether nothing happened; `false` means that [`CredentialWatch::new_credentials`] has to check.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match &self.means {
            WatchMode::Inotify { inotify, .. } => {
                rustix::io::ioctl_fionread(inotify).is_ok_and(|waiting| waiting == 0)
            }
            WatchMode::Polling { next } => Instant::now() < *next,
        }
    }

    /// Returns credentials that were created, or that replaced covered files, since the last call.
    pub fn new_credentials(&mut self) -> BTreeSet<PathBuf> {
        let touched = self.collect_touched();
        self.select_for_cover(&touched)
    }

    /// Returns credentials that were created between the manifest and the start of the watch.
    pub fn initial_credentials(&mut self) -> BTreeSet<PathBuf> {
        let mut touched = BTreeSet::new();
        self.rescan_changed(&mut touched);
        self.select_for_cover(&touched)
    }

    /// Returns the paths to cover, each once.
    fn select_for_cover(&mut self, touched: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let found: BTreeSet<PathBuf> = touched.iter().filter_map(|path| self.cover_target(path)).collect();
        for path in &found {
            let number = self.read_stamp(path).map(|stamp| stamp.ino);
            self.numbers.extend(number);
            self.covered.insert(path.clone(), number);
        }
        found
    }

    /// Ignores pending changes that were made by the run itself.
    pub fn ignore_own_changes(&mut self) {
        if let WatchMode::Polling { next } = &mut self.means {
            *next = Instant::now();
        }
        for path in self.collect_touched() {
            if let Some(path) = self.cover_target(&path)
                && let Some(stamp) = self.read_stamp(&path)
            {
                self.own.insert(path, stamp.ino);
            }
        }
    }

    fn collect_touched(&mut self) -> BTreeSet<PathBuf> {
        let mut touched = BTreeSet::new();
        match self.means {
            WatchMode::Inotify { .. } => self.read_events(&mut touched),
            WatchMode::Polling { next } if next <= Instant::now() => self.rescan_changed(&mut touched),
            WatchMode::Polling { .. } => {}
        }
        touched
    }

    /// Returns the path to cover because of a change at `path`, if there is one.
    fn cover_target(&self, path: &Path) -> Option<PathBuf> {
        let stamp = self.read_stamp(path)?;
        if self.revealed.contains(path) || self.is_shadowed(path) {
            return None;
        }
        match stamp.kind {
            NodeKind::File => self.needs_cover(path, &stamp).then_some(())?,
            // A link with a credential name exposes its target.
            NodeKind::Symlink => {
                let below = scan::resolve_link_inside(&self.path, path)?;
                let open =
                    !self.revealed.contains(&below) && self.is_uncovered(&below, &self.read_stamp(&below)?);
                let named = inspect::has_credential_name_through_link(
                    &self.root,
                    path,
                    &below,
                    FileOrigin::of_path(path),
                );
                return (open && named).then_some(below);
            }
            _ => return None,
        }
        Some(path.to_owned())
    }

    /// Returns whether a file is an uncovered credential, or another name of one.
    fn needs_cover(&self, path: &Path, stamp: &FileStamp) -> bool {
        let is_other_name = || stamp.linked && self.numbers.contains(&stamp.ino);
        let has_cover = || self.covered.contains_key(path);
        self.is_uncovered(path, stamp)
            && (has_cover() || is_other_name() || inspect::is_credential(&self.root, path, stamp.size))
    }

    /// Returns whether a file has no cover. Over an overlay, a cover persists when the file below it is replaced; in
    /// the repository itself, it disappears together with the file.
    fn is_uncovered(&self, path: &Path, stamp: &FileStamp) -> bool {
        match self.covered.get(path) {
            None => self.own.get(path) != Some(&stamp.ino),
            Some(number) => self.upper.is_none() && *number != Some(stamp.ino),
        }
    }

    fn read_stamp(&self, path: &Path) -> Option<FileStamp> {
        FileStamp::stat_below(&self.root, &RelPath::new(path.as_os_str().as_bytes())?).ok()?
    }

    /// Returns whether the run has its own file at a path, or in place of a directory above it.
    fn is_shadowed(&self, path: &Path) -> bool {
        let Some(upper) = &self.upper else { return false };
        let mut here = upper.clone();
        for part in path {
            here.push(part);
            match std::fs::symlink_metadata(&here) {
                Err(_) => return false,
                Ok(meta) if !meta.is_dir() => return true,
                Ok(_) => {}
            }
        }
        true
    }

    /// Reads the kernel's notifications of files that were created, moved in or written.
    fn read_events(&mut self, touched: &mut BTreeSet<PathBuf>) {
        let mut new = BTreeSet::new();
        let mut lost = false;
        if let WatchMode::Inotify { inotify, by_number } = &mut self.means {
            let mut room = [MaybeUninit::uninit(); 16 << 10];
            let mut reader = inotify::Reader::new(inotify.as_fd(), &mut room);
            while let Ok(event) = reader.next() {
                lost |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
                if event.events().contains(ReadFlags::IGNORED) {
                    by_number.remove(&event.wd());
                    continue;
                }
                let (Some(directory), Some(name)) = (by_number.get(&event.wd()), event.file_name()) else {
                    continue;
                };
                let path = directory.join(OsStr::from_bytes(name.to_bytes()));
                if event.events().contains(ReadFlags::ISDIR) {
                    new.insert(path);
                } else {
                    touched.insert(path);
                }
            }
        }
        for directory in new {
            self.scan_new_directory(&directory, touched);
        }
        if lost {
            self.rescan_changed(touched);
        }
    }

    /// Inspects a new directory and everything below it.
    fn scan_new_directory(&mut self, directory: &Path, touched: &mut BTreeSet<PathBuf>) {
        let mut waiting = vec![directory.to_owned()];
        while let Some(directory) = waiting.pop() {
            if directory.file_name().is_some_and(|name| name == ".git") || touched.len() > MAX_NEW_ENTRIES {
                continue;
            }
            // The watch comes first, so that files created during the listing are reported.
            self.add_watch(&directory);
            let Some(open) = inspect::open_directory(&self.root, &directory) else { continue };
            let changed = FileStamp::stat_open(&open).map_or(i64::MIN, |stamp| stamp.ctime_ns);
            self.directories.insert(directory.clone(), changed);
            for (name, is_directory) in list_entries(&open) {
                let path = directory.join(name);
                if is_directory {
                    waiting.push(path);
                } else {
                    touched.insert(path);
                }
            }
        }
    }

    /// Lists the directories that changed since the last inspection and collects new entries.
    fn rescan_changed(&mut self, touched: &mut BTreeSet<PathBuf>) {
        let begun = Instant::now();
        let since_ns = self.since_ns - RACY_NS;
        let mut changed = Vec::new();
        let mut gone = Vec::new();
        let mut newest_ns = self.since_ns;
        for (path, seen) in &mut self.directories {
            let stamp = RelPath::new(path.as_os_str().as_bytes())
                .and_then(|rel| FileStamp::stat_below(&self.root, &rel).ok()?);
            match stamp {
                Some(stamp) if stamp.kind == NodeKind::Dir && stamp.ctime_ns == *seen => {}
                Some(stamp) if stamp.kind == NodeKind::Dir => {
                    newest_ns = newest_ns.max(stamp.ctime_ns);
                    *seen = stamp.ctime_ns;
                    changed.push(path.clone());
                }
                _ => gone.push(path.clone()),
            }
        }
        for path in gone {
            self.directories.remove(&path);
        }
        for directory in changed {
            let Some(open) = inspect::open_directory(&self.root, &directory) else { continue };
            for (name, is_directory) in list_entries(&open) {
                let path = directory.join(name);
                if !is_directory {
                    // A file that is added to a directory, in whatever way, has a new change time itself.
                    if FileStamp::stat_at(&open, path.file_name().unwrap_or_default())
                        .is_ok_and(|now| now.ctime_ns >= since_ns)
                    {
                        touched.insert(path);
                    }
                } else if !self.directories.contains_key(&path) {
                    self.scan_new_directory(&path, touched);
                }
            }
        }
        self.since_ns = newest_ns;
        if let WatchMode::Polling { next } = &mut self.means {
            *next = Instant::now() + begun.elapsed() * RESCAN_REST_FACTOR;
        }
    }

    /// Adds a kernel watch for a directory; switches to polling if that fails.
    fn add_watch(&mut self, directory: &Path) {
        let WatchMode::Inotify { inotify, by_number } = &mut self.means else { return };
        let flags = WatchFlags::CREATE
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ONLYDIR
            | WatchFlags::DONT_FOLLOW
            | WatchFlags::EXCL_UNLINK;
        match inotify::add_watch(&*inotify, self.path.join(directory), flags) {
            Ok(number) if by_number.len() < MAX_WATCHES => {
                drop(by_number.insert(number, directory.to_owned()))
            }
            // The directory was removed or is not accessible.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::ACCESS) => {}
            _ => self.means = WatchMode::Polling { next: Instant::now() },
        }
    }
}

/// Lists an open directory; each name comes with whether it is a directory.
fn list_entries(directory: &OwnedFd) -> Vec<(std::ffi::OsString, bool)> {
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let listed = rustix::fs::openat(directory, c".", flags, rustix::fs::Mode::empty());
    let Ok(mut listing) = listed.and_then(rustix::fs::Dir::new) else { return Vec::new() };
    let mut found = Vec::new();
    while let Some(Ok(entry)) = listing.read() {
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let is_directory = match entry.file_type() {
            rustix::fs::FileType::Directory => true,
            rustix::fs::FileType::Unknown => {
                FileStamp::stat_at(directory, name).is_ok_and(|stamp| stamp.kind == NodeKind::Dir)
            }
            _ => false,
        };
        found.push((OsStr::from_bytes(name.to_bytes()).to_owned(), is_directory));
    }
    found
}

/// Returns the maximum number of watched directories.
fn watch_limit() -> usize {
    let said =
        forge_files::read_text(Path::new("/proc/sys/fs/inotify/max_user_watches"), 64).unwrap_or_default();
    let share = said.trim().parse::<usize>().map_or(0, |most| most / WATCH_SHARE_DIVISOR);
    share.min(MAX_WATCHES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAA\n";

    fn watched<'a>(root: &'a Path, base: &'a BaseManifest, covered: &[&str]) -> WatchTarget<'a> {
        use std::os::unix::fs::MetadataExt as _;
        let number = |path: &str| fs::metadata(root.join(path)).ok().map(|meta| meta.ino());
        let covered =
            covered.iter().map(|path| CoveredPath { path: path.into(), number: number(path) }).collect();
        WatchTarget {
            root,
            base,
            revealed: RevealedPaths::new(&["shown/*".to_owned()]),
            covered,
            upper: None,
        }
    }

    fn names(found: BTreeSet<PathBuf>) -> Vec<String> {
        found.iter().map(|path| path.display().to_string()).collect()
    }

    /// Runs a test with kernel notifications and with polling.
    fn both(body: impl Fn(&Path, &dyn Fn(&BaseManifest, &[&str]) -> CredentialWatch)) {
        for most in [1000, 0] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().to_owned();
            body(&root.clone(), &move |base, covered| {
                let mut watch = CredentialWatch::with_limit(watched(&root, base, covered), most).unwrap();
                assert_eq!(matches!(watch.means, WatchMode::Inotify { .. }), most > 0);
                watch.initial_credentials();
                if let WatchMode::Polling { next } = &mut watch.means {
                    *next = Instant::now();
                }
                watch
            });
        }
    }

    fn soon(watch: &mut CredentialWatch) -> Vec<String> {
        if let WatchMode::Polling { next } = &mut watch.means {
            *next = Instant::now();
        }
        assert!(!watch.is_quiet());
        names(watch.new_credentials())
    }

    #[test]
    fn what_comes_to_be_is_told_once() {
        both(|root, watch| {
            fs::create_dir_all(root.join("sub/target")).unwrap();
            fs::create_dir(root.join(".git")).unwrap();
            let mut watch = watch(&BaseManifest::scan_tree(root).unwrap(), &[]);
            for (path, text) in
                [("sub/.env", "A=1"), ("plain", "x"), ("deploy", KEY), ("sub/target/notes.txt", KEY)]
            {
                fs::write(root.join(path), text).unwrap();
            }
            fs::write(root.join(".git/.env"), "").unwrap();
            assert_eq!(soon(&mut watch), ["deploy", "sub/.env", "sub/target/notes.txt"]);
            // A tree that is moved in with old times, one that is created, and names that are revealed.
            let away = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
            fs::create_dir_all(away.path().join("clone/deep/.git")).unwrap();
            fs::write(away.path().join("clone/deep/id_rsa"), "").unwrap();
            fs::write(away.path().join("clone/deep/.git/id_rsa"), "").unwrap();
            fs::rename(away.path().join("clone"), root.join("clone")).unwrap();
            fs::create_dir_all(root.join("shown")).unwrap();
            fs::write(root.join("shown/.env"), "").unwrap();
            symlink("../plain", root.join("sub/.env.link")).unwrap();
            assert_eq!(soon(&mut watch), ["clone/deep/id_rsa", "plain"]);
            fs::write(root.join("clone/deep/.netrc"), "").unwrap();
            assert_eq!(soon(&mut watch), ["clone/deep/.netrc"]);
            if matches!(watch.means, WatchMode::Inotify { .. }) {
                assert!(watch.is_quiet());
            }
            fs::write(root.join("own.key"), "").unwrap();
            watch.ignore_own_changes();
            fs::write(root.join("other.key"), "").unwrap();
            assert_eq!(soon(&mut watch), ["other.key"]);
        });
    }

    #[test]
    fn a_cover_is_lost_with_the_file_below_it() {
        both(|root, watch| {
            fs::write(root.join(".env"), "A=1").unwrap();
            let mut watch = watch(&BaseManifest::scan_tree(root).unwrap(), &[".env"]);
            fs::write(root.join(".env"), "A=2").unwrap();
            fs::write(root.join("x"), "").unwrap();
            assert!(soon(&mut watch).is_empty(), "the same file");
            fs::hard_link(root.join(".env"), root.join("notes")).unwrap();
            assert_eq!(soon(&mut watch), ["notes"]);
            fs::write(root.join(".env.new"), "A=3").unwrap();
            fs::rename(root.join(".env.new"), root.join(".env")).unwrap();
            assert!(soon(&mut watch).contains(&".env".to_owned()));
        });
    }

    #[test]
    fn what_the_run_hides_is_no_news() {
        let (dir, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = dir.path();
        fs::create_dir(root.join("sub")).unwrap();
        let base = BaseManifest::scan_tree(root).unwrap();
        let upper = Some(upper.path().to_owned());
        let mut watch =
            CredentialWatch::new(WatchTarget { upper: upper.clone(), ..watched(root, &base, &[".netrc"]) })
                .unwrap();
        fs::create_dir(upper.as_ref().unwrap().join("sub")).unwrap();
        for path in [".env", "sub/.env"] {
            fs::write(upper.as_ref().unwrap().join(path), "OWN=1").unwrap();
            fs::write(root.join(path), "A=1").unwrap();
        }
        for path in [".netrc", "sub/.envrc"] {
            fs::write(root.join(path), "A=1").unwrap();
        }
        assert_eq!(soon(&mut watch), ["sub/.envrc"]);
    }

    #[test]
    fn what_came_between_the_manifest_and_the_watch_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sub")).unwrap();
        let base = BaseManifest::scan_tree(dir.path()).unwrap();
        fs::write(dir.path().join("sub/.env"), "A=1").unwrap();
        let mut watch = CredentialWatch::new(watched(dir.path(), &base, &[])).unwrap();
        assert_eq!(names(watch.initial_credentials()), ["sub/.env"]);
    }
}
