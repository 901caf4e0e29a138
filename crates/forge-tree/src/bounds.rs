//! Ceilings and cancellation of work on a tree.
//!
//! Every loop of this crate that grows with the size of a tree calls [`WorkBounds::check_stopped`] or a
//! [`BoundedTally`], which counts the items that cost memory. Both errors pass through `io::Error` in functions that
//! otherwise return only host errors.

use crate::ceiling::WorkspaceCeiling;
use crate::error::Error;
use forge_types::WorkspaceLimits;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A flag that stops work from another thread, for example when its result is no longer needed.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Stops the work at its next check.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the work must stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The ceilings of a piece of work and its stop flag.
#[derive(Clone, Debug)]
pub struct WorkBounds {
    limits: WorkspaceLimits,
    stop: Option<StopFlag>,
}

impl WorkBounds {
    /// Creates bounds with the ceilings `limits` and the stop flag `stop`.
    pub const fn new(limits: WorkspaceLimits, stop: StopFlag) -> Self {
        Self { limits, stop: Some(stop) }
    }

    /// Returns bounds with the same ceilings and the stop flag `stop`.
    #[must_use]
    pub fn with_stop(&self, stop: StopFlag) -> Self {
        Self { limits: self.limits, stop: Some(stop) }
    }

    /// Returns bounds without ceilings and with the same stop flag.
    #[must_use]
    pub fn without_ceilings(&self) -> Self {
        Self { limits: WorkspaceLimits::NONE, stop: self.stop.clone() }
    }

    /// Returns bounds without ceilings that are never stopped.
    pub const fn unbounded() -> &'static Self {
        &Self { limits: WorkspaceLimits::NONE, stop: None }
    }

    /// Checks that the work has not been stopped.
    ///
    /// # Errors
    /// Returns [`Error::Stopped`] if it has.
    pub fn check_stopped(&self) -> Result<(), Error> {
        match &self.stop {
            Some(stop) if stop.0.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Checks that a file of `size` bytes may be read.
    pub fn check_file_size(&self, size: u64, path: impl FnOnce() -> PathBuf) -> Result<(), Error> {
        self.check_stopped()?;
        if size <= self.limits.file_bytes {
            return Ok(());
        }
        Err(Error::ceiling_exceeded(WorkspaceCeiling::FileBytes, self.limits.file_bytes, &path()))
    }
}

/// A count of the paths found by a scan of a tree.
pub struct BoundedTally<'a> {
    bounds: &'a WorkBounds,
    /// The tree, for messages.
    root_path: &'a Path,
    /// The ceiling of the number of paths.
    counted: WorkspaceCeiling,
    paths: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> BoundedTally<'a> {
    /// Creates a count of all paths of a tree.
    pub const fn of_tree(bounds: &'a WorkBounds, root_path: &'a Path) -> Self {
        Self {
            bounds,
            root_path,
            counted: WorkspaceCeiling::Paths,
            paths: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Creates a count of changed paths.
    pub const fn of_changes(bounds: &'a WorkBounds, place: &'a Path) -> Self {
        Self { counted: WorkspaceCeiling::ChangedPaths, ..Self::of_tree(bounds, place) }
    }

    /// Returns the bounds of the count.
    pub const fn bounds(&self) -> &'a WorkBounds {
        self.bounds
    }

    /// Counts one path with a name, or a full path, of `bytes` bytes.
    pub fn count_path(&self, bytes: usize) -> Result<(), Error> {
        self.bounds.check_stopped()?;
        let limits = &self.bounds.limits;
        let most = if self.counted == WorkspaceCeiling::Paths { limits.paths } else { limits.changed_paths };
        if self.paths.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Error::ceiling_exceeded(self.counted, most, self.root_path));
        }
        self.count_bytes(bytes)
    }

    /// Counts the bytes of a name or a link target in addition to those of [`BoundedTally::count_path`].
    pub fn count_bytes(&self, bytes: usize) -> Result<(), Error> {
        let (bytes, most) = (bytes as u64, self.bounds.limits.path_bytes);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > most {
            return Err(Error::ceiling_exceeded(WorkspaceCeiling::PathBytes, most, self.root_path));
        }
        Ok(())
    }

    /// Checks that directories may be nested `depth` deep.
    pub fn check_depth(&self, depth: u64) -> Result<(), Error> {
        let most = self.bounds.limits.depth;
        if depth > most {
            Err(Error::ceiling_exceeded(WorkspaceCeiling::Depth, most, self.root_path))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_errors_survive_the_way_through_an_error_of_the_host() {
        let tree = Path::new("/tree");
        let through = |error: Error| Error::from_io("read", tree, std::io::Error::from(error));
        assert!(matches!(through(Error::Stopped), Error::Stopped));
        let error = through(Error::ceiling_exceeded(WorkspaceCeiling::Paths, 1_234_567, tree));
        assert_eq!(
            error.to_string(),
            "/tree holds more than 1,234,567 files and directories (workspace.max_paths); remove unneeded files or \
             raise the setting"
        );
    }
}
