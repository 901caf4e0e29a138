//! Metrics of the sources: names, comments, import cycles, sizes.
//!
//! Tests are excluded: files below `tests/`, `examples/` and `benches/`, files named `tests.rs`, `#[cfg(test)]` modules
//! and `#[test]` functions, and the crates of layer `dev`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use syn::visit::{self, Visit};

use crate::circles::circles;
use crate::rust::is_test_attribute;
use crate::{Rules, Tree};

/// Type names that many crates share by convention.
const SHARED_BY_CUSTOM: &[&str] = &["Error", "Options", "Config", "Request", "Response"];
/// First words of comments that lack a subject.
pub(crate) const HOLLOW_OPENINGS: &[&str] =
    &["What", "Whom", "Whose", "Which", "It", "Its", "Why", "Where", "Whoever", "Who", "How"];
/// Words typical of translated prose.
pub(crate) const STILTED_WORDS: &[&str] = &[
    "stand", "stands", "stood", "standing", "beside", "whose", "whoever", "whomever", "nobody", "somebody",
    "anybody",
];

/// All metrics.
#[derive(Debug, Default, PartialEq)]
pub struct Figures {
    types: usize,
    one_word_types: usize,
    shared_types: usize,
    functions: usize,
    one_word_functions: usize,
    constants: usize,
    one_word_constants: usize,
    docs: usize,
    hollow_docs: usize,
    comment_words: usize,
    stilted_words: usize,
    circles: Vec<Vec<String>>,
    largest_crate: (String, usize),
    production_lines: usize,
}

impl Figures {
    /// Counts everything in a tree.
    pub fn count(tree: &Tree, rules: &Rules) -> Self {
        let mut figures = Self::default();
        let mut names: HashMap<String, usize> = HashMap::new();
        let mut crates: BTreeMap<&str, usize> = BTreeMap::new();
        for (path, text) in tree.rust_files() {
            let Some(package) = tree.package_of(path) else { continue };
            let dev = rules.crates.get(&package.name).is_none_or(|rule| rule.layer == "dev");
            if dev || !path.contains("/src/") || path.ends_with("/tests.rs") {
                continue;
            }
            *crates.entry(&package.name).or_default() += text.lines().count();
            let Ok(file) = syn::parse_file(text) else { continue };
            let mut items = Items::default();
            items.visit_file(&file);
            figures.production_lines += text.lines().count().saturating_sub(items.test_lines);
            for name in &items.types {
                *names.entry(name.clone()).or_default() += 1;
            }
            figures.add(&items);
            figures.read_comments(text);
        }
        let custom = |name: &&String| !SHARED_BY_CUSTOM.contains(&name.as_str());
        figures.shared_types =
            names.iter().filter(|(name, count)| **count > 1 && custom(name)).map(|(_, count)| count).sum();
        figures.circles = circles(tree);
        if let Some((name, lines)) = crates.into_iter().max_by_key(|(_, lines)| *lines) {
            figures.largest_crate = (name.to_owned(), lines);
        }
        figures
    }

    fn add(&mut self, items: &Items) {
        self.types += items.types.len();
        self.one_word_types += items.types.iter().filter(|name| is_one_word_type(name)).count();
        self.functions += items.functions.len();
        self.one_word_functions += items.functions.iter().filter(|name| !name.contains('_')).count();
        self.constants += items.constants.len();
        self.one_word_constants += items.constants.iter().filter(|name| !name.contains('_')).count();
        self.docs += items.docs.len();
        self.hollow_docs += items.docs.iter().filter(|doc| is_hollow(doc)).count();
    }

    fn read_comments(&mut self, text: &str) {
        for line in text.lines() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            for word in comment.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
                self.comment_words += 1;
                self.stilted_words += usize::from(is_stilted(word));
            }
        }
    }
}

/// Returns whether a comment begins without a subject.
pub(crate) fn is_hollow(doc: &str) -> bool {
    let first = doc.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    HOLLOW_OPENINGS.contains(&first)
}

/// Returns whether a word is typical of translated prose.
pub(crate) fn is_stilted(word: &str) -> bool {
    STILTED_WORDS.iter().any(|stilted| word.eq_ignore_ascii_case(stilted))
}

/// Returns whether a type's name has at most one capital letter, so that it is one word.
fn is_one_word_type(name: &str) -> bool {
    name.chars().filter(|c| c.is_uppercase()).count() <= 1
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
        let mut row = |name: &str, value: String| writeln!(f, "{name:<46}{value}");
        row("one-word types", percent(self.one_word_types, self.types))?;
        row("one-word functions", percent(self.one_word_functions, self.functions))?;
        row("one-word constants", percent(self.one_word_constants, self.constants))?;
        row("types that share their name", percent(self.shared_types, self.types))?;
        row("doc comments that begin without a subject", percent(self.hollow_docs, self.docs))?;
        let stilted = 100.0 * share(self.stilted_words, self.comment_words);
        row("stilted words per 10,000 words of comments", format!("{stilted:.1}"))?;
        row("import cycles between files", self.circles.len().to_string())?;
        let (name, lines) = &self.largest_crate;
        row("largest crate", format!("{lines} lines ({name})"))?;
        row("production lines", self.production_lines.to_string())?;
        self.circles.iter().try_for_each(|circle| writeln!(f, "  circle: {}", circle.join(", ")))
    }
}

fn percent(part: usize, whole: usize) -> String {
    let share = 100.0 * part as f64 / whole.max(1) as f64;
    format!("{share:.1} %  ({part} of {whole})")
}

/// Names and comments of one file, without its tests.
#[derive(Default)]
struct Items {
    types: Vec<String>,
    functions: Vec<String>,
    constants: Vec<String>,
    /// First line of each doc comment.
    docs: Vec<String>,
    test_lines: usize,
}

impl Items {
    /// Records the doc comment of an item; returns `false` if the item exists in tests only.
    fn enter(&mut self, attributes: &[syn::Attribute]) -> bool {
        if attributes.iter().any(is_test_attribute) {
            return false;
        }
        if let Some(doc) = attributes.iter().find_map(doc_line) {
            self.docs.push(doc);
        }
        true
    }
}

fn doc_line(attribute: &syn::Attribute) -> Option<String> {
    let syn::Meta::NameValue(pair) = &attribute.meta else { return None };
    match &pair.value {
        syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if pair.path.is_ident("doc") => {
            Some(text.value().trim().to_owned())
        }
        _ => None,
    }
}

macro_rules! visit_items {
    ($($method:ident $node:ident $list:ident),* $(,)?) => {$(
        fn $method(&mut self, node: &'ast syn::$node) {
            if self.enter(&node.attrs) {
                self.$list.push(node.ident.to_string());
                visit::$method(self, node);
            }
        }
    )*};
}

impl<'ast> Visit<'ast> for Items {
    visit_items! {
        visit_item_struct ItemStruct types,
        visit_item_enum ItemEnum types,
        visit_item_union ItemUnion types,
        visit_item_trait ItemTrait types,
        visit_item_type ItemType types,
        visit_item_const ItemConst constants,
        visit_item_static ItemStatic constants,
    }

    fn visit_item_mod(&mut self, node: &'ast syn::ItemMod) {
        if self.enter(&node.attrs) {
            visit::visit_item_mod(self, node);
        } else if let Some((brace, _)) = &node.content {
            let (start, end) = (node.mod_token.span.start().line, brace.span.close().end().line);
            self.test_lines += end + 1 - start;
        }
    }

    fn visit_item_fn(&mut self, node: &'ast syn::ItemFn) {
        if self.enter(&node.attrs) {
            self.functions.push(node.sig.ident.to_string());
            visit::visit_item_fn(self, node);
        }
    }

    fn visit_item_impl(&mut self, node: &'ast syn::ItemImpl) {
        if !self.enter(&node.attrs) {
            return;
        }
        for item in &node.items {
            match item {
                // Method names of a trait are counted where it is declared.
                syn::ImplItem::Fn(function) if node.trait_.is_none() && self.enter(&function.attrs) => {
                    self.functions.push(function.sig.ident.to_string());
                }
                syn::ImplItem::Const(constant) if node.trait_.is_none() && self.enter(&constant.attrs) => {
                    self.constants.push(constant.ident.to_string());
                }
                _ => {}
            }
        }
        visit::visit_item_impl(self, node);
    }

    fn visit_trait_item_fn(&mut self, node: &'ast syn::TraitItemFn) {
        if self.enter(&node.attrs) {
            self.functions.push(node.sig.ident.to_string());
            visit::visit_trait_item_fn(self, node);
        }
    }

    fn visit_field(&mut self, node: &'ast syn::Field) {
        self.enter(&node.attrs);
    }

    fn visit_variant(&mut self, node: &'ast syn::Variant) {
        self.enter(&node.attrs);
        visit::visit_variant(self, node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Items {
        let mut items = Items::default();
        items.visit_file(&syn::parse_file(text).unwrap());
        items
    }

    #[test]
    fn names_outside_of_tests_are_counted_once() {
        let found = items(
            "/// A lease.\nstruct Lease;\nimpl Lease { const MAX: u8 = 1; fn take(&self) {} }\n\
             impl Clone for Lease { fn clone(&self) -> Self { Lease } }\ntrait Port { fn find_run(&self); }\n\
             #[cfg(test)]\nmod tests {\n struct Rig;\n fn rig() {}\n}\n#[test]\nfn alone() {}\n",
        );
        assert_eq!(found.types, ["Lease", "Port"]);
        assert_eq!(found.functions, ["take", "find_run"]);
        assert_eq!(found.constants, ["MAX"]);
        assert_eq!((found.docs.as_slice(), found.test_lines), (["A lease.".to_owned()].as_slice(), 4));
    }

    #[test]
    fn openings_and_words_are_judged_whole() {
        assert!(is_hollow("What it holds.") && is_hollow("It waits.") && !is_hollow("Iterates over it."));
        assert!(is_stilted("Nobody") && is_stilted("stands") && !is_stilted("standard"));
        assert!(is_one_word_type("Lease") && !is_one_word_type("RunLease"));
    }
}
