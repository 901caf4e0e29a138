//! `layers.toml` itself: what is wrong in it is said, never ignored.

use xtask::{Rules, RulesError, Tree};

use crate::samples::LAYERS;

#[test]
fn the_sample_rules_parse() {
    let rules = Rules::parse(LAYERS).unwrap();
    assert_eq!(rules.crates.len(), 5);
    assert_eq!(rules.forbidden_texts, ["forbidden.example"]);
}

#[test]
fn a_missing_file_is_an_error() {
    let tree = Tree::from_files([("README.md", "# x\n")]).unwrap();
    assert_eq!(Rules::from_tree(&tree), Err(RulesError::Missing));
}

#[test]
fn a_missing_key_is_named() {
    for key in
        ["file_lines", "function_lines", "crate_lines", "port_methods", "ports", "testkit", "forbidden"]
    {
        let without: String = LAYERS
            .lines()
            .filter(|line| !line.starts_with(&format!("{key} =")))
            .map(|line| format!("{line}\n"))
            .collect();
        let error = Rules::parse(&without).expect_err("the key is needed").to_string();
        assert!(error.contains(&format!("`{key}`")), "{error}");
    }
}

#[test]
fn broken_toml_is_an_error() {
    assert!(matches!(Rules::parse("[crates"), Err(RulesError::Syntax(_))));
}

#[test]
fn a_fence_that_fences_nothing_is_an_error() {
    let text = format!("{LAYERS}\n[[fence]]\ncrates = [\"x\"]\nreason = \"none\"\n");
    assert!(matches!(Rules::parse(&text), Err(RulesError::Key(_))));
}

#[test]
fn a_manifest_without_a_name_is_an_error() {
    let error = Tree::from_files([("crates/a/Cargo.toml", "[package]\n")]).expect_err("no name");
    assert!(error.to_string().contains("crates/a/Cargo.toml"), "{error}");
}
