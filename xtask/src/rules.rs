//! The contents of `layers.toml`: permitted imports and size limits.

use std::collections::BTreeMap;

use thiserror::Error;
use toml_edit::{DocumentMut, Item, TableLike};

use crate::Tree;

/// Path of the rules in the repository.
const PATH: &str = "layers.toml";

/// Reasons why `layers.toml` could not be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RulesError {
    /// The file does not exist.
    #[error("{PATH} is missing at the root of the repository")]
    Missing,
    /// The file is not TOML.
    #[error("{PATH} is not valid TOML: {0}")]
    Syntax(String),
    /// A key is missing or has the wrong type.
    #[error("{PATH}: {0}")]
    Key(String),
}

/// Permitted imports of one crate from the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrateRule {
    /// `L0` to `L5`, or `dev`.
    pub layer: String,
    /// Crates of the workspace that it may depend on.
    pub may_import: Vec<String>,
}

/// Restrictions on the use of third-party crates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Third-party crates behind this fence.
    pub crates: Vec<String>,
    /// The only own crates that may use them; `None` if `never` applies instead.
    pub only: Option<Vec<String>>,
    /// Own crates that may not use them.
    pub never: Vec<String>,
    /// Reason shown with each finding.
    pub reason: String,
}

/// The kind of limit in a census.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CensusKind {
    /// At most this many variants.
    AtMost(usize),
    /// Exactly this many variants.
    Exactly(usize),
}

/// A count of an enum's variants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// Crate that must define the enum.
    pub package: String,
    /// Name of the enum.
    pub item: String,
    /// Permitted number of variants.
    pub count: CensusKind,
}

/// A source file or directory that is exempt from a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectOpen {
    /// Prefix of the path in the repository.
    pub path: String,
    /// Reason for the exception.
    pub reason: String,
}

/// Files that import one another, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedCircle {
    /// Paths in the repository, sorted.
    pub files: Vec<String>,
    /// Reason for the exception.
    pub reason: String,
}

/// A type that one file alone creates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SingleMaker {
    /// Name of the type.
    pub type_name: String,
    /// Path of the file in the repository.
    pub path: String,
    /// Reason shown with each finding.
    pub reason: String,
}

/// Size limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Lines of a source file.
    pub file_lines: usize,
    /// Lines of a function, from its `fn` to its closing brace.
    pub function_lines: usize,
    /// Lines of a crate's `src` directory.
    pub crate_lines: usize,
    /// Methods of a port.
    pub port_methods: usize,
}

/// Words of names and prose.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WordRules {
    /// Words that no name may consist of or begin with.
    pub names: Vec<String>,
    /// Exceptions to `names`.
    pub allowed_names: Vec<String>,
    /// Names that any number of types may have.
    pub shared_types: Vec<String>,
    /// Last words of an integer constant's name that need a unit after them.
    pub unitless: Vec<String>,
    /// Words that no doc comment begins with.
    pub openings: Vec<String>,
    /// Words that comments do without.
    pub prose: Vec<String>,
}

/// Texts that only surfaces may contain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SurfaceRules {
    /// Crates that may name commands and flags.
    pub crates: Vec<String>,
    /// Name of the program.
    pub program: String,
    /// Prefix of the paths of the sources that define the arguments.
    pub arguments: String,
    /// Name of the enum of commands.
    pub commands: String,
    /// Flags that texts may name because other programs have them as well.
    pub ambiguous_flags: Vec<String>,
    /// Sources that name commands or flags although they are below the surfaces.
    pub exceptions: Vec<DirectOpen>,
}

/// All rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Crates by name.
    pub crates: BTreeMap<String, CrateRule>,
    /// Third-party fences.
    pub fences: Vec<Fence>,
    /// Counts of enums.
    pub census: Vec<Census>,
    /// Size limits.
    pub budgets: Budgets,
    /// Crate that defines the ports as traits.
    pub ports_crate: String,
    /// Crate that any other may have as a dev-dependency.
    pub testkit: String,
    /// The only crates that may contain unsafe code.
    pub unsafe_crates: Vec<String>,
    /// Words that must not occur in crate names.
    pub banned_names: Vec<String>,
    /// Strings that must not occur in the tree; each is split into pieces so that the list does not match itself.
    pub forbidden_texts: Vec<String>,
    /// Names of model vendors.
    pub vendors: Vec<String>,
    /// The only crates with sources that may contain such a name as a string.
    pub vendor_crates: Vec<String>,
    /// The crate through which files are opened on the host.
    pub reader: String,
    /// Sources that open files themselves.
    pub direct_opens: Vec<DirectOpen>,
    /// The only sources that start programs.
    pub program_starts: Vec<String>,
    /// Circles of imports between files that may exist.
    pub circles: Vec<AllowedCircle>,
    /// Types that one file alone creates.
    pub makers: Vec<SingleMaker>,
    /// Texts that only surfaces may contain.
    pub surfaces: SurfaceRules,
    /// Words of names and prose.
    pub words: WordRules,
}

impl Rules {
    /// Reads the rules from the tree itself.
    ///
    /// # Errors
    /// `layers.toml` is missing, is not TOML, or lacks a key.
    pub fn from_tree(tree: &Tree) -> Result<Self, RulesError> {
        Self::parse(tree.text(PATH).ok_or(RulesError::Missing)?)
    }

    /// Reads rules from the text of a `layers.toml`.
    ///
    /// # Errors
    /// As [`Rules::from_tree`].
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let document: DocumentMut = text.parse().map_err(|error| RulesError::Syntax(format!("{error}")))?;
        let root = document.as_table();
        let names = table(root, "names")?;
        let budgets = table(root, "budgets")?;
        Ok(Self {
            crates: crates(table(root, "crates")?)?,
            fences: tables(root, "fence")?.into_iter().map(fence).collect::<Result<_, _>>()?,
            census: tables(root, "census")?.into_iter().map(census).collect::<Result<_, _>>()?,
            budgets: Budgets {
                file_lines: number(budgets, "file_lines")?,
                function_lines: number(budgets, "function_lines")?,
                crate_lines: number(budgets, "crate_lines")?,
                port_methods: number(budgets, "port_methods")?,
            },
            ports_crate: string(names, "ports")?,
            testkit: string(names, "testkit")?,
            unsafe_crates: strings(names, "unsafe_code")?,
            banned_names: strings(names, "banned")?,
            forbidden_texts: pieces(table(root, "text")?)?,
            vendors: strings(table(root, "vendors")?, "names")?,
            vendor_crates: strings(table(root, "vendors")?, "only")?,
            reader: string(names, "reader")?,
            direct_opens: tables(root, "direct_open")?
                .into_iter()
                .map(direct_open)
                .collect::<Result<_, _>>()?,
            program_starts: strings(table(root, "programs")?, "started_by")?,
            circles: tables(root, "circle")?.into_iter().map(circle).collect::<Result<_, _>>()?,
            makers: tables(root, "maker")?.into_iter().map(maker).collect::<Result<_, _>>()?,
            surfaces: surfaces(table(root, "surfaces")?)?,
            words: words(table(root, "words")?)?,
        })
    }
}

fn crates(listed: &dyn TableLike) -> Result<BTreeMap<String, CrateRule>, RulesError> {
    listed
        .iter()
        .map(|(name, item)| {
            let entry = item.as_table_like().ok_or_else(|| wrong(name, "a table"))?;
            let rule =
                CrateRule { layer: string(entry, "layer")?, may_import: strings(entry, "may_import")? };
            Ok((name.to_owned(), rule))
        })
        .collect()
}

fn fence(entry: &dyn TableLike) -> Result<Fence, RulesError> {
    let only = entry.get("only").map(|_| strings(entry, "only")).transpose()?;
    let never = entry.get("never").map(|_| strings(entry, "never")).transpose()?.unwrap_or_default();
    if only.is_none() && never.is_empty() {
        return Err(RulesError::Key("a fence needs `only` or `never`".to_owned()));
    }
    Ok(Fence { crates: strings(entry, "crates")?, only, never, reason: string(entry, "reason")? })
}

fn direct_open(entry: &dyn TableLike) -> Result<DirectOpen, RulesError> {
    Ok(DirectOpen { path: string(entry, "path")?, reason: string(entry, "reason")? })
}

fn circle(entry: &dyn TableLike) -> Result<AllowedCircle, RulesError> {
    let mut files = strings(entry, "files")?;
    files.sort();
    Ok(AllowedCircle { files, reason: string(entry, "reason")? })
}

fn maker(entry: &dyn TableLike) -> Result<SingleMaker, RulesError> {
    Ok(SingleMaker {
        type_name: string(entry, "type")?,
        path: string(entry, "path")?,
        reason: string(entry, "reason")?,
    })
}

fn census(entry: &dyn TableLike) -> Result<Census, RulesError> {
    let count = if entry.contains_key("exactly") {
        CensusKind::Exactly(number(entry, "exactly")?)
    } else {
        CensusKind::AtMost(number(entry, "at_most")?)
    };
    Ok(Census { package: string(entry, "crate")?, item: string(entry, "enum")?, count })
}

fn surfaces(entry: &dyn TableLike) -> Result<SurfaceRules, RulesError> {
    let exceptions = if entry.contains_key("exception") { tables(entry, "exception")? } else { Vec::new() };
    Ok(SurfaceRules {
        crates: strings(entry, "crates")?,
        program: string(entry, "program")?,
        arguments: string(entry, "arguments")?,
        commands: string(entry, "commands")?,
        ambiguous_flags: strings(entry, "ambiguous_flags")?,
        exceptions: exceptions.into_iter().map(direct_open).collect::<Result<_, _>>()?,
    })
}

fn words(entry: &dyn TableLike) -> Result<WordRules, RulesError> {
    Ok(WordRules {
        names: strings(entry, "names")?,
        allowed_names: strings(entry, "allowed_names")?,
        shared_types: strings(entry, "shared_types")?,
        unitless: strings(entry, "unitless")?,
        openings: strings(entry, "openings")?,
        prose: strings(entry, "prose")?,
    })
}

fn pieces(text: &dyn TableLike) -> Result<Vec<String>, RulesError> {
    let lists =
        text.get("forbidden").and_then(Item::as_array).ok_or_else(|| wrong("forbidden", "an array"))?;
    lists
        .iter()
        .map(|list| {
            let parts = list.as_array().ok_or_else(|| wrong("forbidden", "an array of arrays"))?;
            Ok(parts.iter().filter_map(|part| part.as_str()).collect::<String>())
        })
        .collect()
}

fn wrong(key: &str, wanted: &str) -> RulesError {
    RulesError::Key(format!("`{key}` must be {wanted}"))
}

fn table<'a>(parent: &'a dyn TableLike, key: &str) -> Result<&'a dyn TableLike, RulesError> {
    parent.get(key).and_then(Item::as_table_like).ok_or_else(|| wrong(key, "a table"))
}

fn tables<'a>(parent: &'a dyn TableLike, key: &str) -> Result<Vec<&'a dyn TableLike>, RulesError> {
    let array =
        parent.get(key).and_then(Item::as_array_of_tables).ok_or_else(|| wrong(key, "an array of tables"))?;
    Ok(array.iter().map(|entry| entry as &dyn TableLike).collect())
}

fn string(parent: &dyn TableLike, key: &str) -> Result<String, RulesError> {
    parent.get(key).and_then(Item::as_str).map(str::to_owned).ok_or_else(|| wrong(key, "a string"))
}

fn strings(parent: &dyn TableLike, key: &str) -> Result<Vec<String>, RulesError> {
    let array = parent.get(key).and_then(Item::as_array).ok_or_else(|| wrong(key, "an array of strings"))?;
    array
        .iter()
        .map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(key, "an array of strings")))
        .collect()
}

fn number(parent: &dyn TableLike, key: &str) -> Result<usize, RulesError> {
    parent
        .get(key)
        .and_then(Item::as_integer)
        .and_then(|value| usize::try_from(value).ok())
        .ok_or_else(|| wrong(key, "a whole number"))
}
