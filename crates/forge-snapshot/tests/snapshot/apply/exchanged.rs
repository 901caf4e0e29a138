//! The identity of a repository: whatever its path leads to meanwhile, and whatever path leads to it.

use super::Rig;
use crate::trees::{Was, copy, read};
use forge_snapshot::TreeRoot;
use forge_snapshot::apply::{Error, LockWait, MergeMode, lock_repository, revert};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// The owner of a directory above the repository can put another directory, or a link to one, in its place at any time.
#[test]
fn an_exchanged_repository_changes_where_it_went_and_nothing_else() {
    for at in 0.. {
        let rig = Rig::new(|root| {
            fs::create_dir(root.join("d")).unwrap();
            for name in ["a", "d/one", "gone"] {
                fs::write(root.join(name), format!("{name}\n")).unwrap();
            }
        });
        rig.write("a", "changed\n");
        rig.write("d/new", "new\n");
        fs::remove_file(rig.run.view.join("gone")).unwrap();
        let to = rig.run.delta(Was::Unknown);
        let (moved, other) = (rig.folder.path().join("moved"), rig.folder.path().join("other"));
        copy(&rig.run.repository, &other);
        let before = read(&other);
        let mut exchanged = false;
        let applied = rig.run.apply_with(&to, MergeMode::No, at, &mut || {
            exchanged = true;
            fs::rename(&rig.run.repository, &moved)?;
            symlink(&other, &rig.run.repository)
        });
        let applied = applied.unwrap();
        if !exchanged {
            assert!(at > 7, "only {at} steps");
            break;
        }
        assert_eq!(read(&other), before, "exchanged at step {at}");
        assert_eq!(read(&moved), read(&rig.run.view), "exchanged at step {at}");
        revert(&rig.run.place(), &applied).unwrap();
        assert_eq!((read(&moved), read(&other)), (before.clone(), before), "exchanged at step {at}");
    }
}

#[test]
fn one_apply_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let locks = folder.path().join("locks");
    let other = folder.path().join("other");
    fs::create_dir(&other).unwrap();
    let link = folder.path().join("link");
    symlink(folder.path(), &link).unwrap();
    let open = |path: &Path| TreeRoot::open(path).unwrap();
    let (own, link, other) = (open(folder.path()), open(&link), open(&other));
    let held = lock_repository(&own, &locks, LockWait::No).unwrap();
    assert!(matches!(lock_repository(&link, &locks, LockWait::No), Err(Error::Busy { .. })));
    let _other = lock_repository(&other, &locks, LockWait::No).unwrap();
    drop(held);
    lock_repository(&link, &locks, LockWait::Yes).unwrap();
}
