//! The file format of a manifest: version, entries as variable-length deltas, names, and a checksum. The loader
//! validates everything.

use super::{BaseManifest, BaseRecord};
use crate::encoding::{ByteReader, ByteWriter};
use crate::host::NodeKind;
use forge_types::Digest;
use std::sync::OnceLock;

const MANIFEST_MAGIC: &[u8; 8] = b"FORGEBS1";

fn kind_number(kind: NodeKind) -> u8 {
    match kind {
        NodeKind::File => 0,
        NodeKind::Dir => 1,
        NodeKind::Symlink => 2,
        NodeKind::Fifo => 3,
        NodeKind::Whiteout => 4,
        NodeKind::Other => 5,
    }
}

fn kind_from_number(number: u8) -> Option<NodeKind> {
    Some(match number {
        0 => NodeKind::File,
        1 => NodeKind::Dir,
        2 => NodeKind::Symlink,
        3 => NodeKind::Fifo,
        4 => NodeKind::Whiteout,
        5 => NodeKind::Other,
        _ => return None,
    })
}

pub(super) fn encode_manifest(base: &BaseManifest) -> Vec<u8> {
    let mut out = ByteWriter(Vec::with_capacity(32 * base.records.len() + 64));
    out.0.extend_from_slice(MANIFEST_MAGIC);
    out.write_signed(base.scanned_at_ns);
    out.write_varint(base.owners.len() as u64);
    for owner in &base.owners {
        out.write_varint(u64::from(*owner));
    }
    out.write_varint(base.records.len() as u64);
    let (mut mtime, mut ctime, mut ino) = (0_i64, 0_i64, 0_u64);
    for record in &base.records {
        out.write_byte(
            kind_number(record.kind) | u8::from(record.linked) << 3 | u8::from(record.readable) << 4,
        );
        out.write_blob(base.record_name(record));
        out.write_varint(u64::from(record.mode));
        out.write_varint(u64::from(record.owner));
        out.write_signed(record.mtime_ns.wrapping_sub(mtime));
        out.write_signed(record.ctime_ns.wrapping_sub(ctime));
        out.write_signed(record.ino.wrapping_sub(ino).cast_signed());
        (mtime, ctime, ino) = (record.mtime_ns, record.ctime_ns, record.ino);
        match record.kind {
            NodeKind::File => out.write_varint(record.extent),
            NodeKind::Dir => out.write_varint(u64::from(record.count)),
            NodeKind::Symlink => out.write_blob(base.record_target(record).unwrap_or_default()),
            _ => {}
        }
    }
    let digest = Digest::of_bytes(&out.0);
    out.0.extend_from_slice(digest.as_bytes());
    out.0
}

pub(super) fn decode_manifest(bytes: &[u8]) -> Option<BaseManifest> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of_bytes(body).as_bytes() != digest {
        return None;
    }
    let mut input = ByteReader(body.strip_prefix(MANIFEST_MAGIC)?);
    let taken_ns = input.read_signed()?;
    // Do not trust counts: each item takes at least one byte.
    let owners = input.read_count(1)?;
    let owners = (0..owners).map(|_| input.read_varint32()).collect::<Option<Vec<_>>>()?;
    let total = input.read_count(7)?;
    let mut base = BaseManifest {
        scanned_at_ns: taken_ns,
        records: Vec::with_capacity(total),
        names: Vec::new(),
        owners,
        directory_indices: OnceLock::new(),
    };
    let (mut mtime, mut ctime, mut ino) = (0_i64, 0_i64, 0_u64);
    // Start of the next directory's entries: after those of all previous directories.
    let mut first = 1_u64;
    for _ in 0..total {
        let head = input.read_byte()?;
        let kind = kind_from_number(head & 7)?;
        let name = input.read_blob()?;
        let at = u32::try_from(base.names.len()).ok()?;
        base.names.extend_from_slice(name);
        let mode = u16::try_from(input.read_varint()?).ok().filter(|mode| *mode <= 0o7777)?;
        let owner = input.read_varint32().filter(|owner| (*owner as usize) < base.owners.len())?;
        mtime = mtime.wrapping_add(input.read_signed()?);
        ctime = ctime.wrapping_add(input.read_signed()?);
        ino = ino.wrapping_add(input.read_signed()?.cast_unsigned());
        let (extent, count) = match kind {
            NodeKind::File => (input.read_varint()?, 0),
            NodeKind::Dir => {
                let count = input.read_varint32()?;
                let extent = first;
                first = first.checked_add(u64::from(count)).filter(|next| *next <= total as u64)?;
                (extent, count)
            }
            NodeKind::Symlink => {
                let target = input.read_blob()?;
                let extent = base.names.len() as u64;
                base.names.extend_from_slice(target);
                (extent, u32::try_from(target.len()).ok()?)
            }
            _ => (0, 0),
        };
        base.records.push(BaseRecord {
            mtime_ns: mtime,
            ctime_ns: ctime,
            ino,
            extent,
            name: at,
            count,
            owner,
            mode,
            name_len: u16::try_from(name.len()).ok()?,
            kind,
            linked: head & 8 != 0,
            readable: head & 16 != 0,
        });
    }
    (input.0.is_empty() && first == total as u64 && is_valid_tree(&base)).then_some(base)
}

/// Returns whether every directory's entries follow it, sorted, each with a valid name.
fn is_valid_tree(base: &BaseManifest) -> bool {
    let root = base.records.first().is_some_and(|root| root.kind == NodeKind::Dir && root.name_len == 0);
    root && base.records.iter().enumerate().all(|(at, record)| {
        let block = &base.records[base.child_range(at)];
        let after = record.kind != NodeKind::Dir || block.is_empty() || base.child_range(at).start > at;
        let fine = |name: &[u8]| {
            !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
        };
        after
            && block.iter().all(|entry| fine(base.record_name(entry)))
            && block.is_sorted_by(|a, b| base.record_name(a) < base.record_name(b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::RelPath;
    use proptest::prelude::*;

    fn sample() -> BaseManifest {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
        std::fs::write(folder.path().join("a/b/file"), "content").unwrap();
        std::os::unix::fs::symlink("b/file", folder.path().join("a/link")).unwrap();
        BaseManifest::scan_tree(folder.path()).unwrap()
    }

    /// Replaces bytes and updates the checksum, so that the loader reaches the damage.
    fn with_checksum(mut body: Vec<u8>) -> Vec<u8> {
        let digest = Digest::of_bytes(&body);
        body.extend_from_slice(digest.as_bytes());
        body
    }

    #[test]
    fn a_manifest_survives_its_file() {
        let base = sample();
        assert_eq!(decode_manifest(&encode_manifest(&base)), Some(base.clone()));
        assert_eq!(base.link_target(&RelPath::new("a/link").unwrap()), Some(b"b/file".as_slice()));
        let mut bytes = encode_manifest(&base);
        bytes[20] ^= 1;
        assert_eq!(decode_manifest(&bytes), None, "the checksum tells");
    }

    proptest! {
        #[test]
        fn damaged_manifests_are_refused_or_read_but_never_panic(
            noise in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
            cut in any::<u16>(),
        ) {
            let bytes = encode_manifest(&sample());
            let mut body = bytes[..bytes.len() - 32].to_vec();
            for (at, byte) in noise {
                let at = usize::from(at) % body.len();
                body[at] = byte;
            }
            body.truncate(body.len() - usize::from(cut) % 8);
            if let Some(base) = decode_manifest(&with_checksum(body)) {
                prop_assert!(base.entries_below(&RelPath::default()).count() <= base.len() + 1);
                let _ = base.count_foreign(0);
            }
        }

        #[test]
        fn noise_is_no_manifest(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut body = MANIFEST_MAGIC.to_vec();
            body.extend(noise);
            if let Some(base) = decode_manifest(&with_checksum(body)) {
                let _ = base.entries_below(&RelPath::default()).count();
            }
        }
    }
}
