//! Checks of the structure of this repository.
//!
//! Every rule is a function from a [`Tree`] (the repository's text files) and the [`Rules`] in `layers.toml` to a list
//! of [`Violation`]s. Rules never touch the disk, so each of them is also tested against a small tree that breaks it on
//! purpose.
//!
//! `cargo test -p xtask` runs all of them; `cargo run -p xtask -- tidy` prints the same list.

mod census;
mod circles;
mod docs;
mod figures;
mod items;
mod layers;
mod programs;
mod reads;
mod rules;
mod rust;
mod settings_docs;
mod shape;
mod size;
mod source;
mod surfaces;
mod text;
mod tree;
mod words;

pub use figures::Figures;
pub use rules::{
    AllowedCircle, Budgets, Census, CensusKind, CrateRule, DirectOpen, Fence, Rules, RulesError, SingleMaker,
    SurfaceRules, WordRules,
};
pub use settings_docs::write_settings_docs;
pub use tree::{Package, Tree, TreeError};

use std::fmt;

/// One place where the tree breaks one rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// Path from the root of the repository, with forward slashes.
    pub path: String,
    /// Line, counted from 1; 0 for the whole file or directory.
    pub line: usize,
    /// Short name of the rule, as listed in `docs/testing.md`.
    pub rule: &'static str,
    /// Description of the problem and its fix.
    pub message: String,
}

impl Violation {
    pub(crate) fn new(path: &str, line: usize, rule: &'static str, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, rule, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        write!(f, ": [{}] {}", self.rule, self.message)
    }
}

/// A check over the whole tree.
pub type Rule = fn(&Tree, &Rules) -> Vec<Violation>;

/// All rules by name, in the order of their findings.
pub const RULES: &[(&str, Rule)] = &[
    ("crates-listed", layers::crates_listed),
    ("crate-names", layers::crate_names),
    ("imports", layers::imports),
    ("fences", layers::fences),
    ("manifests", layers::manifests),
    ("file-size", size::files),
    ("function-size", size::functions),
    ("crate-size", size::crates),
    ("census", census::items),
    ("port-size", census::ports),
    ("module-docs", source::module_docs),
    ("unsafe", source::unsafe_code),
    ("sleeps", source::sleeps),
    ("direct-opens", reads::direct_opens),
    ("rendered-docs", settings_docs::rendered),
    ("crate-table", docs::crate_table),
    ("links", docs::links),
    ("hosts-and-paths", text::forbidden),
    ("vendors", text::vendors),
    ("program-starts", programs::program_starts),
    ("circles", shape::import_circles),
    ("single-makers", shape::single_makers),
    ("surface-texts", surfaces::surface_texts),
    ("names", words::names),
    ("constants", words::constants),
    ("type-names", words::type_names),
    ("prose", words::prose),
];

/// Runs every rule and returns all findings, sorted by location.
pub fn check_all(tree: &Tree, rules: &Rules) -> Vec<Violation> {
    let mut found: Vec<Violation> = RULES.iter().flat_map(|(_, rule)| rule(tree, rules)).collect();
    found.sort();
    found
}

/// Runs the rule called `name`; returns `None` if there is no such rule.
pub fn check_one(name: &str, tree: &Tree, rules: &Rules) -> Option<Vec<Violation>> {
    RULES.iter().find(|(known, _)| *known == name).map(|(_, rule)| rule(tree, rules))
}
