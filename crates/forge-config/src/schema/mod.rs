//! The schema as data: every key that Forge reads, with its type, default, bounds, names in the environment,
//! meaning, and what an untrusted repository may do to it.
//!
//! Loading, `forge config`, the documentation and the examples are all derived from [`KEYS`]; a key that is not there
//! does not exist, and one that is there has a field in [`crate::Settings`] (checked whenever settings are built).

mod conversation;
mod fallback;
mod kind;
mod nearest_name;
mod routing;
mod table;

pub use fallback::FallbackEntry;
pub use kind::{
    ChoiceSpelling, KeyKind, ListElement, ReadContext, SettingValue, TextLines, TimeUnit, ValueMismatch,
    ValueRange,
};
pub(crate) use kind::{RawSetting, escape_controls, format_number, quote_safely};
pub(crate) use nearest_name::nearest_name;

/// Every key.
pub const KEYS: &[SchemaKey] = &ALL_KEYS;

static ALL_KEYS: [SchemaKey;
    table::BASE_KEYS.len() + routing::ROUTING_KEYS.len() + conversation::CONVERSATION_KEYS.len()] = {
    let mut all = [table::BASE_KEYS[0];
        table::BASE_KEYS.len() + routing::ROUTING_KEYS.len() + conversation::CONVERSATION_KEYS.len()];
    let mut at = 0;
    while at < all.len() {
        let (first, second) = (table::BASE_KEYS.len(), table::BASE_KEYS.len() + routing::ROUTING_KEYS.len());
        all[at] = if at < first {
            table::BASE_KEYS[at]
        } else if at < second {
            routing::ROUTING_KEYS[at - first]
        } else {
            conversation::CONVERSATION_KEYS[at - second]
        };
        at += 1;
    }
    all
};

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct SchemaKey {
    /// Its path, such as `agent.max_iterations`.
    pub path: &'static str,
    /// Its type and bounds.
    pub kind: KeyKind,
    /// Its default.
    pub default: DefaultValue,
    /// What it means, one line.
    pub doc: &'static str,
    /// What an untrusted repository may do to it.
    pub trust: TrustRule,
    /// Further names in the environment, in order of precedence, after the canonical ones.
    pub aliases: &'static [EnvAlias],
    /// Other paths in files that mean the same.
    pub other_paths: &'static [&'static str],
}

/// A default.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
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
pub struct EnvAlias {
    /// The variable.
    pub name: &'static str,
    /// How its value is to be read.
    pub reading: AliasReading,
}

/// How the value of an alias is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasReading {
    /// As it stands.
    AsIs,
    /// True means false.
    Negated,
    /// As it stands; other programs use the variable too, so what can't be read is passed over with a notice.
    Foreign,
}

/// What an untrusted repository's own files may do to a key (SEC-11: tighten only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustRule {
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

impl TrustRule {
    /// Whether `new` over `base` only tightens.
    pub fn allows(self, base: Option<&SettingValue>, new: &SettingValue) -> bool {
        match self {
            Self::Free => true,
            Self::Ask => false,
            Self::Off => matches!(new, SettingValue::Bool(false)),
            Self::Lower => match (base, new) {
                (None, _) => true,
                (Some(SettingValue::Int(base)), SettingValue::Int(new)) => new <= base,
                (Some(SettingValue::Number(base)), SettingValue::Number(new)) => new <= base,
                _ => false,
            },
            Self::Towards(order) => {
                let rank = |value: &SettingValue| match value {
                    SettingValue::Text(text) => order.iter().position(|name| name == text),
                    _ => None,
                };
                matches!((base.and_then(rank), rank(new)), (Some(base), Some(new)) if new <= base)
            }
            Self::FewerOfAll => match (base, new) {
                (None, SettingValue::List(_)) => true,
                (Some(SettingValue::List(base)), SettingValue::List(new)) => {
                    base.is_empty() || (!new.is_empty() && new.iter().all(|item| base.contains(item)))
                }
                _ => false,
            },
            Self::Fewer => match (base, new) {
                (Some(SettingValue::List(base)), SettingValue::List(new)) => {
                    new.iter().all(|item| base.contains(item))
                }
                (None, SettingValue::List(new)) => new.is_empty(),
                _ => false,
            },
        }
    }

    /// The rule in words, for the documentation.
    pub const fn describe(self) -> &'static str {
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

impl SchemaKey {
    /// A key without aliases.
    const fn new(
        path: &'static str,
        kind: KeyKind,
        default: DefaultValue,
        trust: TrustRule,
        doc: &'static str,
    ) -> Self {
        Self { path, kind, default, doc, trust, aliases: &[], other_paths: &[] }
    }

    /// With further names in the environment.
    const fn with_env(mut self, aliases: &'static [EnvAlias]) -> Self {
        self.aliases = aliases;
        self
    }

    /// With further paths in files.
    const fn with_paths(mut self, paths: &'static [&'static str]) -> Self {
        self.other_paths = paths;
        self
    }

    /// The section: the path without its last part; empty for keys at the top.
    pub fn section_name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// The default as a value.
    pub fn default_value(&self) -> Option<SettingValue> {
        match self.default {
            DefaultValue::Unset => None,
            DefaultValue::Bool(value) => Some(SettingValue::Bool(value)),
            DefaultValue::Int(value) => Some(SettingValue::Int(value)),
            DefaultValue::Number(value) => Some(SettingValue::Number(value)),
            DefaultValue::Text(text) => Some(SettingValue::Text(text.to_owned())),
            DefaultValue::Empty => Some(SettingValue::List(Vec::new())),
        }
    }

    /// The variable `FORGE_<SECTION>_<KEY>`.
    pub fn variable_name(&self) -> String {
        variable_of("FORGE", self.path)
    }

    /// Every variable that sets this key, in order of precedence.
    pub fn variable_names(&self) -> Vec<(String, AliasReading)> {
        let mut names = vec![(self.variable_name(), AliasReading::AsIs)];
        names.push((variable_of("AGENT_FORGE", self.path), AliasReading::AsIs));
        for path in self.other_paths {
            names.push((variable_of("FORGE", path), AliasReading::AsIs));
            names.push((variable_of("AGENT_FORGE", path), AliasReading::AsIs));
        }
        names.extend(self.aliases.iter().map(|alias| (alias.name.to_owned(), alias.reading)));
        names
    }
}

fn variable_of(prefix: &str, path: &str) -> String {
    format!("{prefix}_{}", path.replace('.', "_").to_ascii_uppercase())
}

/// The key that is written as `path` in files, be it by its own name or another one.
pub fn find_key(path: &str) -> Option<&'static SchemaKey> {
    KEYS.iter().find(|key| key.path == path || key.other_paths.contains(&path))
}

/// The index of a key in [`KEYS`].
pub(crate) fn key_index(path: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.path == path || key.other_paths.contains(&path))
}

/// Whether some key lies below `path`.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The section names, in the order of the table, each once.
pub fn section_names() -> Vec<&'static str> {
    let mut seen: Vec<&'static str> = Vec::new();
    for key in KEYS {
        if !seen.contains(&key.section_name()) {
            seen.push(key.section_name());
        }
    }
    seen
}
