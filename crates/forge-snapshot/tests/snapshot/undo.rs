//! Undo and redo over random sequences of operations, on real trees: a whole copy, the repository itself, and a real
//! overlay where the tests may mount one.

use forge_snapshot::{
    BaseManifest, Layout, ObjectStore, OverlayXattrs, RelPath, Tracker, TrackerOptions, TreeDelta, TreeNode,
    TreeRoot, WorkBounds, copy_tree,
};
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Everything that undo must bring back: kind, mode, time of files, content or target, group of hard links.
type Manifest = BTreeMap<PathBuf, (char, u32, i64, Vec<u8>, Option<PathBuf>)>;

pub(crate) fn manifest(root: &Path) -> Manifest {
    let mut all = Manifest::new();
    read_folder(root, &PathBuf::new(), &mut all, &mut HashMap::new());
    // A file whose other names are outside has no group.
    let mut counts: HashMap<PathBuf, u32> = HashMap::new();
    all.values().filter_map(|entry| entry.4.clone()).for_each(|first| *counts.entry(first).or_default() += 1);
    for entry in all.values_mut() {
        entry.4 = entry.4.take().filter(|first| counts[first] > 1);
    }
    all
}

fn read_folder(root: &Path, folder: &Path, all: &mut Manifest, firsts: &mut HashMap<u64, PathBuf>) {
    let entries = fs::read_dir(root.join(folder)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let place = root.join(&path);
        let about = place.symlink_metadata().unwrap();
        let kind = about.file_type();
        let mode = about.mode() & 0o7777;
        // Whoever is not root opens what is closed, and closes it again.
        let open = |needed: u32| {
            let closed = (kind.is_file() || kind.is_dir()) && mode & needed != needed && !is_root();
            if closed {
                fs::set_permissions(&place, perms(mode | needed)).unwrap();
            }
            closed
        };
        let (entry, closed) = if kind.is_dir() {
            let closed = open(0o700);
            read_folder(root, &path, all, firsts);
            (('d', mode, 0, Vec::new(), None), closed)
        } else if kind.is_symlink() {
            (('l', 0, 0, fs::read_link(&place).unwrap().into_os_string().into_vec(), None), false)
        } else if kind.is_fifo() {
            (('p', mode, 0, Vec::new(), None), false)
        } else {
            let time = about.mtime() * 1_000_000_000 + about.mtime_nsec();
            let first =
                (about.nlink() > 1).then(|| firsts.entry(about.ino()).or_insert(path.clone()).clone());
            let closed = open(0o400);
            (('f', mode, time, fs::read(&place).unwrap(), first), closed)
        };
        if closed {
            fs::set_permissions(&place, perms(mode)).unwrap();
        }
        all.insert(path, entry);
    }
}

/// Whether modes do not matter to this process.
fn is_root() -> bool {
    static ROOT: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *ROOT.get_or_init(|| Path::new("/proc/self").metadata().is_ok_and(|about| about.uid() == 0))
}

/// A small generator of numbers, so that a seed tells a test again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % n.max(1)
    }

    fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        let at = self.below(all.len());
        all.get(at)
    }
}

const NAMES: [&[u8]; 17] = [
    b"a",
    b"b",
    b"src",
    b"src-old",
    b"Makefile",
    b".gitignore",
    b".env.sample",
    b"target",
    b"node_modules",
    b"\xff\xfe",
    b"two words",
    b"line\nbreak",
    b"-rf",
    b"caf\xc3\xa9",
    // Names like those of Forge's temporaries belong to ordinary files.
    b".forge-tmp-1",
    b".forge-tmp-apply-old-ca978112ca1bbdcafac231b3",
    b".forge-tmp-restore-0123456789abcdef",
];

fn all_paths(root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut folders, mut others) = (vec![PathBuf::new()], Vec::new());
    for (path, entry) in manifest(root) {
        if entry.0 == 'd' { folders.push(path) } else { others.push(path) }
    }
    (folders, others)
}

fn content(dice: &mut Dice) -> Vec<u8> {
    let size = [0, 1, 40, 4_000, 300, 7_000, 20_000, 270_000][dice.below(8).min(dice.below(9))];
    let seed = u8::try_from(dice.below(251)).unwrap_or(0);
    let mut bytes = vec![seed; size];
    bytes.iter_mut().step_by(97).for_each(|byte| *byte = u8::try_from(dice.below(256)).unwrap_or(0));
    bytes
}

/// One random operation; those that the file system refuses do nothing.
pub(crate) fn operate(root: &Path, dice: &mut Dice) {
    let (folders, others) = all_paths(root);
    let folder = dice.pick(&folders).cloned().unwrap_or_default();
    let name = std::ffi::OsStr::from_bytes(NAMES[dice.below(NAMES.len())]);
    let fresh = root.join(folder).join(name);
    let old = dice.pick(&others).map(|path| root.join(path));
    let modes = [0o644, 0o600, 0o755, 0o444, 0o000, 0o4755];
    let mode = modes[dice.below(modes.len())];
    let ok = |_: std::io::Result<()>| ();
    match (dice.below(18), old) {
        // Never through a link, which could lead anywhere, nor into a pipe, which would wait.
        (0..=2, _) if is_file(&fresh) || fresh.symlink_metadata().is_err() => {
            ok(fs::write(&fresh, content(dice)).and_then(|()| fs::set_permissions(&fresh, perms(0o644))));
        }
        (3 | 4, Some(old)) if is_file(&old) => ok(fs::write(&old, content(dice))),
        (5, Some(old)) if is_file(&old) => {
            ok(File::options().append(true).open(&old).and_then(|mut file| file.write_all(b"more\n")));
        }
        (6, Some(old)) if is_file(&old) => {
            ok(File::options().write(true).open(&old).and_then(|f| f.set_len(3)))
        }
        (7, Some(old)) if is_file(&old) => ok(fs::set_permissions(&old, perms(mode))),
        (8, Some(old)) => ok(fs::hard_link(&old, &fresh)),
        (9, Some(old)) => ok(fs::rename(&old, &fresh)),
        (10, Some(old)) => ok(fs::remove_file(&old)),
        (11, _) => ok(symlink(["../x", "a", "/nonexistent/host/file", "src"][dice.below(4)], &fresh)),
        (12, _) => ok(fs::create_dir(&fresh)),
        (13, _) => {
            let path = fresh.to_owned();
            ok(run("mkfifo", &[path.as_os_str()]));
        }
        (14, _) if folders.len() > 1 => {
            let from = &folders[1 + dice.below(folders.len() - 1)];
            // As mv does where the file system cannot rename a folder.
            if let Err(error) = fs::rename(root.join(from), &fresh)
                && error.kind() == std::io::ErrorKind::CrossesDevices
                && !fresh.exists()
                && !fresh.starts_with(root.join(from))
            {
                ok(run("mv", &["--".as_ref(), root.join(from).as_os_str(), fresh.as_os_str()]));
            }
        }
        (15, _) if folders.len() > 1 && dice.below(2) == 0 => {
            let from = root.join(&folders[1 + dice.below(folders.len() - 1)]);
            ok(fs::remove_dir_all(&from));
            if dice.below(2) == 0 {
                ok(fs::create_dir(&from));
            }
        }
        (16, _) if folders.len() > 1 => {
            let from = root.join(&folders[1 + dice.below(folders.len() - 1)]);
            ok(fs::set_permissions(from, perms([0o755, 0o700, 0o000, 0o500][dice.below(4)])));
        }
        (17, Some(old)) if is_file(&old) => {
            ok(File::options().write(true).open(&old).and_then(|f| f.set_modified(std::time::UNIX_EPOCH)));
        }
        _ => {}
    }
}

fn perms(mode: u32) -> Permissions {
    Permissions::from_mode(mode)
}

fn is_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|about| about.is_file())
}

#[allow(clippy::disallowed_methods, reason = "a test makes what a shell would")]
fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> std::io::Result<()> {
    let output = Command::new(program).args(arguments).output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())),
    }
}

/// A repository of random content with at least one of everything.
pub(crate) fn fill(root: &Path, dice: &mut Dice) {
    for folder in ["src/deep/er", "empty", "src/other", "closed"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for file in ["a", "src/main", "src/deep/er/x", "src/deep/y", "src/other/z", "closed/in", "run"] {
        fs::write(root.join(file), content(dice)).unwrap();
    }
    fs::write(root.join(".hidden"), vec![7; if dice.below(8) == 0 { 1_200_000 } else { 12_000 }]).unwrap();
    fs::hard_link(root.join("a"), root.join("src/same-as-a")).unwrap();
    symlink("src/main", root.join("link")).unwrap();
    fs::set_permissions(root.join("run"), perms(0o755)).unwrap();
    for _ in 0..dice.below(12) {
        operate(root, dice);
    }
    if is_root() {
        fs::set_permissions(root.join("closed"), perms(0o000)).unwrap_or(());
        return;
    }
    // What a person may not read of the own repository is not known to a run either.
    let all = manifest(root);
    for (path, _) in all.iter().filter(|(_, entry)| matches!(entry.0, 'f' | 'd')) {
        fs::set_permissions(root.join(path), perms(if all[path].0 == 'd' { 0o755 } else { 0o644 })).unwrap();
    }
}

/// How the workspace of a test is made and entered.
trait Rig {
    fn layout(&self) -> Layout;
    /// Whether hard links between files that changed and files that did not can be put back.
    fn keeps_all_links(&self) -> bool {
        true
    }
    /// Opens the workspace, lets `work` change it as a box would, closes it.
    fn enter(&self, work: &mut dyn FnMut(&Path));
}

struct Plain(PathBuf);

impl Rig for Plain {
    fn layout(&self) -> Layout {
        Layout::Directory { root: self.0.clone() }
    }
    fn enter(&self, work: &mut dyn FnMut(&Path)) {
        work(&self.0);
    }
}

/// Checks that a delta says exactly what differs between two manifests.
fn check_delta(delta: &TreeDelta, was: &Manifest, now: &Manifest, seed: u64) {
    let told: Vec<PathBuf> = delta.keys().map(|path| path.as_path().to_owned()).collect();
    let mut differ: Vec<PathBuf> = Vec::new();
    for path in was.keys().chain(now.keys()) {
        let same = match (was.get(path), now.get(path)) {
            (Some(was), Some(now)) => (was.0, was.1, &was.3) == (now.0, now.1, &now.3),
            _ => false,
        };
        if !same && !differ.contains(path) {
            differ.push(path.clone());
        }
    }
    differ.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    assert_eq!(told, differ, "seed {seed}");
    for (path, entry) in delta {
        let size = |node: &Option<TreeNode>| match node {
            Some(TreeNode::File { size, content, .. }) => Some((*size, content.is_some())),
            _ => None,
        };
        if let Some(entry_now) = now.get(path.as_path()).filter(|entry| entry.0 == 'f') {
            assert_eq!(size(&entry.after), Some((entry_now.3.len() as u64, true)), "seed {seed}");
        }
    }
}

/// Changes a workspace in rounds, takes a snapshot of each, and goes from every one to others and back.
fn round_trips(seed: u64, repository: &Path, objects: &Path, rig: &dyn Rig, mut tracker: Tracker) {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let before = manifest(repository);
    let mut seen = Manifest::new();
    rig.enter(&mut |view| seen = manifest(view));
    assert_eq!(tracker.snapshot().unwrap(), Tracker::baseline_digest(), "seed {seed}: nothing was done");
    let mut states = vec![(Tracker::baseline_digest(), seen)];
    for _ in 0..3 {
        let count = 1 + dice.below(8);
        let mut after = Manifest::new();
        rig.enter(&mut |view| {
            for _ in 0..count {
                operate(view, &mut dice);
            }
            after = manifest(view);
        });
        let id = tracker.snapshot().unwrap();
        assert_eq!(tracker.snapshot().unwrap(), id, "seed {seed}: the same state has the same name");
        check_delta(&tracker.snapshot_delta(id).unwrap(), &states[0].1, &after, seed);
        states.push((id, after));
    }
    for round in 0..6 {
        let to = if round == 0 { 0 } else { dice.below(states.len()) };
        let (id, expected) = &states[to];
        tracker.restore(*id).unwrap();
        rig.enter(&mut |view| {
            let (mut now, mut expected) = (manifest(view), expected.clone());
            if !rig.keeps_all_links() {
                forget_links(&mut now, &states[0].1);
                forget_links(&mut expected, &states[0].1);
            }
            assert_same(&now, &expected, &format!("seed {seed}, state {to}"));
        });
        assert_eq!(tracker.snapshot().unwrap(), *id, "seed {seed}, state {to}");
        if round == 3 {
            // A process that comes later knows nothing but what is on disk.
            let options = TrackerOptions {
                base: Arc::new(BaseManifest::load(&objects.join("base")).unwrap()),
                lower: TreeRoot::open(repository).unwrap(),
                layout: rig.layout(),
                objects: Arc::new(ObjectStore::open_read_only(objects).unwrap()),
                ignored: Vec::new(),
                owner: None,
            };
            drop(tracker);
            let objects = Arc::new(ObjectStore::open(objects).unwrap());
            tracker = Tracker::open(TrackerOptions { objects, ..options }).unwrap();
            tracker.restore(states[1].0).unwrap();
            rig.enter(&mut |view| {
                let (mut now, mut expected) = (manifest(view), states[1].1.clone());
                if !rig.keeps_all_links() {
                    forget_links(&mut now, &states[0].1);
                    forget_links(&mut expected, &states[0].1);
                }
                assert_same(&now, &expected, &format!("seed {seed}, later"));
            });
        }
    }
    tracker.restore(Tracker::baseline_digest()).unwrap();
    assert_same(&manifest(repository), &before, &format!("seed {seed}, the repository"));
}

/// Forgets groups of hard links in which a file stands as it did at the beginning: that one lies in the repository, and
/// the upper layer of an overlay cannot hold a link to it.
fn forget_links(now: &mut Manifest, first: &Manifest) {
    let untouched = |path: &PathBuf, entry: &(char, u32, i64, Vec<u8>, Option<PathBuf>)| {
        first
            .get(path)
            .is_some_and(|old| (old.0, old.1, old.2, &old.3) == (entry.0, entry.1, entry.2, &entry.3))
    };
    let lost: Vec<PathBuf> = now
        .iter()
        .filter(|(path, entry)| untouched(path, entry))
        .filter_map(|(_, entry)| entry.4.clone())
        .collect();
    for entry in now.values_mut() {
        entry.4 = entry.4.take().filter(|first| !lost.contains(first));
    }
}

type Brief<'a> = (char, u32, i64, Bytes<'a>, &'a Option<PathBuf>);

/// Compared whole, shown in short.
#[derive(PartialEq)]
struct Bytes<'a>(&'a [u8]);

impl std::fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes {:?}", self.0.len(), &self.0[..self.0.len().min(8)])
    }
}

fn brief(entry: &(char, u32, i64, Vec<u8>, Option<PathBuf>)) -> Brief<'_> {
    (entry.0, entry.1, entry.2, Bytes(&entry.3), &entry.4)
}

fn lines(manifest: &Manifest) -> Vec<(&PathBuf, Brief<'_>)> {
    manifest.iter().map(|(path, entry)| (path, brief(entry))).collect()
}

/// Fails with what differs.
fn assert_same(now: &Manifest, expected: &Manifest, about: &str) {
    let (now, expected) = (lines(now), lines(expected));
    let differ = |a: &[(&PathBuf, Brief<'_>)], b: &[(&PathBuf, Brief<'_>)]| {
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{line:?}")).collect::<Vec<_>>()
    };
    let (more, less) = (differ(&now, &expected), differ(&expected, &now));
    assert!(more.is_empty() && less.is_empty(), "{about}: there is\n{more:#?}\nthere should be\n{less:#?}");
}

struct Places {
    _folder: tempfile::TempDir,
    repository: PathBuf,
    objects: PathBuf,
    work: PathBuf,
}

fn places(seed: u64) -> (Places, Arc<BaseManifest>) {
    // Mostly in memory, where syncing costs nothing; some on the disk that temporary files are on.
    let memory = Path::new("/dev/shm");
    let folder = if !seed.is_multiple_of(8) && memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let folder = folder.unwrap();
    let [repository, objects, work] = ["repository", "objects", "work"].map(|name| folder.path().join(name));
    fs::create_dir_all(&repository).unwrap();
    fs::create_dir_all(&objects).unwrap();
    fill(&repository, &mut Dice::new(seed));
    let base = BaseManifest::scan_tree(&repository).unwrap();
    base.save(&objects.join("base")).unwrap();
    (Places { _folder: folder, repository, objects, work }, Arc::new(base))
}

fn options(places: &Places, base: &Arc<BaseManifest>, layout: Layout) -> TrackerOptions {
    TrackerOptions {
        base: base.clone(),
        lower: TreeRoot::open(&places.repository).unwrap(),
        layout,
        objects: Arc::new(ObjectStore::open(&places.objects).unwrap()),
        ignored: Vec::new(),
        owner: None,
    }
}

fn seeds(share: u64) -> std::ops::Range<u64> {
    0..forge_testkit::scale::sample_or_all(200, 10_000) / share
}

#[test]
fn undo_and_redo_in_a_copy() {
    for seed in seeds(4) {
        let (places, base) = places(seed);
        let from = TreeRoot::open(&places.repository).unwrap();
        let copied = copy_tree(&from, &places.work, &base, None, &[], WorkBounds::unbounded()).unwrap();
        assert_eq!(copied.skipped, 0);
        assert_same(
            &manifest(&places.work),
            &manifest(&places.repository),
            &format!("seed {seed}, the copy"),
        );
        let rig = Plain(places.work.clone());
        let mut tracker = Tracker::open(options(&places, &base, rig.layout())).unwrap();
        tracker.adopt_copy(copied).unwrap();
        round_trips(seed, &places.repository, &places.objects, &rig, tracker);
    }
}

#[test]
fn undo_and_redo_in_the_repository_itself() {
    for seed in seeds(4) {
        let (places, base) = places(10_000 + seed);
        let rig = Plain(places.repository.clone());
        let tracker = Tracker::open(options(&places, &base, rig.layout())).unwrap();
        tracker.save_base().unwrap();
        round_trips(seed, &places.repository, &places.objects, &rig, tracker);
    }
}

/// A real overlay; needs root, and a mount name space of its own so that nothing can be left behind.
struct Mounted {
    lower: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    view: PathBuf,
    attributes: OverlayXattrs,
    renames: &'static str,
}

impl Rig for Mounted {
    fn layout(&self) -> Layout {
        Layout::Overlay { upper: self.upper.clone(), attributes: self.attributes }
    }

    fn keeps_all_links(&self) -> bool {
        false
    }

    fn enter(&self, work: &mut dyn FnMut(&Path)) {
        let show = |path: &Path| path.to_str().unwrap().to_owned();
        let mut how = format!(
            "lowerdir={},upperdir={},workdir={},index=off,metacopy=off",
            show(&self.lower),
            show(&self.upper),
            show(&self.work)
        );
        how += match self.attributes {
            OverlayXattrs::User => ",userxattr",
            OverlayXattrs::Trusted => self.renames,
        };
        let view = self.view.as_os_str();
        run(
            "mount",
            &["-t".as_ref(), "overlay".as_ref(), "overlay".as_ref(), "-o".as_ref(), how.as_ref(), view],
        )
        .unwrap();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&self.view)));
        run("umount", &[view]).unwrap();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
}

#[allow(clippy::disallowed_methods, reason = "the test starts itself again in a mount name space of its own")]
#[test]
fn undo_and_redo_in_an_overlay() {
    let own = std::env::current_exe().unwrap();
    if !is_root() {
        println!("SKIPPED: only root may mount an overlay here; forge-sandbox tests the one without root");
        return;
    }
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private"])
        .arg(own)
        .args(["--ignored", "--exact", "undo::in_a_mount_name_space_of_its_own", "--nocapture"])
        .env("FORGE_TEST_OWN_MOUNTS", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// Where modes matter: the same tests once more, by somebody who is not root.
#[allow(clippy::disallowed_methods, reason = "the test starts itself again as another user")]
#[test]
fn undo_and_redo_as_an_ordinary_user() {
    if !is_root() {
        // Then the tests beside this one are such tests.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), perms(0o755)).unwrap();
    let program = folder.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let files = folder.path().join("files");
    fs::create_dir(&files).unwrap();
    fs::set_permissions(&files, perms(0o777)).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid", "4243", "--regid", "4243", "--clear-groups"])
        .arg(program)
        .args(["--exact", "undo::undo_and_redo_in_a_copy", "undo::undo_and_redo_in_the_repository_itself"])
        .env("TMPDIR", files)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("2 passed"), "{text}");
}

#[allow(clippy::disallowed_methods, reason = "told by the test that starts it")]
#[test]
#[ignore = "started by undo_and_redo_in_an_overlay"]
fn in_a_mount_name_space_of_its_own() {
    if std::env::var_os("FORGE_TEST_OWN_MOUNTS").is_none() {
        return;
    }
    for seed in seeds(2) {
        let (places, base) = places(20_000 + seed);
        let [upper, work, view] = ["upper", "overlay-work", "view"].map(|name| places.work.join(name));
        for folder in [&upper, &work, &view] {
            fs::create_dir_all(folder).unwrap();
        }
        let (attributes, renames) = match seed % 4 {
            0 => (OverlayXattrs::User, ""),
            1 => (OverlayXattrs::Trusted, ",redirect_dir=off"),
            _ => (OverlayXattrs::Trusted, ",redirect_dir=on"),
        };
        let rig = Mounted { lower: places.repository.clone(), upper, work, view, attributes, renames };
        let tracker = Tracker::open(options(&places, &base, rig.layout())).unwrap();
        round_trips(seed, &places.repository, &places.objects, &rig, tracker);
    }
}

/// Masked files are no part of anything.
#[test]
fn ignored_paths_are_never_part_of_a_snapshot() {
    let (places, base) = places(1);
    fs::write(places.repository.join("later"), "x").unwrap();
    let rig = Plain(places.repository.clone());
    let mut options = options(&places, &base, rig.layout());
    options.ignored = ["later", "src/secret"].map(|path| RelPath::new(path).unwrap()).to_vec();
    let mut tracker = Tracker::open(options).unwrap();
    tracker.save_base().unwrap();
    fs::write(places.repository.join("src/secret"), "key").unwrap();
    assert_eq!(tracker.snapshot().unwrap(), Tracker::baseline_digest());
    tracker.restore(Tracker::baseline_digest()).unwrap();
    assert_eq!(fs::read(places.repository.join("src/secret")).unwrap(), b"key");
    assert_eq!(fs::read(places.repository.join("later")).unwrap(), b"x");
}
