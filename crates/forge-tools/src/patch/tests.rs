//! Tests of parsing patches, and that a diff of any two texts turns the first into the second.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use super::locate::{LocateError, apply_hunks};
use super::*;
use proptest::prelude::*;
use similar::TextDiff;

fn one(patch: &str) -> FilePatch {
    let mut files = parse_patch(patch).unwrap();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

fn applied(before: &str, patch: &str) -> Result<String, LocateError> {
    let file = one(patch);
    apply_hunks(before, &file.hunks).map(|applied| applied.text).map_err(|miss| miss.trouble)
}

fn add(path: &str) -> FileAction {
    FileAction::Add { path: path.into() }
}

fn update(from: &str, to: &str) -> FileAction {
    FileAction::Update { from: from.into(), to: to.into() }
}

#[test]
fn headers_say_what_is_done_to_which_file() {
    let delete = |path: &str| FileAction::Delete { path: path.into() };
    let hunk = "@@ -1 +1 @@\n-a\n+b\n";
    let new = "@@ -0,0 +1 @@\n+b\n";
    let gone = "@@ -1 +0,0 @@\n-a\n";
    for (head, body, wanted) in [
        ("--- a/x\n+++ b/x\n", hunk, update("x", "x")),
        ("--- x\n+++ x\n", hunk, update("x", "x")),
        ("--- x.orig\n+++ x\n", hunk, update("x", "x")),
        ("--- a/x\t2020-01-01 00:00:00\n+++ b/x\t2020-01-02\n", hunk, update("x", "x")),
        ("--- a/x y\n+++ b/x y\n", hunk, update("x y", "x y")),
        ("--- \"a/\\303\\274\\tx\"\n+++ \"b/\\303\\274\\tx\"\n", hunk, update("ü\tx", "ü\tx")),
        ("--- i/x\n+++ w/x\n", hunk, update("x", "x")),
        ("--- /dev/null\n+++ b/d/x\n", new, add("d/x")),
        ("--- a/x\n+++ /dev/null\n", gone, delete("x")),
        ("diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n", hunk, update("x", "x")),
        ("diff --git a/x b/y\nsimilarity index 90%\nrename from x\nrename to y\n", "", update("x", "y")),
        (
            "diff --git a/x b/y\nsimilarity index 90%\nrename from x\nrename to y\n--- a/x\n+++ b/y\n",
            hunk,
            update("x", "y"),
        ),
        (
            "diff --git a/x b/y\ncopy from x\ncopy to y\n",
            "",
            FileAction::Copy { from: "x".into(), to: "y".into() },
        ),
        ("diff --git a/a b b/a b\nnew file mode 100644\nindex 0000000..e69de29\n", "", add("a b")),
        ("diff --git a/x b/x\ndeleted file mode 100644\nindex e69de29..0000000\n", "", delete("x")),
        ("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n", "", update("x", "x")),
        ("Here it is:\n```diff\n--- a/x\n+++ b/x\n", "@@ -1 +1 @@\n-a\n+b\n```\n", update("x", "x")),
    ] {
        assert_eq!(one(&format!("{head}{body}")).action, wanted, "{head}");
    }
    assert_eq!(one("diff --git a/x b/x\nold mode 100644\nnew mode 100755\n").mode, Some(0o755));
}

#[test]
fn several_files_stand_in_one_patch() {
    let patch = "From 123 Mon Sep 17 00:00:00 2001\nSubject: [PATCH] x\n\n---\n a | 2 +-\n\n\
                 diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@ fn x\n-a\n+b\n c\n\
                 diff --git a/b b/b\nnew file mode 100755\n--- /dev/null\n+++ b/b\n@@ -0,0 +1,2 @@\n+--- x\n++++ y\n\
                 --- a/c\n+++ b/c\n@@ -3 +3 @@\n--- x\n+++ y\n@@ -9,0 +10 @@\n+z\n-- \n2.39.2\n\n";
    let files = parse_patch(patch).unwrap();
    let seen: Vec<_> = files.iter().map(|file| (file.action.clone(), file.hunks.len())).collect();
    assert_eq!(seen, [(update("a", "a"), 1), (add("b"), 1), (update("c", "c"), 2)]);
    assert_eq!(files[1].mode, Some(0o755));
    let texts: Vec<_> = files[2].hunks[0].lines.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(texts, ["-- x", "++ y"]);
    assert!(files.iter().flat_map(|file| &file.hunks).all(|hunk| !hunk.miscounted));
}

#[test]
fn the_begin_patch_form_is_read() {
    let patch = "*** Begin Patch\n*** Add File: a/new.txt\n+one\n+\n+two\n*** Update File: b.py\n*** Move to: c.py\n\
                 @@ class A\n@@     def f(self):\n-        x\n+        y\n\n@@\n z\n+w\n*** End of File\n\
                 *** Delete File: d\n*** End Patch\n";
    let files = parse_patch(patch).unwrap();
    let actions: Vec<_> = files.iter().map(|file| file.action.clone()).collect();
    assert_eq!(actions, [add("a/new.txt"), update("b.py", "c.py"), FileAction::Delete { path: "d".into() }]);
    assert_eq!(apply_hunks("", &files[0].hunks).unwrap().text, "one\n\ntwo\n");
    let hunks = &files[1].hunks;
    assert_eq!(hunks[0].anchors, ["class A", "    def f(self):"]);
    assert_eq!((hunks.len(), hunks[1].at_end), (2, true));
    // The shell text around the patch is ignored.
    let wrapped = format!("apply_patch <<'EOF'\n{patch}EOF\n");
    assert_eq!(parse_patch(&wrapped).unwrap(), files);
    assert_eq!(parse_patch(&patch.replace('\n', "\r\n")).unwrap(), files);
}

#[test]
fn what_is_no_patch_is_refused_with_its_line() {
    for (patch, wanted) in [
        ("", "no change was found"),
        ("hello", "no change was found"),
        ("@@ -1 +1 @@\n-a\n+b\n", "line 1 of the patch: a hunk without a file"),
        ("--- a/x\n+++ b/x\n", "line 1 of the patch: no hunk"),
        (
            "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n-a\nb\n+c\n",
            "line 5 of the patch: a line of a hunk begins with",
        ),
        ("--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+c\nd\n", "line 6 of the patch: a line of a hunk begins with"),
        ("diff --git a/x b/x\nGIT binary patch\nliteral 1\n", "a binary file can't be patched"),
        (
            "diff --git a/x b/x\nnew file mode 120000\n--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+/etc\n",
            "a symlink can't",
        ),
        ("*** Begin Patch\n*** Add File: x\n+a\n", "does not end with `*** End Patch`"),
        (
            "*** Begin Patch\n*** Add File: x\na\n*** End Patch",
            "line 3 of the patch: each line of a new file",
        ),
        ("*** Begin Patch\n*** Add File: \n+a\n*** End Patch", "names no file"),
        ("*** Begin Patch\n*** Update File: x\n*** End Patch", "nothing changes in `x`"),
        ("*** Begin Patch\n*** Update File: x\n-a\nb\n*** End Patch", "line 4 of the patch"),
        ("*** Begin Patch\nfoo\n*** End Patch", "line 2 of the patch"),
    ] {
        let Err(PatchError(why)) = parse_patch(patch) else { panic!("{patch:?}") };
        assert!(why.contains(wanted), "{patch:?}: {why}");
    }
}

#[test]
fn hunks_find_their_place() {
    let text = "a\nb\nc\nd\ne\nf\n";
    let form = |body: &str| format!("--- a/x\n+++ b/x\n{body}");
    for (body, wanted) in [
        ("@@ -2,2 +2,2 @@\n b\n-c\n+C\n", "a\nb\nC\nd\ne\nf\n"),
        // Wrong numbers, or none.
        ("@@ -40,2 +41,2 @@\n b\n-c\n+C\n", "a\nb\nC\nd\ne\nf\n"),
        ("@@ @@\n b\n-c\n+C\n", "a\nb\nC\nd\ne\nf\n"),
        ("@@ ... @@\n b\n-c\n+C\n", "a\nb\nC\nd\ne\nf\n"),
        // Wrong counts.
        ("@@ -2,9 +2,9 @@\n b\n-c\n+C\n", "a\nb\nC\nd\ne\nf\n"),
        ("@@ -2,1 +2,1 @@\n b\n-c\n+C\n d\n", "a\nb\nC\nd\ne\nf\n"),
        ("@@ -0,0 +1 @@\n+x\n", "x\na\nb\nc\nd\ne\nf\n"),
        ("@@ -2,0 +3 @@\n+x\n", "a\nb\nx\nc\nd\ne\nf\n"),
        ("@@ -6 +6,2 @@\n f\n+g\n", "a\nb\nc\nd\ne\nf\ng\n"),
        // Hunks that share a line of context, and hunks in another order.
        ("@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n@@ -3,2 +3,2 @@\n c\n-d\n+D\n", "a\nB\nc\nD\ne\nf\n"),
        ("@@ @@\n-e\n+E\n@@ @@\n-a\n+A\n", "A\nb\nc\nd\nE\nf\n"),
        ("@@ -1 +1,3 @@\n-a\n+1\n+2\n+3\n@@ -6 +8 @@\n-f\n+F\n", "1\n2\n3\nb\nc\nd\ne\nF\n"),
        ("@@ -6 +6 @@\n-f\n+f\n\\ No newline at end of file\n", "a\nb\nc\nd\ne\nf"),
    ] {
        assert_eq!(applied(text, &form(body)).as_deref(), Ok(wanted), "{body}");
    }
    let several = "@@ -9 +9 @@\n-a\n+b\n";
    assert_eq!(applied("a\nx\na\n", &form(several)), Err(LocateError::Several(vec![1, 3])));
    assert_eq!(applied("a\nx\nb\n", &form("@@ -1,2 +1,2 @@\n x\n-c\n+b\n")), Err(LocateError::Already(2)));
    assert_eq!(applied("a\n", &form("@@ -5,0 +5 @@\n+b\n")), Err(LocateError::BehindEnd(1)));
    assert!(matches!(applied("a\n", &form("@@ -1 +1 @@\n-b\n+c\n")), Err(LocateError::Nowhere(_))));
    // The same lines can't be changed twice.
    assert!(applied("a\n", &form("@@ -1 +1 @@\n-a\n+b\n@@ -1 +1 @@\n-a\n+c\n")).is_err());
}

#[test]
fn line_ends_and_white_space_are_those_of_the_file() {
    let form = |body: &str| format!("--- a/x\n+++ b/x\n@@ @@\n{body}");
    for (before, body, wanted) in [
        ("a\r\nb\r\n", "-a\n+x\n+y\n b\n", "x\r\ny\r\nb\r\n"),
        ("a\r\nb\r\n", "-a\r\n+x\r\n b\r\n", "x\r\nb\r\n"),
        ("a\r\nb\r\n", "-a\r\n+a\n b\r\n", "a\nb\r\n"),
        ("a\r\nb\r\n", "+c\n", "a\r\nb\r\nc\r\n"),
        ("a\nb", "-b\n+c\n", "a\nc"),
        ("a\nb", " b\n+c\n", "a\nb\nc"),
        ("a\nb", "+c\n", "a\nb\nc"),
        ("a\nb", "-b\n\\ No newline at end of file\n+c\n", "a\nc\n"),
        ("if x:\n    a\n    b\n", " a\n-b\n+c\n+d\n", "if x:\n    a\n    c\n    d\n"),
        ("\tif x {\n\t\ta\n\t}\n", "     if x {\n-        a\n+        b\n     }\n", "\tif x {\n\t\tb\n\t}\n"),
        ("a  \nb\n", " a\n-b\n+c\n", "a  \nc\n"),
        // A context line without its leading space.
        ("a\n\nb\n", " a\n\n-b\n+c\n", "a\n\nc\n"),
    ] {
        assert_eq!(applied(before, &form(body)).as_deref(), Ok(wanted), "{before:?} {body:?}");
    }
    assert_eq!(applied("  x\n\tx\n", &form("-    x\n+y\n")), Err(LocateError::Several(vec![1, 2])));
}

#[test]
fn anchors_choose_among_equal_places() {
    let text = "class A:\n  def f():\n    x\n  def g():\n    x\nclass B:\n  def f():\n    x\n";
    let form = |body: &str| format!("*** Begin Patch\n*** Update File: x\n{body}*** End Patch\n");
    let changed = |body: &str| {
        let text = applied(text, &form(body))?;
        Ok::<_, LocateError>(text.lines().position(|line| line == "    y").unwrap() + 1)
    };
    assert_eq!(changed("-    x\n+    y\n"), Err(LocateError::Several(vec![3, 5, 8])));
    assert_eq!(changed("@@ class B:\n-    x\n+    y\n"), Ok(8));
    assert_eq!(changed("@@ class B:\n@@   def f():\n-    x\n+    y\n"), Ok(8));
    assert_eq!(changed("@@ class A:\n@@ def g():\n-    x\n+    y\n"), Ok(5));
    assert_eq!(changed("@@   def f():\n-    x\n+    y\n"), Err(LocateError::Several(vec![3, 8])));
    assert_eq!(changed("-    x\n+    y\n*** End of File\n"), Ok(8));
    assert_eq!(changed("@@   def g():\n+    y\n"), Ok(5));
    assert_eq!(changed("@@ nope\n+    y\n"), Err(LocateError::NoAnchor("nope".into())));
    // A wrong anchor does not matter if only one place matches.
    assert_eq!(changed("@@ def nope\n   def g():\n-    x\n+    y\n"), Ok(5));
}

#[test]
fn hostile_patches_end_soon() {
    let blank = "\n".repeat(1 << 19);
    for head in [
        "*** Begin Patch\n*** Update File: x\n-a\n",
        "*** Begin Patch\n*** Add File: x\n+a\n",
        "--- a/x\n+++ b/x\n@@ @@\n-a\n",
    ] {
        assert!(parse_patch(&format!("{head}{blank}x")).is_err());
        assert!(parse_patch(&format!("{head}{blank}")).is_ok() || head.starts_with('*'));
    }
    let many = format!("--- a/x\n+++ b/x\n{}", "@@ @@\n-a\n+b\n".repeat(MAX_HUNKS + 1));
    assert!(parse_patch(&many).is_err());
    let anchored =
        format!("*** Begin Patch\n*** Update File: x\n{}*** End Patch", "@@ a\n+b\n".repeat(MAX_HUNKS));
    let hunks = &one(&anchored).hunks;
    assert!(apply_hunks(&"a\n".repeat(100_000), hunks).is_err());
    let repetitive = format!("--- a/x\n+++ b/x\n@@ @@\n{}-b\n+c\n", " a\n".repeat(5000));
    assert_eq!(applied(&"a\n".repeat(1_000_000), &repetitive), Err(LocateError::Repetitive));
}

fn text() -> impl Strategy<Value = String> {
    let line = prop_oneof![4 => "[ab]{0,2}", 1 => "[-+ @*\\\\]{1,4}[ab]?", 1 => "\\PC{0,6}"];
    let end = prop_oneof![6 => Just("\n"), 1 => Just("\r\n")];
    (prop::collection::vec((line, end), 0..30), any::<bool>()).prop_map(|(lines, closed)| {
        let mut text: String = lines.iter().flat_map(|(line, end)| [line.as_str(), end]).collect();
        if !closed {
            text.truncate(text.trim_end_matches(['\r', '\n']).len());
        }
        // Other programs treat a lone CR and these characters as line ends.
        text.replace(['\u{85}', '\u{2028}', '\u{2029}', '\u{b}', '\u{c}'], "")
    })
}

fn fragments() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "--- a/x\n",
        "+++ b/x\n",
        "@@ -1,2 +1,2 @@\n",
        "@@\n",
        "@@ -1\n",
        "@@ -99999999999999999999 +1 @@\n",
        "@@ -18446744073709551615,18446744073709551615 +1,1 @@\n",
        "diff --git a/x b/x\n",
        "diff --git \"a/\\777\n",
        "new file mode 100644\n",
        "new mode 100\n",
        "rename from x\n",
        "rename to\n",
        "copy from y\n",
        "\\ No newline at end of file\n",
        "-a\n",
        "+b\n",
        " c\n",
        "\n",
        "\r\n",
        "-- \n",
        "*** Begin Patch\n",
        "*** Update File: x\n",
        "*** Add File: y\n",
        "*** Move to: z\n",
        "*** End of File\n",
        "*** End Patch\n",
        "@@ -0,0 +0,0 @@\n",
        "\"",
        "\\",
        "+++ \"b/\\",
        "--- /dev/null\n",
        "+++ /dev/null\n",
        "```\n",
    ]);
    prop::collection::vec(prop_oneof![5 => known.prop_map(str::to_owned), 1 => "\\PC{0,8}"], 0..25)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(patch in prop_oneof![fragments(), "(\\PC|\n|\r){0,200}"], before in text()) {
        for file in parse_patch(&patch).unwrap_or_default() {
            let _ = apply_hunks(&before, &file.hunks);
        }
    }

    #[test]
    fn a_diff_of_two_texts_makes_the_second_of_the_first(before in text(), after in text(), radius in 1_usize..4) {
        let diff = TextDiff::from_lines(&before, &after);
        let patch = diff.unified_diff().context_radius(radius).header("a/x", "b/x").to_string();
        prop_assume!(!patch.is_empty());
        let files = parse_patch(&patch);
        prop_assert!(files.is_ok(), "{:?}\n{}", files, patch);
        let files = files.unwrap();
        prop_assert!(files.iter().flat_map(|file| &file.hunks).all(|hunk| !hunk.miscounted), "{}", patch);
        let applied = apply_hunks(&before, &files[0].hunks);
        prop_assert_eq!(applied.map(|applied| applied.text), Ok(after), "{}", patch);
    }

    /// A moved hunk is found by its old lines.
    #[test]
    fn a_hunk_that_moved_is_found(lines in prop::collection::vec("[a-z]{6}", 8..20), above in 0_usize..9, at in 2_usize..6) {
        let before = format!("{}{}\n", "unlike\n".repeat(above), lines.join("\n"));
        prop_assume!(lines.iter().collect::<std::collections::BTreeSet<_>>().len() == lines.len());
        let body = format!(" {}\n-{}\n+NEW\n {}\n", lines[at - 1], lines[at], lines[at + 1]);
        let patch = format!("--- a/x\n+++ b/x\n@@ -{at},3 +{at},3 @@\n{body}");
        prop_assert_eq!(applied(&before, &patch), Ok(before.replace(&lines[at], "NEW")));
    }
}
