//! As root on a repository of another user.

use super::*;

#[test]
fn root_removes_no_directory_of_others_that_is_named_like_a_temporary() {
    use std::os::unix::fs::chown;
    if !rustix::process::geteuid().is_root() {
        println!("NOT TESTED: only root works in directories of others");
        return;
    }
    let rig = Rig::new(|root| fs::write(root.join("a"), "text\n").unwrap());
    rig.write("a", "of the run\n");
    let to = rig.run.delta(Was::Known);
    let repository = &rig.run.repository;
    let other = Some(4301);
    chown(repository, other, other).unwrap();
    let (foreign, stale) =
        (repository.join(".forge-tmp-apply-new-foreign"), repository.join(".forge-tmp-apply-new-stale"));
    for directory in [&foreign, &stale] {
        fs::create_dir_all(directory.join("sub")).unwrap();
        fs::write(directory.join("sub/file"), "x").unwrap();
    }
    for path in [&stale, &stale.join("sub")] {
        chown(path, other, other).unwrap();
    }
    rig.run.apply(&to, MergeMode::No).unwrap_or_default();
    assert_eq!(fs::read_to_string(foreign.join("sub/file")).unwrap(), "x");
    assert!(!stale.exists(), "what was left by an apply goes");
}
