//! Files that a command reads or writes because the user named them.
//!
//! A link in a clone is not the user's own: if `out` is a link, the clone would choose what `--report-file
//! out/report.json` replaces, and if `task.md` is one, which file `--task-file task.md` sends to a provider.

use crate::checkout::Checkouts;
use crate::environment::Environment;
use forge_files::{Error, UserFile};
use std::path::{Path, PathBuf};

/// The clones that a command works on.
#[derive(Clone, Debug)]
pub struct UserFiles {
    clones: Vec<Checkouts>,
}

impl UserFiles {
    /// Finds the clones around `cwd` and around each of `repos`.
    pub fn new(repos: &[PathBuf], cwd: &Path, environment: &Environment) -> Self {
        let home = environment.get("HOME").map(Path::new);
        let discover = |repo: &Path| Checkouts::discover(repo, Some(cwd), home);
        Self { clones: repos.iter().map(|repo| discover(repo)).collect() }
    }

    /// Returns the file at an absolute path.
    pub fn locate(&self, path: &Path) -> UserFile {
        let below = self.clones.iter().find_map(|clones| clones.locate(path));
        below.map_or_else(
            || UserFile::Own(path.to_owned()),
            |(root, relative)| UserFile::Within { root, relative },
        )
    }

    /// Reads a text of at most `max_bytes`. Links of a clone are followed within clones only.
    ///
    /// # Errors
    /// As [`UserFile::read_text`].
    pub fn read_text(&self, path: &Path, max_bytes: u64) -> Result<String, Error> {
        let read = self.locate(path).read_text(max_bytes);
        let (Err(Error::Link { .. }), Ok(target)) = (&read, path.canonicalize()) else { return read };
        match self.locate(&target) {
            UserFile::Own(_) => read,
            within => within.read_text(max_bytes),
        }
    }
}
