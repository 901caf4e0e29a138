//! `read_file`.

use crate::{Bench, said};
use forge_types::ErrorKind;
use serde_json::json;
use std::os::unix::fs::symlink;

#[test]
fn a_file_is_shown_as_it_stands() {
    let bench = Bench::new();
    bench.put("src/a.txt", "one\n\ttwo ü\nthree\n");
    for path in ["src/a.txt", "/workspace/src/a.txt", "./src/../src//a.txt"] {
        assert_eq!(bench.ok("read_file", json!({"path": path})), "one\n\ttwo ü\nthree\n");
    }
    assert_eq!(bench.ok("file_read", json!({"path": "src/a.txt", "limit": null})), "one\n\ttwo ü\nthree\n");
}

#[test]
fn parts_of_a_file_say_where_they_are() {
    let bench = Bench::new();
    bench.put("a", "1\n2\n3\n4\n5");
    let part = |offset: u64, limit: u64| {
        bench.ok("read_file", json!({"path": "a", "offset": offset, "limit": limit}))
    };
    assert_eq!(part(1, 2), "1\n2\n[lines 1-2 of 5; continue with offset=3]");
    assert_eq!(part(3, 2), "3\n4\n[lines 3-4 of 5; continue with offset=5]");
    assert_eq!(part(5, 2), "5\n[lines 5-5 of 5]");
    assert_eq!(part(1, 5), "1\n2\n3\n4\n5");
    let text = bench.fails("read_file", json!({"path": "a", "offset": 6}), ErrorKind::BadArguments);
    assert_eq!(text, "`a` has 5 lines; offset 6 is after its end");
    for wrong in [json!(0), json!(-1), json!("x"), json!(1.5)] {
        bench.fails("read_file", json!({"path": "a", "offset": wrong}), ErrorKind::BadArguments);
    }
}

#[test]
fn long_files_are_paged() {
    let bench = Bench::new();
    let lines: String = (1..=30_000).map(|n| format!("line {n}\n")).collect();
    bench.put("long", &lines);
    let output = bench.call("read_file", json!({"path": "long"}));
    assert!(output.truncated);
    let text = said(&output);
    assert!(
        text.ends_with("line 10000\n[lines 1-10000 of 30000; continue with offset=10001]"),
        "{}",
        &text[text.len() - 90..]
    );
    // Following the notes gives the whole file.
    let (mut whole, mut offset) = (String::new(), 1);
    loop {
        let text = bench.ok("read_file", json!({"path": "long", "offset": offset}));
        let (part, note) = text.rsplit_once('[').unwrap();
        whole.push_str(part);
        match note.split_once("offset=") {
            Some((_, next)) => offset = next.trim_end_matches(']').parse::<u64>().unwrap(),
            None => break,
        }
    }
    assert_eq!(whole, lines);
}

#[test]
fn many_bytes_end_at_a_line_end_and_a_huge_line_is_cut() {
    let bench = Bench::new();
    let wide = format!("{}\n", "x".repeat(999));
    bench.put("wide", wide.repeat(200));
    let text = bench.ok("read_file", json!({"path": "wide"}));
    assert!(text.ends_with("x\n[lines 1-102 of 200; continue with offset=103]"));
    bench.put("line", format!("{}\nshort\n", "ü".repeat(200_000)));
    let output = bench.call("read_file", json!({"path": "line"}));
    assert!(output.truncated);
    let text = said(&output);
    assert!(text.starts_with("üü") && text.len() < 103_000 && !text.contains('\u{fffd}'));
    assert!(text.ends_with(
        "[line 1 is cut; `cut -c` in run_shell shows the rest; lines 1-1 of 2; continue with offset=2]"
    ));
    assert_eq!(bench.ok("read_file", json!({"path": "line", "offset": 2})), "short\n[lines 2-2 of 2]");
}

#[test]
fn a_line_far_inside_a_large_file_is_found_by_streaming() {
    let bench = Bench::new();
    let lines: String = (1..=1_000_000).map(|n| format!("{n:0>9}\n")).collect();
    bench.put("large", lines);
    let text = bench.ok("read_file", json!({"path": "large", "offset": 900_000, "limit": 1}));
    assert_eq!(text, "000900000\n[lines 900000-900000 of a file of 9.5 MB; continue with offset=900001]");
}

#[test]
fn files_that_are_no_text_say_what_they_are() {
    let bench = Bench::new();
    bench.put("p.png", b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR");
    bench.put("x", b"\x7fELF\x02\x01\x01\0\0");
    bench.put("w.txt", b"\xff\xfea\0b\0");
    bench.put("empty", "");
    let text = bench.fails("read_file", json!({"path": "p.png"}), ErrorKind::Execution);
    assert!(text.contains("a PNG image (16 bytes)") && text.contains("run_shell"), "{text}");
    assert!(bench.fails("read_file", json!({"path": "x"}), ErrorKind::Execution).contains("ELF"));
    assert!(bench.fails("read_file", json!({"path": "w.txt"}), ErrorKind::Execution).contains("UTF-16"));
    assert_eq!(bench.ok("read_file", json!({"path": "empty"})), "[`empty` is empty]");
    // A sparse file of 100 GB is answered from its first bytes.
    std::fs::File::create(bench.path("sparse")).unwrap().set_len(100 << 30).unwrap();
    let text = bench.fails("read_file", json!({"path": "sparse", "offset": 5}), ErrorKind::Execution);
    assert!(text.contains("100.0 GB"), "{text}");
}

#[test]
fn other_encodings_and_line_ends_are_shown_and_named() {
    let bench = Bench::new();
    bench.put("latin", b"caf\xe9\nna\xefve\n");
    bench.put("dos", "a\r\nb\r\n");
    bench.put("bom", "\u{feff}x = 1\n");
    assert_eq!(
        bench.ok("read_file", json!({"path": "latin"})),
        "caf\u{fffd}\nna\u{fffd}ve\n[2 bytes are not UTF-8, shown as \u{fffd}; edit_file keeps them]"
    );
    assert_eq!(
        bench.ok("read_file", json!({"path": "dos"})),
        "a\nb\n[line ends are CRLF, shown as LF; edit_file keeps them]"
    );
    assert_eq!(bench.ok("read_file", json!({"path": "bom"})), "x = 1\n");
}

#[test]
fn what_is_no_file_says_what_to_do() {
    let bench = Bench::with(|workspace| workspace.mask_path(".env"));
    bench.put("src/lib.rs", "x");
    bench.put(".env", "KEY=secret");
    bench.host(
        "mkfifo pipe; ln -s /dev/zero zero; ln -s /etc/passwd passwd; ln -s . loop; ln -s nowhere dangling",
    );
    symlink("../..", bench.path("up")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(bench.path("socket")).unwrap();
    let says = |path: &str, kind| bench.fails("read_file", json!({"path": path}), kind);
    assert!(says("src", ErrorKind::Execution).contains("list_directory"));
    for special in ["pipe", "socket"] {
        assert!(says(special, ErrorKind::Execution).contains("no regular file"));
    }
    for outside in ["zero", "passwd", "up/x/../../etc/passwd"] {
        let kind = bench.call("read_file", json!({"path": outside})).error;
        assert!(matches!(kind, Some(ErrorKind::Denied | ErrorKind::NotFound)), "{outside}: {kind:?}");
    }
    for path in ["../x", "/etc/passwd", "/workspace/../etc/passwd"] {
        assert!(says(path, ErrorKind::Denied).contains("relative to /workspace"));
    }
    says("a\0b", ErrorKind::BadArguments);
    says("", ErrorKind::BadArguments);
    assert_eq!(bench.ok("read_file", json!({"path": "loop/loop/src/lib.rs"})), "x");
    let text = says(".env", ErrorKind::Denied);
    assert!(text.contains("credentials") && !text.contains("secret"), "{text}");
    assert!(says("src/lib.rs/x", ErrorKind::Execution).contains("is a file where a directory"));
    says("dangling", ErrorKind::NotFound);
}

#[test]
fn what_is_not_there_is_looked_for_nearby() {
    let bench = Bench::new();
    bench.put("src/parser.rs", "");
    bench.put("src/deep/lexer.rs", "");
    bench.put("README.md", "");
    let says = |path: &str| bench.fails("read_file", json!({"path": path}), ErrorKind::NotFound);
    assert_eq!(
        says("src/lexer.rs"),
        "`src/lexer.rs` does not exist. Near it: `src/deep/lexer.rs`, `src/parser.rs`, `src/deep/`"
    );
    assert!(says("Readme.MD").contains("`README.md`"));
    assert!(says("scr/parser.rs").contains("`src/parser.rs`"));
    assert!(says("zzz/qqq").contains("there is no directory `zzz`"));
    assert!(says("[x]{*").contains("does not exist"));
}
