//! Strings that must not occur in the tree, such as paths of one machine, or only in a few places, such as vendor
//! names.

use crate::{Rules, Tree, Violation};

/// Files that cargo writes and that name its registry by design.
const GENERATED: &[&str] = &["Cargo.lock"];

/// Checks that no forbidden text occurs in the tree.
pub(crate) fn forbidden(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| !GENERATED.contains(path)) {
        for (number, line) in text.lines().enumerate() {
            for banned in rules.forbidden_texts.iter().filter(|banned| line.contains(banned.as_str())) {
                let message = format!(
                    "contains `{banned}`: hosts of registries and paths of one machine are not allowed"
                );
                found.push(Violation::new(path, number + 1, "hosts-and-paths", message));
            }
        }
    }
    found
}

/// Checks that vendor names occur only in tables, so that no decision depends on a name. Tests may use them.
pub(crate) fn vendors(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let names: Vec<String> = rules.vendors.iter().map(|name| format!("\"{name}\"")).collect();
    let mut found = Vec::new();
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    for (path, text) in tree.rust_files().filter(|(path, _)| path.contains("/src/") && !is_test(path)) {
        let of = tree.package_of(path);
        if of.is_none_or(|package| rules.vendor_crates.contains(&package.name)) {
            continue;
        }
        let own = text.lines().enumerate().take_while(|(_, line)| line.trim() != "#[cfg(test)]");
        for (number, line) in own.filter(|(_, line)| !line.trim_start().starts_with("//")) {
            for name in names.iter().filter(|name| line.contains(name.as_str())) {
                let message = format!(
                    "names the vendor {name}: vendors are rows of tables in {:?}",
                    rules.vendor_crates
                );
                found.push(Violation::new(path, number + 1, "vendors", message));
            }
        }
    }
    found
}
