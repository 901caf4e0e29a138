//! Applying: all or nothing, whatever a person did meanwhile and wherever it is interrupted.
#![allow(clippy::unwrap_used, reason = "a test that can't build its tree fails")]

mod exchanged;
mod foreign;
mod merging;
mod random;
mod temporaries;

use crate::trees::{Tree, Was, copy, delta, path, read};
use forge_snapshot::apply::{
    ApplyOptions, ApplyResult, ApplyStep, Error, MergeMode, RepoApply, apply, apply_all, check_apply, revert,
    setid_paths,
};
use forge_snapshot::compare::ContentSources;
use forge_snapshot::{BaseManifest, ObjectStore, TreeDelta, TreeNode, TreeRoot, WorkBounds};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A run on a repository: its view and its store.
struct Run {
    repository: PathBuf,
    root: TreeRoot,
    view: PathBuf,
    base: BaseManifest,
    began: Tree,
    objects: ObjectStore,
}

impl Run {
    fn new(repository: &Path, own: &Path) -> Self {
        let (repository, view) = (repository.to_owned(), own.join("view"));
        fs::create_dir_all(own).unwrap();
        let base = BaseManifest::scan_tree(&repository).unwrap();
        copy(&repository, &view);
        let objects = ObjectStore::open(&own.join("objects")).unwrap();
        let began = read(&repository);
        let root = TreeRoot::open(&repository).unwrap();
        Self { repository, root, view, base, began, objects }
    }

    fn delta(&self, was: Was) -> TreeDelta {
        delta(&self.began, &read(&self.view), &self.objects, was)
    }

    fn place(&self) -> ContentSources<'_> {
        ContentSources {
            repository: &self.repository,
            root: Some(&self.root),
            base: &self.base,
            objects: &self.objects,
            baseline: None,
            bounds: WorkBounds::unbounded(),
        }
    }

    fn apply(&self, to: &TreeDelta, merge: MergeMode) -> Result<ApplyResult, Error> {
        apply(&self.place(), &TreeDelta::new(), to, ApplyOptions { merge, ..ApplyOptions::default() })
    }

    fn undo(&self, from: &TreeDelta) -> Result<ApplyResult, Error> {
        apply(&self.place(), from, &TreeDelta::new(), ApplyOptions::default())
    }

    /// Applies with a fault at step `at`.
    fn apply_with(
        &self,
        to: &TreeDelta,
        merge: MergeMode,
        at: usize,
        fault: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<ApplyResult, Error> {
        let mut step = 0;
        let mut watch = |_: ApplyStep<'_>| {
            step += 1;
            if step == at + 1 { fault() } else { Ok(()) }
        };
        let options = ApplyOptions { merge, watch: Some(&mut watch), ..ApplyOptions::default() };
        apply(&self.place(), &TreeDelta::new(), to, options)
    }
}

struct Rig {
    folder: TempDir,
    run: Run,
}

impl Rig {
    fn new(build: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let repository = folder.path().join("repository");
        fs::create_dir(&repository).unwrap();
        build(&repository);
        let run = Run::new(&repository, &folder.path().join("run"));
        Self { folder, run }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.run.view.join(name), text).unwrap();
    }
}

fn conflicts(error: Error) -> Vec<String> {
    match error {
        Error::Conflicts(conflicts) => conflicts.iter().map(ToString::to_string).collect(),
        other => panic!("{other}"),
    }
}

/// What must hold after an apply to a repository that was `before`.
fn judge(run: &Run, to: &TreeDelta, before: &Tree, done: &Result<ApplyResult, Error>) {
    let after = read(&run.repository);
    let applied = match done {
        Ok(applied) => applied,
        Err(Error::Conflicts(conflicts)) => {
            assert!(!conflicts.is_empty());
            assert_eq!(&after, before, "an apply that failed changed something");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    for (path, entry) in to {
        let holds_others = applied.retained.iter().any(|kept| kept.path.is_below(path));
        if applied.merged.contains(path) || holds_others {
            continue;
        }
        let stands = after.get(path).map(|(node, _)| node);
        let is = match (stands, &entry.after) {
            (None, None) => true,
            // A folder that a person made as well keeps the permissions that they gave it.
            (Some(TreeNode::Dir { .. }), Some(TreeNode::Dir { .. })) if entry.before.is_none() => true,
            (Some(stands), Some(now)) => stands.is_equivalent(now),
            _ => false,
        };
        assert!(is, "{path}: {stands:?} stands where {:?} was wanted", entry.after);
        // Nobody's change is lost: what a person changed is what the run wanted as well.
        let (began, found) = (run.began.get(path), before.get(path));
        let same = |a: Option<&(TreeNode, Vec<u8>)>, b: Option<&(TreeNode, Vec<u8>)>| match (a, b) {
            (Some((a, _)), Some((b, _))) => {
                a.is_equivalent(b) || matches!((a, b), (TreeNode::Dir { .. }, TreeNode::Dir { .. }))
            }
            (None, None) => true,
            _ => false,
        };
        assert!(same(began, found) || same(found, after.get(path)), "{path}: a change of a person is lost");
    }
    for path in before.keys().chain(after.keys()).filter(|path| !to.contains_key(*path)) {
        assert_eq!(after.get(path), before.get(path), "{path} is none of the run's");
    }
}

#[test]
fn a_result_reaches_the_repository_and_can_be_taken_back() {
    let rig = Rig::new(|root| {
        fs::create_dir_all(root.join("src/old")).unwrap();
        fs::write(root.join("src/main.rs"), "fn main() {}\n").unwrap();
        fs::write(root.join("src/old/gone.rs"), "never read\n").unwrap();
        fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    });
    let before = read(&rig.run.repository);
    rig.write("src/main.rs", "fn main() { run() }\n");
    fs::remove_dir_all(rig.run.view.join("src/old")).unwrap();
    fs::set_permissions(rig.run.view.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    fs::create_dir_all(rig.run.view.join("new/deep")).unwrap();
    rig.write("new/deep/file", "new\n");
    symlink("file", rig.run.view.join("new/deep/link")).unwrap();
    crate::trees::fifo(&rig.run.view.join("new/pipe"), 0o600);
    fs::set_permissions(rig.run.view.join("new/deep"), Permissions::from_mode(0o555)).unwrap();
    let mut to = rig.run.delta(Was::Unknown);
    let preview = check_apply(&rig.run.place(), &TreeDelta::new(), &to, MergeMode::No).unwrap();
    assert_eq!(read(&rig.run.repository), before);
    let applied = rig.run.apply(&to, MergeMode::No).unwrap();
    assert_eq!(preview.changes.len(), applied.changed.len());
    assert_eq!(read(&rig.run.repository), read(&rig.run.view));
    // A second time there is nothing to do.
    let again = rig.run.apply(&to, MergeMode::No).unwrap();
    assert!(again.changed.is_empty());
    assert_eq!(again.already.len(), applied.changed.len());
    // And back: what was never read before was kept when it was removed.
    applied.fill_known_contents(&mut to);
    assert_eq!(applied.changed_entries().count(), to.len());
    rig.run.undo(&to).unwrap();
    assert_eq!(read(&rig.run.repository), before);
}

#[test]
fn conflicts_are_named_in_words_and_nothing_is_changed() {
    let rig = Rig::new(|root| {
        for name in ["both", "mine", "deleted", "mode", "kind", "gone"] {
            fs::write(root.join(name), "text\n").unwrap();
        }
        for name in ["linked", "emptied", "turned"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("file"), "in a folder\n").unwrap();
        }
    });
    for name in ["both", "deleted", "mode", "kind", "linked/file", "emptied/new", "new"] {
        rig.write(name, "of the run\n");
    }
    fs::remove_file(rig.run.view.join("gone")).unwrap();
    fs::remove_dir_all(rig.run.view.join("turned")).unwrap();
    rig.write("turned", "a file now\n");
    let to = rig.run.delta(Was::Known);
    let at = |name: &str| rig.run.repository.join(name);
    for name in ["both", "mine", "new", "gone", "turned/other"] {
        fs::write(at(name), "of a person\n").unwrap();
    }
    fs::remove_file(at("deleted")).unwrap();
    fs::set_permissions(at("mode"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(at("kind")).unwrap();
    fs::create_dir(at("kind")).unwrap();
    fs::rename(at("linked"), at("elsewhere")).unwrap();
    symlink("elsewhere", at("linked")).unwrap();
    fs::remove_dir_all(at("emptied")).unwrap();
    let before = read(&rig.run.repository);
    let failed = rig.run.apply(&to, MergeMode::No).unwrap_err();
    assert!(
        failed
            .to_string()
            .starts_with("cannot apply: the repository changed at 9 paths; nothing was changed")
    );
    let wanted = [
        "both: changed in the repository since the run began (both changed the same lines)",
        "deleted: deleted in the repository since the run began",
        "emptied/new: its directory emptied was deleted in the repository",
        "gone: changed in the repository since the run began",
        "kind: changed from a file to a directory in the repository",
        "linked/file: its directory linked is now a symbolic link in the repository",
        "mode: permissions changed in the repository since the run began (both changes can be merged)",
        "new: a new file exists at this path in the repository",
        "turned: is a directory to be replaced, but contains turned/other, which is unknown to the run",
    ];
    assert_eq!(conflicts(failed), wanted);
    assert_eq!(read(&rig.run.repository), before);
    let merged = rig.run.apply(&to, MergeMode::Clean).unwrap_err();
    assert_eq!(conflicts(merged).len(), wanted.len());
    assert_eq!(read(&rig.run.repository), before);
}

#[test]
fn a_folder_comes_back_with_the_permissions_that_a_person_gave_it() {
    let rig = Rig::new(|root| fs::create_dir(root.join("d")).unwrap());
    fs::remove_dir(rig.run.view.join("d")).unwrap();
    let mut to = rig.run.delta(Was::Known);
    let d = rig.run.repository.join("d");
    fs::set_permissions(&d, fs::Permissions::from_mode(0o700)).unwrap();
    let applied = rig.run.apply(&to, MergeMode::No).unwrap();
    assert!(!d.exists());
    let mode = || fs::metadata(&d).unwrap().permissions().mode() & 0o7777;
    revert(&rig.run.place(), &applied).unwrap();
    assert_eq!(mode(), 0o700);
    rig.run.apply(&to, MergeMode::No).unwrap();
    applied.fill_known_contents(&mut to);
    apply(&rig.run.place(), &to, &TreeDelta::new(), ApplyOptions::default()).unwrap();
    assert_eq!(mode(), 0o700);
}

#[test]
fn a_new_folder_with_many_in_it_is_put_back_without_a_trace() {
    let rig = Rig::new(|root| fs::write(root.join("a"), "x").unwrap());
    for name in ["one/deep", "two", "three/deep/er"] {
        fs::create_dir_all(rig.run.view.join("new").join(name)).unwrap();
    }
    rig.write("new/one/deep/file", "x");
    rig.write("new/file", "x");
    let to = rig.run.delta(Was::Known);
    let before = read(&rig.run.repository);
    let mut at = 0;
    while let Err(error) =
        rig.run.apply_with(&to, MergeMode::No, at, &mut || Err(io::Error::other("a fault")))
    {
        assert!(matches!(error, Error::Stopped { .. }), "{error}");
        assert_eq!(read(&rig.run.repository), before, "after a fault at step {at}");
        at += 1;
    }
    assert!(at > 7, "{at}");
    assert_eq!(read(&rig.run.repository), read(&rig.run.view));
}

#[test]
fn no_file_of_a_run_reaches_the_repository_with_setuid_or_setgid() {
    let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let set = |path: PathBuf, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    let rig = Rig::new(|root| {
        for name in ["lends", "alone", "chosen"] {
            fs::write(root.join(name), name).unwrap();
            set(root.join(name), if name == "chosen" { 0o755 } else { 0o4755 });
        }
    });
    let before = read(&rig.run.repository);
    rig.write("new", "of the run");
    rig.write("lends", "of the run");
    fs::create_dir(rig.run.view.join("shared")).unwrap();
    for (name, mode) in [("new", 0o6711), ("lends", 0o4755), ("chosen", 0o2755), ("shared", 0o2775)] {
        set(rig.run.view.join(name), mode);
    }
    let mut to = rig.run.delta(Was::Known);
    let named: Vec<String> = setid_paths(&to).map(ToString::to_string).collect();
    assert_eq!(named, ["chosen", "lends", "new"]);
    let applied = rig.run.apply(&to, MergeMode::No).unwrap();
    let changed: Vec<String> = applied.changed.iter().map(|d| d.path.to_string()).collect();
    assert_eq!(changed, ["lends", "new", "shared"]);
    let at = |name: &str| mode_of(&rig.run.repository.join(name));
    assert_eq!((at("new"), at("lends"), at("chosen"), at("shared")), (0o711, 0o755, 0o755, 0o2775));
    assert_eq!(at("alone"), 0o4755, "what the run left alone is a person's");
    assert!(rig.run.apply(&to, MergeMode::No).unwrap().changed.is_empty(), "applied already");
    applied.fill_known_contents(&mut to);
    apply(&rig.run.place(), &to, &TreeDelta::new(), ApplyOptions::default()).unwrap();
    assert_eq!(read(&rig.run.repository), before, "an undo gives a person's file its bits again");
}

#[test]
fn a_folder_with_something_of_a_person_stays_and_is_named() {
    let rig = Rig::new(|root| {
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::write(root.join("d/e/file"), "x").unwrap();
        fs::create_dir_all(root.join("nested/.git")).unwrap();
        fs::write(root.join("nested/.git/HEAD"), "ref").unwrap();
        fs::write(root.join("nested/file"), "x").unwrap();
    });
    fs::remove_dir_all(rig.run.view.join("d")).unwrap();
    fs::remove_dir_all(rig.run.view.join("nested")).unwrap();
    let to = rig.run.delta(Was::Unknown);
    fs::write(rig.run.repository.join("d/e/mine"), "of a person").unwrap();
    let applied = rig.run.apply(&to, MergeMode::No).unwrap();
    let kept: Vec<String> =
        applied.retained.iter().map(|kept| format!("{} {}", kept.path, kept.holds)).collect();
    assert_eq!(kept, ["d/e d/e/mine", "nested nested/.git"]);
    let left: Vec<String> = read(&rig.run.repository).keys().map(ToString::to_string).collect();
    assert_eq!(left, ["d", "d/e", "d/e/mine", "nested", "nested/.git", "nested/.git/HEAD"]);
}

#[test]
fn what_changes_while_it_is_replaced_is_a_conflict_and_nothing_is_lost() {
    let rig = Rig::new(|root| {
        fs::write(root.join("a"), "text\n").unwrap();
        fs::write(root.join("z"), "text\n").unwrap();
    });
    rig.write("a", "of the run\n");
    rig.write("n", "of the run\n");
    fs::remove_file(rig.run.view.join("z")).unwrap();
    let to = rig.run.delta(Was::Known);
    for (name, what) in [("a", "changed"), ("z", "changed"), ("n", "a new file exists")] {
        let before = read(&rig.run.repository);
        let at = rig.run.repository.join(name);
        let mut watch = |step: ApplyStep<'_>| match step {
            ApplyStep::Act(path) if path.as_bytes() == name.as_bytes() => {
                fs::write(&at, "of a person just now\n")
            }
            _ => Ok(()),
        };
        let options = ApplyOptions { watch: Some(&mut watch), ..ApplyOptions::default() };
        let failed = apply(&rig.run.place(), &TreeDelta::new(), &to, options).unwrap_err();
        assert!(conflicts(failed)[0].starts_with(&format!("{name}: {what}")));
        assert_eq!(fs::read_to_string(&at).unwrap(), "of a person just now\n");
        match before.get(&path(name)) {
            Some((_, bytes)) => fs::write(&at, bytes).unwrap(),
            None => fs::remove_file(&at).unwrap(),
        }
        assert_eq!(read(&rig.run.repository), before);
    }
}

#[test]
fn links_out_of_the_repository_are_never_followed() {
    let rig = Rig::new(|root| fs::create_dir(root.join("d")).unwrap());
    rig.write("d/file", "of the run");
    let to = rig.run.delta(Was::Known);
    let outside = rig.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir(rig.run.repository.join("d")).unwrap();
    symlink(&outside, rig.run.repository.join("d")).unwrap();
    rig.run.apply(&to, MergeMode::No).unwrap_err();
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn owners_stay_and_new_files_belong_to_whom_their_folder_belongs() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("N/A: only root gives files away");
        return;
    }
    let own = |path: &Path, uid| std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
    let rig = Rig::new(|root| {
        fs::write(root.join("a"), "text").unwrap();
        fs::create_dir(root.join("d")).unwrap();
        own(&root.join("a"), 4243);
        own(&root.join("d"), 4244);
    });
    rig.write("a", "other text");
    fs::create_dir(rig.run.view.join("d/e")).unwrap();
    rig.write("d/e/new", "text");
    symlink("new", rig.run.view.join("d/e/link")).unwrap();
    rig.run.apply(&rig.run.delta(Was::Unknown), MergeMode::No).unwrap();
    let owner = |name: &str| fs::symlink_metadata(rig.run.repository.join(name)).unwrap().uid();
    assert_eq!(["a", "d/e", "d/e/new", "d/e/link"].map(owner), [4243, 4244, 4244, 4244]);
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let rig = Rig::new(|_| {});
    rig.write("one", "text");
    rig.write("two", "text");
    let mut to = rig.run.delta(Was::Known);
    for entry in to.values_mut() {
        if let Some(TreeNode::File { links, .. }) = &mut entry.after {
            *links = Some(1);
        }
    }
    rig.run.apply(&to, MergeMode::No).unwrap();
    let number = |name: &str| fs::metadata(rig.run.repository.join(name)).unwrap().ino();
    assert_eq!(number("one"), number("two"));
}

#[test]
fn a_disk_that_is_full_or_read_only_leaves_all_as_it_was() {
    use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
    if !rustix::process::geteuid().is_root() {
        eprintln!("N/A: only root mounts");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("repository");
    fs::create_dir(&repository).unwrap();
    if mount("none", &repository, "tmpfs", MountFlags::empty(), c"size=256k").is_err() {
        eprintln!("N/A: no mounts here");
        return;
    }
    fs::write(repository.join("a"), "text").unwrap();
    fs::write(repository.join("b"), "text").unwrap();
    let run = Run::new(&repository, &folder.path().join("run"));
    fs::write(run.view.join("a"), "changed").unwrap();
    fs::remove_file(run.view.join("b")).unwrap();
    fs::write(run.view.join("big"), vec![b'x'; 1 << 20]).unwrap();
    let (to, before) = (run.delta(Was::Unknown), read(&repository));
    let full = run.apply(&to, MergeMode::No).unwrap_err();
    assert!(matches!(full, Error::Full { .. }), "{full}");
    assert_eq!(read(&repository), before);
    mount_remount(&repository, MountFlags::RDONLY, "").unwrap();
    let refused = run.apply(&to, MergeMode::No).unwrap_err();
    assert!(matches!(refused, Error::ReadOnly { .. }), "{refused}");
    assert_eq!(read(&repository), before);
    mount_remount(&repository, MountFlags::empty(), "").unwrap();
    fs::write(run.view.join("big"), "small").unwrap();
    run.apply(&run.delta(Was::Unknown), MergeMode::No).unwrap();
    unmount(&repository, UnmountFlags::DETACH).unwrap();
}

#[test]
fn an_immutable_file_leaves_all_as_it_was() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let rig = Rig::new(|root| {
        fs::write(root.join("a"), "text").unwrap();
        fs::write(root.join("b"), "text").unwrap();
    });
    rig.write("a", "changed");
    rig.write("b", "changed");
    let file = fs::File::open(rig.run.repository.join("b")).unwrap();
    let flags = ioctl_getflags(&file).unwrap_or(IFlags::empty());
    if ioctl_setflags(&file, flags | IFlags::IMMUTABLE).is_err() {
        eprintln!("N/A: this file system knows no immutable files");
        return;
    }
    let (to, before) = (rig.run.delta(Was::Unknown), read(&rig.run.repository));
    let failed = rig.run.apply(&to, MergeMode::No);
    ioctl_setflags(&file, flags).unwrap();
    assert!(matches!(failed, Err(Error::Protected { .. })), "{failed:?}");
    assert_eq!(read(&rig.run.repository), before);
}

#[test]
fn several_repositories_are_applied_to_together_or_not_at_all() {
    let rigs = [0, 1].map(|_| Rig::new(|root| fs::write(root.join("a"), "text\n").unwrap()));
    for rig in &rigs {
        rig.write("a", "of the run\n");
        rig.write("b", "new\n");
    }
    let to = [0, 1].map(|at| rigs[at].run.delta(Was::Known));
    let parts = || -> Vec<RepoApply<'_>> {
        let states = |at: usize| (TreeDelta::new(), to[at].clone());
        let part = |at: usize, (from, to)| RepoApply { sources: rigs[at].run.place(), from, to };
        vec![part(0, states(0)), part(1, states(1))]
    };
    fs::write(rigs[1].run.repository.join("a"), "of a person\n").unwrap();
    let before = read(&rigs[0].run.repository);
    let failed = apply_all(parts(), MergeMode::No, &mut |_, _| Ok(())).unwrap_err();
    assert!(matches!(failed.as_slice(), [(1, Error::Conflicts(_))]));
    assert_eq!(read(&rigs[0].run.repository), before);
    fs::write(rigs[1].run.repository.join("a"), "text\n").unwrap();
    let applied = apply_all(parts(), MergeMode::No, &mut |_, _| Ok(())).unwrap();
    for rig in &rigs {
        assert_eq!(read(&rig.run.repository), read(&rig.run.view));
    }
    revert(&parts()[0].sources, &applied[0]).unwrap();
    assert_eq!(read(&rigs[0].run.repository), before);
}

const KILLED: &str = "FORGE_TEST_APPLY_KILLED_AT";

/// Not a test by itself: the process that is killed.
#[test]
#[allow(clippy::disallowed_methods, reason = "a child process of a test is told what to do")]
fn child_that_is_killed() {
    let Ok(told) = std::env::var(KILLED) else { return };
    let (at, folder) = told.split_once(' ').unwrap();
    let folder = PathBuf::from(folder);
    let (base, to) =
        (BaseManifest::load(&folder.join("base")).unwrap(), fs::read(folder.join("delta")).unwrap());
    let entries: Vec<(String, forge_snapshot::DeltaEntry)> = serde_json::from_slice(&to).unwrap();
    let to: TreeDelta = entries.into_iter().map(|(name, entry)| (path(&name), entry)).collect();
    let objects = ObjectStore::open(&folder.join("run/objects")).unwrap();
    let root = TreeRoot::open(&folder.join("repository")).unwrap();
    let place = ContentSources {
        repository: &folder.join("repository"),
        root: Some(&root),
        base: &base,
        objects: &objects,
        baseline: None,
        bounds: WorkBounds::unbounded(),
    };
    let (mut step, at) = (0, at.parse::<usize>().unwrap());
    let mut watch = |_: ApplyStep<'_>| {
        step += 1;
        if step > at {
            std::process::abort();
        }
        Ok(())
    };
    let options = ApplyOptions { watch: Some(&mut watch), ..ApplyOptions::default() };
    apply(&place, &TreeDelta::new(), &to, options).unwrap();
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the process that is killed must be another one")]
fn a_process_killed_at_any_step_is_finished_by_the_next() {
    let mut at = 0;
    loop {
        let rig = Rig::new(|root| {
            fs::create_dir(root.join("d")).unwrap();
            fs::create_dir(root.join("turns")).unwrap();
            for name in ["a", "d/one", "d/two", "turns/file", "mode"] {
                fs::write(root.join(name), format!("{name}\n")).unwrap();
            }
        });
        rig.write("a", "changed\n");
        fs::remove_dir_all(rig.run.view.join("d")).unwrap();
        fs::remove_dir_all(rig.run.view.join("turns")).unwrap();
        rig.write("turns", "a file\n");
        fs::create_dir(rig.run.view.join("new")).unwrap();
        rig.write("new/file", "new\n");
        fs::set_permissions(rig.run.view.join("mode"), Permissions::from_mode(0o755)).unwrap();
        let to = rig.run.delta(Was::Unknown);
        let began = read(&rig.run.repository);
        let folder = rig.folder.path();
        rig.run.base.save(&folder.join("base")).unwrap();
        let entries: Vec<_> = to.iter().map(|(path, entry)| (path.to_string(), entry)).collect();
        fs::write(folder.join("delta"), serde_json::to_vec(&entries).unwrap()).unwrap();
        let Run { repository, view, base, objects, .. } = rig.run;
        drop(objects);
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "apply::child_that_is_killed", "--test-threads=1"])
            .env(KILLED, format!("{at} {}", folder.display()))
            .output()
            .unwrap();
        let objects = ObjectStore::open(&folder.join("run/objects")).unwrap();
        let root = TreeRoot::open(&repository).unwrap();
        let place = ContentSources {
            repository: &repository,
            root: Some(&root),
            base: &base,
            objects: &objects,
            baseline: None,
            bounds: WorkBounds::unbounded(),
        };
        let applied = apply(&place, &TreeDelta::new(), &to, ApplyOptions::default()).unwrap();
        assert_eq!(read(&repository), read(&view), "killed at step {at}");
        if child.status.success() {
            assert!(at > 10, "only {at} steps: {}", String::from_utf8_lossy(&child.stdout));
            assert!(applied.changed.is_empty());
            break;
        }
        let mut to = to;
        applied.fill_known_contents(&mut to);
        // What was removed last can't be told any more once it is cleaned away; everything else comes back.
        if let Ok(_undone) = apply(&place, &to, &TreeDelta::new(), ApplyOptions::default()) {
            assert_eq!(read(&repository), began, "killed at step {at}, then taken back");
        }
        at += 1;
    }
}
