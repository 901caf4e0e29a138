//! Required and prohibited content of every Rust source.

use crate::rust::{calls_in_tests, lines_with_word};
use crate::{Rules, Tree, Violation};

/// Functions that make a test wait for a time instead of a condition.
const SLEEPS: &[&str] = &["sleep", "sleep_ms", "sleep_until"];

/// Checks that every file starts with a module comment.
pub(crate) fn module_docs(tree: &Tree, _: &Rules) -> Vec<Violation> {
    tree.rust_files()
        .filter(|(_, text)| {
            let first = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
            first.strip_prefix("//!").is_none_or(|words| words.trim().is_empty())
        })
        .map(|(path, _)| {
            Violation::new(
                path,
                1,
                "module-docs",
                "the first line must be `//!` and describe the purpose of the file",
            )
        })
        .collect()
}

/// Checks that unsafe code occurs only in the crates permitted to contain it.
pub(crate) fn unsafe_code(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let may =
        |path: &str| tree.package_of(path).is_some_and(|package| rules.unsafe_crates.contains(&package.name));
    tree.rust_files()
        .filter(|(path, _)| !may(path))
        .flat_map(|(path, text)| {
            lines_with_word(text, "unsafe").into_iter().map(move |line| {
                Violation::new(
                    path,
                    line,
                    "unsafe",
                    "unsafe code belongs in the crates listed in layers.toml",
                )
            })
        })
        .collect()
}

/// Checks that tests wait for conditions instead of sleeping.
pub(crate) fn sleeps(tree: &Tree, _: &Rules) -> Vec<Violation> {
    tree.rust_files()
        .flat_map(|(path, text)| {
            let all_is_test = path.contains("/tests/");
            calls_in_tests(text, SLEEPS, all_is_test).into_iter().map(move |line| {
                Violation::new(path, line, "sleeps", "a test must wait for a condition, not for a time")
            })
        })
        .collect()
}
