//! Settings from values.

use super::ForgeSettings;
use crate::schema::{KEYS, SettingValue};

/// Builds the settings from one value per key of [`KEYS`], `None` where a key is not set.
pub(crate) fn build_settings(values: &[Option<SettingValue>]) -> ForgeSettings {
    let mut tree = serde_json::Map::new();
    for (key, value) in KEYS.iter().zip(values) {
        let mut table = &mut tree;
        let mut parts = key.path.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                let value = serde_json::to_value(value).expect("a value is plain JSON");
                table.insert(part.to_owned(), value);
                break;
            }
            let inner = table.entry(part).or_insert_with(|| serde_json::Map::new().into());
            table = inner.as_object_mut().expect("no key's path is the front of another's");
        }
    }
    serde_json::from_value(tree.into()).expect("every key of the schema has a field of its type")
}
