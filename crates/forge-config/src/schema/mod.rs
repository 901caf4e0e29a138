//! The schema as data: every key that Forge reads, with its type, default, bounds, environment variables, description,
//! and the changes that an untrusted repository may make.
//!
//! Loading, `forge config`, the documentation and the examples are all derived from [`KEYS`]. Keys outside of it do not
//! exist, and every key in it has a field in [`crate::ForgeSettings`] (checked whenever settings are built).

mod conversation;
mod fallback;
mod kind;
mod nearest_name;
mod routing;
mod rows;
mod table;
mod value;

pub use fallback::FallbackEntry;
pub use kind::{ChoiceSpelling, KeyKind, ListElement, ReadContext, TextLines, TimeUnit, ValueRange};
pub(crate) use nearest_name::nearest_name;
pub(crate) use value::{RawSetting, escape_controls, format_number, quote_safely};
pub use value::{SettingValue, ValueMismatch};

/// All keys.
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

/// A key of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct SchemaKey {
    /// Path, such as `agent.max_iterations`.
    pub path: &'static str,
    /// Type and bounds.
    pub kind: KeyKind,
    /// Default value.
    pub default: DefaultValue,
    /// Description of one line.
    pub doc: &'static str,
    /// Changes that an untrusted repository may make.
    pub trust: TrustRule,
    /// Further environment variables in order of precedence, after the canonical ones.
    pub aliases: &'static [EnvAlias],
    /// Alternative paths in files.
    pub other_paths: &'static [&'static str],
}

/// A default value.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// Not set.
    Unset,
    /// True or false.
    Bool(bool),
    /// A whole number, a number of bytes, or a time in the key's unit.
    Int(u64),
    /// A number.
    Number(f64),
    /// A text.
    Text(&'static str),
    /// An empty list.
    Empty,
}

/// A further environment variable of a key.
#[derive(Clone, Copy, Debug)]
pub struct EnvAlias {
    /// Name of the variable.
    pub name: &'static str,
    /// Interpretation of the value.
    pub reading: AliasReading,
}

/// Interpretation of an alias's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AliasReading {
    /// The value is taken unchanged.
    AsIs,
    /// True means false.
    Negated,
    /// The value is taken unchanged. Other programs use the variable too, so an invalid value is ignored with a notice.
    Foreign,
}

/// Changes that an untrusted repository's own files may make to a key (SEC-11: tighten only).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustRule {
    /// Any value, because the key only describes the project.
    Free,
    /// A smaller value. An unset value counts as unlimited.
    Lower,
    /// False only.
    Off,
    /// A value closer to the front of this list.
    Towards(&'static [&'static str]),
    /// Fewer entries of a list that means "everything" when it is empty.
    FewerOfAll,
    /// Fewer entries of a list that means "nothing" when it is empty.
    Fewer,
    /// No change until the user trusts the repository.
    Ask,
}

impl TrustRule {
    /// Returns whether `new` in place of `base` only tightens the setting.
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

    /// Describes the rule for the documentation.
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
    /// Creates a key without aliases.
    const fn new(
        path: &'static str,
        kind: KeyKind,
        default: DefaultValue,
        trust: TrustRule,
        doc: &'static str,
    ) -> Self {
        Self { path, kind, default, doc, trust, aliases: &[], other_paths: &[] }
    }

    /// Adds environment variables.
    const fn with_env(mut self, aliases: &'static [EnvAlias]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Adds alternative paths in files.
    const fn with_paths(mut self, paths: &'static [&'static str]) -> Self {
        self.other_paths = paths;
        self
    }

    /// Returns the section, which is the path without its last part; empty for top-level keys.
    pub fn section_name(&self) -> &'static str {
        self.path.rsplit_once('.').map_or("", |(section, _)| section)
    }

    /// Returns the default as a value.
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

    /// Returns the name of the variable `FORGE_<SECTION>_<KEY>`.
    pub fn variable_name(&self) -> String {
        variable_of("FORGE", self.path)
    }

    /// Returns every variable that sets this key, in order of precedence.
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

/// Finds the key with the path or alternative path `path`.
pub fn find_key(path: &str) -> Option<&'static SchemaKey> {
    KEYS.iter().find(|key| key.path == path || key.other_paths.contains(&path))
}

/// Returns the index of a key in [`KEYS`].
pub(crate) fn key_index(path: &str) -> Option<usize> {
    KEYS.iter().position(|key| key.path == path || key.other_paths.contains(&path))
}

/// Returns whether any key lies below `path`.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Returns the section names without duplicates, in the order of the table.
pub fn section_names() -> Vec<&'static str> {
    let mut seen: Vec<&'static str> = Vec::new();
    for key in KEYS {
        if !seen.contains(&key.section_name()) {
            seen.push(key.section_name());
        }
    }
    seen
}
