//! Small trees for the tests: built, changed by random operations, read back, and compared into deltas.
#![allow(clippy::unwrap_used, reason = "a test that can't build its tree fails")]

use forge_snapshot::{DeltaEntry, ObjectStore, RelPath, TreeDelta, TreeNode};
use forge_types::Digest;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Everything in a tree, contents included.
pub(crate) type Tree = BTreeMap<RelPath, (TreeNode, Vec<u8>)>;

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// Reads a tree without following links; temporaries too, so that those left behind are seen.
pub(crate) fn read(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut next = vec![RelPath::default()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(root.join(folder.as_path())).unwrap() {
            let entry = entry.unwrap();
            let at = folder.join(entry.file_name().as_bytes());
            let about = entry.metadata().unwrap();
            let mode = about.mode() & 0o7777;
            let (node, bytes) = if about.is_dir() {
                next.push(at.clone());
                (TreeNode::Dir { mode }, Vec::new())
            } else if about.is_symlink() {
                let target = fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec();
                (TreeNode::Symlink { target }, Vec::new())
            } else if about.file_type().is_fifo() {
                (TreeNode::Fifo { mode }, Vec::new())
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                let content = Some(Digest::of_bytes(&bytes));
                (TreeNode::File { mode, size: about.len(), mtime_ns: 0, content, links: None }, bytes)
            };
            tree.insert(at, (node, bytes));
        }
    }
    tree
}

/// Whether contents of the beginning were read for a delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Was {
    Known,
    Unknown,
}

/// How `now` differs from `was`; new contents go into the store, as do old ones if they are known.
pub(crate) fn delta(was: &Tree, now: &Tree, objects: &ObjectStore, about: Was) -> TreeDelta {
    let mut delta = TreeDelta::new();
    let paths: std::collections::BTreeSet<_> = was.keys().chain(now.keys()).collect();
    for path in paths {
        let (old, new) = (was.get(path), now.get(path));
        let same = matches!((old, new), (Some((old, _)), Some((new, _))) if old.is_equivalent(new));
        if same {
            continue;
        }
        if let Some((TreeNode::File { .. }, bytes)) = new {
            objects.store_bytes(bytes).unwrap();
        }
        let mut old = old.cloned();
        if let Some((TreeNode::File { content, .. }, bytes)) = &mut old {
            match about {
                Was::Known => {
                    objects.store_bytes(bytes).unwrap();
                }
                Was::Unknown => *content = None,
            }
        }
        let entry =
            DeltaEntry { before: old.map(|(node, _)| node), after: new.map(|(node, _)| node.clone()) };
        delta.insert(path.clone(), entry);
    }
    objects.flush().unwrap();
    delta
}

/// Makes `to` a copy of what is in `from`.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let mut folders = Vec::new();
    for (at, (node, bytes)) in read(from) {
        let place = to.join(at.as_path());
        match node {
            TreeNode::Dir { mode } => {
                fs::create_dir(&place).unwrap();
                folders.push((place, mode));
            }
            TreeNode::Symlink { target } => symlink(std::ffi::OsStr::from_bytes(&target), place).unwrap(),
            TreeNode::Fifo { mode } => fifo(&place, mode),
            TreeNode::File { mode, .. } => {
                fs::write(&place, bytes).unwrap();
                fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
            }
        }
    }
    for (place, mode) in folders {
        fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
    }
}

pub(crate) fn fifo(place: &Path, mode: u32) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, place, FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::set_permissions(place, Permissions::from_mode(mode)).unwrap();
}

/// What anybody may do to a tree. An operation that is not possible does nothing.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Write(usize, u8),
    Edit(usize, usize, u8),
    Mode(usize, u32),
    Remove(usize),
    Dir(usize),
    Symlink(usize, u8),
    Fifo(usize),
    Rename(usize, usize),
}

/// The last ones are named like temporaries of an apply, for the paths `a` and `d/a`.
const PLACES: [&str; 17] = [
    "a",
    "b.txt",
    "d",
    "d/a",
    "d/b",
    "d/e",
    "d/e/f",
    "d/e/g",
    "d-x",
    "g",
    "g/h",
    "g/h/i",
    "sp ace",
    "d/e/f/j",
    ".forge-tmp-apply-old-ca978112ca1bbdcafac231b3",
    "d/.forge-tmp-apply-new-4d614069df6bdda31262d2eb",
    "d/e/.forge-tmp-1",
];

pub(crate) fn ops(count: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Op>> {
    let at = || 0..PLACES.len();
    let modes = prop_oneof![Just(0o644), Just(0o755), Just(0o600), Just(0o700)];
    let op = prop_oneof![
        4 => (at(), any::<u8>()).prop_map(|(at, seed)| Op::Write(at, seed)),
        6 => (at(), 0..12_usize, any::<u8>()).prop_map(|(at, line, seed)| Op::Edit(at, line, seed)),
        1 => (at(), modes).prop_map(|(at, mode)| Op::Mode(at, mode)),
        3 => at().prop_map(Op::Remove),
        2 => at().prop_map(Op::Dir),
        1 => (at(), 0..3_u8).prop_map(|(at, seed)| Op::Symlink(at, seed)),
        1 => at().prop_map(Op::Fifo),
        2 => (at(), at()).prop_map(|(from, to)| Op::Rename(from, to)),
    ];
    proptest::collection::vec(op, count)
}

/// Does the operations, through no symbolic link.
pub(crate) fn perform(root: &Path, ops: &[Op]) {
    for op in ops {
        let at = match op {
            Op::Write(at, _) | Op::Edit(at, ..) | Op::Mode(at, _) | Op::Remove(at) => *at,
            Op::Dir(at) | Op::Symlink(at, _) | Op::Fifo(at) | Op::Rename(at, _) => *at,
        };
        let Some(place) = reachable(root, PLACES[at]) else { continue };
        let about = fs::symlink_metadata(&place).ok();
        let is_file = about.as_ref().is_some_and(|about| about.is_file());
        match op {
            Op::Write(_, seed) if about.is_none() || is_file => drop(fs::write(&place, text(*seed))),
            Op::Edit(_, line, seed) if is_file => {
                let text = fs::read_to_string(&place).unwrap();
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                if let Some(line) = lines.get_mut(*line) {
                    *line = format!("edited {seed}");
                    fs::write(&place, lines.join("\n") + "\n").unwrap();
                }
            }
            Op::Mode(_, mode) => match about {
                Some(about) if about.is_dir() => {
                    fs::set_permissions(&place, Permissions::from_mode(mode | 0o700)).unwrap();
                }
                Some(about) if !about.is_symlink() => {
                    fs::set_permissions(&place, Permissions::from_mode(*mode)).unwrap();
                }
                _ => {}
            },
            Op::Remove(_) => match about {
                Some(about) if about.is_dir() => fs::remove_dir_all(&place).unwrap(),
                Some(_) => fs::remove_file(&place).unwrap(),
                None => {}
            },
            Op::Dir(_) => drop(fs::create_dir(&place)),
            Op::Symlink(_, seed) => drop(symlink(format!("target-{seed}"), &place)),
            Op::Fifo(_) if about.is_none() => fifo(&place, 0o644),
            Op::Rename(_, to) if about.is_some() => {
                if let Some(to) = reachable(root, PLACES[*to]) {
                    drop(fs::rename(&place, to));
                }
            }
            _ => {}
        }
    }
}

fn reachable(root: &Path, place: &str) -> Option<std::path::PathBuf> {
    let mut at = root.to_owned();
    let (folders, _) = place.rsplit_once('/').unwrap_or(("", place));
    for part in folders.split('/').filter(|part| !part.is_empty()) {
        at.push(part);
        if !fs::symlink_metadata(&at).is_ok_and(|about| about.is_dir()) {
            return None;
        }
    }
    Some(root.join(place))
}

/// Ten lines, so that edits of different lines can be merged.
fn text(seed: u8) -> String {
    (0..10).map(|line| format!("line {line} of {}\n", seed % 5)).collect()
}
