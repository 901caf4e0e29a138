//! As root on a repository of another user.

use super::*;
use std::os::unix::fs::chown;

const OTHER: Option<u32> = Some(4301);

/// A change to apply to a repository of another user; `None`: only root works in directories of others.
fn change_in_anothers_repository() -> Option<(Rig, TreeDelta)> {
    if !rustix::process::geteuid().is_root() {
        println!("NOT TESTED: only root works in directories of others");
        return None;
    }
    let rig = Rig::new(|root| fs::write(root.join("a"), "text\n").unwrap());
    rig.write("a", "of the run\n");
    let to = rig.run.delta(Was::Known);
    chown(&rig.run.repository, OTHER, OTHER).unwrap();
    Some((rig, to))
}

#[test]
fn a_directory_of_root_that_is_named_like_a_temporary_is_not_removed() {
    let Some((rig, to)) = change_in_anothers_repository() else { return };
    let foreign = rig.run.repository.join(".forge-tmp-apply-new-foreign");
    fs::create_dir_all(foreign.join("sub")).unwrap();
    fs::write(foreign.join("sub/file"), "x").unwrap();
    let error = rig.run.apply(&to, MergeMode::No).unwrap_err().to_string();
    let why = "it belongs to another user than the directory around it, so it is no temporary of forge; move it away";
    assert_eq!(
        error,
        format!("cannot apply: cannot clear {}: {why}; nothing was changed", foreign.display())
    );
    assert_eq!(fs::read_to_string(foreign.join("sub/file")).unwrap(), "x");
    assert_eq!(fs::read_to_string(rig.run.repository.join("a")).unwrap(), "text\n");
}

#[test]
fn what_a_killed_apply_left_is_removed_at_whatever_point_it_was_killed() {
    let Some((rig, to)) = change_in_anothers_repository() else { return };
    let stale = rig.run.repository.join(".forge-tmp-apply-new-stale");
    fs::create_dir_all(stale.join("given/not-given")).unwrap();
    fs::write(stale.join("given/file"), "x").unwrap();
    for path in [&stale, &stale.join("given")] {
        chown(path, OTHER, OTHER).unwrap();
    }
    let empty = rig.run.repository.join(".forge-tmp-apply-new-empty");
    fs::create_dir(&empty).unwrap();
    rig.run.apply(&to, MergeMode::No).unwrap();
    assert!(!stale.exists() && !empty.exists());
    assert_eq!(fs::read_to_string(rig.run.repository.join("a")).unwrap(), "of the run\n");
}
