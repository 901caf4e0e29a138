//! Metrics of the sources: names, comments, import cycles, sizes.
//!
//! Tests are excluded: files below `tests/`, `examples/` and `benches/`, files named `tests.rs`, `#[cfg(test)]` modules
//! and `#[test]` functions, and the crates of layer `dev`.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use crate::circles::circles;
use crate::items::Items;
use crate::words::{is_hollow, is_stilted};
use crate::{Rules, Tree, WordRules};

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
            let Some(items) = Items::read(text) else { continue };
            figures.production_lines += text.lines().count().saturating_sub(items.test_lines);
            for name in &items.types {
                *names.entry(name.text.clone()).or_default() += 1;
            }
            figures.add(&items, &rules.words);
            figures.read_comments(text, &rules.words);
        }
        let custom = |name: &&String| !rules.words.shared_types.contains(name);
        figures.shared_types =
            names.iter().filter(|(name, count)| **count > 1 && custom(name)).map(|(_, count)| count).sum();
        figures.circles = circles(tree);
        if let Some((name, lines)) = crates.into_iter().max_by_key(|(_, lines)| *lines) {
            figures.largest_crate = (name.to_owned(), lines);
        }
        figures
    }

    fn add(&mut self, items: &Items, words: &WordRules) {
        self.types += items.types.len();
        self.one_word_types += items.types.iter().filter(|name| is_one_word_type(&name.text)).count();
        self.functions += items.functions.len();
        self.one_word_functions += items.functions.iter().filter(|name| !name.text.contains('_')).count();
        self.constants += items.constants.len();
        self.one_word_constants += items.constants.iter().filter(|name| !name.text.contains('_')).count();
        self.docs += items.docs.len();
        self.hollow_docs += items.docs.iter().filter(|doc| is_hollow(&doc.text, words)).count();
    }

    fn read_comments(&mut self, text: &str, words: &WordRules) {
        for line in text.lines() {
            let Some(comment) = line.trim_start().strip_prefix("//") else { continue };
            for word in comment.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty()) {
                self.comment_words += 1;
                self.stilted_words += usize::from(is_stilted(word, words));
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_with_one_capital_is_one_word() {
        assert!(is_one_word_type("Lease") && !is_one_word_type("RunLease"));
    }
}
