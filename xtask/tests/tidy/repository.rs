//! The rules, applied to this repository: one test per rule, so that a failure names it.

use std::path::Path;

use xtask::{RULES, Rules, Tree, check_one};

fn repository() -> (Tree, Rules) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is inside the repository");
    let tree = Tree::load(root).expect("the repository is readable");
    let rules = Rules::from_tree(&tree).expect("layers.toml is usable");
    (tree, rules)
}

macro_rules! tidy {
    ($($test:ident => $rule:literal,)*) => {
        $(
            #[test]
            fn $test() {
                let (tree, rules) = repository();
                let found = check_one($rule, &tree, &rules).expect("the rule exists");
                let list: Vec<String> = found.iter().map(ToString::to_string).collect();
                assert!(list.is_empty(), "{} findings:\n{}", list.len(), list.join("\n"));
            }
        )*

        /// A rule without a line above would never run against the repository.
        #[test]
        fn every_rule_is_applied() {
            let applied = [$($rule),*];
            let known: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
            assert_eq!(applied.as_slice(), known.as_slice());
        }
    };
}

tidy! {
    crates_are_listed => "crates-listed",
    crate_names_say_something => "crate-names",
    imports_point_down => "imports",
    third_party_crates_stay_behind_fences => "fences",
    manifests_inherit => "manifests",
    files_are_small => "file-size",
    functions_are_small => "function-size",
    crates_are_small => "crate-size",
    vocabularies_are_small => "census",
    ports_are_small => "port-size",
    files_say_what_they_are_for => "module-docs",
    unsafe_code_stays_in_listed_crates => "unsafe",
    tests_do_not_sleep => "sleeps",
    files_are_opened_by_the_reader => "direct-opens",
    rendered_documents_match_the_schema => "rendered-docs",
    architecture_lists_every_crate => "crate-table",
    links_lead_somewhere => "links",
    no_hosts_and_no_machine_paths => "hosts-and-paths",
    vendors_are_data => "vendors",
    programs_are_started_in_listed_places => "program-starts",
    imports_between_files_point_one_way => "circles",
    batches_are_made_in_one_place => "single-makers",
    commands_are_named_by_surfaces => "surface-texts",
    names_are_standard_terms => "names",
    constants_have_units => "constants",
    type_names_are_unique => "type-names",
    comments_are_plain_english => "prose",
}

/// Reading the tree must not silently come back empty.
#[test]
fn the_tree_is_really_read() {
    let (tree, _) = repository();
    for path in ["layers.toml", "docs/configuration.md", "forge.yaml.example", ".env.example"] {
        assert!(tree.text(path).is_some(), "{path}");
    }
    assert!(tree.packages().iter().any(|package| package.name == "xtask" && package.folder == "xtask"));
    assert!(tree.files().any(|(path, _)| path == "xtask/tests/tidy/repository.rs"));
    assert!(!tree.files().any(|(path, _)| path.starts_with("target/") || path.starts_with(".git/")));
}
