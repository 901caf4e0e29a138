//! Import rules: our own crates by layer, third-party crates by fence, and the form of manifests.

use toml_edit::Item;

use crate::tree::{Dependency, DependencyKind};
use crate::{Package, Rules, Tree, Violation};

/// Checks that the workspace and `layers.toml` list the same crates.
pub(crate) fn crates_listed(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let unlisted =
        tree.packages().iter().filter(|package| !rules.crates.contains_key(&package.name)).map(|package| {
            let message =
                format!("crate `{}` is not in layers.toml: give it a layer and its imports", package.name);
            Violation::new(&package.manifest_path(), 0, "crates-listed", message)
        });
    let absent = rules.crates.keys().filter(|name| tree.package(name).is_none()).map(|name| {
        let message = format!("crate `{name}` is listed but does not exist: create it or remove the entry");
        Violation::new("layers.toml", 0, "crates-listed", message)
    });
    unlisted.chain(absent).chain(unknown_names(rules)).collect()
}

/// Reports names in rules that belong to no crate, because such a rule would silently have no effect.
fn unknown_names(rules: &Rules) -> impl Iterator<Item = Violation> {
    let imported = rules.crates.values().flat_map(|rule| rule.may_import.iter());
    let fenced = rules.fences.iter().flat_map(|fence| fence.only.iter().flatten().chain(&fence.never));
    let counted = rules.census.iter().map(|census| &census.package);
    let named = [&rules.ports_crate, &rules.testkit].into_iter().chain(&rules.unsafe_crates);
    imported.chain(fenced).chain(counted).chain(named).filter(|name| !rules.crates.contains_key(*name)).map(
        |name| {
            let message =
                format!("`{name}` is named by a rule but is not listed in [crates]: correct the name");
            Violation::new("layers.toml", 0, "crates-listed", message)
        },
    )
}

/// Checks that no crate has a catch-all name.
pub(crate) fn crate_names(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let banned = |name: &str| {
        name.split(['-', '_'])
            .find(|part| rules.banned_names.iter().any(|word| word == part))
            .map(str::to_owned)
    };
    tree.packages()
        .iter()
        .filter_map(|package| banned(&package.name).map(|word| (package, word)))
        .map(|(package, word)| {
            let message = format!(
                "no crate may be called `{word}`, which attracts everything; name it after its purpose"
            );
            Violation::new(&package.manifest_path(), 0, "crate-names", message)
        })
        .collect()
}

/// Checks that imports between our crates point down only, as listed.
pub(crate) fn imports(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in tree.packages() {
        let Some(rule) = rules.crates.get(&package.name) else { continue };
        for dependency in package.dependencies() {
            if !rules.crates.contains_key(&dependency.name) || rule.may_import.contains(&dependency.name) {
                continue;
            }
            let dev = dependency.kind == DependencyKind::Dev;
            if dev && dependency.name == rules.testkit {
                continue;
            }
            let how = if dev { "may not have as a dev-dependency" } else { "may not import" };
            let message = format!("`{}` ({}) {how} `{}`", package.name, rule.layer, dependency.name);
            found.push(Violation::new(&package.manifest_path(), 0, "imports", message));
        }
    }
    found
}

/// Checks that third-party crates are used only within their fences, in every kind of dependency.
pub(crate) fn fences(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for package in tree.packages() {
        for dependency in package.dependencies() {
            for fence in &rules.fences {
                let outside = fence.only.as_ref().is_some_and(|only| !only.contains(&package.name))
                    || fence.never.contains(&package.name);
                if outside && fence.crates.contains(&dependency.name) {
                    let message =
                        format!("`{}` may not use `{}`: {}", package.name, dependency.name, fence.reason);
                    found.push(Violation::new(&package.manifest_path(), 0, "fences", message));
                }
            }
        }
    }
    found
}

/// Checks that versions, lints and edition are set once, in the workspace.
pub(crate) fn manifests(tree: &Tree, _: &Rules) -> Vec<Violation> {
    tree.packages().iter().flat_map(manifest).collect()
}

fn manifest(package: &Package) -> Vec<Violation> {
    let path = package.manifest_path();
    let mut found = Vec::new();
    let mut report = |message: String| found.push(Violation::new(&path, 0, "manifests", message));
    let inherits = |item: Option<&Item>| {
        item.and_then(Item::as_table_like).and_then(|table| table.get("workspace")).and_then(Item::as_bool)
            == Some(true)
    };
    if !inherits(package.manifest.get("lints")) {
        report("add `[lints] workspace = true`".to_owned());
    }
    for key in ["version", "edition", "rust-version", "license", "publish"] {
        if !inherits(package.manifest.get("package").and_then(|table| table.get(key))) {
            report(format!("add `{key}.workspace = true` to [package]"));
        }
    }
    for Dependency { name, item, .. } in package.dependencies() {
        if !inherits(Some(item)) {
            report(format!("`{name}` must be `workspace = true`: its version is set in the root manifest"));
        }
    }
    found
}
