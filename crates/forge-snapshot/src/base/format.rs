//! The file of a manifest: version, entries as variable-length numbers that differ little from one to the next, names,
//! and a checksum over everything. A loader that believes nothing.

use super::{Base, Record};
use crate::bytes::{Reader, Writer};
use crate::host::Kind;
use forge_types::Digest;
use std::sync::OnceLock;

const MAGIC: &[u8; 8] = b"FORGEBS1";

fn kind_number(kind: Kind) -> u8 {
    match kind {
        Kind::File => 0,
        Kind::Dir => 1,
        Kind::Symlink => 2,
        Kind::Fifo => 3,
        Kind::Whiteout => 4,
        Kind::Other => 5,
    }
}

fn kind_of(number: u8) -> Option<Kind> {
    Some(match number {
        0 => Kind::File,
        1 => Kind::Dir,
        2 => Kind::Symlink,
        3 => Kind::Fifo,
        4 => Kind::Whiteout,
        5 => Kind::Other,
        _ => return None,
    })
}

pub(super) fn encode(base: &Base) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(32 * base.records.len() + 64));
    out.0.extend_from_slice(MAGIC);
    out.signed(base.taken_ns);
    out.number(base.owners.len() as u64);
    for owner in &base.owners {
        out.number(u64::from(*owner));
    }
    out.number(base.records.len() as u64);
    let (mut mtime, mut ctime, mut ino) = (0_i64, 0_i64, 0_u64);
    for record in &base.records {
        out.byte(kind_number(record.kind) | u8::from(record.linked) << 3 | u8::from(record.readable) << 4);
        out.blob(base.name(record));
        out.number(u64::from(record.mode));
        out.number(u64::from(record.owner));
        out.signed(record.mtime_ns.wrapping_sub(mtime));
        out.signed(record.ctime_ns.wrapping_sub(ctime));
        out.signed(record.ino.wrapping_sub(ino).cast_signed());
        (mtime, ctime, ino) = (record.mtime_ns, record.ctime_ns, record.ino);
        match record.kind {
            Kind::File => out.number(record.extent),
            Kind::Dir => out.number(u64::from(record.count)),
            Kind::Symlink => out.blob(base.target_of(record).unwrap_or_default()),
            _ => {}
        }
    }
    let digest = Digest::of(&out.0);
    out.0.extend_from_slice(digest.as_bytes());
    out.0
}

pub(super) fn decode(bytes: &[u8]) -> Option<Base> {
    let (body, digest) = bytes.split_at_checked(bytes.len().checked_sub(32)?)?;
    if Digest::of(body).as_bytes() != digest {
        return None;
    }
    let mut input = Reader(body.strip_prefix(MAGIC)?);
    let taken_ns = input.signed()?;
    // Numbers of things are not believed: each thing takes a byte at least.
    let owners = input.count(1)?;
    let owners = (0..owners).map(|_| input.number32()).collect::<Option<Vec<_>>>()?;
    let total = input.count(7)?;
    let mut base = Base {
        taken_ns,
        records: Vec::with_capacity(total),
        names: Vec::new(),
        owners,
        folders: OnceLock::new(),
    };
    let (mut mtime, mut ctime, mut ino) = (0_i64, 0_i64, 0_u64);
    // Where the entries of the next folder begin: behind those of all folders before it.
    let mut first = 1_u64;
    for _ in 0..total {
        let head = input.byte()?;
        let kind = kind_of(head & 7)?;
        let name = input.blob()?;
        let at = u32::try_from(base.names.len()).ok()?;
        base.names.extend_from_slice(name);
        let mode = u16::try_from(input.number()?).ok().filter(|mode| *mode <= 0o7777)?;
        let owner = input.number32().filter(|owner| (*owner as usize) < base.owners.len())?;
        mtime = mtime.wrapping_add(input.signed()?);
        ctime = ctime.wrapping_add(input.signed()?);
        ino = ino.wrapping_add(input.signed()?.cast_unsigned());
        let (extent, count) = match kind {
            Kind::File => (input.number()?, 0),
            Kind::Dir => {
                let count = input.number32()?;
                let extent = first;
                first = first.checked_add(u64::from(count)).filter(|next| *next <= total as u64)?;
                (extent, count)
            }
            Kind::Symlink => {
                let target = input.blob()?;
                let extent = base.names.len() as u64;
                base.names.extend_from_slice(target);
                (extent, u32::try_from(target.len()).ok()?)
            }
            _ => (0, 0),
        };
        base.records.push(Record {
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
    (input.0.is_empty() && first == total as u64 && is_tree(&base)).then_some(base)
}

/// Whether every folder's entries come after it, sorted, each with a proper name.
fn is_tree(base: &Base) -> bool {
    let root = base.records.first().is_some_and(|root| root.kind == Kind::Dir && root.name_len == 0);
    root && base.records.iter().enumerate().all(|(at, record)| {
        let block = &base.records[base.block(at)];
        let after = record.kind != Kind::Dir || block.is_empty() || base.block(at).start > at;
        let fine = |name: &[u8]| {
            !name.is_empty() && name != b"." && name != b".." && !name.contains(&b'/') && !name.contains(&0)
        };
        after
            && block.iter().all(|entry| fine(base.name(entry)))
            && block.is_sorted_by(|a, b| base.name(a) < base.name(b))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::RelPath;
    use proptest::prelude::*;

    fn sample() -> Base {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("a/b/c")).unwrap();
        std::fs::write(folder.path().join("a/b/file"), "content").unwrap();
        std::os::unix::fs::symlink("b/file", folder.path().join("a/link")).unwrap();
        Base::take(folder.path()).unwrap()
    }

    /// Replaces bytes and repairs the checksum, so that the loader sees the damage.
    fn with_checksum(mut body: Vec<u8>) -> Vec<u8> {
        let digest = Digest::of(&body);
        body.extend_from_slice(digest.as_bytes());
        body
    }

    #[test]
    fn a_manifest_survives_its_file() {
        let base = sample();
        assert_eq!(decode(&encode(&base)), Some(base.clone()));
        assert_eq!(base.target(&RelPath::new("a/link").unwrap()), Some(b"b/file".as_slice()));
        let mut bytes = encode(&base);
        bytes[20] ^= 1;
        assert_eq!(decode(&bytes), None, "the checksum tells");
    }

    proptest! {
        #[test]
        fn damaged_manifests_are_refused_or_read_but_never_panic(
            noise in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..4),
            cut in any::<u16>(),
        ) {
            let bytes = encode(&sample());
            let mut body = bytes[..bytes.len() - 32].to_vec();
            for (at, byte) in noise {
                let at = usize::from(at) % body.len();
                body[at] = byte;
            }
            body.truncate(body.len() - usize::from(cut) % 8);
            if let Some(base) = decode(&with_checksum(body)) {
                prop_assert!(base.below(&RelPath::default()).count() <= base.len() + 1);
                let _ = base.foreign(0);
            }
        }

        #[test]
        fn noise_is_no_manifest(noise in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut body = MAGIC.to_vec();
            body.extend(noise);
            if let Some(base) = decode(&with_checksum(body)) {
                let _ = base.below(&RelPath::default()).count();
            }
        }
    }
}
