//! Sources of the contents of a run and its repository.

use super::{ChangeType, TreeChange};
use crate::base::open_unchanged;
use crate::bounds::WorkBounds;
use crate::copy;
use crate::host::NodeKind;
use crate::{BaseItem, BaseManifest, Error, ObjectStore, RelPath, TreeNode, TreeRoot};
use forge_types::Digest;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

/// An additional source of baseline contents, for files that changed in the repository before the run first read
/// them.
pub trait BaselineContents: Sync {
    /// Returns the content of the file at `path` with the baseline state `was`; `None` if not known for certain.
    fn baseline_content(&self, path: &RelPath, was: &BaseItem) -> Option<Vec<u8>>;
}

/// The sources of contents: the store of a run, and its repository for files that are unchanged since the baseline.
#[derive(Clone, Copy)]
pub struct ContentSources<'a> {
    /// The repository's path, for messages.
    pub repository: &'a Path,
    /// The repository's open directory; `None` if it is not available, and with it what was never stored.
    pub root: Option<&'a TreeRoot>,
    /// The baseline.
    pub base: &'a BaseManifest,
    /// Contents by their digest.
    pub objects: &'a ObjectStore,
    /// The source of baseline contents that are in neither.
    pub baseline: Option<&'a dyn BaselineContents>,
    /// The bounds of the work.
    pub bounds: &'a WorkBounds,
}

impl ContentSources<'_> {
    /// Returns the content of a file from the store or, if it was never stored, from the repository if unchanged.
    /// `None`: it is no longer available, or is larger than `largest` bytes.
    pub fn read_content(&self, path: &RelPath, node: &TreeNode, largest: u64) -> io::Result<Option<Vec<u8>>> {
        let TreeNode::File { size, content, .. } = node else { return Ok(None) };
        self.bounds.check_stopped()?;
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
        let bytes = match self.open_untouched(path)? {
            Some(file) => {
                let mut bytes = Vec::with_capacity(usize::try_from(*size).unwrap_or(0));
                file.take(largest + 1).read_to_end(&mut bytes)?;
                bytes
            }
            None => match self.read_baseline(path, *size) {
                Some(bytes) => bytes,
                None => return Ok(None),
            },
        };
        let right =
            bytes.len() as u64 == *size && content.is_none_or(|digest| digest == Digest::of_bytes(&bytes));
        Ok(right.then_some(bytes))
    }

    /// Adds missing digests from unchanged files in the repository and removes differences that turn out to be none,
    /// so that a file that was touched but not changed is not reported as modified.
    pub fn learn_contents(&self, differences: &mut Vec<TreeChange>) -> io::Result<()> {
        for difference in differences.iter_mut() {
            self.bounds.check_stopped()?;
            let TreeChange { path, before, after } = difference;
            let (
                Some(TreeNode::File { size, content: before, .. }),
                Some(TreeNode::File { size: size2, content: after, .. }),
            ) = (before, after)
            else {
                continue;
            };
            let unknown = match (&mut *before, &mut *after) {
                (unknown @ None, Some(_)) | (Some(_), unknown @ None) if size == size2 => unknown,
                _ => continue,
            };
            if let Some(file) = self.open_untouched(path)? {
                self.bounds
                    .check_file_size(file.metadata()?.len(), || self.repository.join(path.as_path()))?;
                *unknown = Some(copy::hash_file(&file, self.bounds)?.0);
            }
        }
        differences.retain(|d| match (&d.before, &d.after) {
            (Some(before), Some(after)) => {
                d.change_type() == ChangeType::Retyped || !before.is_equivalent(after)
            }
            _ => true,
        });
        Ok(())
    }

    /// Determines the digest of a baseline file that was never read and is no longer in the repository.
    pub(crate) fn learn_elsewhere(&self, path: &RelPath, size: u64) -> Option<Digest> {
        let bytes = self.read_baseline(path, size)?;
        (bytes.len() as u64 == size).then(|| Digest::of_bytes(&bytes))
    }

    /// Reads the content of a baseline file that is no longer in the repository. A run's own files have their
    /// contents in the store; a lost one is distinguished by its digest.
    fn read_baseline(&self, path: &RelPath, size: u64) -> Option<Vec<u8>> {
        let item = self.base.get(path).filter(|item| item.kind == NodeKind::File && item.size == size)?;
        self.baseline?.baseline_content(path, &item)
    }

    /// Opens the repository's file at `path` if its stamp is that of the baseline.
    fn open_untouched(&self, path: &RelPath) -> io::Result<Option<File>> {
        let Some(item) = self.base.get(path).filter(|item| item.kind == NodeKind::File) else {
            return Ok(None);
        };
        match self.root {
            Some(root) => open_unchanged(root.as_fd(), path, &item),
            None => Ok(None),
        }
    }
}
