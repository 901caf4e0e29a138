//! `edit_file`.

use crate::Bench;
use forge_testkit::scale;
use forge_types::ErrorKind;
use proptest::prelude::*;
use serde_json::json;

fn edit(before: &str, old: &str, new: &str) -> Result<String, String> {
    let bench = Bench::new();
    bench.put("f", before);
    let output = bench.call("edit_file", json!({"path": "f", "old_text": old, "new_text": new}));
    let text = crate::said(&output);
    if output.error.is_some() {
        assert_eq!(bench.get("f"), before, "a failed edit changes nothing");
        return Err(text);
    }
    Ok(bench.get("f"))
}

#[test]
fn the_one_place_is_replaced() {
    for (before, old, new, wanted) in [
        ("a b c", "b", "x", "a x c"),
        ("a\nb\nc\n", "b\n", "", "a\nc\n"),
        ("a\nb\nc\n", "a\nb", "x\ny", "x\ny\nc\n"),
        ("a", "a", "b\nc", "b\nc"),
        ("ünï", "nï", "ö", "üö"),
        // Line ends of the file are kept, whatever the model sends.
        ("a\r\nb\r\nc\r\n", "b", "x\ny", "a\r\nx\r\ny\r\nc\r\n"),
        ("a\r\nb\r\nc\r\n", "a\nb", "x\ny", "x\r\ny\r\nc\r\n"),
        ("a\r\nb\r\n", "a\r\nb", "x\r\ny", "x\r\ny\r\n"),
        ("a\nb\n", "a\r\nb", "x\r\ny", "x\ny\n"),
        ("a\r\nb\r\nc\nd\n", "c\nd", "x\ny", "a\r\nb\r\nx\ny\n"),
        ("a\r\n\r\nb", "a\n\nb", "a\nb", "a\r\nb"),
    ] {
        assert_eq!(edit(before, old, new).as_deref(), Ok(wanted), "{before:?} {old:?} {new:?}");
    }
}

#[test]
fn white_space_is_overlooked_where_one_place_fits() {
    for (before, old, new, wanted) in [
        // Missing or different indentation: the file's is kept.
        ("if x:\n    a()\n    b()\n", "a()\nb()", "a()\nc()", "if x:\n    a()\n    c()\n"),
        ("\ta {\n\t\tb\n\t}\n", "a {\n    b\n}", "a {\n    b\n    c\n}", "\ta {\n\t\tb\n\t\tc\n\t}\n"),
        ("a {\n\tb\n}\n", "a {\n    b\n}", "a {\n    x\n}", "a {\n\tx\n}\n"),
        ("a {\n    b\n}\n", "a {\n\tb\n}\n", "a {\n\tx\n}\n", "a {\n    x\n}\n"),
        ("a\n  b\n", "    a\n      b\n", "    c\n", "c\n"),
        // White space at line ends.
        ("a  \nb\n", "a\nb\n", "x\n", "x\n"),
        ("a\nb\n", "a \nb  \n", "x\n", "x\n"),
        ("a\n\n  b\n", "a\n   \n  b", "x", "x\n"),
        ("  a\r\n  b\r\n", "a\nb\n", "c\nd\n", "  c\r\n  d\r\n"),
        ("\ta\n\tb\n", "a\nb", "a\n   odd\nb", "\ta\n\t   odd\n\tb\n"),
    ] {
        assert_eq!(edit(before, old, new).as_deref(), Ok(wanted), "{before:?} {old:?} {new:?}");
    }
    let text = edit("  a\n    a\n", "\ta\n", "b\n").unwrap_err();
    assert!(text.contains("2 times") && text.contains("apart from white space"), "{text}");
    // Another order of indentation is another program.
    assert!(edit("if x:\n    a()\nb()\n", "if x:\na()\nb()", "c()").is_err());
}

#[test]
fn several_places_are_named_and_can_all_be_replaced() {
    let text = edit("x = 1\ny = 2\nx = 1\n", "x = 1", "z").unwrap_err();
    assert_eq!(
        text,
        "old_text occurs 2 times in `f`: lines 1, 3. Add lines around it to make it unique, or set replace_all"
    );
    assert!(edit("aaa", "aa", "b").unwrap_err().contains("2 times"));
    let bench = Bench::new();
    bench.put("f", "x\r\ny\r\nx\r\n");
    let all = json!({"path": "f", "old_text": "x", "new_text": "a\nb", "replace_all": true});
    assert_eq!(bench.ok("edit_file", all), "Edited `f` in 2 places: lines 1, 3");
    assert_eq!(bench.get("f"), "a\r\nb\r\ny\r\na\r\nb\r\n");
}

#[test]
fn a_miss_shows_the_nearest_place() {
    let before = "use std::fmt;\n\nfn parse_line(text: &str) -> Option<u32> {\n    text.trim().parse().ok()\n}\n\nfn main() {}\n";
    let text = edit(before, "fn parse_line(text: String) -> Option<u64> {\n    text.parse().ok()\n}", "")
        .unwrap_err();
    assert!(text.contains("Nearest are lines 3-5:\nfn parse_line(text: &str)"), "{text}");
    assert!(edit(before, "nothing like it at all", "").unwrap_err().contains("nor anything similar"));
    let text = edit(before, "   3\tfn parse_line(text: &str) -> Option<u32> {", "x").unwrap_err();
    assert!(text.contains("leave them out"), "{text}");
    let long: String =
        (0..200).map(|n| format!("let variable_{n} = compute(variable_{n}, {n});\n")).collect();
    let text = edit(&long, &long.replace("compute", "calculate"), "").unwrap_err();
    assert!(text.chars().count() < 620, "{text}");
}

#[test]
fn edits_that_make_no_sense_say_so() {
    assert!(edit("a", "", "b").unwrap_err().contains("write_file"));
    assert!(edit("a", "a", "a").unwrap_err().contains("nothing to change"));
    let bench = Bench::new();
    bench.put("p.png", b"\x89PNG\r\n\x1a\n\0");
    bench.put("big", "line\n".repeat(1_000_000));
    bench.put("dir/x", "");
    bench.put(".git/config", "[core]");
    let says = |path: &str, kind| {
        bench.fails("edit_file", json!({"path": path, "old_text": "a", "new_text": "b"}), kind)
    };
    assert!(says("p.png", ErrorKind::Execution).contains("PNG"));
    assert!(says("big", ErrorKind::Execution).contains("sed -i"));
    assert!(says("dir", ErrorKind::Execution).contains("is a directory"));
    assert!(says("nope", ErrorKind::NotFound).contains("does not exist"));
    assert!(says(".git/config", ErrorKind::Denied).contains("git"));
    let all = json!({"path": "blow", "old_text": "x", "new_text": "y".repeat(1000), "replace_all": true});
    bench.put("blow", "x".repeat(20_000));
    assert!(bench.fails("edit_file", all, ErrorKind::Execution).contains("larger than"));
}

#[test]
fn bytes_that_are_not_utf8_stay_as_they_are() {
    let bench = Bench::new();
    bench.put("latin", b"caf\xe9 = 1\nother\n");
    bench.ok("edit_file", json!({"path": "latin", "old_text": "other", "new_text": "new"}));
    assert_eq!(std::fs::read(bench.path("latin")).unwrap(), b"caf\xe9 = 1\nnew\n");
    let text = bench.fails(
        "edit_file",
        json!({"path": "latin", "old_text": "caf\u{fffd} = 2", "new_text": "x"}),
        ErrorKind::Execution,
    );
    assert!(text.contains("caf\u{fffd} = 1"), "{text}");
}

#[test]
fn texts_that_repeat_themselves_end_soon() {
    let line = "x\n".repeat(100_000);
    assert!(edit(&line, &("x\n".repeat(5_000) + "y\n"), "z").is_err());
    assert!(edit(&"a".repeat(1_000_000), &("a".repeat(50_000) + "b"), "z").is_err());
    assert!(edit(&"a".repeat(1_000_000), &"a".repeat(500), "z").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(scale::sample_or_all(64, 10_000)))]

    /// A part of a file that stands there once is replaced, and nothing else.
    #[test]
    fn a_copied_part_is_always_found(
        before in "([ab{}\t\n]|\r\n|  ){1,60}", from in 0_usize..60, len in 1_usize..20, new in "[xy\n]{0,10}",
    ) {
        let from = from.min(before.len() - 1);
        let to = (from + len).min(before.len());
        let old = &before[from..to];
        if before.matches(old).count() == 1 && !old.contains('\r') && !before.contains('\r') && old != new {
            // Places that overlap are several as well, before this one or after it.
            let overlapping = before.char_indices().filter(|(at, _)| before[*at..].starts_with(old)).count() > 1;
            let edited = edit(&before, old, &new);
            if !overlapping {
                prop_assert_eq!(edited, Ok(format!("{}{}{}", &before[..from], new, &before[to..])));
            }
        }
    }

    #[test]
    fn no_edit_breaks_the_tool(before in "(\\PC|\n|\r\n|\t){0,80}", old in "(\\PC|\n|\t){1,20}", new in "\\PC{0,9}") {
        let _ = edit(&before, &old, &new);
    }
}
