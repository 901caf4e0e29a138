//! How much a piece of work may take, and whether it is still wanted.
//!
//! Every loop of this crate that a tree can make long asks [`Bounds::check`] or a [`Tally`]; what is counted there is
//! what costs memory. Both errors travel through `io::Error` where a function speaks of the host only.

use crate::error::Error;
use forge_types::WorkspaceLimits;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Ends work from elsewhere: from another thread, or when nobody waits for it any more.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Ends the work at its next look.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Tells whether the work is to end.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The ceilings of a piece of work, and whether it is still wanted.
#[derive(Clone, Debug)]
pub struct WorkBounds {
    limits: WorkspaceLimits,
    stop: Option<StopFlag>,
}

impl WorkBounds {
    /// Work within `limits`, ended by `stop`.
    pub const fn new(limits: WorkspaceLimits, stop: StopFlag) -> Self {
        Self { limits, stop: Some(stop) }
    }

    /// The same ceilings for work that `stop` ends.
    #[must_use]
    pub fn with_stop(&self, stop: StopFlag) -> Self {
        Self { limits: self.limits, stop: Some(stop) }
    }

    /// No ceilings, and nobody ends it.
    pub const fn unbounded() -> &'static Self {
        &Self { limits: WorkspaceLimits::NONE, stop: None }
    }

    /// Whether the work is still wanted.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn check_stopped(&self) -> Result<(), Error> {
        match &self.stop {
            Some(stop) if stop.0.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Whether a file of `size` bytes may be read at all.
    pub fn check_file_size(&self, size: u64, path: impl FnOnce() -> PathBuf) -> Result<(), Error> {
        self.check_stopped()?;
        if size <= self.limits.file_bytes {
            return Ok(());
        }
        Err(Error::ceiling_exceeded(WorkspaceCeiling::FileBytes, self.limits.file_bytes, &path()))
    }
}

/// A ceiling of [`WorkspaceLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkspaceCeiling {
    /// Files, directories and links.
    Paths,
    /// Paths that differ from the beginning.
    ChangedPaths,
    /// Bytes of names.
    PathBytes,
    /// Directories within one another.
    Depth,
    /// Bytes of one file.
    FileBytes,
}

impl WorkspaceCeiling {
    /// The setting that moves it.
    pub const fn setting_name(self) -> &'static str {
        match self {
            Self::Paths => "workspace.max_paths",
            Self::ChangedPaths => "workspace.max_changed_paths",
            Self::PathBytes => "workspace.max_path_bytes",
            Self::Depth => "workspace.max_depth",
            Self::FileBytes => "workspace.max_file_size",
        }
    }
}

/// What was exceeded, in words: how much, of what, at most.
pub struct CeilingExcess(pub WorkspaceCeiling, pub u64);

impl fmt::Display for CeilingExcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = group_thousands(self.1);
        match self.0 {
            WorkspaceCeiling::Paths => write!(f, "holds more than {most} files and directories"),
            WorkspaceCeiling::ChangedPaths => {
                write!(f, "differs from the beginning of the run at more than {most} paths")
            }
            WorkspaceCeiling::PathBytes => {
                write!(f, "has names and targets of links of more than {most} bytes together")
            }
            WorkspaceCeiling::Depth => write!(f, "has directories more than {most} deep"),
            WorkspaceCeiling::FileBytes => write!(f, "is a file of more than {most} bytes, holes counted"),
        }
    }
}

/// A number with its thousands apart.
fn group_thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Counts what one look at a tree finds.
pub struct BoundedTally<'a> {
    bounds: &'a WorkBounds,
    /// The tree, for messages.
    root_path: &'a Path,
    /// Which ceiling the number of paths has.
    counted: WorkspaceCeiling,
    paths: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> BoundedTally<'a> {
    /// Counts everything that stands in a tree.
    pub const fn of_tree(bounds: &'a WorkBounds, root_path: &'a Path) -> Self {
        Self {
            bounds,
            root_path,
            counted: WorkspaceCeiling::Paths,
            paths: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }
    }

    /// Counts paths that differ.
    pub const fn of_changes(bounds: &'a WorkBounds, place: &'a Path) -> Self {
        Self { counted: WorkspaceCeiling::ChangedPaths, ..Self::of_tree(bounds, place) }
    }

    /// What it counts for.
    pub const fn bounds(&self) -> &'a WorkBounds {
        self.bounds
    }

    /// Counts one path whose name, or whole path, has `bytes`.
    pub fn count_path(&self, bytes: usize) -> Result<(), Error> {
        self.bounds.check_stopped()?;
        let limits = &self.bounds.limits;
        let most = if self.counted == WorkspaceCeiling::Paths { limits.paths } else { limits.changed_paths };
        if self.paths.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Error::ceiling_exceeded(self.counted, most, self.root_path));
        }
        self.count_bytes(bytes)
    }

    /// Counts bytes of a name or a target beside those of [`Tally::path`].
    pub fn count_bytes(&self, bytes: usize) -> Result<(), Error> {
        let (bytes, most) = (bytes as u64, self.bounds.limits.path_bytes);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > most {
            return Err(Error::ceiling_exceeded(WorkspaceCeiling::PathBytes, most, self.root_path));
        }
        Ok(())
    }

    /// Whether directories may lie `depth` deep.
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
            "/tree holds more than 1,234,567 files and directories (workspace.max_paths); remove what is not needed, or \
             raise the setting"
        );
    }
}
