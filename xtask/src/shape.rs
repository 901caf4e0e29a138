//! The shape of the code between its files: circles of imports, and types that one file alone creates.

use syn::visit::{self, Visit};

use crate::circles::circles;
use crate::rust::is_test_attribute;
use crate::{Rules, Tree, Violation};

/// Checks that files of a crate import one another in one direction only, except for the listed circles.
pub(crate) fn import_circles(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let found = circles(tree);
    let mut violations = Vec::new();
    for circle in &found {
        if !rules.circles.iter().any(|allowed| allowed.files == *circle) {
            let message = format!(
                "these files import one another: {}. Move what they share to a file below them",
                circle.join(", ")
            );
            violations.push(Violation::new(&circle[0], 0, "circles", message));
        }
    }
    for allowed in rules.circles.iter().filter(|allowed| !found.contains(&allowed.files)) {
        let message = format!("this circle no longer exists: {}. Remove it here", allowed.files.join(", "));
        violations.push(Violation::new("layers.toml", 0, "circles", message));
    }
    violations
}

/// Checks that listed types are created in their file only.
pub(crate) fn single_makers(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut violations = Vec::new();
    for maker in &rules.makers {
        let mut made = false;
        for (path, text) in tree.rust_files() {
            let is_product = tree
                .package_of(path)
                .and_then(|package| rules.crates.get(&package.name))
                .is_some_and(|rule| rule.layer != "dev");
            if !is_product || !path.contains("/src/") {
                continue;
            }
            let lines = creations(text, &maker.type_name);
            if path == maker.path {
                made |= !lines.is_empty();
                continue;
            }
            violations.extend(lines.into_iter().map(|line| {
                let message =
                    format!("`{}` is created in {} only: {}", maker.type_name, maker.path, maker.reason);
                Violation::new(path, line, "single-makers", message)
            }));
        }
        if !made {
            let message = format!("{} creates no `{}`", maker.path, maker.type_name);
            violations.push(Violation::new("layers.toml", 0, "single-makers", message));
        }
    }
    violations
}

/// Returns the lines at which a struct literal of this type is, outside of tests.
fn creations(text: &str, type_name: &str) -> Vec<usize> {
    let mut literals = StructLiterals { type_name, lines: Vec::new() };
    if let Ok(file) = syn::parse_file(text) {
        literals.visit_file(&file);
    }
    literals.lines
}

struct StructLiterals<'a> {
    type_name: &'a str,
    lines: Vec<usize>,
}

impl<'ast> Visit<'ast> for StructLiterals<'_> {
    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if !node.attrs.iter().any(is_test_attribute) {
            visit::visit_item_mod(self, node);
        }
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        if !node.attrs.iter().any(is_test_attribute) {
            visit::visit_item_fn(self, node);
        }
    }

    fn visit_expr_struct(&mut self, node: &'ast syn::ExprStruct) {
        if let Some(last) = node.path.segments.last()
            && last.ident == self.type_name
        {
            self.lines.push(last.ident.span().start().line);
        }
        visit::visit_expr_struct(self, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_creation_is_a_literal_outside_of_tests() {
        let text = "fn a() -> Batch {\n    journal::Batch { run, ..rest() }\n}\n\
                    fn b(batch: &Batch) { let Batch { run, .. } = batch; }\n\
                    #[cfg(test)]\nmod tests {\n    fn c() { Batch { run }; }\n}\n#[test]\nfn d() { Batch { run }; }\n";
        assert_eq!(creations(text, "Batch"), [2]);
    }
}
