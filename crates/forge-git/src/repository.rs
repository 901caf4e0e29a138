//! The location of a working directory's git data, and checks that it belongs to that directory.
//!
//! A `.git` file can name any path, and a directory unpacked from an archive brings its own. So git data outside the
//! working directory is accepted only if it names this directory, and shared git data only if it contains the git
//! directory: only a user with write access there could have arranged that.

use crate::directory::{RepoDirectory, WorkTree};
use crate::format::{self, ObjectFormat};
use crate::{Error, refs};
use rustix::fs::{FileType, Stat};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Maximum size of a file that holds a path.
const MAX_PATH_BYTES: u64 = 16 << 10;
/// Maximum number of entries inspected in one directory of git data.
const MAX_ENTRIES: usize = 100_000;

/// The git data of a working directory.
#[derive(Debug)]
pub struct GitData {
    /// The git directory.
    pub git_dir: RepoDirectory,
    /// The common git directory shared with other working directories, or the git directory if none is shared.
    pub common: RepoDirectory,
    /// Path in the `.git` file of the working directory, if it is a file.
    pub git_file_target: Option<PathBuf>,
    /// Path in the `commondir` file, if there is one.
    pub commondir_target: Option<PathBuf>,
}

impl GitData {
    /// Finds the git data of a working directory. What is checked is what is opened.
    ///
    /// # Errors
    /// There is no git data, or it may not belong to this directory.
    pub fn find(tree: WorkTree<'_>) -> Result<Self, Error> {
        let (top, repo) = (RepoDirectory::of_work_tree(tree)?, tree.path);
        let dot = repo.join(".git");
        let none = || Error::NoRepository { repo: repo.to_owned() };
        match FileType::from_raw_mode(top.stat_entry(".git").ok_or_else(none)?.st_mode) {
            FileType::Directory => Self::from_own_dir(&top, top.open_below(".git")?.ok_or_else(none)?, None),
            FileType::Symlink => {
                let real = fs::canonicalize(&dot).ok();
                let below = real.as_deref().and_then(|real| real.strip_prefix(repo).ok());
                let own = below.and_then(|below| top.open_below(below).ok().flatten());
                let Some(own) = own else {
                    let why = "is a symbolic link out of the workspace: git would find no repository there";
                    return Err(Error::refused(&dot, why));
                };
                Self::from_own_dir(&top, own, None)
            }
            _ => Self::from_git_file(&top),
        }
    }

    /// Builds the value for a `.git` file, which names the git directory.
    fn from_git_file(top: &RepoDirectory) -> Result<Self, Error> {
        let (repo, dot) = (top.path(), top.path().join(".git"));
        let text = top.read_text(".git", MAX_PATH_BYTES)?;
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
        if let Ok(below) = real.strip_prefix(repo) {
            let gone = || Error::NoRepository { repo: repo.to_owned() };
            return Self::from_own_dir(top, top.open_below(below)?.ok_or_else(gone)?, Some(named));
        }
        let git_dir = RepoDirectory::open_without_links(&real)?;
        if !points_back(&git_dir, repo) {
            let why = format!(
                "names {}, which does not name this directory: it is not shown to the sandbox",
                real.display()
            );
            return Err(Error::refused(&dot, why));
        }
        Self::from_shared_dir(top, git_dir, Some(named))
    }

    /// Builds the value for git data inside the working directory.
    fn from_own_dir(
        top: &RepoDirectory,
        git_dir: RepoDirectory,
        named: Option<PathBuf>,
    ) -> Result<Self, Error> {
        if git_dir.stat_entry("commondir").is_some() && !points_back(&git_dir, top.path()) {
            let why = "names git data elsewhere, which does not name this directory";
            return Err(Error::refused(&git_dir.path().join("commondir"), why));
        }
        Self::from_shared_dir(top, git_dir, named)
    }

    /// Builds the value for git data that may be shared with other working directories.
    fn from_shared_dir(
        top: &RepoDirectory,
        git_dir: RepoDirectory,
        named: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let file = git_dir.path().join("commondir");
        if git_dir.stat_entry("commondir").is_none() {
            let common = git_dir.try_clone()?;
            return Ok(Self { common, git_dir, git_file_target: named, commondir_target: None });
        }
        let text = git_dir.read_text("commondir", MAX_PATH_BYTES)?;
        let named_common = PathBuf::from(text.trim());
        let refused = || {
            let why = format!(
                "names {}, but {} is not one of its worktrees: it is not shown to the sandbox",
                named_common.display(),
                git_dir.path().display()
            );
            Error::refused(&file, why)
        };
        let around =
            git_dir.path().parent().filter(|parent| parent.file_name() == Some("worktrees".as_ref()));
        let common = around
            .and_then(Path::parent)
            .filter(|common| normalize_path(&git_dir.path().join(&named_common)) == **common)
            .ok_or_else(refused)?;
        let common = match common.strip_prefix(top.path()) {
            Ok(below) => top.open_below(below)?.ok_or_else(refused)?,
            Err(_) => RepoDirectory::open_without_links(common)?,
        };
        let own = git_dir.path().strip_prefix(common.path()).map_err(|_| refused())?;
        if !common.open_below(own)?.is_some_and(|own| own.is_same(&git_dir)) {
            return Err(refused());
        }
        Ok(Self { common, git_dir, git_file_target: named, commondir_target: Some(named_common) })
    }
}

/// Returns whether a git directory names `repo` as its working directory.
fn points_back(git: &RepoDirectory, repo: &Path) -> bool {
    let is_repo = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == repo);
    let head = git.stat_entry("HEAD").map(|stat| FileType::from_raw_mode(stat.st_mode));
    if head != Some(FileType::RegularFile) {
        return false;
    }
    // A worktree names the path of its `.git`.
    if let Ok(text) = git.read_text("gitdir", MAX_PATH_BYTES) {
        let dot = git.path().join(text.trim());
        return dot.file_name().is_some_and(|name| name == ".git") && dot.parent().is_some_and(is_repo);
    }
    // A submodule has it in its configuration.
    format::read_work_tree(git).is_some_and(|path| is_repo(&git.path().join(path)))
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
                FileType::Symlink => directory.target_type(entry.name_os_str()),
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
    /// Finds the repository of a working directory and checks the parts in use: nothing in them leads elsewhere, and the
    /// format is known.
    ///
    /// # Errors
    /// [`Error::NoRepository`]; [`Error::Refused`] and [`Error::File`] with the file and the reason.
    pub fn find(tree: WorkTree<'_>) -> Result<Self, Error> {
        let root = RepoDirectory::of_work_tree(tree)?.stat()?;
        let GitData { git_dir, common, .. } = GitData::find(tree)?;
        let format = format::read_object_format(&common)?;
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
            let (around, name) = borrowed.rsplit_once('/').unwrap_or(("", borrowed));
            let found = common.open_below(around)?.and_then(|around| around.stat_entry(name));
            let is_empty = |stat: &Stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_size == 0
            };
            if found.is_some_and(|stat| !is_empty(&stat)) {
                let why = "makes the repository borrow objects from another one, which is not supported: run \
                           `git repack -ad` and remove the file";
                return Err(Error::refused(&path, why));
            }
        }
        refuse_blocking_files(&git_dir, &common)?;
        let owner = (root.st_uid, root.st_gid);
        let repository = Self { root: tree.path.to_owned(), git_dir, common, format, owner };
        refs::read_head(&repository)?;
        Ok(repository)
    }

    /// Returns the user that git runs as, which is the repository's owner if Forge runs as root.
    pub(super) fn git_user(&self) -> Option<(u32, u32)> {
        (rustix::process::geteuid().is_root() && self.owner.0 != 0).then_some(self.owner)
    }
}
