//! Checks that files on the host are opened through one hardened crate; exceptions are listed with reasons.

use crate::rust::{Call, calls_outside_tests};
use crate::{Rules, Tree, Violation};

/// Functions that open a file by its path, each with its qualifier.
const OPENING: &[(&str, &str)] = &[
    ("fs", "read"),
    ("fs", "read_to_string"),
    ("fs", "copy"),
    ("File", "open"),
    ("File", "options"),
    ("OpenOptions", "new"),
];
/// Directories of kernel and administrator files, which may be opened if the path is a literal.
const SYSTEM: &[&str] = &["/proc/", "/sys/", "/dev/", "/etc/"];

/// Checks that only the reader crate opens paths of repositories, sandboxes and data directories.
pub(crate) fn direct_opens(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.rust_files() {
        let Some(package) = tree.package_of(path) else { continue };
        let dev = rules.crates.get(&package.name).is_none_or(|rule| rule.layer == "dev");
        let exempt = rules.direct_opens.iter().any(|known| path.starts_with(&known.path));
        if dev || exempt || package.name == rules.reader || !path.contains("/src/") {
            continue;
        }
        for Call { line, qualifier, name, argument } in calls_outside_tests(text) {
            // A newly created file cannot belong to another user.
            let new = text.lines().skip(line - 1).take(6).any(|line| line.contains(".create_new(true)"));
            let opens = !new && OPENING.iter().any(|(before, what)| qualifier == *before && name == *what);
            let system = argument.is_some_and(|text| SYSTEM.iter().any(|place| text.starts_with(place)));
            if opens && !system {
                let message = format!(
                    "`{qualifier}::{name}` waits for pipes and reads devices and files of any size; use `{}`, or list \
                     the file under [[direct_open]] in layers.toml with its reason",
                    rules.reader
                );
                found.push(Violation::new(path, line, "direct-opens", message));
            }
        }
    }
    for known in &rules.direct_opens {
        if !tree.rust_files().any(|(path, _)| path.starts_with(&known.path)) {
            let message = format!("[[direct_open]] names {}, which contains no source", known.path);
            found.push(Violation::new("layers.toml", 0, "direct-opens", message));
        }
    }
    found
}
