//! The schema as data: every key that Forge reads, with its type, default, bounds, environment variables, description,
//! and the changes that an untrusted repository may make.
//!
//! Loading, `forge config`, the documentation and the examples are all derived from [`KEYS`]. Keys outside of it do not
//! exist, and every key in it has a field in [`crate::ForgeSettings`] (checked whenever settings are built).

mod fallback;
pub(crate) mod key;
pub(crate) mod kind;
mod nearest_name;
pub(crate) mod providers;
pub(crate) mod rows;
mod value;

use crate::settings::KEY_GROUPS;
pub use fallback::FallbackEntry;
pub use key::{AliasReading, DefaultValue, EnvAlias, SchemaKey, TrustRule};
pub use kind::{ChoiceSpelling, KeyKind, ListElement, ReadContext, TextLines, TimeUnit, ValueRange};
pub(crate) use nearest_name::nearest_name;
pub(crate) use value::{RawSetting, escape_controls, format_number, quote_safely};
pub use value::{SettingValue, ValueMismatch};

/// All keys.
pub const KEYS: &[SchemaKey] = &ALL_KEYS;

static ALL_KEYS: [SchemaKey; count_keys(KEY_GROUPS)] = join_keys(KEY_GROUPS);

const fn count_keys(groups: &[&[SchemaKey]]) -> usize {
    let (mut count, mut group) = (0, 0);
    while group < groups.len() {
        count += groups[group].len();
        group += 1;
    }
    count
}

const fn join_keys<const COUNT: usize>(groups: &[&[SchemaKey]]) -> [SchemaKey; COUNT] {
    let mut all = [groups[0][0]; COUNT];
    let (mut count, mut group) = (0, 0);
    while group < groups.len() {
        let mut at = 0;
        while at < groups[group].len() {
            all[count] = groups[group][at];
            count += 1;
            at += 1;
        }
        group += 1;
    }
    all
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
