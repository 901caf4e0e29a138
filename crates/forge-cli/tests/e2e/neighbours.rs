//! Another user of the same machine, who puts into every place that all users share what Forge looks for there, or
//! makes there. Nothing of anybody is lost or shown, and every command does its work or says what is in its way.

use crate::containers;
use crate::harness::{World, skip, until};
use forge_testkit::exchange::ExchangeLoop;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use forge_testkit::scale;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The other user, and the one that commands run as where that is not root: ids without accounts.
const STRANGER: u32 = 4246;
const USER: u32 = 4247;

/// A directory that all users share, with what one of them has put there.
struct Shared {
    folder: TempDir,
    /// What must stay as it is, with its content.
    planted: BTreeMap<PathBuf, String>,
    /// Planted where no test has a place of its own.
    outside: Vec<PathBuf>,
}

impl Shared {
    fn new() -> Self {
        let open = fs::Permissions::from_mode(0o755);
        let folder =
            tempfile::Builder::new().prefix("forge-shared-").permissions(open).tempdir().expect("a folder");
        let shared = Self { folder, planted: BTreeMap::new(), outside: Vec::new() };
        for name in ["tmp", "precious"] {
            fs::DirBuilder::new().create(shared.path(name)).expect("an empty place");
        }
        fs::set_permissions(shared.path("tmp"), fs::Permissions::from_mode(0o1777)).expect("the owner may");
        shared
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A name as a process that is gone would have left it.
    fn dead(kind: &str) -> String {
        let namespace = fs::metadata("/proc/self/ns/pid").expect("/proc").ino();
        format!("forge-{kind}-4194301-12-{namespace}-{}", std::process::id())
    }

    /// What other programs would have left whose process is gone, made by somebody else: trees, files, pipes, links to
    /// what `victim` may remove.
    fn plant(&mut self, victim: u32) {
        let precious = self.path("precious/file");
        fs::write(&precious, "precious").expect("a writable place");
        for path in [self.path("precious"), precious.clone()] {
            chown(path, Some(victim), Some(victim)).expect("root may");
        }
        self.planted.insert(precious, "precious".to_owned());
        for kind in ["ca", "once", "bundle", "home", "verify"] {
            let name = Self::dead(kind);
            let tree = self.path("tmp").join(&name);
            self.tree(&tree);
            let token = self.path("tmp").join(format!("{name}-0123456789ab"));
            self.tree(&token);
            self.link(&self.path("tmp").join(format!("{name}1")));
            self.pipe(&self.path("tmp").join(format!("{name}2")));
        }
        let scratch = Path::new("/dev/shm").join(Self::dead("scratch"));
        self.tree(&scratch);
        self.outside.push(scratch);
        let boxes = self.path("tmp").join(format!("forge-boxes-{victim}"));
        self.tree(&boxes);
        self.link(&boxes.join("forge-box-4194301-12-0"));
        self.link(&boxes.join("probe-4194301"));
    }

    fn tree(&mut self, top: &Path) {
        let below = top.join("a/b");
        fs::create_dir_all(&below).expect("an empty place");
        let file = below.join("file");
        fs::write(&file, "theirs").expect("a writable place");
        for path in [&file, &below, &top.join("a"), top] {
            chown(path, Some(STRANGER), Some(STRANGER)).expect("root may");
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).expect("root may");
        }
        self.planted.insert(file, "theirs".to_owned());
    }

    fn link(&mut self, path: &Path) {
        symlink(self.path("precious"), path).expect("an empty place");
        std::os::unix::fs::lchown(path, Some(STRANGER), Some(STRANGER)).expect("root may");
        self.planted.insert(path.join("file"), "precious".to_owned());
    }

    fn file(&mut self, path: &Path) {
        fs::write(path, "theirs").expect("a writable place");
        chown(path, Some(STRANGER), Some(STRANGER)).expect("root may");
        self.planted.insert(path.to_owned(), "theirs".to_owned());
    }

    fn pipe(&mut self, path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).expect("an empty place");
        chown(path, Some(STRANGER), Some(STRANGER)).expect("root may");
    }

    fn assert_untouched(&self) {
        for (path, text) in &self.planted {
            assert_eq!(fs::read_to_string(path).ok().as_ref(), Some(text), "{}", path.display());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for path in &self.outside {
            let _ = fs::remove_dir_all(path).or_else(|_| fs::remove_file(path));
        }
    }
}

/// Worlds of root and of an ordinary user, each with a model that writes a file; none where this is not root.
fn worlds(what: &str) -> Vec<(World, ModelServer, Vec<&'static str>, u32)> {
    if !rustix::process::geteuid().is_root() {
        skip(what, "there is only one user");
        return Vec::new();
    }
    let worlds = [(Some(World::new()), 0), (World::of_user(USER, what), USER)];
    let worlds = worlds.into_iter().filter_map(|(world, user)| Some((world?, user)));
    let with_model = |(mut world, user): (World, u32)| {
        let server = ModelServer::start(ReplyScript::always(|call| match call.turn_index() {
            0 => MockReply::call("write_file", json!({"path": "new.txt", "content": "new"})),
            _ => MockReply::text("Done."),
        }));
        let flags = world.uses(&server, VendorFormat::OpenAi);
        (world, server, flags, user)
    };
    worlds.map(with_model).collect()
}

#[test]
fn what_somebody_else_left_to_be_found_stays() {
    for (mut world, _server, flags, user) in worlds("another user's leftovers") {
        let mut shared = Shared::new();
        shared.plant(user);
        world.set("TMPDIR", &shared.path("tmp").display().to_string());
        world.file("main.py", "print('ran')\n");
        world.run(&flags, "write").exits(0);
        world.run(&[&flags[..], &["--no-durable"]].concat(), "write").exits(0);
        let ran = world.forge(&["sandbox", "exec", "--code", "main.py"]).exits(0);
        assert!(ran.out.contains("ran"), "{ran:#?}");
        for _ in 0..scale::sample_or_all(3, 300) {
            world.forge(&["sandbox", "prune"]).exits(0);
        }
        shared.assert_untouched();
        let made: Vec<_> = fs::read_dir(shared.path("tmp")).expect("a folder").flatten().collect();
        let own = made.iter().filter(|entry| entry.metadata().is_ok_and(|meta| meta.uid() != STRANGER));
        assert_eq!(own.count(), 0, "{made:?}");
    }
}

/// While a tree is removed, its owner moves the directory that is being emptied to where the names that are still to be
/// done are those of what only the victim may remove.
#[test]
fn nobody_leads_a_removal_astray() {
    for (mut world, _server, _, user) in worlds("a removal that is led astray") {
        for _ in 0..scale::sample_or_all(3, 100) {
            let mut shared = Shared::new();
            world.set("TMPDIR", &shared.path("tmp").display().to_string());
            let top = shared.path("tmp").join(Shared::dead("once"));
            shared.tree(&top);
            for file in 0..1000 {
                fs::write(top.join("a/b").join(format!("file {file}")), "").expect("a writable place");
            }
            for name in ["home", "etc"] {
                fs::create_dir(top.join(name)).expect("an empty place");
                // One level above the shared directory, where only its owner writes.
                let victims = shared.path(name).join("precious");
                fs::create_dir_all(&victims).expect("an empty place");
                fs::write(victims.join("file"), "precious").expect("a writable place");
                for path in [shared.path(name), victims.clone(), victims.join("file")] {
                    chown(path, Some(user), Some(user)).expect("root may");
                }
                shared.planted.insert(victims.join("file"), "precious".to_owned());
            }
            chown(shared.folder.path(), Some(user), Some(user)).expect("root may");
            let running = world.start(&["sandbox", "prune"]);
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            let (from, to) = (top.join("a/b"), shared.path("tmp/moved"));
            let mover = std::thread::spawn(move || {
                let pause = std::time::Duration::from_micros(50);
                while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    if fs::read_dir(&from).is_ok_and(|entries| entries.count() < 1001) {
                        let _ = fs::rename(&from, &to);
                        return;
                    }
                }
            });
            running.wait().exits(0);
            drop(stop);
            mover.join().expect("the mover ends");
            shared.assert_untouched();
        }
    }
}

#[test]
fn what_a_dead_process_of_the_same_user_left_goes() {
    for (mut world, _server, flags, user) in worlds("a user's own leftovers") {
        let shared = Shared::new();
        world.set("TMPDIR", &shared.path("tmp").display().to_string());
        world.run(&flags, "write").exits(0);
        let tmp = world.path("data").join("forge/tmp");
        let mut builder = fs::DirBuilder::new();
        builder
            .mode(0o700)
            .recursive(true)
            .create(tmp.join(Shared::dead("once")).join("a/b"))
            .expect("a place");
        let shm = Path::new("/dev/shm").join(Shared::dead("scratch"));
        builder.create(shm.join("a")).expect("a place");
        let once = tmp.join(Shared::dead("once"));
        for path in [tmp, once.clone(), once.join("a"), once.join("a/b"), shm.clone(), shm.join("a")] {
            chown(path, Some(user), Some(user)).expect("root may");
        }
        world.forge(&["sandbox", "prune"]).exits(0);
        assert!(!once.exists() && !shm.exists());
    }
}

#[test]
fn who_takes_the_names_first_prevents_nothing() {
    // Root's own directory there may be in use by tests beside this one.
    for (mut world, _server, flags, user) in worlds("names that are taken").into_iter().skip(1) {
        let mut shared = Shared::new();
        let own = Path::new("/dev/shm").join(format!("forge-{user}"));
        shared.outside.push(own.clone());
        fs::write(shared.path("precious/file"), "precious").expect("a writable place");
        world.set("TMPDIR", &shared.path("tmp").display().to_string());
        for plant in [Shared::tree, Shared::link, Shared::pipe, Shared::file] {
            let _ = fs::remove_dir_all(&own).or_else(|_| fs::remove_file(&own));
            plant(&mut shared, &own);
            world.run(&[&flags[..], &["--no-durable"]].concat(), "write").exits(0);
            shared.assert_untouched();
            shared.planted.clear();
            if own.is_dir() {
                let entries = fs::read_dir(&own).expect("a folder").flatten().map(|entry| entry.file_name());
                assert!(entries.into_iter().all(|name| name == "a" || name == "file"));
            }
        }
    }
}

#[test]
fn a_runtime_directory_of_somebody_else_is_not_used() {
    let Some(docker) = containers::docker("a hostile runtime directory") else { return };
    for (mut world, _server, flags, user) in worlds("a hostile runtime directory").into_iter().take(1) {
        world.set("DOCKER_HOST", docker.host());
        let shared = Shared::new();
        let flags = [&flags[..], &containers::FLAGS].concat();
        let kinds = ["theirs", "open", "link", "file", "missing", "own"];
        for kind in kinds {
            let runtime = shared.path(kind);
            match kind {
                "theirs" | "open" | "own" => fs::create_dir(&runtime).expect("an empty place"),
                "link" => symlink(shared.path("theirs"), &runtime).expect("an empty place"),
                "file" => fs::write(&runtime, "").expect("an empty place"),
                _ => {}
            }
            let mode = if kind == "open" { 0o777 } else { 0o700 };
            if matches!(kind, "theirs" | "open" | "own") {
                let owner = if kind == "theirs" { STRANGER } else { user };
                chown(&runtime, Some(owner), Some(owner)).expect("root may");
                fs::set_permissions(&runtime, fs::Permissions::from_mode(mode)).expect("root may");
            }
            let path = runtime.display().to_string();
            world
                .start_with(&[&["run", kind][..], &flags].concat(), &[("XDG_RUNTIME_DIR", &path)])
                .wait()
                .exits(0);
            assert_eq!(runtime.join("forge").exists(), kind == "own", "{kind}");
            assert_eq!(runtime.exists(), kind != "missing");
        }
        let own = fs::metadata(shared.path("own/forge")).expect("a folder");
        assert_eq!((own.uid(), own.mode() & 0o777), (user, 0o700));
    }
}

#[test]
fn a_directory_that_is_not_ours_is_named() {
    for (world, _server, _, user) in worlds("a taken directory") {
        let data = world.path("data").join("forge");
        world.file("main.py", "print('ran')\n");
        world.forge(&["sandbox", "exec", "--code", "main.py"]).exits(0);
        let mut shared = Shared::new();
        let tmp = data.join("tmp");
        for plant in [Shared::tree, Shared::link] {
            let _ = fs::remove_dir_all(&tmp);
            plant(&mut shared, &tmp);
            shared.planted.clear();
            let done = world.forge(&["sandbox", "exec", "--code", "main.py"]);
            assert!(done.code.is_some_and(|code| code != 0), "user {user}: {done:#?}");
            done.says(&[&format!("{} belongs to user {STRANGER}", tmp.display())]);
        }
        let _ = fs::remove_file(&tmp);
    }
}

#[test]
fn what_is_kept_in_an_open_data_folder_is_for_its_user_alone() {
    for (world, _server, flags, user) in worlds("an open data folder") {
        let data = world.path("data").join("forge");
        let _ = fs::remove_dir_all(&data);
        fs::create_dir(&data).expect("an empty place");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("root may");
        chown(&data, Some(user), Some(user)).expect("root may");
        world.file("main.py", "print('ran')\n");
        world.run(&flags, "write").exits(0);
        world.forge(&["sandbox", "exec", "--code", "main.py"]).exits(0);
        let entries: Vec<_> = fs::read_dir(&data).expect("a folder").flatten().collect();
        for name in ["forge.db", "gc.stamp", "runs", "tmp", "verdicts"] {
            assert!(entries.iter().any(|entry| entry.file_name() == name), "{name}: {entries:?}");
        }
        for entry in entries {
            let mode = entry.metadata().expect("a file").mode() & 0o077;
            assert_eq!(mode, 0, "user {user}: {}", entry.path().display());
        }
    }
}

#[test]
fn a_data_directory_that_somebody_else_filled_is_refused_by_every_command() {
    for (world, server, flags, user) in worlds("a foreign data directory") {
        let data = world.path("data").join("forge");
        for entry in ["", "runs", "verdicts", "link"] {
            let _ = fs::remove_dir_all(&data);
            fs::create_dir_all(&data).expect("an empty place");
            chown(&data, Some(user), Some(user)).expect("root may");
            let foreign = data.join(entry);
            match entry {
                "link" => {
                    symlink(world.path("repo"), &foreign).expect("an empty place");
                    std::os::unix::fs::lchown(&foreign, Some(STRANGER), Some(STRANGER)).expect("root may");
                }
                _ => {
                    fs::create_dir_all(&foreign).expect("an empty place");
                    chown(&foreign, Some(STRANGER), Some(STRANGER)).expect("root may");
                }
            }
            let path = foreign.display().to_string();
            let refused = format!(
                "error: {} belongs to user {STRANGER}, who could change what forge keeps there; run forge as that \
                 user, make it yours with `chown -R`, or set XDG_DATA_HOME to another directory\n",
                path.trim_end_matches('/')
            );
            for words in
                [&["list"][..], &["sandbox", "exec", "--", "true"], &["secret", "list"], &["trust", "--yes"]]
            {
                let done = world.forge(words).exits(1);
                assert!(done.err.ends_with(&refused), "{words:?}: {}", done.err);
                assert!(!done.err.contains("configuration"), "{words:?}: {}", done.err);
            }
            let done = world.run(&flags, "write").exits(1);
            assert!(done.err.ends_with(&refused), "{}", done.err);
        }
        assert_eq!(server.model_calls().len(), 0);
        fs::remove_dir_all(&data).expect("root may");
    }
}

#[test]
fn root_shows_no_private_file_to_a_repository_of_another_user() {
    if !rustix::process::geteuid().is_root() {
        skip("a private file in a repository of another user", "only root can read it");
        return;
    }
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::always(|_| MockReply::text("Done.")));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    world.file("secret", "of root\n");
    fs::set_permissions(world.repo().join("secret"), fs::Permissions::from_mode(0o600)).expect("root may");
    chown(world.repo(), Some(STRANGER), Some(STRANGER)).expect("root may");
    let refused =
        format!("secret belongs to another user than the repository (user {STRANGER}), who may not read it");
    let done = world.run(&flags, "look").exits(1);
    assert!(format!("{}{}", done.out, done.err).contains(&refused), "{done:#?}");
    fs::set_permissions(world.repo().join("secret"), fs::Permissions::from_mode(0o644)).expect("root may");
    world.run(&flags, "look").exits(0);
}

fn exchange_repeatedly(one: PathBuf, two: PathBuf) -> ExchangeLoop {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    ExchangeLoop::start(move || {
        renameat_with(CWD, &one, CWD, &two, RenameFlags::EXCHANGE).expect("root may");
    })
}

/// A project of another user, and a link to one of root's in the same directory of that user.
#[allow(clippy::disallowed_methods, reason = "the test is the users, who use git")]
fn exchangeable_projects(world: &World) -> (PathBuf, PathBuf, PathBuf) {
    let (theirs, own) = (world.make_folder("theirs"), world.make_folder("own"));
    let (repo, link) = (theirs.join("repo"), theirs.join("link"));
    fs::create_dir(&repo).expect("an empty place");
    for project in [&repo, &own] {
        fs::write(project.join("a.txt"), "a\n").expect("a writable place");
        let script =
            "git init -q -b main && git add -A && git -c user.name=t -c user.email=t@t commit -qm first";
        let made = std::process::Command::new("sh").args(["-c", script]).current_dir(project).status();
        assert!(made.expect("git is there").success());
    }
    symlink(&own, &link).expect("an empty place");
    let given = std::process::Command::new("chown")
        .args(["-hR", &format!("{STRANGER}:{STRANGER}")])
        .arg(&theirs)
        .status();
    assert!(given.expect("chown is there").success());
    (repo, link, own)
}

#[test]
fn a_repository_that_its_owner_exchanges_leads_root_nowhere_else() {
    if !rustix::process::geteuid().is_root() {
        skip("a repository that its owner exchanges", "only root works on repositories of others");
        return;
    }
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::always(|call| match call.turn_index() {
        0 => MockReply::call("write_file", json!({"path": "new.txt", "content": "new"})),
        _ => MockReply::text("Done."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let (repo, link, own) = exchangeable_projects(&world);
    let names = || -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![own.clone()];
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path()) {
                if path.is_dir() {
                    folders.push(path.clone());
                }
                found.insert(path.clone(), fs::read(path).unwrap_or_default());
            }
        }
        found
    };
    let (before, path) = (names(), repo.display().to_string());
    let apply: &[&[&str]] = &[&["apply", "last"], &["undo", "last", "--to", "0"], &["redo", "last"]];
    for (mode, later) in [("transaction", apply), ("inplace", &apply[1..]), ("branch", &[])] {
        let mut done = 0;
        for _ in 0..scale::sample_or_all(2, 40) {
            let words = [&flags[..], &["--repo", &path, "--workspace", mode, "--apply", "never"]].concat();
            let calls = server.model_calls().len();
            let running = world.start(&[&["run", "write"][..], &words].concat());
            // By its first call of the model the run has begun with the directory.
            until("the first call of the model", || (server.model_calls().len() > calls).then_some(()));
            let exchanging = exchange_repeatedly(repo.clone(), link.clone());
            done += usize::from(running.wait().code == Some(0));
            for words in later.iter().cycle().take(4 * later.len()) {
                done += usize::from(world.forge(words).code == Some(0));
                assert_eq!(names(), before, "{mode}: {words:?}");
            }
            drop(exchanging);
            assert_eq!(names(), before, "{mode}");
        }
        assert!(done > 0, "{mode}: nothing succeeds in between");
    }
}
