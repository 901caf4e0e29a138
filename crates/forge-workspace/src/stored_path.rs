//! A path in the records of a run.

use forge_snapshot::RelPath;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

/// A path as a record contains it: a string if it is text, which most are, otherwise its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct StoredPath(pub(super) RelPath);

impl Serialize for StoredPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0.as_bytes()) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(self.0.as_bytes()),
        }
    }
}

impl<'de> Deserialize<'de> for StoredPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathVisitor)
    }
}

struct PathVisitor;

impl<'de> Visitor<'de> for PathVisitor {
    type Value = StoredPath;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path as text or as bytes")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<StoredPath, E> {
        RelPath::new(text).map(StoredPath).ok_or_else(|| E::custom("not a path below a directory"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<StoredPath, A::Error> {
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(byte) = items.next_element()? {
            bytes.push(byte);
        }
        RelPath::new(bytes).map(StoredPath).ok_or_else(|| A::Error::custom("not a path below a directory"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_as_text_or_as_bytes() {
        for (bytes, stored) in
            [(&b"a/\xc3\xa4"[..], "\"a/\u{e4}\""), (b"a/\xff", "[97,47,255]"), (b"", "\"\"")]
        {
            let path = StoredPath(RelPath::new(bytes).unwrap());
            assert_eq!(serde_json::to_string(&path).unwrap(), stored);
            assert_eq!(serde_json::from_str::<StoredPath>(stored).unwrap(), path);
        }
        // The form of earlier records.
        let path = serde_json::from_str::<StoredPath>("[97,47,98]").unwrap();
        assert_eq!(path.0.as_bytes(), b"a/b");
        for wrong in ["\"../a\"", "[47]", "7", "[300]"] {
            assert!(serde_json::from_str::<StoredPath>(wrong).is_err(), "{wrong}");
        }
    }
}
