//! Where the contents of a run and its repository are found.

use super::{Change, Difference};
use crate::base::open_unchanged;
use crate::bounds::Bounds;
use crate::copy;
use crate::host::{self, Kind};
use crate::{Base, Error, Item, Node, Objects, RelPath};
use forge_types::Digest;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

/// Where else contents are found that stood in a repository when a run began, of files that were changed there before
/// anything of the run read them.
pub trait Beginning: Sync {
    /// The content of the file at `path`, which was as `was` says; `None` if it is not known for sure.
    fn content(&self, path: &RelPath, was: &Item) -> Option<Vec<u8>>;
}

/// The places where contents are found: the store of a run, and its repository for what still stands there as it
/// stood when the run began.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The folder of the repository on the host.
    pub repository: &'a Path,
    /// What stood in it at the beginning.
    pub base: &'a Base,
    /// Contents by their digest.
    pub objects: &'a Objects,
    /// Contents of the beginning that are in neither.
    pub beginning: Option<&'a dyn Beginning>,
    /// What the work may take.
    pub bounds: &'a Bounds,
}

impl Sources<'_> {
    /// The content of a file, from the store or, if it was never stored, from the repository as long as it stands
    /// there untouched. `None`: it is no longer to be had, or larger than `largest` bytes.
    pub fn read(&self, path: &RelPath, node: &Node, largest: u64) -> io::Result<Option<Vec<u8>>> {
        let Node::File { size, content, .. } = node else { return Ok(None) };
        self.bounds.check()?;
        if *size > largest {
            return Ok(None);
        }
        if let Some(digest) = content {
            match self.objects.read(*digest, largest) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(Error::Missing { .. }) => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        let bytes = match self.untouched(path)? {
            Some(file) => {
                let mut bytes = Vec::with_capacity(usize::try_from(*size).unwrap_or(0));
                file.take(largest + 1).read_to_end(&mut bytes)?;
                bytes
            }
            None => match self.elsewhere(path, *size) {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
        };
        let right = bytes.len() as u64 == *size && content.is_none_or(|digest| digest == Digest::of(&bytes));
        Ok(right.then_some(bytes))
    }

    /// Learns contents that were never read, so that a file that was touched and not changed is not called modified:
    /// fills in the digest of what still stands in the repository as it stood at the beginning, and drops differences
    /// that are none.
    pub fn learn(&self, differences: &mut Vec<Difference>) -> io::Result<()> {
        for difference in differences.iter_mut() {
            self.bounds.check()?;
            let Difference { path, before, after } = difference;
            let (
                Some(Node::File { size, content: before, .. }),
                Some(Node::File { size: size2, content: after, .. }),
            ) = (before, after)
            else {
                continue;
            };
            let unknown = match (&mut *before, &mut *after) {
                (unknown @ None, Some(_)) | (Some(_), unknown @ None) if size == size2 => unknown,
                _ => continue,
            };
            if let Some(file) = self.untouched(path)? {
                self.bounds.file(file.metadata()?.len(), || self.repository.join(path.as_path()))?;
                *unknown = Some(copy::digest(&file, self.bounds)?.0);
            }
        }
        differences.retain(|d| match (&d.before, &d.after) {
            (Some(before), Some(after)) => d.change() == Change::Retyped || !before.same(after),
            _ => true,
        });
        Ok(())
    }

    /// Learns the digest of a file of the beginning that was never read and no longer stands in the repository.
    pub(crate) fn learn_elsewhere(&self, path: &RelPath, size: u64) -> Option<Digest> {
        let bytes = self.elsewhere(path, size)?;
        (bytes.len() as u64 == size).then(|| Digest::of(&bytes))
    }

    /// The content of a file of the beginning that no longer stands in the repository. Files of a run have theirs in
    /// the store; one that was lost there is told from another by its digest.
    fn elsewhere(&self, path: &RelPath, size: u64) -> Option<Vec<u8>> {
        let item = self.base.get(path).filter(|item| item.kind == Kind::File && item.size == size)?;
        self.beginning?.content(path, &item)
    }

    /// The repository's file at `path`, if its stamp is still that of the beginning.
    fn untouched(&self, path: &RelPath) -> io::Result<Option<File>> {
        let Some(item) = self.base.get(path).filter(|item| item.kind == Kind::File) else { return Ok(None) };
        let root = host::open_root(self.repository)?;
        open_unchanged(root.as_fd(), path, &item)
    }
}
