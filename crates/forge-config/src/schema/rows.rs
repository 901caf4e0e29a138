//! Constructors for rows of the table of keys.

use super::{
    AliasReading, DefaultValue, EnvAlias, KeyKind, SchemaKey, TextLines, TimeUnit, TrustRule, ValueRange,
};

pub(super) const fn env_alias(name: &'static str) -> EnvAlias {
    EnvAlias { name, reading: AliasReading::AsIs }
}

pub(super) const fn foreign_alias(name: &'static str) -> EnvAlias {
    EnvAlias { name, reading: AliasReading::Foreign }
}

pub(super) const fn int_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Int(ValueRange { min, max })
}

pub(super) const fn bytes_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Bytes(ValueRange { min, max })
}

pub(super) const fn seconds_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Time(TimeUnit::Seconds, ValueRange { min, max })
}

pub(super) const fn millis_kind(min: u64, max: u64) -> KeyKind {
    KeyKind::Time(TimeUnit::Millis, ValueRange { min, max })
}

pub(super) const fn number_kind(min: f64, max: f64) -> KeyKind {
    KeyKind::Number(ValueRange { min, max })
}

pub(super) const ONE_LINE: KeyKind = KeyKind::Text(TextLines::One);

pub(super) const fn api_key_schema(path: &'static str, default: DefaultValue) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Variable,
        default,
        TrustRule::Ask,
        "Variable of your environment that holds the API key.",
    )
}

pub(super) const fn default_model_schema(path: &'static str, default: DefaultValue) -> SchemaKey {
    SchemaKey::new(path, ONE_LINE, default, TrustRule::Ask, "Model used if `model.name` is not set.")
}

pub(super) const fn base_url_schema(path: &'static str) -> SchemaKey {
    SchemaKey::new(
        path,
        KeyKind::Url,
        DefaultValue::Unset,
        TrustRule::Ask,
        "Address of the server, if it differs from the provider's own.",
    )
}
