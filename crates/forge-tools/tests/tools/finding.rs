//! `list_directory`, `search_code` and `find_files`.

use crate::Bench;
use forge_types::ErrorKind;
use serde_json::json;

fn project() -> Bench {
    let bench = Bench::new();
    bench.put("src/main.rs", "fn main() {\n    let s = \"a\\tb\";\n\tgo();\n}\n");
    bench.put("src/deep/er/x.rs", "fn go() {}\n");
    bench.put("README.md", "# go\n");
    bench.put(".git/config", "go");
    bench.put("node_modules/m/index.js", "go()");
    bench
}

#[test]
fn a_folder_is_listed() {
    let bench = project();
    bench.host("ln -s src link; mkfifo pipe; mkdir empty");
    assert_eq!(
        bench.ok("list_directory", json!({})),
        "/workspace/\n  .git/\n  README.md (5 bytes)\n  empty/\n  link (symlink)\n  node_modules/\n  \
         pipe (device, FIFO or socket)\n  src/\n"
    );
    assert_eq!(bench.ok("directory_tree", json!({"path": "empty"})), "`empty` is empty");
    assert!(
        bench
            .fails("list_directory", json!({"path": "README.md"}), ErrorKind::Execution)
            .contains("is a file")
    );
    bench.fails("list_directory", json!({"path": "sorce"}), ErrorKind::NotFound);
    bench.fails("list_directory", json!({"path": "/etc"}), ErrorKind::Denied);
}

#[test]
fn a_tree_goes_as_deep_as_asked_and_leaves_out_what_drowns_it() {
    let bench = project();
    assert_eq!(
        bench.ok("list_directory", json!({"path": "/workspace", "recursive": true})),
        "/workspace/\n  .git/ (not shown)\n  README.md (5 bytes)\n  node_modules/ (not shown)\n  src/\n    deep/\n      \
         er/\n    main.rs (41 bytes)\n"
    );
    let flat = bench.ok("list_directory", json!({"path": "src", "recursive": true, "max_depth": 1}));
    assert_eq!(flat, "src/\n  deep/\n  main.rs (41 bytes)\n");
    for n in 0..600 {
        bench.put(&format!("many/{n:03}"), "");
    }
    let output = bench.call("list_directory", json!({"path": "many"}));
    assert!(
        output.truncated
            && crate::said(&output)
                .ends_with("499 (0 bytes)\n[more than 500 entries: list a subdirectory, or use find_files]")
    );
}

#[test]
fn odd_names_stay_on_one_line() {
    let bench = Bench::new();
    bench.put("a\nb", "hit");
    bench.put("\u{202e}x", "hit");
    assert_eq!(
        bench.ok("list_directory", json!({})),
        "/workspace/\n  a\\nb (3 bytes)\n  \\u{202e}x (3 bytes)\n"
    );
    assert_eq!(bench.ok("search_code", json!({"pattern": "hit"})), "a\\nb:1: hit\n\\u{202e}x:1: hit\n");
}

#[test]
fn lines_are_found_with_their_places() {
    let bench = project();
    let found = bench.ok("search_code", json!({"pattern": r"go\b", "file_glob": "*.rs"}));
    assert_eq!(found, "src/deep/er/x.rs:1: fn go() {}\nsrc/main.rs:3: \tgo();\n");
    assert_eq!(bench.ok("grep_search", json!({"pattern": "go", "path": "README.md"})), "README.md:1: # go\n");
    let found = bench.ok("search_code", json!({"pattern": "let", "path": "/workspace/src"}));
    assert_eq!(found, "src/main.rs:2:     let s = \"a\\tb\";\n");
    let nothing = bench.ok("search_code", json!({"pattern": "absent", "path": "src"}));
    assert!(nothing.starts_with("No line in src matches `absent`"), "{nothing}");
    let wrong = bench.fails("search_code", json!({"pattern": "f(x"}), ErrorKind::BadArguments);
    assert!(wrong.contains(r"f\(x"), "{wrong}");
    bench.fails("search_code", json!({"pattern": ""}), ErrorKind::BadArguments);
    bench.fails("search_code", json!({"pattern": "x", "path": "nope"}), ErrorKind::NotFound);
    bench.fails("search_code", json!({"pattern": "x", "max_results": 0}), ErrorKind::BadArguments);
}

#[test]
fn many_matches_say_that_there_are_more() {
    let bench = Bench::new();
    bench.put("many", "hit\n".repeat(1000));
    let output = bench.call("search_code", json!({"pattern": "hit"}));
    let text = crate::said(&output);
    assert!(output.truncated);
    assert_eq!(text.lines().count(), 21);
    assert!(text.ends_with(
        "[20 matches shown, there are more: narrow it by path or file_glob, or raise max_results]"
    ));
    let most = bench.ok("search_code", json!({"pattern": "hit", "max_results": 5000}));
    assert_eq!(most.lines().count(), 201);
}

#[test]
fn files_are_found_by_name() {
    let bench = project();
    assert_eq!(bench.ok("find_files", json!({"glob": "*.rs"})), "src/deep/er/x.rs\nsrc/main.rs\n");
    assert_eq!(bench.ok("find_files", json!({"glob": "/workspace/src/*.rs"})), "src/main.rs\n");
    assert_eq!(bench.ok("glob_search", json!({"glob": "./src/**/x.*"})), "src/deep/er/x.rs\n");
    assert!(bench.ok("find_files", json!({"glob": "*.zig"})).starts_with("No file matches `*.zig`"));
    bench.fails("find_files", json!({"glob": "a[" }), ErrorKind::BadArguments);
    bench.fails("find_files", json!({"glob": "/etc/*"}), ErrorKind::Denied);
    bench.fails("find_files", json!({"glob": ""}), ErrorKind::BadArguments);
    for n in 0..150 {
        bench.put(&format!("m/{n}.txt"), "");
    }
    let output = bench.call("find_files", json!({"glob": "*.txt"}));
    assert!(output.truncated);
    assert_eq!(crate::said(&output).lines().count(), 101);
}
