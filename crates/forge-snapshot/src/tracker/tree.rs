//! A snapshot as a tree of folder objects: each folder names its entries and, by digest, the folders below it that
//! hold differences.

use super::scan::Full;
use crate::bytes::{Reader, Writer};
use crate::error::Error;
use crate::node::{Entry, Node, RelPath};
use crate::objects::Objects;
use forge_types::Digest;
use std::collections::BTreeMap;

const MAGIC: &[u8; 4] = b"FTr1";
/// The largest folder object that is read, in bytes: a folder with some millions of changed entries.
const LIMIT: u64 = 1 << 30;

const WAS: u8 = 1;
const NOW: u8 = 2;
const BELOW: u8 = 4;

/// The digest of the folder object without entries.
pub(super) fn beginning() -> Digest {
    Digest::of(MAGIC)
}

#[derive(Default)]
struct Folder<'a> {
    children: BTreeMap<&'a [u8], Child<'a>>,
}

#[derive(Default)]
struct Child<'a> {
    entry: Option<&'a Entry>,
    /// Its place among the folders.
    folder: Option<usize>,
}

/// Stores a delta; returns its name. Folder objects that are stored already are not written again.
pub(super) fn store(objects: &Objects, full: &Full) -> Result<Digest, Error> {
    // Folders are made before those below them, so going backwards meets those below first.
    let mut folders: Vec<Folder<'_>> = vec![Folder::default()];
    for (path, entry) in full {
        let mut at = 0;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            let next = folders.len();
            let child = folders[at].children.entry(part).or_default();
            if parts.peek().is_none() {
                child.entry = Some(entry);
                break;
            }
            at = *child.folder.get_or_insert(next);
            if at == next {
                folders.push(Folder::default());
            }
        }
    }
    let mut digests: Vec<Option<Digest>> = vec![None; folders.len()];
    for (at, folder) in folders.iter().enumerate().rev() {
        let mut out = Writer(MAGIC.to_vec());
        for (name, child) in &folder.children {
            let below = child.folder.and_then(|folder| digests[folder]);
            encode(&mut out, name, child.entry, below);
        }
        digests[at] = Some(if at == 0 && full.is_empty() { beginning() } else { objects.put(&out.0)? });
    }
    Ok(digests[0].unwrap_or_else(beginning))
}

fn encode(out: &mut Writer, name: &[u8], entry: Option<&Entry>, below: Option<Digest>) {
    let was = entry.and_then(|entry| entry.was.as_ref());
    let now = entry.and_then(|entry| entry.now.as_ref());
    out.blob(name);
    let flag = |there: bool, flag: u8| if there { flag } else { 0 };
    out.byte(flag(was.is_some(), WAS) | flag(now.is_some(), NOW) | flag(below.is_some(), BELOW));
    for node in [was, now].into_iter().flatten() {
        encode_node(out, node);
    }
    if let Some(below) = below {
        out.0.extend_from_slice(below.as_bytes());
    }
}

fn encode_node(out: &mut Writer, node: &Node) {
    match node {
        Node::File { mode, size, mtime_ns, content, links } => {
            out.byte(u8::from(content.is_some()) << 4 | u8::from(links.is_some()) << 5);
            out.number(u64::from(*mode));
            out.number(*size);
            out.signed(*mtime_ns);
            if let Some(content) = content {
                out.0.extend_from_slice(content.as_bytes());
            }
            if let Some(links) = links {
                out.number(*links);
            }
        }
        Node::Symlink { target } => {
            out.byte(1);
            out.blob(target);
        }
        Node::Dir { mode } => {
            out.byte(2);
            out.number(u64::from(*mode));
        }
        Node::Fifo { mode } => {
            out.byte(3);
            out.number(u64::from(*mode));
        }
    }
}

/// Reads a delta.
pub(super) fn load(objects: &Objects, id: Digest) -> Result<Full, Error> {
    let mut full = Full::new();
    let mut waiting = vec![(RelPath::default(), id)];
    while let Some((path, digest)) = waiting.pop() {
        if digest == beginning() {
            continue;
        }
        let bytes = objects.read(digest, LIMIT)?;
        let damaged = || Error::Damaged { what: format!("the stored folder {digest}") };
        let entries = decode(&bytes).ok_or_else(damaged)?;
        for (name, entry, below) in entries {
            let path = path.join(name);
            if let Some(below) = below {
                waiting.push((path.clone(), below));
            }
            if let Some(entry) = entry {
                full.insert(path, entry);
            }
        }
    }
    Ok(full)
}

type Decoded<'a> = (&'a [u8], Option<Entry>, Option<Digest>);

fn decode(bytes: &[u8]) -> Option<Vec<Decoded<'_>>> {
    let mut input = Reader(bytes.strip_prefix(MAGIC)?);
    let mut entries = Vec::new();
    while !input.0.is_empty() {
        let name = input.blob()?;
        // One part of a path, and nothing that leads elsewhere.
        if name.is_empty() || name.contains(&b'/') || RelPath::new(name).is_none() {
            return None;
        }
        let flags = input.byte()?;
        let was = if flags & WAS != 0 { Some(decode_node(&mut input)?) } else { None };
        let now = if flags & NOW != 0 { Some(decode_node(&mut input)?) } else { None };
        let below = if flags & BELOW != 0 { Some(decode_digest(&mut input)?) } else { None };
        let entry = (flags & (WAS | NOW) != 0).then_some(Entry { was, now });
        entries.push((name, entry, below));
    }
    Some(entries)
}

fn decode_digest(input: &mut Reader<'_>) -> Option<Digest> {
    Some(Digest::from_bytes(input.take(32)?.try_into().ok()?))
}

fn decode_node(input: &mut Reader<'_>) -> Option<Node> {
    let head = input.byte()?;
    let mode = |input: &mut Reader<'_>| input.number32().filter(|mode| *mode <= 0o7777);
    Some(match head & 15 {
        0 => Node::File {
            mode: mode(input)?,
            size: input.number()?,
            mtime_ns: input.signed()?,
            content: if head & 16 != 0 { Some(decode_digest(input)?) } else { None },
            links: if head & 32 != 0 { Some(input.number()?) } else { None },
        },
        1 => Node::Symlink { target: input.blob()?.to_vec() },
        2 => Node::Dir { mode: mode(input)? },
        3 => Node::Fifo { mode: mode(input)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node() -> impl Strategy<Value = Node> {
        prop_oneof![
            (0..0o10000_u32, any::<u64>(), any::<i64>(), any::<Option<[u8; 32]>>(), any::<Option<u64>>())
                .prop_map(|(mode, size, mtime_ns, content, links)| Node::File {
                    mode,
                    size,
                    mtime_ns,
                    content: content.map(Digest::from_bytes),
                    links,
                }),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|target| Node::Symlink { target }),
            (0..0o10000_u32).prop_map(|mode| Node::Dir { mode }),
            (0..0o10000_u32).prop_map(|mode| Node::Fifo { mode }),
        ]
    }

    fn full() -> impl Strategy<Value = Full> {
        let path = proptest::collection::vec(prop_oneof!["a", "b", "a-b", "\u{fe}"], 1..5)
            .prop_map(|parts| RelPath::new(parts.join("/").into_bytes()).unwrap());
        let entry =
            (proptest::option::of(node()), node()).prop_map(|(was, now)| Entry { was, now: Some(now) });
        proptest::collection::btree_map(path, entry, 0..12)
    }

    proptest! {
        #[test]
        fn deltas_survive_and_same_deltas_have_same_names(full in full()) {
            let folder = tempfile::tempdir().unwrap();
            let objects = Objects::open(folder.path()).unwrap();
            let id = store(&objects, &full).unwrap();
            let before = objects.bytes();
            prop_assert_eq!(store(&objects, &full).unwrap(), id);
            prop_assert_eq!(objects.bytes(), before, "the same costs nothing");
            prop_assert_eq!(load(&objects, id).unwrap(), full.clone());
            prop_assert_eq!(id == beginning(), full.is_empty());
        }

        #[test]
        fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(noise);
            for (name, _, _) in decode(&bytes).unwrap_or_default() {
                prop_assert!(RelPath::new(name).is_some());
            }
        }
    }
}
