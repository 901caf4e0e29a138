//! `write_file` and `create_file`.

use crate::Bench;
use forge_types::ErrorKind;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn files_are_created_with_their_folders_and_replaced() {
    let bench = Bench::new();
    let write = |content: &str| bench.ok("write_file", json!({"path": "a/b/c.txt", "content": content}));
    assert_eq!(write("one\ntwo\n"), "Created `a/b/c.txt` (8 bytes, 2 lines)");
    assert_eq!(write(""), "Replaced `a/b/c.txt` (0 bytes, 0 lines; before: 8 bytes)");
    assert_eq!(bench.get("a/b/c.txt"), "");
}

#[test]
fn a_mode_survives() {
    let bench = Bench::new();
    bench.put("run.sh", "#!/bin/sh\n");
    std::fs::set_permissions(bench.path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    bench.ok("write_file", json!({"path": "run.sh", "content": "#!/bin/sh\nls\n"}));
    bench.ok("edit_file", json!({"path": "run.sh", "old_text": "ls", "new_text": "pwd"}));
    let mode = std::fs::metadata(bench.path("run.sh")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn what_can_not_be_written_says_why() {
    let bench = Bench::with(|workspace| workspace.mask_path(".env"));
    bench.put("dir/file", "");
    bench.put(".env", "KEY=1");
    bench.put(".git/config", "");
    bench.host("mkfifo pipe; ln -s /tmp out; ln -s /etc/passwd passwd");
    let says = |path: &str, kind| bench.fails("write_file", json!({"path": path, "content": "x"}), kind);
    assert!(says("dir", ErrorKind::Execution).contains("is a directory"));
    assert!(says("dir/file/x", ErrorKind::Execution).contains("is a file where a directory"));
    assert!(says("pipe", ErrorKind::Execution).contains("no regular file"));
    assert!(says("out/x", ErrorKind::Denied).contains("leads out"));
    assert!(says("passwd", ErrorKind::Denied).contains("leads out"));
    assert!(says("/tmp/x", ErrorKind::Denied).contains("relative to /workspace"));
    assert!(says(".env", ErrorKind::Denied).contains("credentials"));
    assert!(says(".git/hooks/pre-commit", ErrorKind::Denied).contains("git commands"));
    assert!(says("/workspace", ErrorKind::BadArguments).contains("names no file"));
    let big = "x".repeat(100 * 1024 + 1);
    let text = bench.fails("write_file", json!({"path": "big", "content": big}), ErrorKind::BadArguments);
    assert!(text.contains("100.0 kB"), "{text}");
    assert!(!bench.path("big").exists());
    bench.ok("write_file", json!({"path": "big", "content": &big[1..]}));
    bench.fails("write_file", json!({"path": "x"}), ErrorKind::BadArguments);
}

#[test]
fn nothing_below_git_is_written_through_a_link() {
    let bench = Bench::new();
    bench.put(".git/HEAD", "ref: refs/heads/main");
    bench.put(".git/config", "old\n");
    bench.put(".git/hooks/post-commit", "#!/bin/sh\n");
    bench.put("nested/.git/config", "old\n");
    bench.put("bare/HEAD", "");
    bench.host("mkdir -p bare/objects bare/refs; ln -s .git docs; ln -s .git/config settings; ln -s nested/.git inner");
    bench.host("ln .git/hooks/post-commit other");
    for path in
        ["docs/hooks/pre-commit", "docs/new/x", "settings", "inner/config", "bare/config", "bare/hooks/x"]
    {
        let text = bench.fails("write_file", json!({"path": path, "content": "x"}), ErrorKind::Denied);
        assert!(text.contains("belongs to git"), "{text}");
    }
    let edit = json!({"path": "docs/config", "old_text": "old", "new_text": "new"});
    bench.fails("edit_file", edit, ErrorKind::Denied);
    for patch in [
        "*** Begin Patch\n*** Add File: docs/hooks/pre-commit\n+x\n*** End Patch\n",
        "*** Begin Patch\n*** Delete File: docs/config\n*** End Patch\n",
        "*** Begin Patch\n*** Update File: settings\n@@\n-old\n+new\n*** End Patch\n",
        "diff --git a/docs/hooks/post-commit b/docs/hooks/post-commit\nold mode 100644\nnew mode 100755\n",
    ] {
        bench.fails("apply_patch", json!({"patch": patch}), ErrorKind::Denied);
    }
    // Another name of a hook becomes a file of its own before its mode changes.
    bench.ok(
        "apply_patch",
        json!({"patch": "diff --git a/other b/other\nold mode 100644\nnew mode 100755\n"}),
    );
    let mode = |path: &str| std::fs::metadata(bench.path(path)).unwrap().permissions().mode() & 0o111;
    assert_eq!((mode("other"), mode(".git/hooks/post-commit")), (0o111, 0));
    assert_eq!(bench.get(".git/config") + &bench.get("nested/.git/config"), "old\nold\n");
    assert_eq!(std::fs::read_dir(bench.path(".git/hooks")).unwrap().count(), 1);
}

#[test]
fn files_for_the_user_have_plain_names_of_known_kinds() {
    let bench = Bench::new();
    let text = bench.ok("create_file", json!({"filename": "report.MD", "content": "# Hi\n"}));
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        result,
        json!({"filename": "report.MD", "content": "# Hi\n", "mime_type": "text/markdown", "path": ".forge/files/report.MD"})
    );
    assert_eq!(bench.get(".forge/files/report.MD"), "# Hi\n");
    for name in ["../x.md", "a/b.md", "a\\b.md", "..md", ".md", "x", "x.exe", "x.sh", "", "a\nb.md", "a..md"]
    {
        bench.fails("create_file", json!({"filename": name, "content": ""}), ErrorKind::BadArguments);
    }
    let long = "x".repeat(300) + ".md";
    bench.fails("create_file", json!({"filename": long, "content": ""}), ErrorKind::BadArguments);
}
