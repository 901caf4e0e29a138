//! The schema as data: every key that Forge reads, with its type, default, bounds, names in the environment,
//! meaning, and what an untrusted repository may do to it.
//!
//! Loading, `forge config`, the documentation and the examples are all derived from [`KEYS`]; a key that is not there
//! does not exist, and one that is there has a field in [`crate::Settings`] (checked whenever settings are built).

mod conversation;
mod fallback;
mod kind;
mod near;
mod routing;
mod table;

pub use fallback::Fallback;
pub use kind::{Bound, Context, Element, Kind, Lines, Mismatch, Spelling, Unit, Value};
pub(crate) use kind::{Raw, escaped, number_text, shown};
pub(crate) use near::nearest;

/// Every key.
pub const KEYS: &[Key] = &ALL;

static ALL: [Key; table::KEYS.len() + routing::KEYS.len() + conversation::KEYS.len()] = {
    let mut all = [table::KEYS[0]; table::KEYS.len() + routing::KEYS.len() + conversation::KEYS.len()];
    let mut at = 0;
    while at < all.len() {
        let (first, second) = (table::KEYS.len(), table::KEYS.len() + routing::KEYS.len());
        all[at] = if at < first {
            table::KEYS[at]
        } else if at < second {
            routing::KEYS[at - first]
        } else {
            conversation::KEYS[at - second]
        };
        at += 1;
    }
    all
};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path, such as `agent.max_iterations`.
    pub path: &'static str,
    /// Its type and bounds.
    pub kind: Kind,
    /// Its default.
    pub default: Preset,
    /// What it means, one line.
    pub doc: &'static str,
    /// What an untrusted repository may do to it.
    pub trust: Trust,
    /// Further names in the environment, in order of precedence, after the canonical ones.
    pub aliases: &'static [Alias],
    /// Other paths in files that mean the same.
    pub also: &'static [&'static str],
}

/// A default.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// Not set.
    Unset,
    /// True or false.
    Bool(bool),
    /// A whole number, bytes, or a time in the key's unit.
    Int(u64),
    /// A number.
    Number(f64),
    /// A text.
    Text(&'static str),
    /// An empty list.
    Empty,
}

/// A further name of a key in the environment.
#[derive(Clone, Copy, Debug)]
pub struct Alias {
    /// The variable.
    pub name: &'static str,
    /// How its value is to be read.
    pub reading: Reading,
}

/// How the value of an alias is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As it stands.
    Plain,
    /// True means false.
    Negated,
    /// As it stands; other programs use the variable too, so what can't be read is passed over with a notice.
    Foreign,
}

/// What an untrusted repository's own files may do to a key (SEC-11: tighten only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Set it to anything: it only describes the project.
    Free,
    /// Make it smaller. Unset counts as unlimited.
    Lower,
    /// Switch it off.
    Off,
    /// Move it towards the front of this list.
    Towards(&'static [&'static str]),
    /// Take entries away from a list whose emptiness means "everything".
    FewerOfAll,
    /// Take entries away from a list whose emptiness means "nothing".
    Fewer,
    /// Nothing until the user trusts the repository.
    Ask,
}

impl Trust {
    /// Whether `new` over `base` only tightens.
    pub fn allows(self, base: Option<&Value>, new: &Value) -> bool {
        match self {
            Self::Free => true,
            Self::Ask => false,
            Self::Off => matches!(new, Value::Bool(false)),
            Self::Lower => match (base, new) {
                (None, _) => true,
                (Some(Value::Int(base)), Value::Int(new)) => new <= base,
                (Some(Value::Number(base)), Value::Number(new)) => new <= base,
                _ => false,
            },
            Self::Towards(order) => {
                let rank = |value: &Value| match value {
                    Value::Text(text) => order.iter().position(|name| name == text),
                    _ => None,
                };
                matches!((base.and_then(rank), rank(new)), (Some(base), Some(new)) if new <= base)
            }
            Self::FewerOfAll => match (base, new) {
                (None, Value::List(_)) => true,
                (Some(Value::List(base)), Value::List(new)) => {
                    base.is_empty() || (!new.is_empty() && new.iter().all(|item| base.contains(item)))
                }
                _ => false,
            },
            Self::Fewer => match (base, new) {
                (Some(Value::List(base)), Value::List(new)) => new.iter().all(|item| base.contains(item)),
                (None, Value::List(new)) => new.is_empty(),
                _ => false,
            },
        }
    }

    /// The rule in words, for the documentation.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Free => "any value",
            Self::Lower => "lower only",
            Self::Off => "`false` only",
            Self::Towards(_) => "stricter only",
            Self::FewerOfAll | Self::Fewer => "fewer entries only",
            Self::Ask => "no",
        }
    }
}

impl Key {
    /// A key without aliases.
    const fn new(path: &'static str, kind: Kind, default: Preset, trust: Trust, doc: &'static str) -> Self {
        Self { path, kind, default, doc, trust, aliases: &[], also: &[] }
    }

    /// With further names in the environment.
    const fn env(mut self, aliases: &'static [Alias]) -> Self {
        self.aliases = aliases;
        self
    }

    /// With further paths in files.
    const fn also(mut self, paths: &'static [&'static str]) -> Self {
        self.also = paths;
        self
    }

    /// The section: the path without its last part; empty for keys at the top.
    pub fn section(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The default as a value.
    pub fn default_value(&self) -> Option<Value> {
        match self.default {
            Preset::Unset => None,
            Preset::Bool(value) => Some(Value::Bool(value)),
            Preset::Int(value) => Some(Value::Int(value)),
            Preset::Number(value) => Some(Value::Number(value)),
            Preset::Text(text) => Some(Value::Text(text.to_owned())),
            Preset::Empty => Some(Value::List(Vec::new())),
        }
    }

    /// The variable `FORGE_<SECTION>_<KEY>`.
    pub fn variable(&self) -> String {
        variable_of("FORGE", self.path)
    }

    /// Every variable that sets this key, in order of precedence.
    pub fn variables(&self) -> Vec<(String, Reading)> {
        let mut names = vec![(self.variable(), Reading::Plain)];
        names.push((variable_of("AGENT_FORGE", self.path), Reading::Plain));
        for path in self.also {
            names.push((variable_of("FORGE", path), Reading::Plain));
            names.push((variable_of("AGENT_FORGE", path), Reading::Plain));
        }
        names.extend(self.aliases.iter().map(|alias| (alias.name.to_owned(), alias.reading)));
        names
    }
}

fn variable_of(prefix: &str, path: &str) -> String {
    format!("{prefix}_{}", path.replace('.', "_").to_ascii_uppercase())
}

/// The key that is written as `path` in files, be it by its own name or another one.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path || key.also.contains(&path))
}

/// The index of a key in [`KEYS`].
pub(crate) fn position(path: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.path == path || key.also.contains(&path))
}

/// Whether some key lies below `path`.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The section names, in the order of the table, each once.
pub fn sections() -> Vec<&'static str> {
    let mut seen: Vec<&'static str> = Vec::new();
    for key in KEYS {
        if !seen.contains(&key.section()) {
            seen.push(key.section());
        }
    }
    seen
}
