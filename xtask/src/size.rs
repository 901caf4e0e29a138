//! Size limits of files, functions and crates.

use crate::rust::Outline;
use crate::{Rules, Tree, Violation};

/// Suffixes of program text that people read.
const SOURCES: &[&str] = &[".rs", ".py", ".sh"];

/// Checks that no source file is longer than its budget.
pub(crate) fn files(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let most = rules.budgets.file_lines;
    tree.files()
        .filter(|(path, _)| SOURCES.iter().any(|ending| path.ends_with(ending)))
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > most)
        .map(|(path, lines)| {
            let message = format!("{lines} lines, {most} at most: split it by responsibility");
            Violation::new(path, 0, "file-size", message)
        })
        .collect()
}

/// Checks that no function is longer than its budget.
pub(crate) fn functions(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let most = rules.budgets.function_lines;
    let mut found = Vec::new();
    for (path, text) in tree.rust_files() {
        match Outline::parse(text) {
            Ok(outline) => {
                for function in outline.functions.iter().filter(|function| function.count > most) {
                    let message = format!("`{}` has {} lines, {most} at most", function.name, function.count);
                    found.push(Violation::new(path, function.line, "function-size", message));
                }
            }
            Err((line, why)) => {
                found.push(Violation::new(path, line, "function-size", format!("cannot be parsed: {why}")));
            }
        }
    }
    found
}

/// Checks that no crate's `src` directory is longer than its budget.
pub(crate) fn crates(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let most = rules.budgets.crate_lines;
    tree.packages()
        .iter()
        .map(|package| {
            let folder = format!("{}/src/", package.folder);
            let sources = tree.files().filter(|(path, _)| path.starts_with(&folder) && path.ends_with(".rs"));
            (package, sources.map(|(_, text)| text.lines().count()).sum::<usize>())
        })
        .filter(|(_, lines)| *lines > most)
        .map(|(package, lines)| {
            let message = format!("`{}` has {lines} lines of source, {most} at most: split it", package.name);
            Violation::new(&package.folder, 0, "crate-size", message)
        })
        .collect()
}
