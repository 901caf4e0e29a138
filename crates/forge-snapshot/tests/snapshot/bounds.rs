//! Ceilings, being ended, and the memory that the largest accepted trees take.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test that starts itself once more, and says what it measured"
)]

use forge_snapshot::apply::{self, MergeMode};
use forge_snapshot::compare::{ContentSources, DiffOptions, DiffText, compare_deltas, unified_diff};
use forge_snapshot::{
    BaseManifest, Error, Layout, ObjectStore, StopFlag, Tracker, TrackerOptions, TreeDelta, TreeRoot,
    WorkBounds, WorkspaceCeiling, copy_tree, load_delta,
};
use forge_types::WorkspaceLimits;
use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use tempfile::TempDir;

const LIMITS: WorkspaceLimits =
    WorkspaceLimits { paths: 40, changed_paths: 20, path_bytes: 4_000, depth: 6, file_bytes: 1 << 20 };

/// An empty repository and a copy of it that is a workspace.
struct Rig {
    folder: TempDir,
    base: Arc<BaseManifest>,
    tracker: Tracker,
}

impl Rig {
    fn new() -> Self {
        Self::on(|_| {})
    }

    fn on(build: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (lower, work) = (folder.path().join("repository"), folder.path().join("work"));
        fs::create_dir(&lower).unwrap();
        build(&lower);
        let base = Arc::new(BaseManifest::scan_tree(&lower).unwrap());
        let lower = TreeRoot::open(&lower).unwrap();
        copy_tree(&lower, &work, &base, None, &[], WorkBounds::unbounded()).unwrap();
        let tracker = Tracker::open(TrackerOptions {
            base: base.clone(),
            lower,
            layout: Layout::Directory { root: work },
            objects: Arc::new(ObjectStore::open(&folder.path().join("objects")).unwrap()),
            ignored: Vec::new(),
            owner: None,
        });
        Self { folder, base, tracker: tracker.unwrap() }
    }

    fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    fn within(mut self, bounds: &WorkBounds) -> Self {
        self.tracker.set_bounds(bounds);
        self
    }
}

fn bounds() -> WorkBounds {
    WorkBounds::new(LIMITS, StopFlag::default())
}

fn stopped() -> WorkBounds {
    let stop = StopFlag::default();
    stop.stop();
    WorkBounds::new(WorkspaceLimits::NONE, stop)
}

#[track_caller]
fn met<T: std::fmt::Debug>(result: Result<T, Error>, wanted: WorkspaceCeiling) {
    match result {
        Err(error @ Error::Ceiling { ceiling, .. }) if ceiling == wanted => {
            assert!(error.to_string().contains(wanted.setting_name()), "{error}");
        }
        other => panic!("{wanted:?}: {other:?}"),
    }
}

fn files(root: &Path, count: usize) {
    (0..count).for_each(|n| fs::write(root.join(format!("file-{n}")), "").unwrap());
}

fn deep(root: &Path, levels: usize, name: &str) -> OwnedFd {
    let open =
        |at: &OwnedFd, name: &str| openat(at, name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let mut at = openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    for _ in 0..levels {
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = open(&at, name).unwrap();
    }
    at
}

#[test]
fn each_ceiling_of_a_repository_is_said_before_anything_is_made() {
    let take = |build: &dyn Fn(&Path)| {
        let folder = tempfile::tempdir().unwrap();
        build(folder.path());
        BaseManifest::scan_tree_within(folder.path(), &bounds()).map(|base| base.len())
    };
    assert_eq!(take(&|root| files(root, 40)).unwrap(), 40);
    met(take(&|root| files(root, 41)), WorkspaceCeiling::Paths);
    assert_eq!(take(&|root| drop(deep(root, 6, "d"))).unwrap(), 6);
    met(take(&|root| drop(deep(root, 7, "d"))), WorkspaceCeiling::Depth);
    // Names count once, however deep; so do targets of links.
    assert_eq!(take(&|root| drop(deep(root, 6, &"d".repeat(255)))).unwrap(), 6);
    met(
        take(&|root| (0..20).for_each(|n| fs::write(root.join(format!("{n:0250}")), "").unwrap())),
        WorkspaceCeiling::PathBytes,
    );
    met(
        take(&|root| (0..2).for_each(|n| symlink("t".repeat(2_500), root.join(n.to_string())).unwrap())),
        WorkspaceCeiling::PathBytes,
    );
    // A large file is none of a manifest's business, but where it is to be read that is said.
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join("large")).unwrap().set_len((1 << 20) + 1).unwrap();
    let base = BaseManifest::scan_tree_within(folder.path(), &bounds()).unwrap();
    met(base.check_readable(folder.path(), &bounds()), WorkspaceCeiling::FileBytes);
    met(
        copy_tree(
            &TreeRoot::open(folder.path()).unwrap(),
            &folder.path().join("to"),
            &base,
            None,
            &[],
            &bounds(),
        ),
        WorkspaceCeiling::FileBytes,
    );
}

#[test]
fn each_ceiling_of_a_snapshot_is_said_and_the_next_snapshot_is_whole() {
    let snapshot = |build: &dyn Fn(&Path)| {
        let mut rig = Rig::new().within(&bounds());
        build(&rig.work());
        let first = rig.tracker.snapshot();
        // What was in the way goes, and the same tracker goes on.
        fs::remove_dir_all(rig.work()).unwrap();
        first
    };
    snapshot(&|root| files(root, 20)).unwrap();
    met(snapshot(&|root| files(root, 21)), WorkspaceCeiling::ChangedPaths);
    met(snapshot(&|root| drop(deep(root, 7, "d"))), WorkspaceCeiling::Depth);
    // Whole paths count here.
    met(snapshot(&|root| drop(deep(root, 6, &"d".repeat(250)))), WorkspaceCeiling::PathBytes);
    met(snapshot(&|root| symlink("t".repeat(4_001), root.join("l")).unwrap()), WorkspaceCeiling::PathBytes);
    met(
        snapshot(&|root| File::create(root.join("hole")).unwrap().set_len(8 << 40).unwrap()),
        WorkspaceCeiling::FileBytes,
    );
    let mut rig = Rig::new().within(&bounds());
    files(&rig.work(), 21);
    met(rig.tracker.snapshot(), WorkspaceCeiling::ChangedPaths);
    fs::remove_file(rig.work().join("file-0")).unwrap();
    let id = rig.tracker.snapshot().unwrap();
    assert_eq!(rig.tracker.snapshot_delta(id).unwrap().len(), 20);
}

#[test]
fn a_stored_delta_is_counted_when_it_is_read_again() {
    let mut rig = Rig::new();
    files(&rig.work(), 21);
    let id = rig.tracker.snapshot().unwrap();
    met(load_delta(&rig.tracker.objects(), id, &bounds()), WorkspaceCeiling::ChangedPaths);
    rig.tracker.set_bounds(&bounds());
    met(rig.tracker.restore(id), WorkspaceCeiling::ChangedPaths);
    assert_eq!(load_delta(&rig.tracker.objects(), id, WorkBounds::unbounded()).unwrap().len(), 21);
}

#[track_caller]
fn ended<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Stopped)), "{result:?}");
}

#[test]
fn everything_ends_when_it_is_no_longer_wanted() {
    let mut rig = Rig::on(|root| fs::write(root.join("old"), "old").unwrap());
    fs::write(rig.work().join("new"), "new").unwrap();
    fs::remove_file(rig.work().join("old")).unwrap();
    let id = rig.tracker.snapshot().unwrap();
    let stopped = stopped();
    ended(BaseManifest::scan_tree_within(&rig.repository(), &stopped).map(|base| base.len()));
    ended(rig.base.check_readable(&rig.repository(), &stopped));
    let repository = TreeRoot::open(&rig.repository()).unwrap();
    ended(copy_tree(&repository, &rig.folder.path().join("to"), &rig.base, None, &[], &stopped));
    ended(load_delta(&rig.tracker.objects(), id, &stopped));
    let new = File::open(rig.work().join("new")).unwrap();
    ended(rig.tracker.objects().store_file(&new, 3, &stopped));
    ended(rig.tracker.base_saver().with_bounds(&stopped).save());
    rig.tracker.set_bounds(&stopped);
    ended(rig.tracker.snapshot());
    ended(rig.tracker.restore(Tracker::baseline_digest()));
    assert!(rig.work().join("new").exists(), "what was not wanted was not begun");
    // Nothing of it is in the way of what follows.
    rig.tracker.set_bounds(WorkBounds::unbounded());
    assert_eq!(rig.tracker.snapshot().unwrap(), id);
    rig.tracker.restore(Tracker::baseline_digest()).unwrap();
    assert_eq!(fs::read(rig.work().join("old")).unwrap(), b"old");
}

#[test]
fn a_comparison_ends_when_it_is_no_longer_wanted() {
    let mut rig = Rig::on(|root| fs::write(root.join("old"), "old").unwrap());
    fs::write(rig.work().join("old"), "new").unwrap();
    let id = rig.tracker.snapshot().unwrap();
    let mut differences = compare_deltas(&TreeDelta::new(), &rig.tracker.snapshot_delta(id).unwrap());
    let (repository, objects, stopped) = (rig.repository(), rig.tracker.objects(), stopped());
    let root = TreeRoot::open(&repository).unwrap();
    let place = ContentSources {
        repository: &repository,
        root: Some(&root),
        base: &rig.base,
        objects: &objects,
        baseline: None,
        bounds: &stopped,
    };
    let told = |error: std::io::Error| error.downcast::<Error>().unwrap();
    ended(unified_diff(&differences, &place, DiffOptions::default()).map(|diff| diff.files).map_err(told));
    ended(place.learn_contents(&mut differences).map_err(told));
    let whole = ContentSources { bounds: WorkBounds::unbounded(), ..place };
    let counted =
        unified_diff(&differences, &whole, DiffOptions { text: DiffText::Counted, ..DiffOptions::default() })
            .unwrap();
    assert!(counted.text.is_empty());
    assert_eq!((counted.files[0].added, counted.files[0].removed), (1, 1));
    let short =
        unified_diff(&differences, &whole, DiffOptions { text: DiffText::UpTo(0), ..DiffOptions::default() })
            .unwrap();
    assert!(short.files[0].opaque, "{short:?}");
}

/// Ends the apply at its n-th step, whatever that is, by the flag alone.
#[test]
fn an_apply_that_is_ended_is_undone_and_one_that_came_too_far_is_finished() {
    let mut finished = 0;
    for at in 0..12 {
        let mut rig = Rig::on(|root| fs::write(root.join("old"), "old").unwrap());
        fs::create_dir(rig.work().join("folder")).unwrap();
        files(&rig.work(), 2);
        fs::write(rig.work().join("folder/file"), "x").unwrap();
        fs::remove_file(rig.work().join("old")).unwrap();
        let id = rig.tracker.snapshot().unwrap();
        let to = rig.tracker.snapshot_delta(id).unwrap();
        let (repository, objects, stop) = (rig.repository(), rig.tracker.objects(), StopFlag::default());
        let bounds = WorkBounds::new(WorkspaceLimits::NONE, stop.clone());
        let root = TreeRoot::open(&repository).unwrap();
        let place = ContentSources {
            repository: &repository,
            root: Some(&root),
            base: &rig.base,
            objects: &objects,
            baseline: None,
            bounds: &bounds,
        };
        let mut step = 0;
        let mut watch = |_: apply::ApplyStep<'_>| {
            step += 1;
            if step > at {
                stop.stop();
            }
            Ok(())
        };
        let options = apply::ApplyOptions {
            merge: MergeMode::No,
            watch: Some(&mut watch),
            ..apply::ApplyOptions::default()
        };
        let done = apply::apply(&place, &TreeDelta::new(), &to, options);
        let mut names: Vec<_> = fs::read_dir(&repository)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        match done {
            Ok(_) => {
                assert_eq!(names, ["file-0", "file-1", "folder"], "{at}");
                finished += 1;
            }
            Err(apply::Error::Store(Error::Stopped)) => assert_eq!(names, ["old"], "{at}"),
            Err(error) => panic!("{at}: {error}"),
        }
    }
    assert!((1..12).contains(&finished), "{finished}");
}

#[test]
fn sparse_files_stay_sparse_in_a_snapshot_a_restore_and_an_apply() {
    let mut rig = Rig::new();
    let size = 40 << 20;
    let file = File::create(rig.work().join("sparse")).unwrap();
    file.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 20 << 20).unwrap();
    let id = rig.tracker.snapshot().unwrap();
    fs::remove_file(rig.work().join("sparse")).unwrap();
    rig.tracker.restore(id).unwrap();
    let (repository, objects) = (rig.repository(), rig.tracker.objects());
    let root = TreeRoot::open(&repository).unwrap();
    let place = ContentSources {
        repository: &repository,
        root: Some(&root),
        base: &rig.base,
        objects: &objects,
        baseline: None,
        bounds: WorkBounds::unbounded(),
    };
    apply::apply(
        &place,
        &TreeDelta::new(),
        &rig.tracker.snapshot_delta(id).unwrap(),
        apply::ApplyOptions::default(),
    )
    .unwrap();
    for root in [rig.work(), repository.clone()] {
        let about = root.join("sparse").metadata().unwrap();
        assert_eq!(about.len(), size);
        assert!(about.blocks() * 512 < size / 8, "{}: {} blocks", root.display(), about.blocks());
        assert_eq!(fs::read(root.join("sparse")).unwrap()[20 << 20..][..4], *b"data");
    }
}

/// Names the tree, where it is to be built, and by how much the usual ceilings are divided.
const TREE: &str = "FORGE_SNAPSHOT_TEST_TREE";
/// What the host may take for the largest tree that is accepted.
const MOST_MEMORY: u64 = 300 << 20;

fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let found = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    found.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// The largest trees that the ceilings let through, each in another way.
fn largest(kind: &str, root: &Path, limits: WorkspaceLimits) {
    let number = |n: u64| usize::try_from(n).unwrap();
    match kind {
        "files" => files(root, number(limits.changed_paths)),
        "folders" => {
            (0..limits.changed_paths).for_each(|n| fs::create_dir(root.join(format!("folder-{n}"))).unwrap());
        }
        "links" => {
            let target = "t".repeat(4_000);
            let link = |n| symlink(&target, root.join(format!("{n:06}"))).unwrap();
            (0..limits.path_bytes / 4_006).for_each(link);
        }
        "deep" => {
            // Half of the room for the chain itself, half for as many folders at its end as there is room for.
            let bytes = number(limits.path_bytes);
            let fits = |levels: &usize| levels * levels * 201 <= bytes;
            let levels = (1..number(limits.depth)).take_while(fits).last().unwrap();
            let bottom = deep(root, levels, &"d".repeat(200));
            let room = bytes / 2 / (levels * 201 + 8) - 2;
            (0..room).for_each(|n| mkdirat(&bottom, format!("{n:06}"), Mode::RWXU).unwrap());
        }
        _ => panic!("{kind}"),
    }
}

/// Everything that the host does with a workspace, in a process of its own.
#[test]
#[ignore = "started by the_largest_accepted_trees_take_little_memory"]
fn everything_with_one_tree() {
    let Some(asked) = std::env::var_os(TREE) else { return };
    let asked = asked.into_string().unwrap();
    let [kind, divisor] = *asked.split(' ').collect::<Vec<_>>() else { panic!("{asked}") };
    let (divisor, usual) = (divisor.parse::<u64>().unwrap(), WorkspaceLimits::default());
    let limits = WorkspaceLimits {
        paths: usual.paths / divisor,
        changed_paths: usual.changed_paths / divisor,
        path_bytes: usual.path_bytes / divisor,
        ..usual
    };
    let bounds = WorkBounds::new(limits, StopFlag::default());
    let mut rig = Rig::new().within(&bounds);
    largest(kind, &rig.work(), limits);
    let before = memory("VmRSS");
    let peak = |what: &str| println!("PEAK {kind} {what} {}", memory("VmHWM").saturating_sub(before));
    let id = rig.tracker.snapshot().unwrap();
    peak("snapshot");
    let (repository, objects) = (rig.repository(), rig.tracker.objects());
    {
        let to = load_delta(&objects, id, &bounds).unwrap();
        let root = TreeRoot::open(&repository).unwrap();
        let place = ContentSources {
            repository: &repository,
            root: Some(&root),
            base: &rig.base,
            objects: &objects,
            baseline: None,
            bounds: &bounds,
        };
        let differences = compare_deltas(&TreeDelta::new(), &to);
        let diff = unified_diff(
            &differences,
            &place,
            DiffOptions { text: DiffText::Counted, ..DiffOptions::default() },
        )
        .unwrap();
        assert_eq!(diff.files.len(), differences.len());
        peak("compare");
        drop((diff, differences));
        apply::apply(&place, &TreeDelta::new(), &to, apply::ApplyOptions::default()).unwrap();
        peak("apply");
    }
    let manifest = BaseManifest::scan_tree_within(&repository, &bounds).unwrap();
    drop(manifest);
    peak("manifest");
    rig.tracker.restore(Tracker::baseline_digest()).unwrap();
    peak("restore");
    rig.tracker.restore(id).unwrap();
    peak("end");
}

#[test]
fn the_largest_accepted_trees_take_little_memory() {
    // A part of the usual ceilings, and the same part of the memory: the whole takes minutes.
    let divisor: u64 = if forge_testkit::scale::is_soak() { 1 } else { 30 };
    for kind in ["files", "folders", "links", "deep"] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "bounds::everything_with_one_tree", "--nocapture"])
            .env(TREE, format!("{kind} {divisor}"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{kind}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        let peaks: Vec<&str> = text.lines().filter(|line| line.contains("PEAK")).collect();
        let last = peaks.last().and_then(|line| line.rsplit(' ').next()).unwrap();
        println!("{}", peaks.join("\n"));
        assert!(last.parse::<u64>().unwrap() <= MOST_MEMORY / divisor + (8 << 20), "{peaks:?}");
    }
}
