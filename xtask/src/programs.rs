//! Checks that programs are started only in listed files, each of which has a row in the table for users.

use crate::{Rules, Tree, Violation};
use std::collections::BTreeSet;

const SANDBOX: &str = "docs/sandbox.md";
const TABLE_BEGIN: &str = "<!-- programs:begin -->";
const TABLE_END: &str = "<!-- programs:end -->";
/// Prefixes of functions that start programs, in addition to those of the standard library and tokio.
const CALLS: &[&str] = &["libc::exec", "libc::fexec", "libc::posix_spawn"];

/// Checks that sources name program-starting functions only where `layers.toml` lists them, and that `docs/sandbox.md`
/// has a row for each.
pub(crate) fn program_starts(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let report = |path: &str, line, message: String| Violation::new(path, line, "program-starts", message);
    let mut found = Vec::new();
    let mut starting = BTreeSet::new();
    // The checks themselves are not part of the product.
    let product =
        |path: &str| path.starts_with("crates/") && path.contains("/src/") && !path.ends_with("/tests.rs");
    let sources = tree.rust_files().filter(|(path, _)| product(path));
    for (path, text) in sources {
        let Some(line) = first_start(text) else { continue };
        starting.insert(path);
        if !rules.program_starts.iter().any(|listed| listed == path) {
            let message = "starts programs but is not listed in layers.toml under [programs]: start them where it is \
                           done already, or list the file there and in docs/sandbox.md";
            found.push(report(path, line, message.to_owned()));
        }
    }
    for listed in rules.program_starts.iter().filter(|listed| !starting.contains(listed.as_str())) {
        found.push(report(
            "layers.toml",
            0,
            format!("`{listed}` is listed under [programs] but starts none"),
        ));
    }
    if rules.program_starts.is_empty() {
        return found;
    }
    let rows = table_rows(tree.text(SANDBOX).unwrap_or_default());
    for listed in rules
        .program_starts
        .iter()
        .filter(|listed| !rows.iter().any(|(_, row)| row.contains(&format!("`{listed}`"))))
    {
        found.push(report(
            SANDBOX,
            0,
            format!("the table between {TABLE_BEGIN} and {TABLE_END} lacks `{listed}`"),
        ));
    }
    for (line, row) in rows {
        if !rules.program_starts.iter().any(|listed| row.contains(&format!("`{listed}`"))) {
            found.push(report(
                SANDBOX,
                line,
                "the row names no file listed under [programs] in layers.toml".to_owned(),
            ));
        }
    }
    found
}

/// Returns the first line of a source, outside of its tests, that names a program-starting function.
fn first_start(text: &str) -> Option<usize> {
    let own = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let code: Vec<&str> = own.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let whole = code.join("\n");
    let named = |at: usize| Some(whole.get(..at)?.matches('\n').count() + 1);
    let calls = CALLS.iter().flat_map(|call| whole.match_indices(call));
    let paths = whole.match_indices("process::Command").filter(|(at, word)| {
        !whole[at + word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_')
    });
    // `use std::process::{Child, Command};`
    let lists = whole.match_indices("process::{").filter(|(at, _)| {
        let list = whole[at + 10..].split(';').next().unwrap_or_default();
        list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "Command")
    });
    calls.chain(paths).chain(lists).filter_map(|(at, _)| named(at)).min()
}

/// Returns the rows of the table of programs with their line numbers, without the header.
fn table_rows(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    let inside = lines.skip_while(|(_, line)| line.trim() != TABLE_BEGIN).skip(1);
    inside
        .take_while(|(_, line)| line.trim() != TABLE_END)
        .filter(|(_, line)| line.starts_with('|'))
        .skip(2)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_are_found_by_whatever_way_they_are_named() {
        for (text, line) in [
            ("//! x\nuse std::process::Command;\n", 2),
            ("//! x\nuse std::process::{self, Child,\n    Command as Other};\n", 2),
            ("let x = tokio::process::Command::new(y);", 1),
            ("fn a() {\n\n    libc::execve(a, b, c);\n}\n", 3),
        ] {
            assert_eq!(first_start(text), Some(line), "{text}");
        }
        for text in [
            "use std::process::{Stdio, ExitStatus};\nuse x::Command;\n",
            "// std::process::Command\nlet x = process::CommandLine;\n",
            "let a = [SYS_execve];\nlet b = program::execveat;\n",
            "fn a() {}\n\n#[cfg(test)]\nmod tests {\n    use std::process::Command;\n}\n",
        ] {
            assert_eq!(first_start(text), None, "{text}");
        }
    }
}
