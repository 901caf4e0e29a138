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
    for path in [&rig.run.repository, &rig.run.repository.join("a")] {
        chown(path, OTHER, OTHER).unwrap();
    }
    Some((rig, to))
}

#[test]
fn a_directory_of_root_that_is_named_like_a_temporary_is_not_removed() {
    let Some((rig, to)) = change_in_anothers_repository() else { return };
    let foreign = rig.run.repository.join(&rig.run.temporaries(&to)[0]);
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
    let name = &rig.run.temporaries(&to)[0];
    let stale = rig.run.repository.join(name);
    // An empty one was not given to its owner yet.
    fs::create_dir(&stale).unwrap();
    rig.run.temporaries(&to);
    assert!(!stale.exists());
    fs::create_dir_all(stale.join("given/not-given")).unwrap();
    fs::write(stale.join("given/file"), "x").unwrap();
    for path in [&stale, &stale.join("given")] {
        chown(path, OTHER, OTHER).unwrap();
    }
    rig.run.apply(&to, MergeMode::No).unwrap();
    assert!(!stale.exists());
    assert_eq!(fs::read_to_string(rig.run.repository.join("a")).unwrap(), "of the run\n");
}

#[test]
fn what_a_third_user_owns_in_it_is_not_changed_with_the_rights_of_root() {
    if !rustix::process::geteuid().is_root() {
        println!("NOT TESTED: only root works in directories of others");
        return;
    }
    let third = 4302;
    // What the run changes, what belongs to the third user, and what is refused, if anything is.
    let cases: [(&str, &str, Option<&str>); 7] = [
        ("echo other >theirs", "theirs", Some("theirs")),
        ("chmod 700 theirs", "theirs", Some("theirs")),
        ("rm theirs", "theirs", None),
        ("echo new >dir/new", "dir", Some("dir")),
        ("rm dir/file", "dir", Some("dir")),
        ("rm -r dir", "dir", Some("dir")),
        ("echo other >mine", "theirs", None),
    ];
    for (command, given, refused) in cases {
        let rig = Rig::new(|root| {
            fs::create_dir(root.join("dir")).unwrap();
            for file in ["theirs", "mine", "dir/file"] {
                fs::write(root.join(file), "text\n").unwrap();
            }
            for path in [".", "dir", "theirs", "mine", "dir/file"] {
                chown(root.join(path), OTHER, OTHER).unwrap();
            }
            chown(root.join(given), Some(third), Some(third)).unwrap();
        });
        let ran = std::process::Command::new("sh").args(["-c", command]).current_dir(&rig.run.view).status();
        assert!(ran.unwrap().success(), "{command}");
        let applied = rig.run.apply(&rig.run.delta(Was::Unknown), MergeMode::No);
        let expected = refused.map(|path| {
            let path = rig.run.repository.join(path);
            format!(
                "cannot apply: {} belongs to uid {third}, and the repository to uid 4301; root changes there only what \
                 the repository's owner owns; nothing was changed, change the owner with chown and try again",
                path.display()
            )
        });
        assert_eq!(applied.err().map(|error| error.to_string()), expected, "{command}");
    }
}
