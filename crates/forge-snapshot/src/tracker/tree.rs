//! A snapshot as a tree of directory objects: each lists its entries and, by digest, the subdirectories with
//! differences.

use super::FullDelta;
use crate::bounds::{BoundedTally, WorkBounds};
use crate::encoding::{ByteReader, ByteWriter};
use crate::error::Error;
use crate::node::{DeltaEntry, RelPath, TreeNode};
use crate::objects::ObjectStore;
use forge_types::Digest;
use std::collections::BTreeMap;

const TREE_MAGIC: &[u8; 4] = b"FTr1";
/// Maximum size of a directory object in bytes: some millions of changed entries.
const MAX_TREE_BYTES: u64 = 1 << 30;

const BEFORE_FLAG: u8 = 1;
const AFTER_FLAG: u8 = 2;
const CHILDREN_FLAG: u8 = 4;

/// Returns the digest of the empty directory object.
pub(super) fn empty_tree_digest() -> Digest {
    Digest::of_bytes(TREE_MAGIC)
}

#[derive(Default)]
struct TreeDirectory {
    children: BTreeMap<Box<[u8]>, TreeChild>,
}

#[derive(Default)]
struct TreeChild {
    /// The encoded difference.
    entry: Option<Box<[u8]>>,
    /// The index of the directory.
    directory: Option<u32>,
}

/// Stores a delta with sorted paths; returns its digest. Existing directory objects are not written again.
pub(super) fn store_delta(
    objects: &ObjectStore,
    entries: impl Iterator<Item = Result<(RelPath, DeltaEntry), Error>>,
) -> Result<Digest, Error> {
    // Directories are created before their subdirectories, so the reverse order visits the latter first.
    let mut folders: Vec<TreeDirectory> = vec![TreeDirectory::default()];
    for entry in entries {
        let (path, entry) = entry?;
        let mut at = 0;
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            let next = u32::try_from(folders.len()).unwrap_or(u32::MAX);
            let children = &mut folders[at].children;
            if !children.contains_key(part) {
                children.insert(part.into(), TreeChild::default());
            }
            let Some(child) = children.get_mut(part) else { break };
            if parts.peek().is_none() {
                child.entry = Some(encode_entry(&entry));
                break;
            }
            let folder = *child.directory.get_or_insert(next);
            at = folder as usize;
            if folder == next {
                folders.push(TreeDirectory::default());
            }
        }
    }
    let mut digests: Vec<Option<Digest>> = vec![None; folders.len()];
    for at in (0..folders.len()).rev() {
        let folder = std::mem::take(&mut folders[at]);
        if at == 0 && folder.children.is_empty() {
            return Ok(empty_tree_digest());
        }
        let mut out = ByteWriter(TREE_MAGIC.to_vec());
        for (name, child) in folder.children {
            let below = child.directory.and_then(|folder| digests[folder as usize]);
            encode_child(&mut out, &name, child.entry.as_deref(), below);
        }
        digests[at] = Some(objects.store_bytes(&out.0)?);
    }
    Ok(digests[0].unwrap_or_else(empty_tree_digest))
}

/// Encodes the flags and nodes of an entry.
fn encode_entry(entry: &DeltaEntry) -> Box<[u8]> {
    let flag = |node: &Option<TreeNode>, flag: u8| if node.is_some() { flag } else { 0 };
    let mut out = ByteWriter(vec![flag(&entry.before, BEFORE_FLAG) | flag(&entry.after, AFTER_FLAG)]);
    for node in [&entry.before, &entry.after].into_iter().flatten() {
        encode_node(&mut out, node);
    }
    out.0.into()
}

fn encode_child(out: &mut ByteWriter, name: &[u8], entry: Option<&[u8]>, below: Option<Digest>) {
    let (flags, nodes) = entry.and_then(<[u8]>::split_first).unwrap_or((&0, &[]));
    out.write_blob(name);
    out.write_byte(flags | if below.is_some() { CHILDREN_FLAG } else { 0 });
    out.0.extend_from_slice(nodes);
    if let Some(below) = below {
        out.0.extend_from_slice(below.as_bytes());
    }
}

fn encode_node(out: &mut ByteWriter, node: &TreeNode) {
    match node {
        TreeNode::File { mode, size, mtime_ns, content, links } => {
            out.write_byte(u8::from(content.is_some()) << 4 | u8::from(links.is_some()) << 5);
            out.write_varint(u64::from(*mode));
            out.write_varint(*size);
            out.write_signed(*mtime_ns);
            if let Some(content) = content {
                out.0.extend_from_slice(content.as_bytes());
            }
            if let Some(links) = links {
                out.write_varint(*links);
            }
        }
        TreeNode::Symlink { target } => {
            out.write_byte(1);
            out.write_blob(target);
        }
        TreeNode::Dir { mode } => {
            out.write_byte(2);
            out.write_varint(u64::from(*mode));
        }
        TreeNode::Fifo { mode } => {
            out.write_byte(3);
            out.write_varint(u64::from(*mode));
        }
    }
}

/// Loads a delta.
pub(super) fn load_full_delta(
    objects: &ObjectStore,
    id: Digest,
    bounds: &WorkBounds,
) -> Result<FullDelta, Error> {
    let tally = BoundedTally::of_changes(bounds, objects.directory());
    let mut full = FullDelta::new();
    // Each directory with its parent instead of a full path.
    let mut waiting = vec![(RelPath::default(), Box::<[u8]>::default(), id)];
    while let Some((above, name, digest)) = waiting.pop() {
        bounds.check_stopped()?;
        let path = if name.is_empty() { above } else { above.join(&name) };
        if digest == empty_tree_digest() {
            continue;
        }
        let bytes = objects.read(digest, MAX_TREE_BYTES)?;
        let damaged = || Error::Damaged { what: format!("the stored directory {digest}") };
        for entry in decode_entries(&bytes) {
            let (name, entry, below) = entry.ok_or_else(damaged)?;
            if let Some(below) = below {
                waiting.push((path.clone(), name.into(), below));
            }
            if let Some(entry) = entry {
                let path = path.join(name);
                tally.count_path(path.as_bytes().len() + target_bytes(&entry))?;
                full.insert(path, entry);
            }
        }
    }
    Ok(full)
}

/// Returns the number of bytes of link targets in an entry.
fn target_bytes(entry: &DeltaEntry) -> usize {
    let target = |node: &Option<TreeNode>| match node {
        Some(TreeNode::Symlink { target }) => target.len(),
        _ => 0,
    };
    target(&entry.before) + target(&entry.after)
}

type DecodedEntry<'a> = (&'a [u8], Option<DeltaEntry>, Option<Digest>);

/// Decodes the entries of a directory object; yields `None` if it is damaged.
fn decode_entries(bytes: &[u8]) -> impl Iterator<Item = Option<DecodedEntry<'_>>> {
    let mut input = bytes.strip_prefix(TREE_MAGIC).map(ByteReader);
    let damaged = input.is_none().then_some(None);
    damaged.into_iter().chain(std::iter::from_fn(move || {
        let input = input.as_mut().filter(|input| !input.0.is_empty())?;
        let entry = decode_entry(input);
        if entry.is_none() {
            // Nothing after it can be decoded.
            input.0 = &[];
        }
        Some(entry)
    }))
}

fn decode_entry<'a>(input: &mut ByteReader<'a>) -> Option<DecodedEntry<'a>> {
    let name = input.read_blob()?;
    // A single path component without any traversal.
    if name.is_empty() || name.contains(&b'/') || RelPath::new(name).is_none() {
        return None;
    }
    let flags = input.read_byte()?;
    let was = if flags & BEFORE_FLAG != 0 { Some(decode_node(input)?) } else { None };
    let now = if flags & AFTER_FLAG != 0 { Some(decode_node(input)?) } else { None };
    let below = if flags & CHILDREN_FLAG != 0 { Some(decode_digest(input)?) } else { None };
    let entry = (flags & (BEFORE_FLAG | AFTER_FLAG) != 0).then_some(DeltaEntry { before: was, after: now });
    Some((name, entry, below))
}

fn decode_digest(input: &mut ByteReader<'_>) -> Option<Digest> {
    Some(Digest::from_bytes(input.read_bytes(32)?.try_into().ok()?))
}

fn decode_node(input: &mut ByteReader<'_>) -> Option<TreeNode> {
    let head = input.read_byte()?;
    let mode = |input: &mut ByteReader<'_>| input.read_varint32().filter(|mode| *mode <= 0o7777);
    Some(match head & 15 {
        0 => TreeNode::File {
            mode: mode(input)?,
            size: input.read_varint()?,
            mtime_ns: input.read_signed()?,
            content: if head & 16 != 0 { Some(decode_digest(input)?) } else { None },
            links: if head & 32 != 0 { Some(input.read_varint()?) } else { None },
        },
        1 => TreeNode::Symlink { target: input.read_blob()?.to_vec() },
        2 => TreeNode::Dir { mode: mode(input)? },
        3 => TreeNode::Fifo { mode: mode(input)? },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node() -> impl Strategy<Value = TreeNode> {
        prop_oneof![
            (0..0o10000_u32, any::<u64>(), any::<i64>(), any::<Option<[u8; 32]>>(), any::<Option<u64>>())
                .prop_map(|(mode, size, mtime_ns, content, links)| TreeNode::File {
                    mode,
                    size,
                    mtime_ns,
                    content: content.map(Digest::from_bytes),
                    links,
                }),
            proptest::collection::vec(any::<u8>(), 0..20).prop_map(|target| TreeNode::Symlink { target }),
            (0..0o10000_u32).prop_map(|mode| TreeNode::Dir { mode }),
            (0..0o10000_u32).prop_map(|mode| TreeNode::Fifo { mode }),
        ]
    }

    fn full() -> impl Strategy<Value = FullDelta> {
        let path = proptest::collection::vec(prop_oneof!["a", "b", "a-b", "\u{fe}"], 1..5)
            .prop_map(|parts| RelPath::new(parts.join("/").into_bytes()).unwrap());
        let entry = (proptest::option::of(node()), node())
            .prop_map(|(was, now)| DeltaEntry { before: was, after: Some(now) });
        proptest::collection::btree_map(path, entry, 0..12)
    }

    proptest! {
        #[test]
        fn deltas_survive_and_same_deltas_have_same_names(full in full()) {
            let folder = tempfile::tempdir().unwrap();
            let objects = ObjectStore::open(folder.path()).unwrap();
            let id = store_delta(&objects, full.clone().into_iter().map(Ok)).unwrap();
            let before = objects.bytes_on_disk();
            prop_assert_eq!(store_delta(&objects, full.clone().into_iter().map(Ok)).unwrap(), id);
            prop_assert_eq!(objects.bytes_on_disk(), before, "the same costs nothing");
            prop_assert_eq!(load_full_delta(&objects, id, WorkBounds::unbounded()).unwrap(), full.clone());
            prop_assert_eq!(id == empty_tree_digest(), full.is_empty());
        }

        #[test]
        fn noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = TREE_MAGIC.to_vec();
            bytes.extend(noise);
            for (name, _, _) in decode_entries(&bytes).flatten() {
                prop_assert!(RelPath::new(name).is_some());
            }
        }
    }
}
