//! `apply_patch`.

use crate::Bench;
use forge_testkit::scale;
use forge_types::ErrorKind;
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

fn patch(bench: &Bench, patch: &str) -> String {
    bench.ok("apply_patch", json!({"patch": patch}))
}

fn refused(bench: &Bench, patch: &str, kind: ErrorKind) -> String {
    let before = tree(&bench.path(""));
    let said = bench.fails("apply_patch", json!({"patch": patch}), kind);
    assert_eq!(tree(&bench.path("")), before, "a refused patch changes nothing: {said}");
    said
}

/// Every file below a folder with its mode and content.
fn tree(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name == ".git" {
            continue;
        }
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        if meta.is_dir() {
            found
                .extend(tree(&entry.path()).into_iter().map(|(path, file)| (format!("{name}/{path}"), file)));
        } else {
            let content = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            found.insert(name, (meta.permissions().mode(), content));
        }
    }
    found
}

#[test]
fn a_unified_diff_changes_makes_moves_and_removes_files() {
    let bench = Bench::new();
    bench.put("src/a.rs", "fn a() {}\nfn b() {}\nfn c() {}\n");
    bench.put("old.sh", "#!/bin/sh\necho 1\n");
    fs::set_permissions(bench.path("old.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    bench.put("gone", "x\ny\n");
    let said = patch(
        &bench,
        "--- a/src/a.rs\n+++ b/src/a.rs\n@@ -1,3 +1,4 @@\n fn a() {}\n-fn b() {}\n+fn b() { a() }\n+\n fn c() {}\n\
         diff --git a/old.sh b/bin/new.sh\nsimilarity index 50%\nrename from old.sh\nrename to bin/new.sh\n\
         --- a/old.sh\n+++ b/bin/new.sh\n@@ -1,2 +1,2 @@\n #!/bin/sh\n-echo 1\n+echo 2\n\
         --- a/gone\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-x\n-y\n\
         diff --git a/run b/run\nnew file mode 100755\n--- /dev/null\n+++ b/run\n@@ -0,0 +1 @@\n+true\n",
    );
    assert_eq!(
        said,
        "Applied the patch to 4 files:\nM src/a.rs +2 -1\nR old.sh -> bin/new.sh +1 -1\nD gone -2\nA run +1"
    );
    let tree = tree(&bench.path(""));
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["bin/new.sh", "run", "src/a.rs"]);
    assert_eq!(bench.get("src/a.rs"), "fn a() {}\nfn b() { a() }\n\nfn c() {}\n");
    assert_eq!((tree["bin/new.sh"].0 & 0o777, tree["run"].0 & 0o777), (0o755, 0o755));
}

#[test]
fn the_begin_patch_form_works_too() {
    let bench = Bench::new();
    bench.put("a.py", "def f():\n    return 1\n\ndef g():\n    return 1\n");
    bench.put("b", "x\n");
    let said = bench.ok(
        "file_patch",
        json!({"patch": "*** Begin Patch\n*** Update File: /workspace/a.py\n@@ def g():\n-    return 1\n+    return 2\n\
                *** Add File: docs/new.md\n+# New\n*** Delete File: b\n*** End Patch\n"}),
    );
    assert_eq!(said, "Applied the patch to 3 files:\nM a.py +1 -1\nA docs/new.md +1\nD b -1");
    assert_eq!(bench.get("a.py"), "def f():\n    return 1\n\ndef g():\n    return 2\n");
    assert_eq!(bench.get("docs/new.md"), "# New\n");
    assert!(!bench.path("b").exists());
}

#[test]
fn all_of_a_patch_is_applied_or_nothing() {
    let bench = Bench::new();
    bench.put("a", "one\ntwo\nthree\n");
    bench.put("b", "fn alpha() {\n    beta();\n}\n");
    let first = "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n-one\n+ONE\n two\n";
    let miss = "--- a/b\n+++ b/b\n@@ -1,3 +1,3 @@\n fn alpha() {\n-    betta(1);\n+    gamma();\n }\n";
    let said = refused(&bench, &format!("{first}{miss}"), ErrorKind::Execution);
    assert!(said.contains("hunk 1 of 1 for `b`") && said.contains("Nothing was applied"), "{said}");
    assert!(said.contains("Nearest are lines 1-3:\nfn alpha() {\n    beta();\n}"), "{said}");
    for (patch, kind, wanted) in [
        (
            "--- a/nope\n+++ b/nope\n@@ -1 +1 @@\n-x\n+y\n".to_owned(),
            ErrorKind::NotFound,
            "`nope` does not exist",
        ),
        ("--- /dev/null\n+++ b/b\n@@ -0,0 +1 @@\n+x\n".to_owned(), ErrorKind::Execution, "already exists"),
        (
            "--- a/b\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-fn alpha() {\n".to_owned(),
            ErrorKind::Execution,
            "2 would remain",
        ),
        (
            "diff --git a/a b/b\nsimilarity index 100%\nrename from a\nrename to b\n".to_owned(),
            ErrorKind::Execution,
            "`b` already exists",
        ),
        ("*** Begin Patch\n*** Delete File: a\n".to_owned(), ErrorKind::BadArguments, "may be cut off"),
        ("nothing".to_owned(), ErrorKind::BadArguments, "no change was found"),
        (
            "*** Begin Patch\n*** Update File: a\n@@ nowhere\n+x\n*** End Patch".to_owned(),
            ErrorKind::Execution,
            "is not in the file",
        ),
    ] {
        let said = refused(&bench, &patch, kind);
        assert!(said.contains(wanted), "{said}");
    }
    let long = format!("--- a/a\n+++ b/a\n@@ -1 +1 @@\n-{}\n+x\n", "long ".repeat(1000));
    assert!(refused(&bench, &long, ErrorKind::Execution).chars().count() < 1000);
}

#[test]
fn no_path_leaves_the_workspace_or_reaches_git() {
    let bench = Bench::new();
    fs::write(bench.folder.path().join("secret"), "x\n").unwrap();
    std::os::unix::fs::symlink(bench.folder.path(), bench.path("out")).unwrap();
    for path in [
        "../secret",
        "/etc/passwd",
        "x/../../secret",
        ".git/hooks/pre-commit",
        "sub/.git/config",
        "out/secret",
    ] {
        for patch in [
            format!("*** Begin Patch\n*** Add File: {path}x\n+x\n*** End Patch\n")
                .replace("secretx", "secret2"),
            format!("*** Begin Patch\n*** Update File: {path}\n-x\n+y\n*** End Patch\n"),
            format!("*** Begin Patch\n*** Delete File: {path}\n*** End Patch\n"),
            format!("--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-x\n+y\n"),
        ] {
            // What is no folder in the workspace can't be told from one outside: either way nothing happens.
            let before = tree(bench.folder.path());
            let output = bench.call("apply_patch", json!({"patch": patch}));
            if path == "out/secret" && patch.contains("Add File") && output.error.is_none() {
                panic!("{patch}");
            }
            assert!(output.error.is_some(), "{patch}");
            assert_eq!(tree(bench.folder.path()), before, "{patch}");
        }
    }
    let moved =
        "*** Begin Patch\n*** Add File: a\n+x\n*** Update File: a\n*** Move to: ../b\n*** End Patch\n";
    assert!(refused(&bench, moved, ErrorKind::Denied).contains("leads out of the workspace"));
    refused(&bench, "*** Begin Patch\n*** Add File: a\0b\n+x\n*** End Patch\n", ErrorKind::BadArguments);
}

#[test]
fn what_is_written_is_put_back_if_a_later_part_fails() {
    let bench = Bench::new();
    bench.put("a", "a\n");
    fs::set_permissions(bench.path("a"), fs::Permissions::from_mode(0o700)).unwrap();
    // A file can't be where a folder is to be: told only when it is written.
    let patch = "*** Begin Patch\n*** Update File: a\n-a\n+b\n*** Add File: new\n+x\n*** Add File: new/below\n+x\n\
                 *** End Patch\n";
    let said = refused(&bench, patch, ErrorKind::Execution);
    assert!(said.ends_with("Nothing was applied"), "{said}");
}

#[test]
fn binary_and_large_files_are_named() {
    let bench = Bench::new();
    bench.put("bin", b"\x7fELF\x02\x01\x01\0\0\0");
    let change = "--- a/bin\n+++ b/bin\n@@ -1 +1 @@\n-x\n+y\n";
    assert!(refused(&bench, change, ErrorKind::Execution).contains("ELF"));
    patch(&bench, "diff --git a/bin b/bin2\nsimilarity index 100%\nrename from bin\nrename to bin2\n");
    assert_eq!(fs::read(bench.path("bin2")).unwrap(), b"\x7fELF\x02\x01\x01\0\0\0");
    bench.put("latin", b"caf\xe9\nx\n");
    patch(&bench, "--- a/latin\n+++ b/latin\n@@ -2 +2 @@\n-x\n+\u{fc}\n");
    assert_eq!(fs::read(bench.path("latin")).unwrap(), b"caf\xe9\n\xc3\xbc\n");
    bench.put("large", vec![b'x'; 5 << 20]);
    assert!(
        refused(&bench, "--- a/large\n+++ b/large\n@@ -1 +1 @@\n-x\n+y\n", ErrorKind::Execution)
            .contains("4.0 MB")
    );
}

/// Files of a small tree, some of them empty, some without a last line end.
fn files() -> impl Strategy<Value = BTreeMap<String, String>> {
    let line =
        prop::sample::select(vec!["a\n", "b\n", "c\n", "\n", "  a\n", "-- x\n", "++ y\n", "\\ z\n", "d\r\n"]);
    let text = (prop::collection::vec(line, 0..14), any::<bool>()).prop_map(|(lines, closed)| {
        let text = lines.concat();
        if closed { text } else { text.trim_end_matches(['\r', '\n']).to_owned() }
    });
    let name = prop::sample::select(vec!["a", "b c", "d/e", "d/ü", "tab\tname", "quote\"d"]);
    prop::collection::btree_map(name.prop_map(str::to_owned), text, 1..5)
}

fn put(bench: &Bench, files: &BTreeMap<String, String>) {
    for (path, text) in files {
        bench.put(path, text);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scale::sample_or_all(30, 500)))]

    /// What git makes of two trees leads from the first to the second, as `git apply` does.
    #[test]
    fn patches_of_git_do_what_git_apply_does(before in files(), after in files(), context in 1_u32..4) {
        let bench = Bench::new();
        put(&bench, &before);
        bench.host(
            "git init -q . && git config user.name t && git config user.email t@localhost && git config core.autocrlf \
             false && git add -A && git commit -q --allow-empty -m before",
        );
        let first = tree(&bench.path(""));
        bench.host("git rm -q -r --ignore-unmatch . >/dev/null");
        put(&bench, &after);
        bench.host("git add -A");
        let second = tree(&bench.path(""));
        let diff = bench.host_bytes(&format!("git diff --cached -M -U{context}"));
        bench.host("git reset -q --hard");
        prop_assert_eq!(&tree(&bench.path("")), &first);
        let diff = String::from_utf8(diff).unwrap();
        prop_assume!(!diff.is_empty());
        let said = bench.call("apply_patch", json!({"patch": diff}));
        prop_assert!(said.error.is_none(), "{}\n{:?}", diff, said);
        let ours = tree(&bench.path(""));
        prop_assert_eq!(&ours, &second, "{}", diff);
        fs::write(bench.folder.path().join("patch"), &diff).unwrap();
        bench.host("git clean -q -f -d && git reset -q --hard && git apply ../patch");
        prop_assert_eq!(tree(&bench.path("")), ours, "{}", diff);
    }
}
