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
pub struct Stop(Arc<AtomicBool>);

impl Stop {
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
pub struct Bounds {
    limits: WorkspaceLimits,
    stop: Option<Stop>,
}

impl Bounds {
    /// Work within `limits`, ended by `stop`.
    pub const fn new(limits: WorkspaceLimits, stop: Stop) -> Self {
        Self { limits, stop: Some(stop) }
    }

    /// The same ceilings for work that `stop` ends.
    #[must_use]
    pub fn with(&self, stop: Stop) -> Self {
        Self { limits: self.limits, stop: Some(stop) }
    }

    /// No ceilings, and nobody ends it.
    pub const fn none() -> &'static Self {
        &Self { limits: WorkspaceLimits::NONE, stop: None }
    }

    /// Whether the work is still wanted.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn check(&self) -> Result<(), Error> {
        match &self.stop {
            Some(stop) if stop.0.load(Ordering::Relaxed) => Err(Error::Stopped),
            _ => Ok(()),
        }
    }

    /// Whether a file of `size` bytes may be read at all.
    pub(crate) fn file(&self, size: u64, path: impl FnOnce() -> PathBuf) -> Result<(), Error> {
        self.check()?;
        if size <= self.limits.file_bytes {
            return Ok(());
        }
        Err(Error::ceiling(Ceiling::FileBytes, self.limits.file_bytes, &path()))
    }
}

/// A ceiling of [`WorkspaceLimits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
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

impl Ceiling {
    /// The setting that moves it.
    pub const fn setting(self) -> &'static str {
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
pub(crate) struct Excess(pub(crate) Ceiling, pub(crate) u64);

impl fmt::Display for Excess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let most = grouped(self.1);
        match self.0 {
            Ceiling::Paths => write!(f, "holds more than {most} files and directories"),
            Ceiling::ChangedPaths => {
                write!(f, "differs from the beginning of the run at more than {most} paths")
            }
            Ceiling::PathBytes => {
                write!(f, "has names and targets of links of more than {most} bytes together")
            }
            Ceiling::Depth => write!(f, "has directories more than {most} deep"),
            Ceiling::FileBytes => write!(f, "is a file of more than {most} bytes, holes counted"),
        }
    }
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
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
pub(crate) struct Tally<'a> {
    bounds: &'a Bounds,
    /// The tree, for messages.
    place: &'a Path,
    /// Which ceiling the number of paths has.
    counted: Ceiling,
    paths: AtomicU64,
    bytes: AtomicU64,
}

impl<'a> Tally<'a> {
    /// Counts everything that stands in a tree.
    pub(crate) const fn of_tree(bounds: &'a Bounds, place: &'a Path) -> Self {
        Self { bounds, place, counted: Ceiling::Paths, paths: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Counts paths that differ.
    pub(crate) const fn of_changes(bounds: &'a Bounds, place: &'a Path) -> Self {
        Self { counted: Ceiling::ChangedPaths, ..Self::of_tree(bounds, place) }
    }

    /// What it counts for.
    pub(crate) const fn bounds(&self) -> &'a Bounds {
        self.bounds
    }

    /// Counts one path whose name, or whole path, has `bytes`.
    pub(crate) fn path(&self, bytes: usize) -> Result<(), Error> {
        self.bounds.check()?;
        let limits = &self.bounds.limits;
        let most = if self.counted == Ceiling::Paths { limits.paths } else { limits.changed_paths };
        if self.paths.fetch_add(1, Ordering::Relaxed) >= most {
            return Err(Error::ceiling(self.counted, most, self.place));
        }
        self.bytes(bytes)
    }

    /// Counts bytes of a name or a target beside those of [`Tally::path`].
    pub(crate) fn bytes(&self, bytes: usize) -> Result<(), Error> {
        let (bytes, most) = (bytes as u64, self.bounds.limits.path_bytes);
        if self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > most {
            return Err(Error::ceiling(Ceiling::PathBytes, most, self.place));
        }
        Ok(())
    }

    /// Whether directories may lie `depth` deep.
    pub(crate) fn depth(&self, depth: u64) -> Result<(), Error> {
        let most = self.bounds.limits.depth;
        if depth > most { Err(Error::ceiling(Ceiling::Depth, most, self.place)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_errors_survive_the_way_through_an_error_of_the_host() {
        let tree = Path::new("/tree");
        let through = |error: Error| Error::io("read", tree, std::io::Error::from(error));
        assert!(matches!(through(Error::Stopped), Error::Stopped));
        let error = through(Error::ceiling(Ceiling::Paths, 1_234_567, tree));
        assert_eq!(
            error.to_string(),
            "/tree holds more than 1,234,567 files and directories (workspace.max_paths); remove what is not needed, or \
             raise the setting"
        );
    }
}
