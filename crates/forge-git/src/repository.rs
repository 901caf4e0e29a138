//! Where the git data of a working directory lies, and whether it is the directory's own.
//!
//! A `.git` file can say anything, and a directory that was unpacked from an archive brings its own. So git data outside
//! of the working directory counts only if it names this very directory itself, and what it shares with other working
//! directories only if it lies in it: only who could write there could make it do so.

use crate::directory::RepoDirectory;
use crate::format::{self, ObjectFormat};
use crate::{Error, refs};
use forge_files::read_text_within;
use rustix::fs::FileType;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

/// Longer files hold no path.
const MAX_PATH_BYTES: u64 = 16 << 10;
/// Entries of one directory of git data that are looked at.
const MAX_ENTRIES: usize = 100_000;

/// The git data of a working directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitData {
    /// The git directory, without links on the way.
    pub git_dir: PathBuf,
    /// The one that it shares with other working directories; the same where it shares none.
    pub common: PathBuf,
    /// What the `.git` of the working directory names, where that is a file.
    pub git_file_target: Option<PathBuf>,
    /// How the git directory names the common one, where it does.
    pub commondir_target: Option<PathBuf>,
}

impl GitData {
    /// Finds the git data of the working directory `repo`, whose path has no links.
    ///
    /// # Errors
    /// There is none, or it is not certain that it belongs to this directory.
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
                let why = "is a symbolic link that leads out of the workspace: git finds no repository there";
                return Err(Error::refused(&dot, why));
            };
            return Self::from_own_dir(repo, real, None);
        }
        let text = read_text_within(repo, Path::new(".git"), MAX_PATH_BYTES)?;
        let named = text.strip_prefix("gitdir:").map(|path| PathBuf::from(path.trim()));
        let Some(named) = named.filter(|path| !path.as_os_str().is_empty()) else {
            return Err(Error::refused(
                &dot,
                "is a file and names no git directory: git finds no repository there",
            ));
        };
        let Ok(real) = fs::canonicalize(repo.join(&named)).and_then(|real| {
            // A name that leads elsewhere when it is read than when it is followed leads elsewhere in a sandbox.
            fs::canonicalize(normalize_path(&repo.join(&named))).map(|read| (read == real).then_some(real))
        }) else {
            let why = format!("names {}, which is not there: git finds no repository", named.display());
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

    /// Git data in the working directory itself.
    fn from_own_dir(repo: &Path, git_dir: PathBuf, named: Option<PathBuf>) -> Result<Self, Error> {
        let shares = fs::symlink_metadata(git_dir.join("commondir")).is_ok();
        if shares && !points_back(&git_dir, repo) {
            let why = "names git data elsewhere, and does not name this directory";
            return Err(Error::refused(&git_dir.join("commondir"), why));
        }
        Self::from_shared_dir(git_dir, named)
    }

    /// Git data that may share what it has with other working directories.
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
                "names {}, but {} is none of its worktrees: it is not shown to the sandbox",
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

/// Whether a git directory names `repo` as its working directory.
fn points_back(git: &Path, repo: &Path) -> bool {
    let is_repo = |path: &Path| fs::canonicalize(path).is_ok_and(|real| real == repo);
    let head = fs::symlink_metadata(git.join("HEAD"));
    if !head.is_ok_and(|head| head.is_file()) {
        return false;
    }
    // A worktree: the path of its `.git`.
    if let Ok(text) = read_text_within(git, Path::new("gitdir"), MAX_PATH_BYTES) {
        let dot = git.join(text.trim());
        return dot.file_name().is_some_and(|name| name == ".git") && dot.parent().is_some_and(is_repo);
    }
    // A submodule: its configuration.
    format::read_work_tree(git).is_some_and(|path| is_repo(&git.join(path)))
}

/// The path without `.` and `..`, as it reads.
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

/// Refuses pipes and devices where git looks for files: whoever opens one waits for ever. Sockets do no harm, and git has
/// one of its own.
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

/// A repository of the host.
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
    /// Finds the repository of the working directory `repo`, and looks at what of it is used: nothing in it leads
    /// elsewhere, and its form is known.
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
            let why =
                "holds the references, which a branch can't be made with; use `--workspace transaction`";
            return Err(Error::refused(&common.path().join("reftable"), why));
        }
        for borrowed in ["objects/info/alternates", "objects/info/http-alternates"] {
            // What another repository holds is not this one's to show; a sandbox does not see it either.
            let path = common.path().join(borrowed);
            if fs::symlink_metadata(&path).is_ok_and(|meta| !meta.is_file() || meta.len() > 0) {
                let why = "lets the repository borrow the objects of another one, which is not followed: `git repack -ad` \
                           and remove the file, or use `--workspace transaction`";
                return Err(Error::refused(&path, why));
            }
        }
        refuse_blocking_files(&git_dir, &common)?;
        let repository = Self { root, git_dir, common, format, owner: (meta.uid(), meta.gid()) };
        refs::read_head(&repository)?;
        Ok(repository)
    }

    /// The user that git runs as: as root the repository's owner.
    pub(super) fn git_user(&self) -> Option<(u32, u32)> {
        (rustix::process::geteuid().is_root() && self.owner.0 != 0).then_some(self.owner)
    }
}
