//! Program lists. The init of a sandbox finds the files that an entry refers to; the table holds what each program needs
//! in addition.

mod table;

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

pub use table::{MULTI_CALL_BINARIES, ProgramRequirements, SHELLS};

/// The degree to which files that commands can write may become code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WrittenCode {
    /// None: no such file is executed or mapped executable.
    #[default]
    None,
    /// Libraries: no such file is executed, but listed programs load native modules from there.
    Loaded,
    /// Programs: the list names a tool that builds and starts them.
    Executed,
}

/// Returns the table entries for a list, each once: those of its programs, and of the programs that these start.
pub fn collect_requirements(list: &[String]) -> Vec<&'static ProgramRequirements> {
    let mut names: Vec<&str> = list.iter().map(|entry| file_name(entry)).collect();
    let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
    while let Some(name) = names.pop() {
        for (number, needs) in table::PROGRAM_TABLE.iter().enumerate() {
            if needs.names.contains(&name) && seen.insert(number) {
                names.extend(needs.programs);
                found.push(needs);
            }
        }
    }
    found
}

/// Returns the degree to which written files may become code with this list.
#[must_use]
pub fn written_code(list: Option<&[String]>) -> WrittenCode {
    match list {
        None => WrittenCode::Executed,
        Some(list) => collect_requirements(list).iter().map(|needs| needs.written).max().unwrap_or_default(),
    }
}

/// Returns the last part of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn what_a_program_needs_is_followed_to_its_end() {
        let found = collect_requirements(&list(&["/usr/bin/cargo"]));
        let named = |name: &str| found.iter().any(|needs| needs.names.contains(&name));
        assert!(named("cargo") && named("rustc") && named("cc") && !named("git"));
        assert!(collect_requirements(&list(&["ls", "cat"])).is_empty());
    }

    #[test]
    fn only_what_builds_or_interprets_makes_code_of_written_files() {
        let written = |names: &[&str]| written_code(Some(&list(names)));
        assert_eq!(written(&["ls", "git", "gcc"]), WrittenCode::None);
        assert_eq!(written(&[]), WrittenCode::None);
        assert_eq!(written(&["git", "python3"]), WrittenCode::Loaded);
        assert_eq!(written(&["cargo", "python3"]), WrittenCode::Executed);
        assert_eq!(written_code(None), WrittenCode::Executed);
    }

    #[test]
    fn every_entry_says_why() {
        assert!(table::PROGRAM_TABLE.iter().all(|needs| needs.why.len() > 20 && !needs.names.is_empty()));
    }
}
