//! Strings that must appear nowhere: hosts of registries and paths of one machine.

use crate::{Rules, Tree, Violation};

/// Files that cargo writes and that name its registry by design.
const GENERATED: &[&str] = &["Cargo.lock"];

/// No forbidden text anywhere in the tree.
pub(crate) fn forbidden(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| !GENERATED.contains(path)) {
        for (number, line) in text.lines().enumerate() {
            for banned in rules.forbidden_texts.iter().filter(|banned| line.contains(banned.as_str())) {
                let message =
                    format!("names `{banned}`: hosts of registries and paths of one machine stay out");
                found.push(Violation::new(path, number + 1, "hosts-and-paths", message));
            }
        }
    }
    found
}
