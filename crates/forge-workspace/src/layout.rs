//! The layout of a run's workspace on disk, and its metadata: one directory that can be removed as a whole.
//!
//! ```text
//! <workspaces>/<run>/view/meta.json      metadata; written once the baseline is durable
//!                         states/        for several repositories: their snapshots by the id of the whole
//!                         applied.json   apply history, as far as a later apply needs it
//!                         applying.json  marker that exists only during an apply
//!                         <n>/base       manifest of the n-th repository at the baseline
//!                         <n>/objects/   contents and snapshots
//!                         <n>/upper work copy
//!                         copies/<name>  for several repositories, in place of <n>/copy
//! ```

use forge_ports::sandbox::Error;
use forge_types::{Digest, RunId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Maximum size in bytes of a file with metadata, the apply history, or a state of several repositories.
pub(crate) const MAX_RECORD_BYTES: u64 = 512 << 20;

/// Version of the layout that this program writes and reads.
const LAYOUT_VERSION: u32 = 1;

/// The way in which a workspace is provided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkspaceKind {
    /// The repository itself.
    Direct,
    /// A copy-on-write overlay, mounted by the kernel.
    Overlay,
    /// A copy that shares its blocks with the repository.
    Reflink,
    /// A copy.
    Copy,
}

impl WorkspaceKind {
    /// Returns the word shown to users.
    pub const fn display_name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Overlay => "overlay",
            Self::Reflink => "reflink",
            Self::Copy => "copy",
        }
    }
}

/// The namespace of the attributes in which the kernel keeps an overlay's metadata.
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
    /// Directory in the workspace; empty if the repository is the workspace itself.
    pub name: String,
    /// Directory on the host, with links resolved.
    pub path: PathBuf,
    /// Inode number of the directory when the run began.
    pub ino: u64,
    /// Owner of the directory when the run began; `None` if an earlier version wrote the record.
    #[serde(default)]
    pub uid: Option<u32>,
}

/// A masked file: tools cannot see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMask {
    /// Index of the repository.
    pub repo: usize,
    /// Path in the repository, as bytes.
    pub path: Vec<u8>,
    /// Digest of the content; `None` if it could not be read.
    pub content: Option<Digest>,
}

/// Metadata of a workspace. After the run has begun, only a fallback before the first step and new masks change it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WorkspaceMeta {
    version: u32,
    pub kind: WorkspaceKind,
    /// Reason for not using a better kind; empty if this is the best.
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

/// The directory of a run's workspace.
#[derive(Clone, Debug)]
pub(crate) struct WorkspaceLayout(PathBuf);

impl WorkspaceLayout {
    /// Returns the layout of `run` below the directory of all workspaces.
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

    pub(crate) fn applying_path(&self) -> PathBuf {
        self.0.join("applying.json")
    }

    /// Returns the directory of one repository.
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

    /// Returns the directory that contains the copies of several repositories under their names.
    pub(crate) fn copies_dir(&self) -> PathBuf {
        self.0.join("copies")
    }

    /// Returns the copy of a repository. Copies of several repositories share a directory.
    pub(crate) fn copy_dir(&self, meta: &WorkspaceMeta, index: usize) -> PathBuf {
        match meta.repos.as_slice() {
            [_] => self.repo_dir(index).join("copy"),
            repos => self.copies_dir().join(&repos[index].name),
        }
    }

    /// Creates the empty directories, after removing what an interrupted start left.
    pub(crate) fn reset_dirs(&self, repos: usize) -> Result<(), Error> {
        forge_files::remove_tree(&self.0);
        let private = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        let made =
            private(&self.0).and_then(|()| (0..repos).try_for_each(|index| private(&self.repo_dir(index))));
        made.map_err(|error| self.layout_error("creating", &error))
    }

    /// Reads the metadata; `None` if there is no workspace yet.
    pub(crate) fn load_meta(&self) -> Result<Option<WorkspaceMeta>, Error> {
        let path = self.0.join("meta.json");
        let bytes = match forge_files::read(&path, MAX_RECORD_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(self.layout_error("reading", &error.into_io_error())),
        };
        let meta: WorkspaceMeta = serde_json::from_slice(&bytes).map_err(|error| Error::View {
            why: format!("{} is damaged ({error}); the run's steps can no longer be used", path.display()),
        })?;
        if meta.version != LAYOUT_VERSION {
            let why = format!("{} was written by another version of forge; use that version", path.display());
            return Err(Error::View { why });
        }
        Ok(Some(meta))
    }

    /// Writes the metadata so that it survives a crash whole or not at all.
    pub(crate) fn save_meta(&self, meta: &WorkspaceMeta) -> Result<(), Error> {
        let bytes = serde_json::to_vec(meta).map_err(|error| Error::View { why: error.to_string() })?;
        write_durably(&self.0.join("meta.json"), &bytes).map_err(|error| self.layout_error("writing", &error))
    }

    pub(crate) fn layout_error(&self, doing: &str, error: &io::Error) -> Error {
        workspace_io_error(&format!("{doing} {}", self.0.display()), error)
    }
}

/// Converts a host error of an operation on a workspace, with a remedy where one is known.
pub(crate) fn workspace_io_error(doing: &str, error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::NoSpace { why: format!("{doing}: no space left on the disk") }
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            Error::View { why: format!("{doing}: {error}; choose another data directory (XDG_DATA_HOME)") }
        }
        _ => Error::View { why: format!("{doing}: {error}") },
    }
}

/// Reads a record of a run in JSON, without having its text in memory; `None` if there is none.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    let file = match forge_files::open(path) {
        Ok(file) => file,
        Err(error) if error.is_absent() => return Ok(None),
        Err(error) => return Err(error.into_io_error()),
    };
    Ok(Some(serde_json::from_reader(io::BufReader::new(file.take(MAX_RECORD_BYTES)))?))
}

/// Writes a small file so that it has either the old or the new content after a crash.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    write_durably_with(path, |file| file.write_all(bytes))
}

/// Does the same as [`write_durably`] for content that is generated while it is written.
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
