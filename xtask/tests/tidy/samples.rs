//! Small trees that break one rule each, beside the good tree they are made from.

use xtask::{Rules, Tree, check_all};

/// Rules of the sample: five crates, tiny budgets.
pub(crate) const LAYERS: &str = r#"
[crates.nouns]
layer = "L0"
may_import = []

[crates.ports]
layer = "L1"
may_import = ["nouns"]

[crates.adapter]
layer = "L3"
may_import = ["nouns", "ports"]

[crates.kit]
layer = "dev"
may_import = ["nouns", "ports"]

[crates.xtask]
layer = "dev"
may_import = []

[names]
ports = "ports"
testkit = "kit"
unsafe_code = ["adapter"]
reader = "nouns"
banned = ["utils", "core"]

[[fence]]
crates = ["sql"]
only = ["adapter"]
reason = "only the adapter speaks SQL"

[[fence]]
crates = ["async-rt"]
never = ["nouns"]
reason = "nouns wait for nothing"

[[census]]
crate = "nouns"
enum = "Kind"
at_most = 2

[[census]]
crate = "nouns"
enum = "Wire"
exactly = 2

[budgets]
file_lines = 12
function_lines = 4
crate_lines = 20
port_methods = 2

[text]
forbidden = [["forbidden", ".example"]]

[vendors]
names = ["acme"]
only = ["adapter"]

[[direct_open]]
path = "crates/adapter/src"
reason = "opens by descriptor"

[words]
names = ["room"]
allowed_names = ["room_of_the_house"]
shared_types = ["Error"]
unitless = ["timeout", "size"]
openings = ["What"]
prose = ["nobody"]

[[circle]]
files = ["crates/kit/src/one.rs", "crates/kit/src/two.rs"]
reason = "they are one thing"

[[maker]]
type = "Batch"
path = "crates/nouns/src/make.rs"
reason = "redaction"

[programs]
started_by = ["crates/adapter/src/start.rs"]

[surfaces]
crates = ["kit"]
program = "tool"
arguments = "crates/kit/src/args"
commands = "Command"
ambiguous_flags = ["format"]
"#;

const NOUNS: &str = "//! Nouns.\npub enum Kind { A, B }\npub enum Wire { A, B }\n";
const PORTS: &str = "//! Ports.\npub trait Port { fn a(&self); fn b(&self); }\n";
const OTHER: &str = "//! Nothing much.\n";
const TABLE: &str = "# Architecture\n\n<!-- crates:begin -->\n| layer | crate | what |\n|---|---|---|\n\
| L0 nouns | `nouns` | x |\n| L1 ports | `ports` | x |\n| L3 adapters | `adapter` | x |\n\
| dev | `kit` | x |\n| | `xtask` | x |\n<!-- crates:end -->\n";

const START: &str = "//! Starts a program.\nuse std::process::Command;\n";
const PROGRAMS: &str = "# Sandbox\n\n<!-- programs:begin -->\n| program | started by |\n|---|---|\n\
| x | `crates/adapter/src/start.rs` |\n<!-- programs:end -->\n";

fn manifest(name: &str, more: &str) -> String {
    format!(
        "[package]\nname = \"{name}\"\nversion.workspace = true\nedition.workspace = true\n\
         rust-version.workspace = true\nlicense.workspace = true\npublish.workspace = true\n\
         [lints]\nworkspace = true\n{more}"
    )
}

/// The good tree, as path and text.
fn good() -> Vec<(String, String)> {
    let mut files = vec![
        ("layers.toml".to_owned(), LAYERS.to_owned()),
        ("docs/ARCHITECTURE.md".to_owned(), TABLE.to_owned()),
        ("docs/sandbox.md".to_owned(), PROGRAMS.to_owned()),
        ("crates/adapter/src/start.rs".to_owned(), START.to_owned()),
        ("crates/nouns/src/make.rs".to_owned(), "//! Makes.\nfn a() { Batch {}; }\n".to_owned()),
        ("crates/kit/src/one.rs".to_owned(), "//! One.\nuse crate::two::Two;\n".to_owned()),
        ("crates/kit/src/two.rs".to_owned(), "//! Two.\nuse crate::one::One;\n".to_owned()),
        ("README.md".to_owned(), "# Sample\n\nSee [how](docs/ARCHITECTURE.md#architecture).\n".to_owned()),
    ];
    let crates = [
        ("crates/nouns", "nouns", "", NOUNS),
        ("crates/ports", "ports", "[dependencies]\nnouns.workspace = true\n", PORTS),
        (
            "crates/adapter",
            "adapter",
            "[dependencies]\nports.workspace = true\nsql.workspace = true\n",
            OTHER,
        ),
        ("crates/kit", "kit", "", OTHER),
        ("xtask", "xtask", "", OTHER),
    ];
    for (folder, name, dependencies, source) in crates {
        files.push((format!("{folder}/Cargo.toml"), manifest(name, dependencies)));
        files.push((format!("{folder}/src/lib.rs"), source.to_owned()));
    }
    files
}

/// What the rules say when `changes` are laid over the good tree; an empty text removes the file.
fn findings(changes: &[(&str, &str)]) -> Vec<String> {
    let mut files = good();
    for (path, text) in changes {
        files.retain(|(known, _)| known != path);
        if !text.is_empty() {
            files.push(((*path).to_owned(), (*text).to_owned()));
        }
    }
    let tree = Tree::from_files(files.iter().map(|(path, text)| (path.as_str(), text.as_str())))
        .expect("manifests of samples are usable");
    let rules = Rules::from_tree(&tree).expect("layers.toml is usable");
    check_all(&tree, &rules).iter().map(ToString::to_string).collect()
}

/// Exactly one finding, at this place and of this rule, that mentions `words`.
#[track_caller]
fn one(changes: &[(&str, &str)], start: &str, words: &str) {
    let found = findings(changes);
    assert_eq!(found.len(), 1, "one finding wanted: {found:#?}");
    assert!(
        found[0].starts_with(start) && found[0].contains(words),
        "{:?}\nstarts with {start:?}, has {words:?}",
        found[0]
    );
}

/// Exactly these findings.
#[track_caller]
fn assert_found(changes: &[(&str, &str)], wanted: &[&str]) {
    assert_eq!(findings(changes), wanted);
}

#[test]
fn the_good_tree_has_no_findings() {
    assert_eq!(findings(&[]), Vec::<String>::new());
}

#[test]
fn a_document_that_is_not_rendered_from_the_schema_is_found() {
    one(&[("forge.yaml.example", "a: 1\n")], "forge.yaml.example: [rendered-docs]", "xtask -- docs");
}

#[test]
fn a_crate_without_a_layer_is_found() {
    let table = TABLE.replace("| dev | `kit`", "| L3 | `stray` | x |\n| dev | `kit`");
    let stray = manifest("stray", "");
    let changes = [
        ("crates/stray/Cargo.toml", stray.as_str()),
        ("docs/ARCHITECTURE.md", &table),
        ("crates/stray/src/lib.rs", OTHER),
    ];
    one(&changes, "crates/stray/Cargo.toml: [crates-listed]", "`stray` is not in layers.toml");
}

#[test]
fn a_layer_without_a_crate_is_found() {
    let layers = LAYERS.replace("[names]", "[crates.ghost]\nlayer = \"L3\"\nmay_import = []\n\n[names]");
    one(&[("layers.toml", &layers)], "layers.toml: [crates-listed]", "`ghost` is listed but does not exist");
}

#[test]
fn a_misspelt_crate_in_a_rule_is_found() {
    let layers = LAYERS.replace("only = [\"adapter\"]", "only = [\"adapter\", \"adaptor\"]");
    one(&[("layers.toml", &layers)], "layers.toml: [crates-listed]", "`adaptor` is named by a rule");
}

#[test]
fn a_banned_name_is_found() {
    let table = TABLE.replace("| dev | `kit`", "| L3 | `my-utils` | x |\n| dev | `kit`");
    let layers = LAYERS.replace("[names]", "[crates.my-utils]\nlayer = \"L3\"\nmay_import = []\n\n[names]");
    let crate_manifest = manifest("my-utils", "");
    let changes = [
        ("crates/my-utils/Cargo.toml", crate_manifest.as_str()),
        ("crates/my-utils/src/lib.rs", OTHER),
        ("docs/ARCHITECTURE.md", &table),
        ("layers.toml", &layers),
    ];
    one(&changes, "crates/my-utils/Cargo.toml: [crate-names]", "`utils`");
}

#[test]
fn an_import_upwards_is_found_in_every_kind_of_table() {
    for table in [
        "[dependencies]\nadapter.workspace = true",
        "[dev-dependencies]\nadapter.workspace = true",
        "[build-dependencies]\nadapter.workspace = true",
        "[target.'cfg(unix)'.dependencies]\nadapter.workspace = true",
        "[dependencies]\nfriendly = { workspace = true, package = \"adapter\" }",
    ] {
        let text = manifest("nouns", table);
        one(&[("crates/nouns/Cargo.toml", &text)], "crates/nouns/Cargo.toml: [imports]", "`adapter`");
    }
}

#[test]
fn the_testkit_is_for_tests_only() {
    let dev = manifest("nouns", "[dev-dependencies]\nkit.workspace = true\n");
    assert_eq!(findings(&[("crates/nouns/Cargo.toml", &dev)]), Vec::<String>::new());
    let normal = manifest("nouns", "[dependencies]\nkit.workspace = true\n");
    one(&[("crates/nouns/Cargo.toml", &normal)], "crates/nouns/Cargo.toml: [imports]", "`kit`");
}

#[test]
fn a_third_party_crate_outside_its_fence_is_found() {
    let sql = manifest("kit", "[dev-dependencies]\nsql.workspace = true\n");
    one(&[("crates/kit/Cargo.toml", &sql)], "crates/kit/Cargo.toml: [fences]", "only the adapter speaks SQL");
    let waits = manifest("nouns", "[dependencies]\nasync-rt.workspace = true\n");
    one(
        &[("crates/nouns/Cargo.toml", &waits)],
        "crates/nouns/Cargo.toml: [fences]",
        "nouns wait for nothing",
    );
}

#[test]
fn manifests_that_decide_for_themselves_are_found() {
    let own_version = manifest("kit", "[dependencies]\nserde = \"1\"\n");
    one(&[("crates/kit/Cargo.toml", &own_version)], "crates/kit/Cargo.toml: [manifests]", "`serde`");
    let no_lints = manifest("kit", "").replace("[lints]\nworkspace = true\n", "");
    one(&[("crates/kit/Cargo.toml", &no_lints)], "crates/kit/Cargo.toml: [manifests]", "[lints]");
    let own_edition = manifest("kit", "").replace("edition.workspace = true", "edition = \"2021\"");
    one(&[("crates/kit/Cargo.toml", &own_edition)], "crates/kit/Cargo.toml: [manifests]", "`edition");
}

#[test]
fn a_long_file_is_found() {
    let long = format!("//! Long.\n{}", "// line\n".repeat(12));
    one(&[("crates/kit/src/lib.rs", &long)], "crates/kit/src/lib.rs: [file-size]", "13 lines, 12 at most");
    let script = "true\n".repeat(13);
    one(&[("scripts/long.sh", &script)], "scripts/long.sh: [file-size]", "13 lines");
}

#[test]
fn a_long_function_is_found_where_it_starts() {
    let text = "//! Long.\n\nfn fits() {\n    a();\n    b();\n}\n\nfn long() {\n\n\n\n}\n";
    one(
        &[("crates/kit/src/lib.rs", text)],
        "crates/kit/src/lib.rs:8: [function-size]",
        "`long` has 5 lines, 4 at most",
    );
}

#[test]
fn a_file_that_is_no_rust_is_found() {
    one(
        &[("crates/kit/src/lib.rs", "//! Broken.\nfn {")],
        "crates/kit/src/lib.rs:2: [function-size]",
        "cannot be parsed",
    );
}

#[test]
fn a_large_crate_is_found_and_its_tests_do_not_count() {
    let half = format!("//! Half.\n{}", "// line\n".repeat(10));
    let tests = [("crates/kit/tests/a.rs", half.as_str()), ("crates/kit/tests/b.rs", half.as_str())];
    assert_eq!(findings(&tests), Vec::<String>::new());
    let sources = [("crates/kit/src/lib.rs", half.as_str()), ("crates/kit/src/b.rs", half.as_str())];
    one(&sources, "crates/kit: [crate-size]", "26 lines of source, 20 at most");
}

#[test]
fn vocabularies_are_counted() {
    let path = "crates/nouns/src/lib.rs";
    let grown = NOUNS.replace("Kind { A, B }", "Kind { A, B(u8), C { x: u8 } }");
    one(&[(path, &grown)], "crates/nouns/src/lib.rs:2: [census]", "`Kind` has 3 variants, at most 2");
    let shrunk = NOUNS.replace("Wire { A, B }", "Wire { A }");
    one(&[(path, &shrunk)], "crates/nouns/src/lib.rs:3: [census]", "`Wire` has 1 variants, exactly 2");
    let renamed = NOUNS.replace("Kind", "Sort");
    one(&[(path, &renamed)], "crates/nouns: [census]", "enum `Kind` is counted");
    let twice = format!("{NOUNS}mod inner {{ pub enum Kind {{ A }} }}\n");
    one(&[(path, &twice)], "crates/nouns/src/lib.rs:4: [census]", "exists twice");
}

#[test]
fn ports_are_counted() {
    let path = "crates/ports/src/lib.rs";
    let wide = PORTS.replace("fn b(&self);", "fn b(&self); fn c(&self) {}");
    one(&[(path, &wide)], "crates/ports/src/lib.rs:2: [port-size]", "`Port` has 3 methods, 2 at most");
    one(&[(path, OTHER)], "crates/ports: [port-size]", "no public trait");
}

#[test]
fn a_file_without_its_purpose_is_found() {
    for text in ["fn a() {}\n", "//!\nfn a() {}\n", "// not a doc\n//! late\n"] {
        one(&[("crates/kit/tests/a.rs", text)], "crates/kit/tests/a.rs:1: [module-docs]", "`//!`");
    }
}

#[test]
fn unsafe_code_is_found_outside_its_crate() {
    let text = "//! Unsafe.\nfn a() {\n    unsafe { b() }\n}\n";
    one(&[("crates/kit/src/lib.rs", text)], "crates/kit/src/lib.rs:3: [unsafe]", "layers.toml");
    assert_eq!(findings(&[("crates/adapter/src/lib.rs", text)]), Vec::<String>::new());
}

#[test]
fn sleeping_tests_are_found() {
    let inside =
        "//! Sleeps.\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn a() { std::thread::sleep(D); }\n}\n";
    one(&[("crates/kit/src/lib.rs", inside)], "crates/kit/src/lib.rs:5: [sleeps]", "condition");
    let beside = "//! Sleeps.\nasync fn a() { select!(_ = time::sleep(D) => ()); }\n";
    one(&[("crates/kit/tests/a.rs", beside)], "crates/kit/tests/a.rs:2: [sleeps]", "condition");
    let live = "//! Sleeps.\nfn a() { pause.sleep(D); }\n";
    assert_eq!(findings(&[("crates/kit/src/lib.rs", live)]), Vec::<String>::new());
}

#[test]
fn files_that_are_opened_directly_are_found() {
    let path = "crates/ports/src/own.rs";
    for call in [
        "std::fs::read(&p)",
        "fs::read_to_string(p)",
        "File::open(p)",
        "OpenOptions::new()",
        "fs::copy(a, b)",
    ] {
        let text = format!("//! Opens.\nfn a() {{\n    let x = {call};\n}}\n");
        one(&[(path, &text)], "crates/ports/src/own.rs:3: [direct-opens]", "use `nouns`");
        for open in ["crates/adapter/src/own.rs", "crates/nouns/src/own.rs", "crates/kit/src/own.rs"] {
            assert_eq!(findings(&[(open, &text)]), Vec::<String>::new(), "{open}");
        }
    }
    let fine = "//! Opens.\nfn a() { fs::read(\"/proc/self/stat\"); cache.read(p); fs::write(p, b); }\n\
                #[cfg(test)]\nmod tests { fn b() { std::fs::read(p); } }\n";
    assert_eq!(findings(&[(path, fine)]), Vec::<String>::new());
    let stale = LAYERS.replace("path = \"crates/adapter/src\"", "path = \"crates/adapter/gone\"");
    one(&[("layers.toml", &stale)], "layers.toml: [direct-opens]", "which contains no source");
}

#[test]
fn the_table_of_crates_is_the_workspace() {
    let path = "docs/ARCHITECTURE.md";
    one(&[(path, &TABLE.replace("| | `xtask` | x |\n", ""))], path, "`xtask` is not in the table");
    one(
        &[(path, &TABLE.replace("| | `xtask`", "| | `ghost` | x |\n| | `xtask`"))],
        path,
        "`ghost` is not a crate",
    );
    one(
        &[(path, &TABLE.replace("| | `xtask`", "| | `kit` | x |\n| | `xtask`"))],
        path,
        "`kit` is listed twice",
    );
    one(&[(path, &TABLE.replace("| L3 adapters", "| L2 adapters"))], path, "L3 by layers.toml, not L2");
    one(&[(path, "# Architecture\n")], path, "no table of crates");
    one(&[(path, ""), ("README.md", "# Sample\n")], path, "is missing");
}

#[test]
fn links_to_nowhere_are_found() {
    let path = "docs/guide.md";
    one(&[(path, "see [a](missing.md)\n")], "docs/guide.md:1: [links]", "does not exist");
    one(&[(path, "see [a](../README.md#nothing)\n")], "docs/guide.md:1: [links]", "heading");
    one(&[(path, "\nsee [a](../../outside.md)\n")], "docs/guide.md:2: [links]", "leaves the repository");
    let fine = "# Guide\n[a](../README.md) [b](https://example.org/x) [c](#guide) [d](../crates/kit)\n";
    assert_eq!(findings(&[(path, fine)]), Vec::<String>::new());
}

#[test]
fn forbidden_texts_are_found_outside_the_lock_file() {
    let text = "one\nfetch https://forbidden.example/x\n";
    one(&[("scripts/a.txt", text)], "scripts/a.txt:2: [hosts-and-paths]", "`forbidden.example`");
    assert_eq!(findings(&[("Cargo.lock", text)]), Vec::<String>::new());
}

#[test]
fn vendors_are_named_in_their_tables_only() {
    let code = "//! Docs.\nconst A: &str = \"acme\";\n";
    one(&[("crates/nouns/src/a.rs", code)], "crates/nouns/src/a.rs:2: [vendors]", "rows of tables");
    let fine = "//! Docs.\n// \"acme\"\n#[cfg(test)]\nmod tests {\n    const A: &str = \"acme\";\n}\n";
    assert_eq!(findings(&[("crates/nouns/src/a.rs", fine)]), Vec::<String>::new());
    assert_eq!(findings(&[("crates/adapter/src/a.rs", code)]), Vec::<String>::new());
}

#[test]
fn programs_are_started_in_listed_files_that_are_rows_of_a_table() {
    let code = "//! Docs.\nuse std::process::Command;\n";
    one(&[("crates/nouns/src/a.rs", code)], "crates/nouns/src/a.rs:2: [program-starts]", "is not listed");
    one(&[("crates/adapter/src/start.rs", OTHER)], "layers.toml: [program-starts]", "starts none");
    let table = |rows: &str| {
        format!("# Sandbox\n\n<!-- programs:begin -->\n| a | b |\n|---|---|\n{rows}<!-- programs:end -->\n")
    };
    one(&[("docs/sandbox.md", &table(""))], "docs/sandbox.md: [program-starts]", "lacks");
    let more = table("| x | `crates/adapter/src/start.rs` |\n| y | `crates/adapter/src/gone.rs` |\n");
    one(&[("docs/sandbox.md", &more)], "docs/sandbox.md:7: [program-starts]", "names no file");
    assert_eq!(findings(&[("crates/nouns/src/tests.rs", code)]), Vec::<String>::new());
}

#[test]
fn names_begin_with_no_metaphor() {
    let code = "//! Docs.\nstruct RoomPlan;\n";
    one(&[("crates/nouns/src/a.rs", code)], "crates/nouns/src/a.rs:2: [names]", "begins with `room`");
    let code = "//! Docs.\nconst ROOM_BYTES: u8 = 1;\n";
    one(&[("crates/nouns/src/a.rs", code)], "crates/nouns/src/a.rs:2: [names]", "`ROOM_BYTES`");
    one(&[("crates/nouns/src/room.rs", "//! Docs.\n")], "crates/nouns/src/room.rs: [names]", "`room`");
    let fine = "//! Docs.\nfn room_of_the_house() {}\n#[cfg(test)]\nmod tests {\n    fn room() {}\n}\n";
    assert_eq!(findings(&[("crates/nouns/src/a.rs", fine)]), Vec::<String>::new());
}

#[test]
fn more_than_two_types_of_one_name_are_told_apart() {
    let code = "//! Docs.\nmod a {\n    struct Plan;\n}\nmod b {\n    struct Plan;\n}\n";
    assert_eq!(findings(&[("crates/nouns/src/a.rs", code)]), Vec::<String>::new());
    let more = "//! Docs.\nstruct Plan;\n";
    let found = findings(&[("crates/nouns/src/a.rs", code), ("crates/nouns/src/b.rs", more)]);
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("crates/nouns/src/a.rs:3: [type-names]"), "{found:#?}");
    let shared = code.replace("Plan", "Error");
    let found = findings(&[
        ("crates/nouns/src/a.rs", &shared),
        ("crates/nouns/src/b.rs", "//! Docs.\nenum Error {}\n"),
    ]);
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn comments_name_their_subject() {
    let code = "//! Docs.\n/// What it holds.\nfn a() {}\n";
    one(&[("crates/nouns/src/a.rs", code)], "crates/nouns/src/a.rs:2: [prose]", "begins with a verb");
    let code = "//! Docs.\n// Nobody reads this.\n";
    one(&[("crates/nouns/src/a.rs", code)], "crates/nouns/src/a.rs:2: [prose]", "`Nobody`");
    let fine = "//! Docs.\n/// Returns what it holds.\nfn a() -> &'static str {\n    \"nobody\"\n}\n";
    assert_eq!(findings(&[("crates/nouns/src/a.rs", fine)]), Vec::<String>::new());
}

#[test]
fn circles_between_files_are_found_and_so_are_allowed_ones_that_are_gone() {
    let (three, four) = ("//! Three.\nuse crate::four::Four;\n", "//! Four.\nuse crate::three::Three;\n");
    assert_found(
        &[("crates/kit/src/three.rs", three), ("crates/kit/src/four.rs", four)],
        &["crates/kit/src/four.rs: [circles] these files import one another: crates/kit/src/four.rs, \
           crates/kit/src/three.rs. Move what they share to a file below them"],
    );
    assert_found(
        &[("crates/kit/src/two.rs", "//! Two.\n")],
        &[
            "layers.toml: [circles] this circle no longer exists: crates/kit/src/one.rs, crates/kit/src/two.rs. \
           Remove it here",
        ],
    );
}

#[test]
fn a_type_with_one_maker_is_created_there_only() {
    let code = "//! Docs.\nfn a() {\n    Batch {};\n}\n";
    assert_found(
        &[("crates/nouns/src/a.rs", code)],
        &[
            "crates/nouns/src/a.rs:3: [single-makers] `Batch` is created in crates/nouns/src/make.rs only: redaction",
        ],
    );
    assert_found(
        &[("crates/nouns/src/make.rs", "//! Makes.\n")],
        &["layers.toml: [single-makers] crates/nouns/src/make.rs creates no `Batch`"],
    );
}

#[test]
fn integer_constants_have_units() {
    let code = "//! Docs.\nconst MAX_SIZE: usize = 1;\nconst TIMEOUT: Duration = D;\nconst MAX_SIZE_BYTES: u64 = 1;\n";
    assert_found(
        &[("crates/nouns/src/a.rs", code)],
        &[
            "crates/nouns/src/a.rs:2: [constants] `MAX_SIZE` has no unit: name it, as in `MAX_SIZE_BYTES` or `MAX_SIZE_MS`",
        ],
    );
}

#[test]
fn commands_and_flags_are_named_by_surfaces_only() {
    let args =
        "//! Docs.\nenum Command {\n    Stop,\n}\nstruct Flags {\n    #[arg(long)]\n    no_wait: u8,\n}\n";
    let code = "//! Docs.\nconst A: &str = \"use `tool stop`\";\n";
    let args = ("crates/kit/src/args.rs", args);
    let one_of = |path: &str, code: &str| findings(&[args, (path, code)]);
    let found = one_of("crates/nouns/src/a.rs", code);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("crates/nouns/src/a.rs:2: [surface-texts] names `tool stop`"), "{found:#?}");
    assert_eq!(one_of("crates/nouns/src/a.rs", &code.replace("tool stop", "x --no-wait")).len(), 1);
    for (path, code) in [
        ("crates/kit/src/a.rs", code.to_owned()),
        ("crates/nouns/src/tests.rs", code.to_owned()),
        (
            "crates/nouns/src/a.rs",
            code.replace("const A", "/// Use `tool stop`.\nconst A").replace("`tool stop`", "it"),
        ),
        ("crates/nouns/src/a.rs", code.replace("use `tool stop`", "--no-wait")),
    ] {
        assert_eq!(one_of(path, &code), Vec::<String>::new(), "{path} {code}");
    }
    let allowed = format!(
        "{LAYERS}\n[[surfaces.exception]]\npath = \"crates/nouns/src/a.rs\"\nreason = \"a manual\"\n"
    );
    let layers = ("layers.toml", allowed.as_str());
    assert_eq!(findings(&[args, layers, ("crates/nouns/src/a.rs", code)]), Vec::<String>::new());
    one(&[layers], "layers.toml: [surface-texts]", "needs none");
    let many = (0..11).map(|n| format!("[[surfaces.exception]]\npath = \"{n}\"\nreason = \"x\"\n"));
    let many = format!("{LAYERS}\n{}", many.collect::<String>());
    let found = findings(&[("layers.toml", &many)]);
    assert!(found.iter().any(|text| text.contains("more than 10")), "{found:#?}");
}
