//! The repositories of a run, each opened once per operation.
//!
//! A user who may write to the directory around a repository can put another directory, or a link to one, in its place
//! between two uses of the path. So the path is used once, no link in it is followed, and the opened directory is compared
//! with the run's record: the operation then reads, mounts and changes the repository through this descriptor.

use crate::WorkspaceStorage;
use crate::layout::{RunRepo, WorkspaceKind, WorkspaceLayout, WorkspaceMeta};
use forge_git::WorkTree;
use forge_ports::sandbox::Error;
use forge_snapshot::{FileStamp, TreeRoot};
use forge_types::SandboxSpec;
use rustix::io::Errno;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// A repository of a run, open.
#[derive(Clone, Debug)]
pub(crate) struct OpenRepo {
    pub record: RunRepo,
    pub root: TreeRoot,
    /// Metadata of the directory when it was opened.
    pub stamp: FileStamp,
}

impl OpenRepo {
    /// Opens the directory at `path`, in which nothing is a link.
    fn open(name: String, path: PathBuf) -> io::Result<Self> {
        let root = TreeRoot::open_without_links(&path)?;
        let stamp = root.stamp()?;
        Ok(Self { record: RunRepo { name, path, ino: stamp.ino, uid: Some(stamp.uid) }, root, stamp })
    }

    /// Returns the working directory in which git data is looked for.
    pub(crate) fn work_tree(&self) -> WorkTree<'_> {
        WorkTree { path: self.root.path(), fd: self.root.as_fd() }
    }

    /// Opens a repository by its record, and checks that it is the directory of the record.
    pub(crate) fn open_recorded(record: &RunRepo, kind: WorkspaceKind) -> Result<Self, Error> {
        let opened = Self::open(record.name.clone(), record.path.clone());
        let found = opened.map_err(|error| match Errno::from_io_error(&error) {
            // A link is in its place, or in that of a directory above it.
            Some(Errno::LOOP | Errno::NOTDIR) => exchanged(&record.path),
            _ => Error::View { why: format!("the repository {}: {error}", record.path.display()) },
        })?;
        found.check_same(record, kind)?;
        Ok(found)
    }

    /// Returns whether this is the same directory as `other`, or one of them contains the other.
    pub(crate) fn shares_files_with(&self, other: &Self) -> bool {
        (self.stamp.dev, self.stamp.ino) == (other.stamp.dev, other.stamp.ino)
            || overlap(&self.record.path, &other.record.path)
    }

    /// Checks that this is the repository of a record. Its device is no part of the record: some file systems get
    /// another number whenever they are mounted.
    fn check_same(&self, record: &RunRepo, kind: WorkspaceKind) -> Result<(), Error> {
        // A copy does not depend on the directory itself. Some file systems without overlays number their files anew.
        let bound = matches!(kind, WorkspaceKind::Overlay | WorkspaceKind::Direct);
        let same = self.record.path == record.path
            && (self.record.ino == record.ino || !bound)
            && record.uid.is_none_or(|uid| uid == self.stamp.uid);
        if same { Ok(()) } else { Err(exchanged(&record.path)) }
    }
}

/// Opens the repositories of a run: those of its record, which are those of its specification, if it has begun.
pub(crate) fn open_run_repos(place: &WorkspaceLayout, spec: &SandboxSpec) -> Result<Vec<OpenRepo>, Error> {
    match place.load_meta()? {
        Some(meta) => open_same_repos(&meta, spec),
        None => open_repos(spec),
    }
}

/// Opens the repositories of a run's record, which must be those that the specification names.
pub(crate) fn open_same_repos(meta: &WorkspaceMeta, spec: &SandboxSpec) -> Result<Vec<OpenRepo>, Error> {
    let named = std::iter::once(&spec.repo).chain(&spec.more_repos);
    if !meta.repos.iter().map(|record| &record.path).eq(named) {
        return Err(Error::View { why: "the run began with other repositories".to_owned() });
    }
    open_recorded_repos(meta)
}

/// Opens the repositories of a specification, with their names in the workspace.
fn open_repos(spec: &SandboxSpec) -> Result<Vec<OpenRepo>, Error> {
    let mut repos: Vec<OpenRepo> = Vec::with_capacity(1 + spec.more_repos.len());
    let paths = std::iter::once(&spec.repo).chain(&spec.more_repos);
    for (path, name) in paths.zip(spec.repo_directories()) {
        if let Some(other) = repos.iter().map(|repo| &repo.record.path).find(|other| overlap(other, path)) {
            let (one, two) = (path.display(), other.display());
            return Err(Error::Startup {
                why: format!("one of the repositories {two} and {one} contains the other"),
            });
        }
        repos.push(OpenRepo::open(name, path.clone()).map_err(|error| open_error(path, &error))?);
    }
    Ok(repos)
}

fn open_error(path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    let why = match Errno::from_io_error(error) {
        Some(Errno::LOOP | Errno::NOTDIR) => {
            format!("the workspace {path}: not a directory (a symbolic link put in its path is not followed)")
        }
        _ => format!("the workspace {path}: {error}"),
    };
    Error::Startup { why }
}

/// Opens the repositories that a run began with.
pub(crate) fn open_recorded_repos(meta: &WorkspaceMeta) -> Result<Vec<OpenRepo>, Error> {
    meta.repos.iter().map(|record| OpenRepo::open_recorded(record, meta.kind)).collect()
}

/// Opens those of a run's repositories that are still there.
pub(crate) fn open_available_repos(meta: &WorkspaceMeta) -> Vec<OpenRepo> {
    meta.repos.iter().filter_map(|record| OpenRepo::open_recorded(record, meta.kind).ok()).collect()
}

/// Checks that open repositories are those that a run began with.
pub(crate) fn check_same_repos(meta: &WorkspaceMeta, repos: &[OpenRepo]) -> Result<(), Error> {
    for (record, repo) in meta.repos.iter().zip(repos) {
        repo.check_same(record, meta.kind)?;
    }
    if meta.repos.len() == repos.len() {
        return Ok(());
    }
    Err(Error::View { why: "the run began with other repositories".to_owned() })
}

/// Refuses a repository that contains Forge's own files: a run could change its own records and the user's settings, and
/// its snapshots would contain themselves.
pub(crate) fn check_disjoint<'a>(
    store: &WorkspaceStorage,
    repos: impl IntoIterator<Item = &'a OpenRepo>,
) -> Result<(), Error> {
    let repos: Vec<&OpenRepo> = repos.into_iter().collect();
    let ids: Vec<(u64, u64)> = repos.iter().map(|repo| (repo.stamp.dev, repo.stamp.ino)).collect();
    let own = [store.workspaces.clone(), store.locks.clone()];
    let found = [own.as_slice(), &store.protected].into_iter().try_fold(None, |found, places| match found {
        None => forge_files::find_enclosed_place(places, &ids),
        found => Ok(found),
    });
    let found = found.map_err(|error| Error::View { why: format!("cannot examine {error}") })?;
    match found {
        None => Ok(()),
        Some(found) => Err(Error::View {
            why: format!(
                "the repository {} contains {}, which belongs to forge: choose a smaller repository, or move forge's \
                 own directories (XDG_DATA_HOME, XDG_CONFIG_HOME)",
                repos[found.directory].record.path.display(),
                found.place.display()
            ),
        }),
    }
}

fn overlap(one: &Path, two: &Path) -> bool {
    one.starts_with(two) || two.starts_with(one)
}

fn exchanged(path: &Path) -> Error {
    let path = path.display();
    let why = format!("{path} is no longer the directory that the run began with: restore that one");
    Error::View { why }
}
