//! Removal: whole trees of every shape, and nothing beside them.

use forge_files::{
    PrivateDir, count_tree_bytes, find_stale, owned_temp_name, remove_own_tree, remove_stale, remove_tree,
};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

/// An id without an account.
const STRANGER: u32 = 4245;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A name as a process that is gone would have left it.
fn dead(kind: &str) -> String {
    let namespace = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    format!("forge-{kind}-4194304-12-{namespace}-0")
}

/// Makes directories inside one another, each with a file, without a path that is too long.
fn nest(top: &Path, depth: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    fs::create_dir(top).unwrap();
    let mut here = openat(CWD, top, flags, Mode::empty()).unwrap();
    for level in 0..depth {
        if level % 1000 == 0 {
            let file = OFlags::CREATE | OFlags::WRONLY;
            openat(&here, "file", file, Mode::RUSR).unwrap();
        }
        mkdirat(&here, "a directory with a name of some length", Mode::RWXU).unwrap();
        here = openat(&here, "a directory with a name of some length", flags, Mode::empty()).unwrap();
    }
}

#[test]
fn depth_and_modes_and_numbers_stop_nothing() {
    let root = tempfile::tempdir().unwrap();
    let deepest = if std::env::var_os("FORGE_SOAK").is_some() { 100_000 } else { 4096 };
    for depth in [1, 15, 16, 17, 18, 40, deepest] {
        let top = root.path().join("top");
        nest(&top, depth);
        assert!(count_tree_bytes(&top) >= 4096, "{depth}");
        remove_tree(&top);
        assert!(!top.exists(), "{depth}");
    }
    let wide = root.path().join("wide");
    for name in 0..700 {
        fs::create_dir_all(wide.join(format!("{name}/below"))).unwrap();
        fs::write(wide.join(format!("file {name}")), "x").unwrap();
    }
    let counted = count_tree_bytes(&wide);
    assert!(counted >= 700 * 4096, "{counted}");
    assert!(remove_tree(&wide) >= 700 * 4096);
    assert!(!wide.exists());
}

#[test]
fn a_level_that_was_left_far_behind_is_gone_on_with() {
    let root = tempfile::tempdir().unwrap();
    let top = root.path().join("top");
    // More directories on one level than wait at a time, each deeper than ancestors are kept.
    let deep: PathBuf = std::iter::repeat_n("d", 30).collect();
    for name in 0..600 {
        fs::create_dir_all(top.join(name.to_string()).join(&deep)).unwrap();
    }
    let directories = 1 + 600 * 31;
    let counted = count_tree_bytes(&top);
    assert_eq!(counted % 4096, 0);
    assert!(counted / 4096 + 1 >= directories, "{counted}");
    remove_tree(&top);
    assert!(!top.exists());
}

#[test]
fn what_is_closed_to_its_owner_goes() {
    let root = tempfile::tempdir().unwrap();
    let top = root.path().join("top");
    fs::create_dir_all(top.join("a/b")).unwrap();
    fs::write(top.join("a/b/file"), "x").unwrap();
    for path in ["a/b", "a", "."] {
        fs::set_permissions(top.join(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    if is_root() {
        // Root passes every mode: the same as somebody else.
        chown(root.path(), Some(STRANGER), Some(STRANGER)).unwrap();
        for path in ["a/b/file", "a/b", "a", "."] {
            chown(top.join(path), Some(STRANGER), Some(STRANGER)).unwrap();
        }
        let path = top.clone();
        as_stranger(move || {
            remove_tree(&path);
        });
    } else {
        remove_tree(&top);
    }
    assert!(fs::symlink_metadata(&top).is_err());
}

/// Runs something on a thread that is another user.
fn as_stranger(act: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(move || {
        use rustix::process::{Gid, Uid};
        let (uid, gid) = (Uid::from_raw(STRANGER), Gid::from_raw(STRANGER));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        act();
    });
    thread.join().unwrap();
}

#[test]
fn links_lead_nowhere() {
    let root = tempfile::tempdir().unwrap();
    let (top, outside) = (root.path().join("top"), root.path().join("outside"));
    fs::create_dir_all(&top).unwrap();
    fs::create_dir_all(outside.join("precious")).unwrap();
    symlink(&outside, top.join("directory")).unwrap();
    symlink(outside.join("precious"), root.path().join("itself")).unwrap();
    remove_tree(&top);
    remove_tree(&root.path().join("itself"));
    assert!(!top.exists() && fs::symlink_metadata(root.path().join("itself")).is_err());
    assert!(outside.join("precious").is_dir());
}

#[test]
fn what_is_mounted_in_a_tree_stays() {
    if !is_root() {
        return;
    }
    // The mount goes with the thread's own set of mounts.
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let thread = std::thread::spawn(move || {
        use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
        #[allow(deprecated, reason = "a thread of its own, with no descriptors to share or not")]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        let (top, outside) = (path.join("top"), path.join("outside"));
        fs::create_dir_all(top.join("a/mounted")).unwrap();
        fs::create_dir_all(outside.join("precious")).unwrap();
        let counted = count_tree_bytes(&top);
        fs::write(outside.join("large"), vec![1; 1 << 20]).unwrap();
        // The same file system: only the mount tells.
        mount_bind(&outside, top.join("a/mounted")).unwrap();
        assert_eq!(count_tree_bytes(&top), counted);
        remove_tree(&top);
        assert!(outside.join("precious").is_dir() && top.join("a/mounted/precious").is_dir());
        // Nor is the top emptied if it is one.
        remove_tree(&top.join("a/mounted"));
        assert!(outside.join("precious").is_dir());
    });
    thread.join().unwrap();
}

#[test]
fn a_stale_thing_goes_only_if_it_is_ours() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    fs::create_dir_all(path(&dead("once")).join("a/b")).unwrap();
    fs::write(path(&dead("ca")), "x").unwrap();
    let living = owned_temp_name("once");
    fs::create_dir(path(&living)).unwrap();
    fs::create_dir(path("theirs")).unwrap();
    if is_root() {
        let theirs = path(&dead("bundle"));
        fs::create_dir_all(theirs.join("a")).unwrap();
        chown(&theirs, Some(STRANGER), Some(STRANGER)).unwrap();
        let file = path(&dead("home"));
        fs::write(&file, "x").unwrap();
        chown(&file, Some(STRANGER), Some(STRANGER)).unwrap();
    }
    let kinds = ["ca", "once", "bundle", "home"];
    let mut found = find_stale(root.path(), &kinds);
    found.sort();
    assert_eq!(found, [path(&dead("ca")), path(&dead("once"))]);
    assert_eq!(remove_stale(root.path(), &kinds).len(), 2);
    assert!(!path(&dead("once")).exists() && path(&living).is_dir());
    if is_root() {
        remove_own_tree(&path(&dead("bundle")));
        remove_own_tree(&path(&dead("home")));
        assert!(path(&dead("bundle")).join("a").is_dir() && path(&dead("home")).exists());
    }
}

#[test]
fn nothing_is_swept_where_others_can_write() {
    let root = tempfile::tempdir().unwrap();
    let shared = root.path().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::create_dir(shared.join(dead("once"))).unwrap();
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(remove_stale(&shared, &["once"]).is_empty());
    assert!(shared.join(dead("once")).is_dir());
    // What others can move, they may have named.
    assert_eq!(find_stale(&shared, &["once"]).len(), 1);
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(find_stale(&shared, &["once"]).is_empty() && remove_stale(&shared, &["once"]).is_empty());
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755)).unwrap();
    if is_root() {
        chown(&shared, Some(STRANGER), None).unwrap();
        assert!(remove_stale(&shared, &["once"]).is_empty() && find_stale(&shared, &["once"]).is_empty());
        chown(&shared, Some(0), None).unwrap();
    }
    assert_eq!(remove_stale(&shared, &["once"]).len(), 1);
}

#[test]
fn a_private_directory_is_ours_or_refused() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name);
    let made = PrivateDir::open_or_create(&path("new/below")).unwrap();
    assert_eq!(made.path(), path("new/below"));
    assert_eq!(fs::metadata(path("new/below")).unwrap().mode() & 0o777, 0o700);
    fs::create_dir(path("open")).unwrap();
    fs::set_permissions(path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    PrivateDir::open_or_create(&path("open")).unwrap();
    assert_eq!(fs::metadata(path("open")).unwrap().mode() & 0o777, 0o700);
    symlink(path("open"), path("link")).unwrap();
    fs::write(path("file"), "").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    fs::create_dir(path("runtime")).unwrap();
    PrivateDir::open_or_create_below(&path("runtime"), "forge").unwrap();
    fs::set_permissions(path("runtime"), fs::Permissions::from_mode(0o777)).unwrap();
    let error = PrivateDir::open_or_create_below(&path("runtime"), "forge").unwrap_err().to_string();
    assert!(error.contains("others can write"), "{error}");
    assert!(
        PrivateDir::open_or_create_below(&path("missing"), "forge").is_err() && !path("missing").exists()
    );
    for name in ["link", "file", "pipe"] {
        let error = PrivateDir::open_or_create(&path(name)).unwrap_err().to_string();
        assert!(error.contains("not a directory") && error.contains(name), "{error}");
    }
    if is_root() {
        fs::create_dir(path("theirs")).unwrap();
        chown(path("theirs"), Some(STRANGER), None).unwrap();
        let error = PrivateDir::open_or_create(&path("theirs")).unwrap_err().to_string();
        assert!(error.contains("belongs to user 4245"), "{error}");
        let error = PrivateDir::open_or_create_below(&path("theirs"), "forge").unwrap_err().to_string();
        assert!(error.contains("belongs to user 4245"), "{error}");
    }
}

/// Somebody who may write in a tree moves the directory that is being emptied to where the names that are still to be
/// done are those of other things, as often as it takes.
#[test]
fn a_race_with_somebody_who_moves_directories_is_never_lost() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let rounds = if std::env::var_os("FORGE_SOAK").is_some() { 500 } else { 16 };
    let (root, mut moved) = (tempfile::tempdir().unwrap(), 0);
    for round in 0..rounds {
        let world = root.path().join(round.to_string());
        let (top, outside) = (world.join("shared/top"), world.join("shared/outside"));
        // With ancestors kept, and with those further up opened again.
        let depth = if round % 2 == 0 { 2 } else { 40 };
        let way: PathBuf = std::iter::repeat_n("x", depth).collect();
        fs::create_dir_all(top.join(&way)).unwrap();
        for file in 0..150 {
            fs::write(top.join(&way).join(format!("file {file}")), "").unwrap();
        }
        // On each level some of them are still to be done, whatever the order.
        let names: Vec<String> = (0..8).map(|name| format!("home{name}")).collect();
        for name in &names {
            for level in way.ancestors().take(3) {
                fs::create_dir_all(top.join(level).join(name)).unwrap();
            }
            for place in [&world, &world.join("shared"), &outside] {
                fs::create_dir_all(place.join(name)).unwrap();
                fs::write(place.join(name).join("precious"), "").unwrap();
            }
        }
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                let emptied = top.join(&way);
                let all = fs::read_dir(&emptied).map_or(0, Iterator::count);
                while fs::read_dir(&emptied).is_ok_and(|left| left.count() == all)
                    && !done.load(Ordering::Relaxed)
                {
                    std::hint::spin_loop();
                }
                fs::rename(&emptied, outside.join("x")).is_ok()
            });
            remove_own_tree(&top);
            done.store(true, Ordering::Relaxed);
            moved += usize::from(mover.join().unwrap());
        });
        for place in names
            .iter()
            .flat_map(|name| [world.join(name), world.join("shared").join(name), outside.join(name)])
        {
            assert!(place.join("precious").exists(), "round {round}: {}", place.display());
        }
        remove_tree(&world);
    }
    // Else nothing was tried.
    assert!(moved > 0);
}
