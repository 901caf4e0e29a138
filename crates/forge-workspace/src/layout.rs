//! Where a run's view lies on the disk, and what it is: one folder that can be removed as a whole.
//!
//! ```text
//! <views>/<run>/view/meta.json      what the view is; there once its beginning is safe
//!                    states/        of several repositories: their snapshots by the name of the whole
//!                    applied.json   what was applied, as far as a later apply must know it
//!                    applying.json  what is being applied, only meanwhile
//!                    <n>/base       what stood in the n-th repository when the run began
//!                    <n>/objects/   contents and snapshots
//!                    <n>/upper work copy
//!                    copies/<name>  of several repositories, in place of <n>/copy
//! ```

use forge_ports::sandbox::Error;
use forge_types::{Digest, RunId};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The most bytes of a file in which a view keeps what it is, what was applied, or a state of several repositories.
pub(crate) const MAX_RECORD_BYTES: u64 = 512 << 20;

/// The version of the layout that this program writes and reads.
const LAYOUT_VERSION: u32 = 1;

/// How a workspace is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceKind {
    /// The repository itself.
    Direct,
    /// Copy on write, by the kernel.
    Overlay,
    /// A copy that shares its blocks with the repository.
    Reflink,
    /// A copy.
    Copy,
}

impl WorkspaceKind {
    /// The word for people.
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Overlay => "overlay",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }
}

/// In which attributes the kernel keeps its notes about an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XattrNamespace {
    /// `trusted.overlay.*`.
    Trusted,
    /// `user.overlay.*`.
    User,
}

/// A repository of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRepo {
    /// Its folder in the workspace; empty: it is the workspace.
    pub name: String,
    /// The folder on the host, without links.
    pub path: PathBuf,
    /// The folder's number in its file system when the run began.
    pub ino: u64,
}

/// A file that tools do not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMask {
    /// Which of the repositories.
    pub repo: usize,
    /// The path in the repository, as bytes.
    pub path: Vec<u8>,
    /// What was in it; `None`: it could not be read.
    pub content: Option<Digest>,
}

/// What a view is: decided when the run begins, never changed but for a fallback before the first step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkspaceMeta {
    version: u32,
    pub kind: WorkspaceKind,
    /// Why it is not a better kind; empty if it is the best.
    pub reason: String,
    pub space: XattrNamespace,
    pub repos: Vec<RunRepo>,
    pub masks: Vec<FileMask>,
    pub warnings: Vec<String>,
}

impl WorkspaceMeta {
    pub(crate) fn new(
        kind: WorkspaceKind,
        reason: String,
        space: XattrNamespace,
        repos: Vec<RunRepo>,
    ) -> Self {
        Self { version: LAYOUT_VERSION, kind, reason, space, repos, masks: Vec::new(), warnings: Vec::new() }
    }
}

/// The folder of a run's view.
#[derive(Clone, Debug)]
pub(crate) struct WorkspaceLayout(PathBuf);

impl WorkspaceLayout {
    /// The place of `run` below the folder of all views.
    pub(crate) fn for_run(views: &Path, run: RunId) -> Self {
        Self(views.join(run.to_string()).join("view"))
    }

    pub(crate) fn root_dir(&self) -> &Path {
        &self.0
    }

    pub(crate) fn objects_dir(&self, index: usize) -> PathBuf {
        self.repo_dir(index).join("objects")
    }

    pub(crate) fn states_dir(&self) -> PathBuf {
        self.0.join("states")
    }

    pub(crate) fn applied_path(&self) -> PathBuf {
        self.0.join("applied.json")
    }

    /// The folder of one repository.
    fn repo_dir(&self, index: usize) -> PathBuf {
        self.0.join(index.to_string())
    }

    pub(crate) fn base_path(&self, index: usize) -> PathBuf {
        self.repo_dir(index).join("base")
    }

    pub(crate) fn upper_dir(&self, index: usize) -> PathBuf {
        self.repo_dir(index).join("upper")
    }

    pub(crate) fn work_dir(&self, index: usize) -> PathBuf {
        self.repo_dir(index).join("work")
    }

    /// The folder in which the copies of several repositories stand under their names.
    pub(crate) fn copies_dir(&self) -> PathBuf {
        self.0.join("copies")
    }

    /// The copy of a repository. Several stand side by side.
    pub(crate) fn copy_dir(&self, meta: &WorkspaceMeta, index: usize) -> PathBuf {
        match meta.repos.as_slice() {
            [_] => self.repo_dir(index).join("copy"),
            repos => self.copies_dir().join(&repos[index].name),
        }
    }

    /// Makes an empty place; what a beginning left that did not get far is removed.
    pub(crate) fn reset_dirs(&self, repos: usize) -> Result<(), Error> {
        forge_files::remove_tree(&self.0);
        let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        let made =
            private(&self.0).and_then(|()| (0..repos).try_for_each(|index| private(&self.repo_dir(index))));
        made.map_err(|error| self.layout_error("making", &error))
    }

    /// What the view is; `None`: there is none yet.
    pub(crate) fn load_meta(&self) -> Result<Option<WorkspaceMeta>, Error> {
        let path = self.0.join("meta.json");
        let bytes = match forge_files::read(&path, MAX_RECORD_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(self.layout_error("reading", &error.into_io_error())),
        };
        let meta: WorkspaceMeta = serde_json::from_slice(&bytes).map_err(|error| Error::View {
            why: format!("{} is damaged ({error}); the run's steps can't be used any more", path.display()),
        })?;
        if meta.version != LAYOUT_VERSION {
            let why = format!("{} was written by another version of forge; use that one", path.display());
            return Err(Error::View { why });
        }
        Ok(Some(meta))
    }

    /// Writes down what the view is, so that it survives a crash whole or not at all.
    pub(crate) fn save_meta(&self, meta: &WorkspaceMeta) -> Result<(), Error> {
        let bytes = serde_json::to_vec(meta).map_err(|error| Error::View { why: error.to_string() })?;
        write_durably(&self.0.join("meta.json"), &bytes).map_err(|error| self.layout_error("writing", &error))
    }

    pub(crate) fn layout_error(&self, doing: &str, error: &io::Error) -> Error {
        Error::View { why: format!("{doing} {}: {}", self.0.display(), describe_io_error(error)) }
    }
}

/// An error of the host, with what can be done where that is known.
pub(crate) fn describe_io_error(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "no space is left; free some, or remove old runs with `forge gc`".to_owned()
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}; choose another data folder (XDG_DATA_HOME)")
        }
        _ => error.to_string(),
    }
}

/// Writes a small file so that after a crash either the old or the new content stands there.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_durably_with(path, |file| file.write_all(bytes))
}

/// [`write_durably`] for what is made while it is written.
pub(crate) fn write_durably_with(
    path: &Path,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let written = (|| {
        let mut file = io::BufWriter::new(fs::File::create(&temporary)?);
        write(&mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_data()?;
        fs::rename(&temporary, path)?;
        forge_files::sync_directory(path.parent().unwrap_or(Path::new(".")))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
