//! Limits on the central vocabularies: variants of enums by name, methods of ports.

use crate::rust::{Outline, Sized};
use crate::{Census, CensusKind, Package, Rules, Tree, Violation};

/// Checks that each counted enum exists exactly once in its crate and has the permitted number of variants.
pub(crate) fn items(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let counted = rules.census.iter().filter_map(|census| Some((census, tree.package(&census.package)?)));
    counted.flat_map(|(census, package)| count(tree, census, package)).collect()
}

fn count(tree: &Tree, census: &Census, package: &Package) -> Vec<Violation> {
    let enums = outlines(tree, package, |outline| outline.enums);
    let named: Vec<_> = enums.into_iter().filter(|(_, found)| found.name == census.item).collect();
    let report = |path: &str, line, message: String| vec![Violation::new(path, line, "census", message)];
    match named.as_slice() {
        [] => {
            let message = format!(
                "enum `{}` is counted in layers.toml but `{}` does not define it",
                census.item, package.name
            );
            report(&package.folder, 0, message)
        }
        [(path, only)] => {
            let (fits, wanted) = match census.count {
                CensusKind::AtMost(most) => (only.count <= most, format!("at most {most}")),
                CensusKind::Exactly(wanted) => (only.count == wanted, format!("exactly {wanted}")),
            };
            if fits {
                return Vec::new();
            }
            report(path, only.line, format!("`{}` has {} variants, {wanted} wanted", census.item, only.count))
        }
        [_, (path, second), ..] => report(
            path,
            second.line,
            format!("`{}` exists twice in `{}`: rename one", census.item, package.name),
        ),
    }
}

/// Checks that ports are small.
pub(crate) fn ports(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let Some(package) = tree.package(&rules.ports_crate) else { return Vec::new() };
    let traits = outlines(tree, package, |outline| outline.traits);
    if traits.is_empty() {
        let message = format!("`{}` defines no public trait, but is the crate of the ports", package.name);
        return vec![Violation::new(&package.folder, 0, "port-size", message)];
    }
    let most = rules.budgets.port_methods;
    traits
        .into_iter()
        .filter(|(_, port)| port.count > most)
        .map(|(path, port)| {
            let message = format!("port `{}` has {} methods, {most} at most", port.name, port.count);
            Violation::new(&path, port.line, "port-size", message)
        })
        .collect()
}

/// Collects one part of the outline of every file below a crate's `src`. Files that are not Rust are reported by
/// another rule.
fn outlines(tree: &Tree, package: &Package, part: fn(Outline) -> Vec<Sized>) -> Vec<(String, Sized)> {
    let folder = format!("{}/src/", package.folder);
    tree.rust_files()
        .filter(|(path, _)| path.starts_with(&folder))
        .filter_map(|(path, text)| Some((path, Outline::parse(text).ok()?)))
        .flat_map(|(path, outline)| part(outline).into_iter().map(move |item| (path.to_owned(), item)))
        .collect()
}
