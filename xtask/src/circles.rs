//! Import cycles between the files of one crate.
//!
//! A file imports another one if it contains a path `crate::…`, `super::…` or `self::…` into it. Imports between a
//! module and its submodules do not count as a cycle.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};

use crate::Tree;

/// Finds the import cycles of all crates, each as the sorted paths of its files.
pub(crate) fn circles(tree: &Tree) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for package in tree.packages() {
        let root = format!("{}/src/", package.folder);
        let files: BTreeMap<Vec<String>, (&str, &str)> = tree
            .rust_files()
            .filter(|(path, _)| {
                path.starts_with(&root) && !path.contains("/bin/") && !path.ends_with("/tests.rs")
            })
            .map(|(path, text)| (module_of(&path[root.len()..]), (path, text)))
            .collect();
        let modules: Vec<&Vec<String>> = files.keys().collect();
        let imports: Vec<BTreeSet<usize>> = files
            .iter()
            .map(|(module, (_, text))| {
                let paths = paths(text, module);
                let targets = paths.iter().filter_map(|path| target(&modules, path));
                targets.filter(|at| !related(modules[*at], module)).collect()
            })
            .collect();
        let names: Vec<&str> = files.values().map(|(path, _)| *path).collect();
        found.extend(components(&imports).into_iter().map(|circle| {
            let mut circle: Vec<String> = circle.into_iter().map(|at| names[at].to_owned()).collect();
            circle.sort();
            circle
        }));
    }
    found.sort();
    found
}

/// Returns the module path of a file below `src/`.
fn module_of(file: &str) -> Vec<String> {
    let mut parts: Vec<String> = file.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "mod" | "lib" | "main")) {
        parts.pop();
    }
    parts
}

/// Returns whether the modules are the same or one contains the other.
fn related(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}

/// Returns the file to which a path leads: the longest module that is a prefix of it.
fn target(modules: &[&Vec<String>], path: &[String]) -> Option<usize> {
    let fits = modules.iter().enumerate().filter(|(_, module)| path.starts_with(module));
    fits.max_by_key(|(_, module)| module.len()).map(|(at, _)| at)
}

/// Returns the paths within this crate that a file mentions, from the crate's root.
fn paths(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    if let Ok(tokens) = text.parse::<TokenStream>() {
        each_path(tokens, module, &mut found);
    }
    found
}

fn each_path(tokens: TokenStream, module: &[String], found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        match &tokens[at] {
            TokenTree::Ident(word) => {
                let start = match word.to_string().as_str() {
                    "crate" => Some(Vec::new()),
                    "self" => Some(module.to_vec()),
                    "super" => Some(module[..module.len().saturating_sub(1)].to_vec()),
                    _ => None,
                };
                match start {
                    Some(start) if is_path(&tokens[at + 1..]) => at = follow(&tokens, at + 1, start, found),
                    _ => at += 1,
                }
            }
            TokenTree::Group(group) => {
                each_path(group.stream(), module, found);
                at += 1;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => at += 1,
        }
    }
}

/// Returns whether `::` comes next.
fn is_path(rest: &[TokenTree]) -> bool {
    let colon = |token: Option<&TokenTree>| matches!(token, Some(TokenTree::Punct(p)) if p.as_char() == ':');
    colon(rest.first()) && colon(rest.get(1))
}

/// Reads a path from its first `::` on; returns the position of the token after it.
fn follow(tokens: &[TokenTree], mut at: usize, mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    while is_path(&tokens[at..]) {
        at += 2;
        match tokens.get(at) {
            Some(TokenTree::Ident(word)) => {
                match word.to_string().as_str() {
                    "super" => drop(path.pop()),
                    "self" => {}
                    word => path.push(word.to_owned()),
                }
                at += 1;
            }
            Some(TokenTree::Group(group)) => {
                each_branch(group.stream(), &path, found);
                return at + 1;
            }
            _ => break,
        }
    }
    found.push(path);
    at
}

/// Reads the braces of a `use`.
fn each_branch(tokens: TokenStream, path: &[String], found: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = tokens.into_iter().collect();
    let mut at = 0;
    while at < tokens.len() {
        let TokenTree::Ident(word) = &tokens[at] else {
            at += 1;
            continue;
        };
        let mut path = path.to_vec();
        if word != "self" {
            path.push(word.to_string());
        }
        at = follow(&tokens, at + 1, path, found);
        // `as name`
        while at < tokens.len() && !matches!(&tokens[at], TokenTree::Punct(p) if p.as_char() == ',') {
            at += 1;
        }
    }
}

/// Finds sets of at least two files that all lead to one another.
fn components(imports: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let reach: Vec<BTreeSet<usize>> = (0..imports.len()).map(|from| reachable(imports, from)).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for from in 0..imports.len() {
        let circle: Vec<usize> =
            reach[from].iter().copied().filter(|to| *to == from || reach[*to].contains(&from)).collect();
        if circle.len() > 1 && circle.contains(&from) && seen.insert(circle.clone()) {
            found.push(circle);
        }
    }
    found
}

fn reachable(imports: &[BTreeSet<usize>], from: usize) -> BTreeSet<usize> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<usize> = imports[from].iter().copied().collect();
    while let Some(at) = next.pop() {
        if reached.insert(at) {
            next.extend(imports[at].iter().copied());
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = "[package]\nname = \"forge-x\"\n";

    #[test]
    fn files_that_import_one_another_are_a_circle() {
        let tree = Tree::from_files([
            ("crates/forge-x/Cargo.toml", MANIFEST),
            ("crates/forge-x/src/lib.rs", "mod a; mod b; mod c; mod d;"),
            ("crates/forge-x/src/a.rs", "use crate::{b::{self, B}, d};"),
            ("crates/forge-x/src/b.rs", "fn f() { super::c::g() }"),
            ("crates/forge-x/src/c.rs", "use crate::a::A as X;"),
            ("crates/forge-x/src/d.rs", "fn f() {}"),
        ]);
        let circle: Vec<String> = ["a", "b", "c"].map(|name| format!("crates/forge-x/src/{name}.rs")).into();
        assert_eq!(circles(&tree.unwrap()), [circle]);
    }

    #[test]
    fn a_module_and_its_children_are_none() {
        let tree = Tree::from_files([
            ("crates/forge-x/Cargo.toml", MANIFEST),
            ("crates/forge-x/src/lib.rs", "mod a;"),
            ("crates/forge-x/src/a/mod.rs", "mod b; use self::b::B; pub struct A;"),
            ("crates/forge-x/src/a/b.rs", "use super::A; pub struct B;"),
        ]);
        assert_eq!(circles(&tree.unwrap()), Vec::<Vec<String>>::new());
    }
}
