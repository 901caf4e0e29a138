//! A snapshot as a tree of folder objects: each folder names its entries and, by digest, the folders below it that
//! hold differences.

use super::scan::Full;
use crate::bounds::{Bounds, Tally};
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
struct Folder {
    children: BTreeMap<Box<[u8]>, Child>,
}

#[derive(Default)]
struct Child {
    /// What differs here, encoded.
    entry: Option<Box<[u8]>>,
    /// Its place among the folders.
    folder: Option<u32>,
}

/// Stores a delta, whose paths come in their order; returns its name. Folder objects that are stored already are not
/// written again.
pub(super) fn store(
    objects: &Objects,
    entries: impl Iterator<Item = Result<(RelPath, Entry), Error>>,
) -> Result<Digest, Error> {
    // Folders are made before those below them, so going backwards meets those below first.
    let mut folders: Vec<Folder> = vec![Folder::default()];
    for entry in entries {
        let (path, entry) = entry?;
        let mut at = 0;
        let mut parts = path.parts().peekable();
        while let Some(part) = parts.next() {
            let next = u32::try_from(folders.len()).unwrap_or(u32::MAX);
            let children = &mut folders[at].children;
            if !children.contains_key(part) {
                children.insert(part.into(), Child::default());
            }
            let Some(child) = children.get_mut(part) else { break };
            if parts.peek().is_none() {
                child.entry = Some(encode_entry(&entry));
                break;
            }
            let folder = *child.folder.get_or_insert(next);
            at = folder as usize;
            if folder == next {
                folders.push(Folder::default());
            }
        }
    }
    let mut digests: Vec<Option<Digest>> = vec![None; folders.len()];
    for at in (0..folders.len()).rev() {
        let folder = std::mem::take(&mut folders[at]);
        if at == 0 && folder.children.is_empty() {
            return Ok(beginning());
        }
        let mut out = Writer(MAGIC.to_vec());
        for (name, child) in folder.children {
            let below = child.folder.and_then(|folder| digests[folder as usize]);
            encode(&mut out, &name, child.entry.as_deref(), below);
        }
        digests[at] = Some(objects.put(&out.0)?);
    }
    Ok(digests[0].unwrap_or_else(beginning))
}

/// Flags and nodes of an entry.
fn encode_entry(entry: &Entry) -> Box<[u8]> {
    let flag = |node: &Option<Node>, flag: u8| if node.is_some() { flag } else { 0 };
    let mut out = Writer(vec![flag(&entry.was, WAS) | flag(&entry.now, NOW)]);
    for node in [&entry.was, &entry.now].into_iter().flatten() {
        encode_node(&mut out, node);
    }
    out.0.into()
}

fn encode(out: &mut Writer, name: &[u8], entry: Option<&[u8]>, below: Option<Digest>) {
    let (flags, nodes) = entry.and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
    out.blob(name);
    out.byte(flags | if below.is_some() { BELOW } else { 0 });
    out.0.extend_from_slice(nodes);
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
pub(super) fn load(objects: &Objects, id: Digest, bounds: &Bounds) -> Result<Full, Error> {
    let tally = Tally::of_changes(bounds, objects.folder());
    let mut full = Full::new();
    // Each folder with the one above it: no whole paths.
    let mut waiting = vec![(RelPath::default(), Box::<[u8]>::default(), id)];
    while let Some((above, name, digest)) = waiting.pop() {
        bounds.check()?;
        let path = if name.is_empty() { above } else { above.join(&name) };
        if digest == beginning() {
            continue;
        }
        let bytes = objects.read(digest, LIMIT)?;
        let damaged = || Error::Damaged { what: format!("the stored folder {digest}") };
        for entry in decode(&bytes) {
            let (name, entry, below) = entry.ok_or_else(damaged)?;
            if let Some(below) = below {
                waiting.push((path.clone(), name.into(), below));
            }
            if let Some(entry) = entry {
                let path = path.join(name);
                tally.path(path.as_bytes().len() + targets(&entry))?;
                full.insert(path, entry);
            }
        }
    }
    Ok(full)
}

/// Bytes of the targets of links in an entry.
fn targets(entry: &Entry) -> usize {
    let target = |node: &Option<Node>| match node {
        Some(Node::Symlink { target }) => target.len(),
        _ => 0,
    };
    target(&entry.was) + target(&entry.now)
}

type Decoded<'a> = (&'a [u8], Option<Entry>, Option<Digest>);

/// The entries of a folder object, one after the other; a `None` among them: it is damaged.
fn decode(bytes: &[u8]) -> impl Iterator<Item = Option<Decoded<'_>>> {
    let mut input = bytes.strip_prefix(MAGIC).map(Reader);
    let damaged = input.is_none().then_some(None);
    damaged.into_iter().chain(std::iter::from_fn(move || {
        let input = input.as_mut().filter(|input| !input.0.is_empty())?;
        let entry = decode_entry(input);
        if entry.is_none() {
            // Nothing behind it can be told.
            input.0 = &[];
        }
        Some(entry)
    }))
}

fn decode_entry<'a>(input: &mut Reader<'a>) -> Option<Decoded<'a>> {
    let name = input.blob()?;
    // One part of a path, and nothing that leads elsewhere.
    if name.is_empty() || name.contains(&b'/') || RelPath::new(name).is_none() {
        return None;
    }
    let flags = input.byte()?;
    let was = if flags & WAS != 0 { Some(decode_node(input)?) } else { None };
    let now = if flags & NOW != 0 { Some(decode_node(input)?) } else { None };
    let below = if flags & BELOW != 0 { Some(decode_digest(input)?) } else { None };
    let entry = (flags & (WAS | NOW) != 0).then_some(Entry { was, now });
    Some((name, entry, below))
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
            let id = store(&objects, full.clone().into_iter().map(Ok)).unwrap();
            let before = objects.bytes();
            prop_assert_eq!(store(&objects, full.clone().into_iter().map(Ok)).unwrap(), id);
            prop_assert_eq!(objects.bytes(), before, "the same costs nothing");
            prop_assert_eq!(load(&objects, id, Bounds::none()).unwrap(), full.clone());
            prop_assert_eq!(id == beginning(), full.is_empty());
        }

        #[test]
        fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = MAGIC.to_vec();
            bytes.extend(noise);
            for (name, _, _) in decode(&bytes).flatten() {
                prop_assert!(RelPath::new(name).is_some());
            }
        }
    }
}
