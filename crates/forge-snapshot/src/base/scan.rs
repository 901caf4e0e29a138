//! Scan of a manifest: each directory is read into a separate block, with its names concatenated and without full
//! paths; the blocks are then concatenated in the order of their directories.

use super::{BaseManifest, BaseRecord, now_ns, to_u32};
use crate::TreeRoot;
use crate::bounds::{BoundedTally, WorkBounds};
use crate::host::{self, FileStamp, NodeKind};
use crate::walk::{OnDenied, SubdirVisits, VisitedDir, WalkThreads, walk_tree};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::OnceLock;

/// The entries of a directory. Offsets of names and indices of owners are relative to the block.
struct DirBlock {
    records: Vec<BaseRecord>,
    names: Vec<u8>,
    /// Index of the first subdirectory; the others follow.
    first: usize,
}

/// The blocks by the indices of their directories, and the number of assigned indices.
#[derive(Default)]
struct DirBlocks {
    found: HashMap<usize, DirBlock>,
    numbers: usize,
}

/// Scans everything below `root`.
pub(super) fn scan_tree(root: &TreeRoot, denied: OnDenied, bounds: &WorkBounds) -> io::Result<BaseManifest> {
    let tally = BoundedTally::of_tree(bounds, root.path());
    let taken_ns = now_ns();
    // The root has index 0.
    let blocks = Mutex::new(DirBlocks { numbers: 1, ..DirBlocks::default() });
    let visit = |folder: VisitedDir<'_, usize>| -> io::Result<SubdirVisits<usize>> {
        let number = folder.about;
        let Some((mut block, mut below)) = read_block(folder, &tally)? else { return Ok(Vec::new()) };
        let mut blocks = blocks.lock();
        block.first = blocks.numbers;
        blocks.numbers += below.len();
        below.iter_mut().for_each(|(_, number)| *number += block.first);
        blocks.found.insert(number, block);
        Ok(below)
    };
    walk_tree(root.fd(), 0, denied, WalkThreads::Two, &tally, &visit)?;
    let blocks = blocks.into_inner();
    assemble_manifest(&root.stamp()?, taken_ns, blocks, bounds)
}

/// Returns the entries of a directory, with its subdirectories numbered from 0; `None` if unreadable.
fn read_block(
    folder: VisitedDir<'_, usize>,
    tally: &BoundedTally<'_>,
) -> io::Result<Option<(DirBlock, SubdirVisits<usize>)>> {
    let Some(listing) = folder.listing else { return Ok(None) };
    let mut block =
        DirBlock { records: Vec::with_capacity(listing.items.len()), names: Vec::new(), first: 0 };
    let mut below = SubdirVisits::new();
    for (name, stamp) in listing.iter() {
        let mut record = new_record(name, stamp, block.names.len(), stamp.uid)?;
        block.names.extend_from_slice(name);
        match stamp.kind {
            NodeKind::Dir => below.push((name.into(), below.len())),
            NodeKind::Symlink => {
                // A link that was replaced since the listing has no target: its stamp will not match.
                let target = host::read_link(folder.fd, name).unwrap_or_default();
                tally.count_bytes(target.len())?;
                record.extent = block.names.len() as u64;
                record.count = to_u32(target.len())?;
                block.names.extend_from_slice(&target);
            }
            _ => {}
        }
        block.records.push(record);
    }
    block.names.shrink_to_fit();
    Ok(Some((block, below)))
}

fn new_record(name: &[u8], stamp: &FileStamp, at: usize, owner: u32) -> io::Result<BaseRecord> {
    Ok(BaseRecord {
        mtime_ns: stamp.mtime_ns,
        ctime_ns: stamp.ctime_ns,
        ino: stamp.ino,
        extent: if stamp.kind == NodeKind::File { stamp.size } else { 0 },
        name: to_u32(at)?,
        count: 0,
        owner,
        mode: u16::try_from(stamp.mode).unwrap_or(0),
        name_len: u16::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidFilename)?,
        kind: stamp.kind,
        linked: stamp.linked && stamp.kind == NodeKind::File,
        readable: true,
    })
}

fn assemble_manifest(
    root: &FileStamp,
    taken_ns: i64,
    mut blocks: DirBlocks,
    bounds: &WorkBounds,
) -> io::Result<BaseManifest> {
    let total: usize = blocks.found.values().map(|block| block.records.len()).sum();
    let names: usize = blocks.found.values().map(|block| block.names.len()).sum();
    let mut records = Vec::with_capacity(total + 1);
    let mut base_names: Vec<u8> = Vec::with_capacity(names);
    let mut owners = Vec::new();
    let mut known: HashMap<u32, u32> = HashMap::new();
    let mut owner = |uid: u32| -> io::Result<u32> {
        let next = to_u32(owners.len())?;
        let number = *known.entry(uid).or_insert(next);
        if number == next {
            owners.push(uid);
        }
        Ok(number)
    };
    records.push(new_record(b"", root, 0, owner(root.uid)?)?);
    // Directories with entries that are still to be added, by index, in the order of their records.
    let mut waiting = VecDeque::from([(0_usize, 0_usize)]);
    while let Some((at, number)) = waiting.pop_front() {
        bounds.check_stopped()?;
        records[at].extent = records.len() as u64;
        let Some(block) = blocks.found.remove(&number) else {
            records[at].readable = false;
            continue;
        };
        records[at].count = to_u32(block.records.len())?;
        let shift = base_names.len();
        let mut folder = block.first;
        for mut record in block.records {
            record.name = to_u32(record.name as usize + shift)?;
            record.owner = owner(record.owner)?;
            match record.kind {
                NodeKind::Dir => {
                    waiting.push_back((records.len(), folder));
                    folder += 1;
                }
                NodeKind::Symlink => record.extent += shift as u64,
                _ => {}
            }
            records.push(record);
        }
        base_names.extend_from_slice(&block.names);
    }
    Ok(BaseManifest {
        scanned_at_ns: taken_ns,
        records,
        names: base_names,
        owners,
        directory_indices: OnceLock::new(),
    })
}
