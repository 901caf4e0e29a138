//! Constructors for rows of the table of keys, and the names that definitions of settings use.

pub(crate) use super::key::DefaultValue::{Bool, Empty, Int, Number, Text, Unset};
pub(crate) use super::key::SchemaKey;
pub(crate) use super::key::TrustRule::{Ask, Fewer, FewerOfAll, Free, Lower, Off, Towards};
use super::key::{AliasReading, DefaultValue, EnvAlias, TrustRule};
pub(crate) use super::kind::{KeyKind, ListElement, TextLines};
use super::kind::{TimeUnit, ValueRange};

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;
pub(crate) const MONTH_MS: u64 = 30 * 24 * 3_600_000;
/// Smallest limit in dollars: a limit of zero is a mistake.
pub(crate) const MIN_USD: f64 = 0.000_001;

pub(crate) const fn env_alias(name: &'static str) -> EnvAlias {
    EnvAlias { name, reading: AliasReading::AsIs }
}

pub(crate) const fn foreign_alias(name: &'static str) -> EnvAlias {
    EnvAlias { name, reading: AliasReading::Foreign }
}

pub(crate) const fn negated_alias(name: &'static str) -> EnvAlias {
    EnvAlias { name, reading: AliasReading::Negated }
}

pub(crate) const fn int_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Int(ValueRange { min, max })
}

pub(crate) const fn bytes_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Bytes(ValueRange { min, max })
}

pub(crate) const fn seconds_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Time(TimeUnit::Seconds, ValueRange { min, max })
}

pub(crate) const fn millis_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Time(TimeUnit::Millis, ValueRange { min, max })
}

pub(crate) const fn number_kind(min: f64, max: f64) -> KeyKind {
    KeyKind::Number(ValueRange { min, max })
}

pub(crate) const ONE_LINE: KeyKind = KeyKind::Text(TextLines::One);

pub(crate) const fn api_key_schema(path: &'static str, default: DefaultValue) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Variable,
        default,
        TrustRule::Ask,
        "Variable of your environment that holds the API key.",
    )
}

pub(crate) const fn default_model_schema(path: &'static str, default: DefaultValue) -> SchemaKey {
    SchemaKey::new(path, ONE_LINE, default, TrustRule::Ask, "Model used if `model.name` is not set.")
}

pub(crate) const fn base_url_schema(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Address of the server, if it differs from the provider's own.",
    )
}

pub(super) const fn script_schema(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Path,
        DefaultValue::Unset,
        TrustRule::Ask,
        "File with the replies of the scripted provider.",
    )
}
