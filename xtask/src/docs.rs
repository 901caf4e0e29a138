//! Checks of documents: the table of crates matches the workspace, and links have targets.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Rules, Tree, Violation};

const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";
const TABLE_BEGIN: &str = "<!-- crates:begin -->";
const TABLE_END: &str = "<!-- crates:end -->";

/// Checks that the table in `docs/ARCHITECTURE.md` lists each crate of the workspace once, in its layer.
pub(crate) fn crate_table(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let report = |line, message: String| Violation::new(ARCHITECTURE, line, "crate-table", message);
    let Some(text) = tree.text(ARCHITECTURE) else { return vec![report(0, "is missing".to_owned())] };
    let rows = table_rows(text);
    if rows.is_empty() {
        return vec![report(0, format!("has no table of crates between {TABLE_BEGIN} and {TABLE_END}"))];
    }
    let mut found = Vec::new();
    let mut listed = BTreeMap::new();
    for (line, layer, name) in rows {
        if listed.insert(name.clone(), line).is_some() {
            found.push(report(line, format!("`{name}` is listed twice")));
        }
        match rules.crates.get(&name) {
            _ if tree.package(&name).is_none() => {
                found.push(report(line, format!("`{name}` is not a crate of the workspace")));
            }
            Some(rule) if rule.layer != layer => {
                found.push(report(
                    line,
                    format!("`{name}` is in layer {} by layers.toml, not {layer}", rule.layer),
                ));
            }
            _ => {}
        }
    }
    let missing = tree.packages().iter().filter(|package| !listed.contains_key(&package.name));
    found.extend(
        missing.map(|package| report(0, format!("`{}` is not in the table of crates", package.name))),
    );
    found
}

/// Returns the line, layer and crate of each row. A row without a layer continues the layer above.
fn table_rows(text: &str) -> Vec<(usize, String, String)> {
    let mut rows = Vec::new();
    let mut layer = String::new();
    let lines = text.lines().enumerate();
    let inside = lines.skip_while(|(_, line)| line.trim() != TABLE_BEGIN).skip(1);
    for (number, line) in inside.take_while(|(_, line)| line.trim() != TABLE_END) {
        let mut cells = line.trim().trim_matches('|').split('|').map(str::trim);
        let (Some(first), Some(second)) = (cells.next(), cells.next()) else { continue };
        let Some(name) = second.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { continue };
        if let Some(word) = first.split_whitespace().next() {
            layer = word.to_owned();
        }
        rows.push((number + 1, layer.clone(), name.to_owned()));
    }
    rows
}

/// Checks that every relative link points to an existing file or directory, and to an existing heading if it names one.
pub(crate) fn links(tree: &Tree, _: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, text) in tree.files().filter(|(path, _)| path.ends_with(".md")) {
        for (line, target) in link_targets(text) {
            if let Err(why) = resolve(tree, path, &target) {
                found.push(Violation::new(path, line, "links", format!("`{target}` {why}")));
            }
        }
    }
    found
}

/// Returns the targets of `[text](target)` and `![text](target)` outside of code, with their lines.
fn link_targets(text: &str) -> Vec<(usize, String)> {
    let mut targets = Vec::new();
    let mut fenced = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        // Every second piece between backticks is code.
        for prose in line.split('`').step_by(2) {
            let mut rest = prose;
            while let Some((_, after)) = rest.split_once("](") {
                let Some((target, tail)) = after.split_once(')') else { break };
                let target = target.split_whitespace().next().unwrap_or("");
                targets.push((number + 1, target.to_owned()));
                rest = tail;
            }
        }
    }
    targets
}

fn resolve(tree: &Tree, from: &str, target: &str) -> Result<(), &'static str> {
    if target.contains("://") || target.starts_with("mailto:") {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path =
        if file.is_empty() { from.to_owned() } else { join(from, file).ok_or("leaves the repository")? };
    if !tree.exists(&path) {
        return Err("does not exist");
    }
    match (anchor, tree.text(&path)) {
        (Some(anchor), Some(text)) if path.ends_with(".md") && !headings(text).contains(anchor) => {
            Err("names a heading that does not exist")
        }
        _ => Ok(()),
    }
}

/// Resolves `target` relative to the directory of the file `from`; returns `None` if it leaves the repository.
fn join(from: &str, target: &str) -> Option<String> {
    if target.starts_with('/') {
        return None;
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Returns the anchors of all headings, as code hosts derive them: lower case, spaces to dashes, no punctuation.
fn headings(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(|heading| {
            let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_inherit_the_layer_above() {
        let text = format!(
            "{TABLE_BEGIN}\n| layer | crate | |\n|---|---|---|\n| L3 x | `a` | b |\n| | `c` | d |\n{TABLE_END}\n| L9 | `no` | |"
        );
        let rows: Vec<_> = table_rows(&text).into_iter().map(|(_, layer, name)| (layer, name)).collect();
        assert_eq!(rows, [("L3".to_owned(), "a".to_owned()), ("L3".to_owned(), "c".to_owned())]);
    }

    #[test]
    fn code_holds_no_links() {
        let text = "see [a](b.md) and `[x](y.md)`\n```\n[c](d.md)\n```\n![p](q.svg \"title\")";
        assert_eq!(link_targets(text), [(1, "b.md".to_owned()), (5, "q.svg".to_owned())]);
    }

    #[test]
    fn paths_are_joined_within_the_repository() {
        assert_eq!(join("docs/a.md", "../README.md"), Some("README.md".to_owned()));
        assert_eq!(join("a.md", "docs/b.md"), Some("docs/b.md".to_owned()));
        assert_eq!(join("a.md", "../b.md"), None);
        assert_eq!(join("a.md", "/etc"), None);
    }
}
