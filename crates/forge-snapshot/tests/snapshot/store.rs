//! Manifests and stored contents: what survives, what is refused, who may write.

use forge_snapshot::{
    BaseManifest, CopyKind, Error, FileStamp, Layout, NodeKind, ObjectStore, OverlayXattrs, RelPath, Tracker,
    TrackerOptions, TreeNode, TreeRoot, WorkBounds, copy_tree,
};
use forge_types::Digest;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

#[test]
fn a_manifest_says_what_stands_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("tree");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "12345").unwrap();
    fs::hard_link(root.join("a/file"), root.join("a-link")).unwrap();
    fs::write(root.join(std::ffi::OsStr::from_bytes(b"\xff")), "").unwrap();
    symlink("../nowhere", root.join("a/b/link")).unwrap();
    fs::set_permissions(root.join("a/file"), fs::Permissions::from_mode(0o640)).unwrap();
    let base = BaseManifest::scan_tree(&root).unwrap();
    assert_eq!(base.len(), 6);
    let item = base.get(&path("a/file")).unwrap();
    assert_eq!((item.kind, item.mode, item.size, item.linked), (NodeKind::File, 0o640, 5, true));
    assert_eq!(base.get(&path("a/file/x")), None);
    assert_eq!(base.get(&path("b")), None);
    assert_eq!(base.node_at(&path("a/b/link")), Some(TreeNode::Symlink { target: b"../nowhere".to_vec() }));
    let below: Vec<_> = base.entries_below(&path("a")).map(|(path, _)| path.to_string()).collect();
    assert_eq!(below, ["a", "a/b", "a/b/link", "a/file"]);
    let uid = root.metadata().unwrap().uid();
    assert_eq!((base.count_foreign(uid), base.count_foreign(uid + 1)), (0, 6));

    let root_fd = File::open(&root).unwrap();
    let now = |name: &str| FileStamp::stat_below(&root_fd, &path(name)).unwrap();
    assert!(base.stamp_matches(&path("a/file"), now("a/file").as_ref()));
    assert!(base.stamp_matches(&path("none"), now("none").as_ref()));
    fs::write(root.join("a/file"), "54321!").unwrap();
    assert!(!base.stamp_matches(&path("a/file"), now("a/file").as_ref()));
    assert_eq!(now("a/b/link/x"), None, "no way through a link");

    let saved = folder.path().join("manifest");
    base.save(&saved).unwrap();
    assert_eq!(BaseManifest::load(&saved).unwrap(), base);
    let bytes = fs::read(&saved).unwrap();
    fs::write(&saved, &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(BaseManifest::load(&saved).unwrap_err().kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn a_tree_of_many_levels_is_walked_snapshot_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let [root, work] = ["tree", "work"].map(|name| folder.path().join(name));
    fs::create_dir(&root).unwrap();
    let levels = forge_testkit::scale::sample_or_all(600, 4_096);
    deep(&root, levels);
    let base = Arc::new(BaseManifest::scan_tree(&root).unwrap());
    assert_eq!(base.len(), levels + 1);
    let copied =
        copy_tree(&TreeRoot::open(&root).unwrap(), &work, &base, None, &[], WorkBounds::unbounded()).unwrap();
    let options = TrackerOptions {
        base: base.clone(),
        lower: TreeRoot::open(&root).unwrap(),
        layout: Layout::Directory { root: work.clone() },
        objects: Arc::new(ObjectStore::open(&folder.path().join("objects")).unwrap()),
        ignored: Vec::new(),
        owner: None,
    };
    let mut tracker = Tracker::open(options).unwrap();
    tracker.adopt_copy(copied).unwrap();
    assert_eq!(tracker.snapshot().unwrap(), Tracker::baseline_digest());
    fs::rename(work.join(LEVEL).join(LEVEL), work.join("e")).unwrap();
    let moved = tracker.snapshot().unwrap();
    assert_eq!(tracker.snapshot_delta(moved).unwrap().len(), 2 * levels);
    tracker.restore(Tracker::baseline_digest()).unwrap();
    assert!(!work.join("e").exists());
    assert_eq!(tracker.snapshot().unwrap(), Tracker::baseline_digest());
    tracker.restore(moved).unwrap();
    assert_eq!(tracker.snapshot().unwrap(), moved);
}

#[test]
fn a_copy_that_got_another_owner_is_known_to_be_untouched_when_the_repository_has_changed() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can give files away.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let [root, work] = ["tree", "work"].map(|name| folder.path().join(name));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("goes"), "what is never needed is not kept").unwrap();
    fs::write(root.join("stays"), "stays").unwrap();
    let base = Arc::new(BaseManifest::scan_tree(&root).unwrap());
    let copied =
        copy_tree(&TreeRoot::open(&root).unwrap(), &work, &base, None, &[], WorkBounds::unbounded()).unwrap();
    let open = || {
        let options = TrackerOptions {
            base: base.clone(),
            lower: TreeRoot::open(&root).unwrap(),
            layout: Layout::Directory { root: work.clone() },
            objects: Arc::new(ObjectStore::open(&folder.path().join("objects")).unwrap()),
            ignored: Vec::new(),
            owner: Some((4243, 4243)),
        };
        Tracker::open(options).unwrap()
    };
    let mut tracker = open();
    tracker.adopt_copy(copied).unwrap();
    for path in ["goes", "stays", "."] {
        std::os::unix::fs::chown(work.join(path), Some(4243), Some(4243)).unwrap();
    }
    tracker.adopt_owner().unwrap();
    fs::write(work.join("half"), "written").unwrap();
    drop(tracker);
    fs::remove_file(root.join("goes")).unwrap();
    let mut tracker = open();
    tracker.restore(Tracker::baseline_digest()).unwrap();
    assert!(work.join("goes").exists() && !work.join("half").exists());
    assert_eq!(tracker.snapshot().unwrap(), Tracker::baseline_digest());
}

/// The name of each level: 600 of them are longer than the kernel takes at once.
const LEVEL: &str = "a-folder";

/// Folders in one another, with a file in the last one; their path is longer than the kernel takes at once.
fn deep(root: &Path, levels: usize) {
    let mut at = rustix::fs::open(root, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, LEVEL, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, LEVEL, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
    rustix::fs::openat(&at, "file", flags, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
}

#[test]
fn contents_come_back_are_stored_once_and_survive_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectStore::open(folder.path()).unwrap();
    let large = vec![3_u8; 700_000];
    let digests = [
        objects.store_bytes(b"small").unwrap(),
        objects.store_bytes(b"").unwrap(),
        objects.store_bytes(&large).unwrap(),
    ];
    objects.flush().unwrap();
    let bytes = objects.bytes_on_disk();
    assert_eq!(objects.store_bytes(b"small").unwrap(), digests[0]);
    let file = folder.path().join("a file");
    fs::write(&file, &large).unwrap();
    assert_eq!(
        objects.store_file(&File::open(&file).unwrap(), 700_000, WorkBounds::unbounded()).unwrap(),
        digests[2]
    );
    assert_eq!(objects.bytes_on_disk(), bytes, "stored once");
    let changed = objects.store_file(&File::open(&file).unwrap(), 5, WorkBounds::unbounded());
    assert!(matches!(changed, Err(Error::Changed { .. })));

    assert!(matches!(ObjectStore::open(folder.path()), Err(Error::Busy { .. })));
    let reader = ObjectStore::open_read_only(folder.path()).unwrap();
    assert_eq!(reader.read(digests[0], 5).unwrap(), b"small");
    assert!(matches!(reader.read(digests[0], 4), Err(Error::TooLarge { size: 5, limit: 4, .. })));
    assert!(matches!(reader.store_bytes(b"x"), Err(Error::ReadOnly { .. })));
    let later = objects.store_bytes(b"later").unwrap();
    objects.flush().unwrap();
    assert!(reader.contains(later), "a reader sees what was flushed since it opened");
    assert!(matches!(reader.read(Digest::of_bytes(b"never"), 9), Err(Error::Missing { .. })));

    drop(objects);
    let objects = ObjectStore::open(folder.path()).unwrap();
    let mut content = objects.open_object(digests[2]).unwrap();
    let mut read = Vec::new();
    content.read_to_end(&mut read).unwrap();
    assert_eq!((content.len(), read == large), (700_000, true));
    assert_eq!(objects.read(digests[1], 0).unwrap(), b"");
}

#[test]
fn holes_of_a_large_file_take_no_room() {
    let folder = tempfile::tempdir().unwrap();
    let objects = ObjectStore::open(&folder.path().join("objects")).unwrap();
    let path = folder.path().join("sparse");
    let file = File::create_new(&path).unwrap();
    file.set_len(64 << 20).unwrap();
    let digest = objects.store_file(&File::open(&path).unwrap(), 64 << 20, WorkBounds::unbounded()).unwrap();
    let stored = folder.path().join("objects/large").join(digest.to_string()).metadata().unwrap();
    assert_eq!(stored.len(), 64 << 20);
    assert!(stored.blocks() * 512 < 1 << 20, "{} blocks", stored.blocks());
}

#[test]
fn a_full_disk_is_said_and_loses_nothing() {
    // A device that is always full takes the place of the pack.
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("large")).unwrap();
    symlink("/dev/full", folder.path().join("pack")).unwrap();
    let objects = ObjectStore::open(folder.path());
    match objects {
        Ok(objects) => assert!(matches!(objects.store_bytes(b"x"), Err(Error::Full { .. }))),
        Err(error) => assert!(matches!(error, Error::Io { .. }), "{error}"),
    }
}

/// The upper layer of an overlay without one: made by hand, as any user can.
#[test]
fn an_upper_layer_is_read_and_written_without_a_mount() {
    let folder = tempfile::tempdir().unwrap();
    let [lower, upper] = ["lower", "upper"].map(|name| folder.path().join(name));
    fs::create_dir_all(lower.join("d/e")).unwrap();
    fs::create_dir_all(&upper).unwrap();
    for (name, text) in [("same", "same"), ("changed", "old"), ("d/one", "1"), ("d/e/two", "2")] {
        fs::write(lower.join(name), text).unwrap();
    }
    let options = TrackerOptions {
        base: Arc::new(BaseManifest::scan_tree(&lower).unwrap()),
        lower: TreeRoot::open(&lower).unwrap(),
        layout: Layout::Overlay { upper: upper.clone(), attributes: OverlayXattrs::User },
        objects: Arc::new(ObjectStore::open(&folder.path().join("objects")).unwrap()),
        ignored: vec![path("d/one")],
        owner: None,
    };
    let mut tracker = Tracker::open(options).unwrap();
    assert_eq!(tracker.snapshot().unwrap(), Tracker::baseline_digest());
    fs::write(upper.join("same"), "same").unwrap();
    fs::write(upper.join("changed"), "new").unwrap();
    fs::create_dir(upper.join("moved")).unwrap();
    let moved = rustix::fs::setxattr(
        upper.join("moved"),
        "user.overlay.redirect",
        b"/d",
        rustix::fs::XattrFlags::empty(),
    );
    fs::write(upper.join("d"), "a file where a folder was").unwrap();
    let id = tracker.snapshot().unwrap();
    let delta = tracker.snapshot_delta(id).unwrap();
    let names: Vec<_> = delta.keys().map(ToString::to_string).collect();
    if moved.is_ok() {
        assert_eq!(
            names,
            ["changed", "d", "d/e", "d/e/two", "moved", "moved/e", "moved/e/two"],
            "no masked file"
        );
    }
    let Some(TreeNode::File { content: Some(was), .. }) = delta[&path("changed")].before else {
        panic!("{delta:?}")
    };
    assert_eq!(was, Digest::of_bytes(b"old"));

    tracker.restore(Tracker::baseline_digest()).unwrap();
    assert_eq!(fs::read_dir(&upper).unwrap().count(), 0, "an empty upper layer shows the repository");
    tracker.restore(id).unwrap();
    assert_eq!(fs::read(upper.join("changed")).unwrap(), b"new");
    assert_eq!(tracker.snapshot().unwrap(), id);
    assert_eq!(fs::read(lower.join("changed")).unwrap(), b"old");
}

#[test]
fn a_copy_says_how_it_was_made_and_leaves_out_what_is_masked() {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] = ["from", "to"].map(|name| folder.path().join(name));
    fs::create_dir_all(from.join("keys/deep")).unwrap();
    for name in [".env", "keys/deep/id", "file"] {
        fs::write(from.join(name), "text").unwrap();
    }
    let _socket = std::os::unix::net::UnixListener::bind(from.join("socket")).unwrap();
    let base = BaseManifest::scan_tree(&from).unwrap();
    let copied = copy_tree(
        &TreeRoot::open(&from).unwrap(),
        &to,
        &base,
        None,
        &[path(".env"), path("keys")],
        WorkBounds::unbounded(),
    )
    .unwrap();
    assert!(matches!(copied.kind, CopyKind::Copy | CopyKind::Reflink));
    assert_eq!((copied.files, copied.skipped), (1, 0));
    let names: Vec<_> = fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
}
