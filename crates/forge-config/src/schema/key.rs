//! A row of the schema: path, type, default, description, and the changes that an untrusted repository may make.

use super::kind::{KeyKind, ReadContext};
use super::value::SettingValue;
use crate::error::{ConfigError, ConfigErrors, ValueOrigin};

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
    /// Flags of the command line that set the key; the first one is that of `forge run`, if it has one.
    pub flags: &'static [&'static str],
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
    /// Creates a key without aliases. White space at the beginning of the description is removed.
    pub(crate) const fn new(
        path: &'static str,
        kind: KeyKind,
        default: DefaultValue,
        trust: TrustRule,
        doc: &'static str,
    ) -> Self {
        let doc = doc.trim_ascii_start();
        Self { path, kind, default, doc, trust, aliases: &[], other_paths: &[], flags: &[] }
    }

    /// Adds environment variables.
    pub(crate) const fn with_env(mut self, aliases: &'static [EnvAlias]) -> Self {
        self.aliases = aliases;
        self
    }

    /// Adds alternative paths in files.
    pub(crate) const fn with_paths(mut self, paths: &'static [&'static str]) -> Self {
        self.other_paths = paths;
        self
    }

    /// Adds flags of the command line.
    pub(crate) const fn with_flags(mut self, flags: &'static [&'static str]) -> Self {
        self.flags = flags;
        self
    }

    /// Returns the same key with another path.
    pub(crate) const fn at_path(mut self, path: &'static str) -> Self {
        self.path = path;
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

    /// Reads the value of a flag.
    ///
    /// # Errors
    /// If the value is invalid.
    pub fn read_flag(
        &self,
        value: &str,
        name: &str,
        context: ReadContext<'_>,
    ) -> Result<SettingValue, ConfigErrors> {
        self.kind.read_text(value, context).map_err(|wrong| {
            let origin = ValueOrigin::Flag { name: name.to_owned() };
            ConfigError::new(origin, self.kind.expected_text(), wrong.found)
                .with_key(self.path)
                .with_optional_hint(wrong.hint)
                .into_errors()
        })
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
