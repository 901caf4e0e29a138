//! Every test that `docs/promises.md` names exists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_promise_has_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is inside the repository");
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    sources(&root.join("xtask"), &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).expect("text")).collect();
    let names: BTreeSet<&str> = text
        .split("fn ")
        .skip(1)
        .filter_map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        .collect();
    let promises = std::fs::read_to_string(root.join("docs/promises.md")).expect("the list of promises");
    let rows = promises.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    let named: Vec<&str> = rows
        .filter_map(|row| row.rsplit('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    assert!(named.len() > 60, "the list was read: {}", named.len());
    let missing: Vec<_> = named.into_iter().filter(|name| !names.contains(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}
