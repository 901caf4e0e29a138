//! The location of a working directory's git data, and checks that it belongs to that directory.
//!
//! A `.git` file can name any path, and a directory unpacked from an archive brings its own. So git data outside the
//! working directory is accepted only if it names this directory, and shared git data only if it contains the git
//! directory: only a user with write access there could have arranged that.

use crate::directory::RepoDirectory;
use crate::format::{self, ObjectFormat};
use crate::{Error, refs};
use forge_files::read_text_within;
use rustix::fs::FileType;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Maximum size of a file that holds a path.
const MAX_PATH_BYTES: u64 = 16 << 10;
/// Maximum number of entries inspected in one directory of git data.
const MAX_ENTRIES: usize = 100_000;

/// Paths of the git data of a working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitData {
    /// The git directory, as a path without links.
    pub git_dir: PathBuf,
    /// The common git directory shared with other working directories, or the git directory if none is shared.
    pub common: PathBuf,
    /// Path in the `.git` file of the working directory, if it is a file.
    pub git_file_target: Option<PathBuf>,
    /// Path in the `commondir` file, if there is one.
    pub commondir_target: Option<PathBuf>,
}

impl GitData {
    /// Finds the git data of the working directory `repo`, a path without links.
    ///
    /// # Errors
    /// There is no git data, or it may not belong to this directory.
    pub fn find(repo: &Path) -> Result<Self, Error> {
        let dot = repo.join(".git");
        let Ok(meta) = fs::symlink_metadata(&dot) else {
            return Err(Error::NoRepository { repo: repo.to_owned() });
        };
        if meta.is_dir() {
            return Self::from_own_dir(repo, dot, None);
        }
        if meta.is_symlink() {
            let real = fs::canonicalize(&dot).ok().filter(|real| real.starts_with(repo) && real.is_dir());
            let Some(real) = real else {
                let why = "is a symbolic link out of the workspace: git would find no repository there";
                return Err(Error::refused(&dot, why));
            };
            return Self::from_own_dir(repo, real, None);
        }
        let text = read_text_within(repo, Path::new(".git"), MAX_PATH_BYTES)?;
        let named = text.strip_prefix("gitdir:").map(|path| PathBuf::from(path.trim()));
        let Some(named) = named.filter(|path| !path.as_os_str().is_empty()) else {
            return Err(Error::refused(
                &dot,
                "is a file that names no git directory: git would find no repository there",
            ));
        };
        let Ok(real) = fs::canonicalize(repo.join(&named)).and_then(|real| {
            // A path that resolves differently by text than through links would lead elsewhere in a sandbox.
            fs::canonicalize(normalize_path(&repo.join(&named))).map(|read| (read == real).then_some(real))
        }) else {
            let why =
                format!("names {}, which does not exist: git would find no repository", named.display());
            return Err(Error::refused(&dot, why));
        };
        let Some(real) = real else {
            return Err(Error::refused(
                &dot,
                format!("names {} through a symbolic link and `..`", named.display()),
            ));
        };
        if real.starts_with(repo) {
            return Self::from_own_dir(repo, real, Some(named));
        }
        if !points_back(&real, repo) {
            let why = format!(
                "names {}, which does not name this directory: it is not shown to the sandbox",
                real.display()
            );
            return Err(Error::refused(&dot, why));
        }
        Self::from_shared_dir(real, Some(named))
    }

    /// Builds the value for git data inside the working directory.
    fn from_own_dir(repo: &Path, git_dir: PathBuf, named: Option<PathBuf>) -> Result<Self, Error> {
        let shares = fs::symlink_metadata(git_dir.join("commondir")).is_ok();
        if shares && !points_back(&git_dir, repo) {
            let why = "names git data elsewhere, which does not name this directory";
            return Err(Error::refused(&git_dir.join("commondir"), why));
        }
        Self::from_shared_dir(git_dir, named)
    }

    /// Builds the value for git data that may be shared with other working directories.
    fn from_shared_dir(git_dir: PathBuf, named: Option<PathBuf>) -> Result<Self, Error> {
        let file = git_dir.join("commondir");
        if fs::symlink_metadata(&file).is_err() {
            return Ok(Self {
                common: git_dir.clone(),
                git_dir,
                git_file_target: named,
                commondir_target: None,
            });
        }
        let text = read_text_within(&git_dir, Path::new("commondir"), MAX_PATH_BYTES)?;
        let named_common = PathBuf::from(text.trim());
        let around =
            git_dir.parent().filter(|parent| parent.file_name().is_some_and(|name| name == "worktrees"));
        let common = around
            .and_then(Path::parent)
            .filter(|common| normalize_path(&git_dir.join(&named_common)) == **common);
        let Some(common) = common else {
            let why = format!(
                "names {}, but {} is not one of its worktrees: it is not shown to the sandbox",
                named_common.display(),
                git_dir.display()
            );
            return Err(Error::refused(&file, why));
        };
        Ok(Self {
            common: common.to_owned(),
            git_dir,
            git_file_target: named,
            commondir_target: Some(named_common),
        })
    }
}

/// Returns whether a git directory names `repo` as its working directory.
fn points_back(git: &Path, repo: &Path) -> bool {
    let is_repo = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == repo);
    let head = fs::symlink_metadata(git.join("HEAD"));
    if !head.is_ok_and(|head| head.is_file()) {
        return false;
    }
    // A worktree names the path of its `.git`.
    if let Ok(text) = read_text_within(git, Path::new("gitdir"), MAX_PATH_BYTES) {
        let dot = git.join(text.trim());
        return dot.file_name().is_some_and(|name| name == ".git") && dot.parent().is_some_and(is_repo);
    }
    // A submodule has it in its configuration.
    format::read_work_tree(git).is_some_and(|path| is_repo(&git.join(path)))
}

/// Removes `.` and `..` from a path without consulting the file system.
pub fn normalize_path(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// Refuses pipes and devices where git looks for files, because opening one blocks forever. Sockets are harmless, and
/// git creates one itself.
fn refuse_blocking_files(git_dir: &RepoDirectory, common: &RepoDirectory) -> Result<(), Error> {
    let below = ["info", "objects/info", "objects/pack"].iter().map(|name| common.open_below(name));
    let below = below.collect::<Result<Vec<_>, _>>()?;
    for directory in [git_dir, common].into_iter().chain(below.iter().flatten()) {
        for entry in directory.list_entries(MAX_ENTRIES)?.unwrap_or_default() {
            let path = directory.path().join(entry.name_os_str());
            let kind = match entry.kind {
                FileType::Symlink => {
                    fs::metadata(&path).map_or(FileType::Unknown, |meta| FileType::from_raw_mode(meta.mode()))
                }
                kind => kind,
            };
            if matches!(kind, FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) {
                return Err(Error::refused(&path, "is a pipe or a device, not a regular file"));
            }
        }
    }
    Ok(())
}

/// A repository on the host.
#[derive(Debug)]
pub struct Repository {
    /// The working directory.
    pub(super) root: PathBuf,
    pub(super) git_dir: RepoDirectory,
    pub(super) common: RepoDirectory,
    pub(super) format: ObjectFormat,
    /// User and group of the working directory.
    pub(super) owner: (u32, u32),
}

impl Repository {
    /// Finds the repository of the working directory `repo` and checks the parts in use: nothing in them leads
    /// elsewhere, and the format is known.
    ///
    /// # Errors
    /// [`Error::NoRepository`]; [`Error::Refused`] and [`Error::File`] with the file and the reason.
    pub fn find(repo: &Path) -> Result<Self, Error> {
        let io = |source| Error::Io { path: repo.to_owned(), source };
        let root = fs::canonicalize(repo).map_err(io)?;
        let meta = fs::metadata(&root).map_err(io)?;
        let data = GitData::find(&root)?;
        let (git_dir, common) = (RepoDirectory::open(&data.git_dir)?, RepoDirectory::open(&data.common)?);
        let format = format::read_object_format(&data.common)?;
        for needed in ["objects", "refs"] {
            if common.open_below(needed)?.is_none() {
                return Err(Error::refused(&common.path().join(needed), "is missing"));
            }
        }
        if common.open_below("reftable")?.is_some() {
            let why = "holds the references in a format that branches do not support";
            return Err(Error::refused(&common.path().join("reftable"), why));
        }
        for borrowed in ["objects/info/alternates", "objects/info/http-alternates"] {
            // Objects of another repository must not be exposed; the sandbox does not see them either.
            let path = common.path().join(borrowed);
            if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file() || meta.len() > 0) {
                let why = "makes the repository borrow objects from another one, which is not supported: run \
                           `git repack -ad` and remove the file";
                return Err(Error::refused(&path, why));
            }
        }
        refuse_blocking_files(&git_dir, &common)?;
        let repository = Self { root, git_dir, common, format, owner: (meta.uid(), meta.gid()) };
        refs::read_head(&repository)?;
        Ok(repository)
    }

    /// Returns the user that git runs as, which is the repository's owner if Forge runs as root.
    pub(super) fn git_user(&self) -> Option<(u32, u32)> {
        (rustix::process::geteuid().is_root() && self.owner.0 != 0).then_some(self.owner)
    }
}
