//! Lists of differences, and unified diffs that git takes.
#![allow(clippy::unwrap_used, reason = "a test that can't build its tree fails")]

use crate::trees::{Op, Was, copy, delta, ops, path, perform, read};
use forge_snapshot::compare::{
    ChangeType, ContentSources, DiffEncoding, DiffOptions, DiffText, RenameDetection, UnifiedDiff,
    compare_deltas, find_renames, into_changes, unified_diff,
};
use forge_snapshot::{BaseManifest, ObjectStore, TreeDelta, TreeNode, TreeRoot, WorkBounds};
use forge_testkit::scale;
use proptest::prelude::*;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A repository, the view of a run on it, and the store of that run.
struct Rig {
    _folder: TempDir,
    repository: PathBuf,
    view: PathBuf,
    base: BaseManifest,
    objects: ObjectStore,
}

impl Rig {
    fn new(build: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (repository, view) = (folder.path().join("repository"), folder.path().join("view"));
        fs::create_dir(&repository).unwrap();
        build(&repository);
        let base = BaseManifest::scan_tree(&repository).unwrap();
        copy(&repository, &view);
        let objects = ObjectStore::open(&folder.path().join("objects")).unwrap();
        Self { _folder: folder, repository, view, base, objects }
    }

    fn delta(&self, was: Was) -> TreeDelta {
        delta(&read(&self.repository), &read(&self.view), &self.objects, was)
    }

    fn diff(&self, look: DiffOptions) -> UnifiedDiff {
        let root = TreeRoot::open(&self.repository).unwrap();
        let place = ContentSources {
            repository: &self.repository,
            root: Some(&root),
            base: &self.base,
            objects: &self.objects,
            baseline: None,
            bounds: WorkBounds::unbounded(),
        };
        let (none, delta) = (TreeDelta::new(), self.delta(Was::Unknown));
        let mut differences = compare_deltas(&none, &delta);
        assert_eq!(into_changes(none.clone(), delta.clone()), differences);
        assert_eq!(into_changes(delta.clone(), none.clone()), compare_deltas(&delta, &none));
        place.learn_contents(&mut differences).unwrap();
        unified_diff(&differences, &place, look).unwrap()
    }
}

#[allow(clippy::disallowed_methods, reason = "the real git judges the diffs")]
fn git_apply(folder: &Path, patch: &[u8]) -> Result<(), String> {
    let file = folder.with_extension("patch");
    fs::write(&file, patch).unwrap();
    let done = std::process::Command::new("git")
        .args(["apply", "--allow-empty", "--whitespace=nowarn"])
        .arg(&file)
        .current_dir(folder)
        .env("GIT_CEILING_DIRECTORIES", folder.parent().unwrap())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    if done.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&done.stderr).into_owned()) }
}

fn lossy(diff: &UnifiedDiff) -> String {
    String::from_utf8_lossy(&diff.text).into_owned()
}

#[test]
fn differences_are_sorted_named_and_leave_git_out() {
    let rig = Rig::new(|root| {
        for name in ["changed", "gone", "mode", "same", "kind"] {
            fs::write(root.join(name), name).unwrap();
        }
        fs::create_dir_all(root.join("sub/.git")).unwrap();
        fs::write(root.join("sub/.git/HEAD"), "ref").unwrap();
    });
    fs::write(rig.view.join("changed"), "other").unwrap();
    fs::remove_file(rig.view.join("gone")).unwrap();
    fs::set_permissions(rig.view.join("mode"), Permissions::from_mode(0o755)).unwrap();
    fs::remove_file(rig.view.join("kind")).unwrap();
    symlink("same", rig.view.join("kind")).unwrap();
    fs::write(rig.view.join("new"), "").unwrap();
    fs::write(rig.view.join("sub/.git/HEAD"), "other").unwrap();
    let delta = rig.delta(Was::Known);
    let words = |differences: &[forge_snapshot::compare::TreeChange]| {
        differences
            .iter()
            .map(|d| format!("{} {}", d.change_type().display_name(), d.path))
            .collect::<Vec<_>>()
    };
    let forward = compare_deltas(&TreeDelta::new(), &delta);
    assert_eq!(
        words(&forward),
        ["modified changed", "removed gone", "retyped kind", "mode mode", "added new"]
    );
    let back = compare_deltas(&delta, &TreeDelta::new());
    assert_eq!(words(&back), ["modified changed", "added gone", "retyped kind", "mode mode", "removed new"]);
    assert!(compare_deltas(&delta, &delta).is_empty());
    assert!(delta.contains_key(&path("sub/.git/HEAD")));
}

#[test]
fn a_file_that_was_touched_and_not_changed_is_not_reported() {
    let rig = Rig::new(|root| fs::write(root.join("a"), "text").unwrap());
    let mut delta = rig.delta(Was::Unknown);
    let node = |content| TreeNode::File { mode: 0o644, size: 4, mtime_ns: 0, content, links: None };
    let now = Some(node(Some(rig.objects.store_bytes(b"text").unwrap())));
    delta.insert(path("a"), forge_snapshot::DeltaEntry { before: Some(node(None)), after: now });
    let root = TreeRoot::open(&rig.repository).unwrap();
    let place = ContentSources {
        repository: &rig.repository,
        root: Some(&root),
        base: &rig.base,
        objects: &rig.objects,
        baseline: None,
        bounds: WorkBounds::unbounded(),
    };
    let mut differences = compare_deltas(&TreeDelta::new(), &delta);
    assert_eq!(differences.len(), 1);
    place.learn_contents(&mut differences).unwrap();
    assert!(differences.is_empty());
}

#[test]
fn a_diff_reads_as_git_writes_it() {
    let rig = Rig::new(|root| {
        fs::write(root.join("edit"), "1\n2\n3\n4\n5\n6\n7\n8\n9").unwrap();
        fs::write(root.join("gone"), "x\n").unwrap();
        fs::write(root.join("old name"), "moved\n").unwrap();
        fs::write(root.join("run.sh"), "#!/bin/sh\n").unwrap();
    });
    fs::write(rig.view.join("edit"), "1\n2\n3\nfour\n5\n6\n7\n8\n9\n").unwrap();
    fs::remove_file(rig.view.join("gone")).unwrap();
    fs::rename(rig.view.join("old name"), rig.view.join("new name")).unwrap();
    fs::set_permissions(rig.view.join("run.sh"), Permissions::from_mode(0o755)).unwrap();
    symlink("edit", rig.view.join("link")).unwrap();
    fs::write(rig.view.join("grün"), "").unwrap();
    fs::write(rig.view.join("zero"), b"\0").unwrap();
    let root = TreeRoot::open(&rig.repository).unwrap();
    let place = ContentSources {
        repository: &rig.repository,
        root: Some(&root),
        base: &rig.base,
        objects: &rig.objects,
        baseline: None,
        bounds: WorkBounds::unbounded(),
    };
    let differences = compare_deltas(&TreeDelta::new(), &rig.delta(Was::Known));
    let diff = unified_diff(&differences, &place, DiffOptions::default()).unwrap();
    let wanted = "diff --git a/edit b/edit\n--- a/edit\n+++ b/edit\n@@ -1,9 +1,9 @@\n 1\n 2\n 3\n-4\n+four\n 5\n 6\n \
                  7\n 8\n-9\n\\ No newline at end of file\n+9\ndiff --git a/gone b/gone\ndeleted file mode \
                  100644\n--- a/gone\n+++ /dev/null\n@@ -1 +0,0 @@\n-x\ndiff --git \"a/gr\\303\\274n\" \
                  \"b/gr\\303\\274n\"\nnew file mode 100644\ndiff --git a/link b/link\nnew file mode 120000\n--- \
                  /dev/null\n+++ b/link\n@@ -0,0 +1 @@\n+edit\n\\ No newline at end of file\ndiff --git a/old name \
                  b/new name\nsimilarity index 100%\nrename from old name\nrename to new name\ndiff --git a/run.sh \
                  b/run.sh\nold mode 100644\nnew mode 100755\ndiff --git a/zero b/zero\nnew file mode \
                  100644\nBinary files /dev/null and b/zero differ\n";
    assert_eq!(lossy(&diff), wanted);
    let lines: Vec<String> = diff.files.iter().map(|file| file.summary_line()).collect();
    let wanted = [
        "modified edit (+2 -2)",
        "removed gone (+0 -1)",
        "added grün",
        "added link (+1 -0)",
        "moved old name => new name",
        "mode run.sh",
        "added zero (binary)",
    ];
    assert_eq!(lines, wanted);
    assert_eq!(find_renames(&differences).len(), 1);
    assert_eq!(differences[1].change_type(), ChangeType::Removed);
}

#[test]
fn odd_names_and_kinds_survive_git() {
    let odd: [&[u8]; 5] = [b"with space", b"tab\there", b"quote\"back\\slash", b"nl\nname", b"latin\xe9"];
    let name = |bytes: &[u8]| PathBuf::from(std::ffi::OsStr::from_bytes(bytes));
    let rig = Rig::new(|root| {
        for bytes in odd {
            fs::write(root.join(name(bytes)), "one\ntwo\n").unwrap();
        }
        fs::write(root.join("becomes-link"), "x\n").unwrap();
        fs::create_dir(root.join("becomes-file")).unwrap();
        fs::write(root.join("becomes-file/in"), "y\n").unwrap();
    });
    for bytes in odd {
        fs::write(rig.view.join(name(bytes)), "one\n2\n").unwrap();
    }
    fs::remove_file(rig.view.join("becomes-link")).unwrap();
    symlink("with space", rig.view.join("becomes-link")).unwrap();
    fs::remove_dir_all(rig.view.join("becomes-file")).unwrap();
    fs::write(rig.view.join("becomes-file"), "now a file").unwrap();
    fs::create_dir_all(rig.view.join("new dir/deep")).unwrap();
    fs::write(rig.view.join("new dir/deep/file"), "z").unwrap();
    let diff = rig.diff(DiffOptions::default());
    git_apply(&rig.repository, &diff.text).unwrap_or_else(|why| panic!("{why}\n{}", lossy(&diff)));
    assert_eq!(read(&rig.repository), read(&rig.view));
}

#[test]
fn what_is_too_large_is_named_and_not_shown() {
    let rig = Rig::new(|root| fs::write(root.join("big"), "a".repeat(3000)).unwrap());
    fs::write(rig.view.join("big"), "b".repeat(4000)).unwrap();
    fs::create_dir(rig.view.join("empty")).unwrap();
    let diff = rig.diff(DiffOptions { largest: 2000, ..DiffOptions::default() });
    let wanted = "diff --git a/big b/big\nBinary files a/big and b/big differ\n# too large to show (3000 => 4000 \
                  bytes): big\n# empty directory added: empty\n";
    assert_eq!(lossy(&diff), wanted);
}

#[test]
fn what_is_after_the_limit_of_the_text_is_named_and_git_refuses_the_whole() {
    let rig = Rig::new(|root| fs::write(root.join("a"), "one\n").unwrap());
    fs::write(rig.view.join("a"), "two\n").unwrap();
    fs::write(rig.view.join("b"), "b\n").unwrap();
    symlink("a", rig.view.join("c")).unwrap();
    fs::create_dir(rig.view.join("d")).unwrap();
    let whole = rig.diff(DiffOptions::default());
    let short = rig.diff(DiffOptions { text: DiffText::UpTo(1), ..DiffOptions::default() });
    let rest = "diff --git a/b b/b\nnew file mode 100644\nBinary files /dev/null and b/b differ\n# not shown: b\n# not shown: c\n# not shown: d\n";
    assert_eq!(
        lossy(&short).split_once("diff --git a/b").unwrap().1,
        rest.split_once("diff --git a/b").unwrap().1
    );
    let paths = |diff: &UnifiedDiff| diff.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&short), paths(&whole));
    let opaque: Vec<bool> = short.files.iter().map(|file| file.opaque).collect();
    assert_eq!(opaque, [false, true, false, false]);
    assert!(git_apply(&rig.repository, &short.text).is_err(), "a part would look like the whole");
    assert_eq!(fs::read(rig.repository.join("a")).unwrap(), b"one\n");
    git_apply(&rig.repository, &whole.text).unwrap();
}

#[test]
fn a_diff_is_exact_or_a_text() {
    let rig = Rig::new(|_| {});
    fs::write(rig.view.join("latin"), b"caf\xe9 \xc3\xa9\n").unwrap();
    assert!(std::str::from_utf8(&rig.diff(DiffOptions::default()).text).is_err());
    let text = rig.diff(DiffOptions { encoding: DiffEncoding::Utf8, ..DiffOptions::default() }).text;
    assert!(String::from_utf8(text).unwrap().ends_with("+caf\u{fffd} \u{e9}\n"));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scale::sample_or_all(60, 2_000), failure_persistence: None, ..ProptestConfig::default()
    })]

    #[test]
    fn git_makes_of_the_diff_what_the_run_made(first in ops(5..15), then in ops(1..12), split in any::<bool>()) {
        // git knows no named pipes, and finds one in its way where a file is to be.
        let [first, then] = [first, then].map(|ops| {
            ops.into_iter().filter(|op| !matches!(op, Op::Fifo(_))).collect::<Vec<_>>()
        });
        let rig = Rig::new(|root| perform(root, &first));
        perform(&rig.view, &then);
        let renames = if split { RenameDetection::Split } else { RenameDetection::Detected };
        let diff = rig.diff(DiffOptions { renames, ..DiffOptions::default() });
        git_apply(&rig.repository, &diff.text).unwrap_or_else(|why| panic!("{why}\n{}", lossy(&diff)));
        // git knows files, links and one bit of their mode.
        let known = |root: &Path| -> Vec<_> {
            let files = read(root).into_iter().filter_map(|(path, (node, bytes))| match node {
                TreeNode::File { mode, .. } => Some((path, mode & 0o100, bytes)),
                TreeNode::Symlink { target } => Some((path, 1, target)),
                _ => None,
            });
            files.collect()
        };
        prop_assert_eq!(known(&rig.repository), known(&rig.view));
    }
}
