//! A repository that is exchanged for another directory while a run works in it, or is undone.

use crate::trees::{copy, read};
use forge_snapshot::{
    BaseManifest, Layout, ObjectStore, Tracker, TrackerOptions, TreeRoot, WorkBounds, copy_tree,
};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

#[test]
fn what_is_read_stored_and_restored_is_the_directory_that_was_opened() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("repository")).unwrap();
    for name in ["a", "b"] {
        fs::write(at("repository").join(name), name).unwrap();
    }
    fs::create_dir(at("other")).unwrap();
    fs::write(at("other/secret"), "secret").unwrap();
    let (before, other) = (read(&at("repository")), read(&at("other")));
    let root = TreeRoot::open(&at("repository")).unwrap();
    fs::rename(at("repository"), at("moved")).unwrap();
    symlink(at("other"), at("repository")).unwrap();
    let base = Arc::new(BaseManifest::scan_root(&root, WorkBounds::unbounded()).unwrap());
    assert_eq!(base.len(), 2);
    copy_tree(&root, &at("copy"), &base, None, &[], WorkBounds::unbounded()).unwrap();
    assert_eq!(read(&at("copy")), before);
    // A workspace that is the repository itself.
    let mut tracker = Tracker::open(TrackerOptions {
        base: Arc::clone(&base),
        lower: root.clone(),
        layout: Layout::Directory { root: at("repository") },
        objects: Arc::new(ObjectStore::open(&at("objects")).unwrap()),
        ignored: Vec::new(),
        owner: None,
    })
    .unwrap();
    tracker.save_base().unwrap();
    let beginning = tracker.snapshot().unwrap();
    assert_eq!(beginning, Tracker::baseline_digest());
    copy(&at("moved"), &at("kept"));
    fs::write(at("moved/a"), "changed").unwrap();
    fs::remove_file(at("moved/b")).unwrap();
    fs::write(at("moved/c"), "new").unwrap();
    let changed = tracker.snapshot().unwrap();
    assert_eq!(tracker.snapshot_delta(changed).unwrap().len(), 3);
    tracker.restore(beginning).unwrap();
    assert_eq!((read(&at("moved")), read(&at("other"))), (before, other));
}
