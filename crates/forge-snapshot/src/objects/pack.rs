//! The file of small contents: concatenated records that are never rewritten.
//!
//! A record is a head (magic, digest, length, checksum of the head) and the content, with the digest as its
//! checksum. A *mark* is a head without content that was written when everything before it was durable, so that
//! opening the file only verifies contents after the last mark. Records torn by a crash come after it and are cut
//! off.

use crate::error::{Error, IoContext};
use forge_types::Digest;
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const CONTENT_MAGIC: [u8; 4] = *b"FOb1";
const MARK_MAGIC: [u8; 4] = *b"FMk1";
const RECORD_HEAD_BYTES: usize = 52;
/// Number of zero bytes written after the records in advance: a sync then writes only contents, and not the new file
/// size and block allocation each time. Zeros are not a record and are cut off like a torn one.
const PREALLOC_BYTES: usize = 128 << 10;
/// Zero bytes.
static ZERO_FILL: [u8; PREALLOC_BYTES] = [0; PREALLOC_BYTES];

#[derive(Debug)]
pub(super) struct PackFile {
    path: PathBuf,
    file: File,
    index: HashMap<Digest, PackLocation>,
    /// Offset of the next record.
    end: u64,
    /// Known end of the preallocated space.
    preallocated_end: u64,
    /// Whether the file may have been written to since its last sync.
    dirty: bool,
    /// Whether a mark exists for the current durable end.
    marked: bool,
}

#[derive(Clone, Copy, Debug)]
struct PackLocation {
    at: u64,
    len: u32,
}

fn encode_head(magic: [u8; 4], digest: &[u8; 32], len: u64) -> [u8; RECORD_HEAD_BYTES] {
    let mut head = [0; RECORD_HEAD_BYTES];
    head[..4].copy_from_slice(&magic);
    head[4..36].copy_from_slice(digest);
    head[36..44].copy_from_slice(&len.to_le_bytes());
    let check = checksum(&head[..44]).to_le_bytes();
    head[44..].copy_from_slice(&check);
    head
}

/// Returns the 64-bit FNV-1a hash.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Returns magic, digest and length of an intact head.
fn decode_head(bytes: &[u8; RECORD_HEAD_BYTES]) -> Option<([u8; 4], Digest, u64)> {
    let (body, check) = bytes.split_at(44);
    if checksum(body).to_le_bytes() != check {
        return None;
    }
    let magic = body[..4].try_into().ok()?;
    let digest = Digest::from_bytes(body[4..36].try_into().ok()?);
    Some((magic, digest, u64::from_le_bytes(body[36..44].try_into().ok()?)))
}

impl PackFile {
    /// Opens or creates the file and cuts off records torn by a crash.
    pub(super) fn open_for_writing(path: &Path) -> Result<Self, Error> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut pack = Self::new(path, file.io_context("open", path)?);
        pack.read_new_records()?;
        if pack.file.metadata().io_context("inspect", path)?.len() != pack.end {
            pack.file.set_len(pack.end).io_context("write", path)?;
            pack.dirty = true;
        }
        Ok(pack)
    }

    pub(super) fn open_for_reading(path: &Path) -> Result<Self, Error> {
        let mut pack = Self::new(path, File::open(path).io_context("open", path)?);
        pack.read_new_records()?;
        Ok(pack)
    }

    fn new(path: &Path, file: File) -> Self {
        Self {
            path: path.to_owned(),
            file,
            index: HashMap::new(),
            end: 0,
            preallocated_end: 0,
            dirty: false,
            marked: true,
        }
    }

    /// Reads the heads of new records; returns whether there were any. Stops at the first record that is not intact.
    pub(super) fn read_new_records(&mut self) -> Result<bool, Error> {
        let size = self.file.metadata().io_context("inspect", &self.path)?.len();
        let mut found: Vec<(Digest, PackLocation)> = Vec::new();
        let mut checked = 0;
        let mut end = self.end;
        let mut bytes = [0; RECORD_HEAD_BYTES];
        while end + RECORD_HEAD_BYTES as u64 <= size {
            self.file.read_exact_at(&mut bytes, end).io_context("read", &self.path)?;
            let content = end + RECORD_HEAD_BYTES as u64;
            match decode_head(&bytes) {
                Some((MARK_MAGIC, _, at)) if at == end => {
                    checked = found.len();
                    end = content;
                }
                Some((CONTENT_MAGIC, digest, len))
                    if len <= super::MAX_PACKED_BYTES && content + len <= size =>
                {
                    found.push((digest, PackLocation { at: content, len: u32::try_from(len).unwrap_or(0) }));
                    end = content + len;
                }
                _ => break,
            }
        }
        for (i, (digest, place)) in found.iter().enumerate().skip(checked) {
            if Digest::of_bytes(&self.read_location(*place)?) != *digest {
                end = place.at - RECORD_HEAD_BYTES as u64;
                found.truncate(i);
                break;
            }
        }
        let news = end > self.end;
        self.dirty |= found.len() > checked;
        self.marked = !self.dirty;
        self.end = end;
        self.index.extend(found);
        Ok(news)
    }

    fn read_location(&self, place: PackLocation) -> Result<Vec<u8>, Error> {
        let mut bytes = vec![0; place.len as usize];
        self.file.read_exact_at(&mut bytes, place.at).io_context("read", &self.path)?;
        Ok(bytes)
    }

    pub(super) fn contains(&self, digest: Digest) -> bool {
        self.index.contains_key(&digest)
    }

    pub(super) fn read(&self, digest: Digest) -> Result<Option<Vec<u8>>, Error> {
        let Some(place) = self.index.get(&digest) else {
            return Ok(None);
        };
        let bytes = self.read_location(*place)?;
        if Digest::of_bytes(&bytes) != digest {
            return Err(Error::Damaged { what: format!("{} at byte {}", self.path.display(), place.at) });
        }
        Ok(Some(bytes))
    }

    /// Appends a content unless it is already stored.
    pub(super) fn append(&mut self, digest: Digest, bytes: &[u8]) -> Result<(), Error> {
        if self.contains(digest) {
            return Ok(());
        }
        let mut record = Vec::with_capacity(2 * RECORD_HEAD_BYTES + bytes.len());
        if !self.dirty && !self.marked {
            record.extend_from_slice(&encode_head(MARK_MAGIC, &[0; 32], self.end));
        }
        let at = self.end + (record.len() + RECORD_HEAD_BYTES) as u64;
        record.extend_from_slice(&encode_head(CONTENT_MAGIC, digest.as_bytes(), bytes.len() as u64));
        record.extend_from_slice(bytes);
        self.preallocate(self.end + record.len() as u64);
        if let Err(error) = self.file.write_all_at(&record, self.end) {
            // Earlier records are preserved; the partial one is removed.
            let _ = self.file.set_len(self.end);
            self.preallocated_end = 0;
            return Err(Error::from_io("write", &self.path, error));
        }
        self.end += record.len() as u64;
        self.dirty = true;
        self.marked = false;
        self.index.insert(digest, PackLocation { at, len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) });
        Ok(())
    }

    /// Preallocates space up to and somewhat beyond `end`. On failure, the write itself reports the error.
    fn preallocate(&mut self, end: u64) {
        if end <= self.preallocated_end {
            return;
        }
        // Only after the bytes to be written now.
        let some = PREALLOC_BYTES - usize::try_from(end % PREALLOC_BYTES as u64).unwrap_or(0);
        let taken = self.file.write_all_at(&ZERO_FILL[..some], end);
        self.preallocated_end = if taken.is_ok() { end + some as u64 } else { end };
    }

    pub(super) fn flush(&mut self) -> Result<(), Error> {
        if self.dirty {
            self.file.sync_data().io_context("write", &self.path)?;
            self.dirty = false;
        }
        Ok(())
    }

    pub(super) fn len(&self) -> u64 {
        self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(path: &Path) -> Vec<(Digest, u64)> {
        let mut pack = PackFile::open_for_writing(path).unwrap();
        let mut ends = Vec::new();
        for n in 0..6_u8 {
            let bytes = vec![n; 10 * usize::from(n)];
            pack.append(Digest::of_bytes(&bytes), &bytes).unwrap();
            ends.push((Digest::of_bytes(&bytes), pack.end));
            if n % 2 == 1 {
                pack.flush().unwrap();
            }
        }
        ends
    }

    #[test]
    fn a_torn_tail_is_cut_off_at_every_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        let ends = filled(&path);
        let whole = std::fs::read(&path).unwrap();
        let last = usize::try_from(ends.last().unwrap().1).unwrap();
        // The last record is followed by preallocated space.
        for length in (0..=last + 60).chain([whole.len()]) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let mut pack = PackFile::open_for_writing(&path).unwrap();
            for (digest, end) in &ends {
                assert_eq!(pack.contains(*digest), *end <= length as u64, "{length}");
            }
            pack.append(Digest::of_bytes(b"further"), b"further").unwrap();
            pack.flush().unwrap();
            let again = PackFile::open_for_reading(&path).unwrap();
            assert_eq!(again.read(Digest::of_bytes(b"further")).unwrap().unwrap(), b"further");
        }
    }

    #[test]
    fn a_tail_whose_content_never_reached_the_disk_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        let mut pack = PackFile::open_for_writing(&path).unwrap();
        let contents = [b"one".repeat(50), b"two".repeat(50), b"three".repeat(50)];
        let digests: Vec<_> = contents.iter().map(|bytes| Digest::of_bytes(bytes)).collect();
        pack.append(digests[0], &contents[0]).unwrap();
        pack.flush().unwrap();
        pack.append(digests[1], &contents[1]).unwrap();
        pack.append(digests[2], &contents[2]).unwrap();
        let hole = pack.index[&digests[1]].at;
        pack.file.write_all_at(&[0; 20], hole).unwrap();
        drop(pack);
        let pack = PackFile::open_for_writing(&path).unwrap();
        assert_eq!(digests.map_holds(&pack), [true, false, false]);
    }

    trait Holds {
        fn map_holds(&self, pack: &PackFile) -> [bool; 3];
    }
    impl Holds for Vec<Digest> {
        fn map_holds(&self, pack: &PackFile) -> [bool; 3] {
            [pack.contains(self[0]), pack.contains(self[1]), pack.contains(self[2])]
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics_and_wrong_bytes_are_never_returned(
            noise in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..8),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("pack");
            let ends = filled(&path);
            let mut bytes = std::fs::read(&path).unwrap();
            for (at, byte) in noise {
                let at = usize::from(at) % 600;
                bytes[at] = byte;
            }
            std::fs::write(&path, &bytes).unwrap();
            let pack = PackFile::open_for_writing(&path).unwrap();
            for (digest, _) in ends {
                if let Ok(Some(bytes)) = pack.read(digest) {
                    prop_assert_eq!(Digest::of_bytes(&bytes), digest);
                }
            }
        }
    }
}
