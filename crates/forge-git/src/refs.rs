//! References of a repository, read and written without git as files of a known format and limited size.

use crate::directory::{RepoDirectory, temporary_name};
use crate::format::ObjectFormat;
use crate::{Error, Repository, check_stopped};
use forge_tree::WorkBounds;
use rustix::fs::FileType;
use std::io::Write as _;
use std::path::Path;

/// Maximum size of a reference.
const MAX_REF_BYTES: u64 = 4 << 10;
/// Maximum size of the packed references: about 900,000 of them.
const MAX_PACKED_REFS_BYTES: u64 = 64 << 20;
/// Maximum number of symbolic references in a chain.
const MAX_REF_HOPS: usize = 5;
/// Maximum depth of directories searched for references.
const MAX_REF_DEPTH: usize = 32;
/// Maximum number of entries in one directory of references.
const MAX_REF_ENTRIES: usize = 20_000;
/// Maximum number of branch commits reported to the run. With more branches, the result contains more objects than
/// needed.
const MAX_KNOWN_COMMITS: usize = 400;

/// Commits of a repository before anything is added.
#[derive(Debug)]
pub struct RepositoryHeads {
    /// The commit that is checked out; `None` if there is none yet.
    pub head: Option<String>,
    /// Commits of its branches.
    pub known: Vec<String>,
}

/// The content of a reference.
pub(super) enum RefTarget {
    Id(String),
    Name(String),
    Nothing,
}

/// A packed references file, kept as raw bytes because it may be large.
struct PackedRefs {
    bytes: Vec<u8>,
    format: ObjectFormat,
}

impl PackedRefs {
    /// Iterates over the names and objects.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.bytes.split(|byte| *byte == b'\n').filter_map(|line| {
            let (id, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            self.format.is_object_id(id).then_some((name, id))
        })
    }
}

impl Repository {
    /// Reads the references.
    ///
    /// # Errors
    /// A reference file is invalid, leads elsewhere, or is too large; or the work was stopped.
    pub fn read_heads(&self, bounds: &WorkBounds) -> Result<RepositoryHeads, Error> {
        let packed = self.read_packed_refs()?;
        let head = self.resolve_ref(read_head(self)?, &packed)?;
        let mut known: Vec<String> = head.iter().cloned().collect();
        for below in ["refs/heads", "refs/remotes"] {
            if let Some(directory) = self.common.open_below(below)? {
                self.collect_commits(&directory, MAX_REF_DEPTH, &mut known, bounds)?;
            }
        }
        let branches = packed
            .iter()
            .filter(|(name, _)| name.starts_with("refs/heads/") || name.starts_with("refs/remotes/"));
        known.extend(branches.map(|(_, id)| id.to_owned()).take(MAX_KNOWN_COMMITS));
        known.truncate(MAX_KNOWN_COMMITS);
        Ok(RepositoryHeads { head, known })
    }

    /// Checks that a new branch with this name could be created now: no other branch is in the way, and this process may
    /// write where the branch and its objects go. Changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with the file in the way.
    pub fn check_new_branch(&self, branch: &str) -> Result<(), Error> {
        let (around, ..) = split_branch(branch);
        let heads = self.common.open_below("refs/heads")?;
        let taken = format!("refs/heads/{around}");
        let in_the_way = heads.as_ref().and_then(|heads| heads.stat_entry(around));
        let is_branch =
            in_the_way.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
        if is_branch || self.read_packed_refs()?.iter().any(|(packed, _)| packed == taken) {
            let why = format!(
                "is a branch, so none can be named {around}/…: rename it (`git branch -m {around} NAME`)"
            );
            return Err(Error::refused(&self.common.path().join(taken), why));
        }
        for path in [format!("refs/heads/{around}"), "objects/pack".to_owned()] {
            self.check_writable(&path)?;
        }
        Ok(())
    }

    /// Checks that this process may create entries in a directory of the git data, or create that directory.
    fn check_writable(&self, path: &str) -> Result<(), Error> {
        let mut at = Some(Path::new(path));
        while let Some(path) = at {
            let name = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            if let Some(directory) = self.common.open_below(name)? {
                return directory.check_writable();
            }
            at = path.parent();
        }
        Ok(())
    }

    /// Sets the branch `branch` of this repository to `commit`, creating it if necessary.
    ///
    /// # Errors
    /// The branch is checked out, its name is taken, or its path leads elsewhere.
    pub fn set_branch(&self, branch: &str, commit: &str) -> Result<(), Error> {
        let (around, file, path) = split_branch(branch);
        let name = format!("refs/heads/{branch}");
        self.ensure_not_checked_out(&name, commit)?;
        let taken = format!("refs/heads/{around}");
        if self.read_packed_refs()?.iter().any(|(packed, _)| packed == taken) {
            return Err(
                self.result_rejected(format!("a branch is named {around}, so none can be named {branch}"))
            );
        }
        let directory = self.common.open_below("refs/heads")?;
        let directory = match directory {
            Some(directory) => directory,
            None => self.common.open_or_create("refs")?.open_or_create("heads")?,
        };
        let directory = directory.open_or_create(around)?;
        let lock = format!("{file}.lock");
        let packs = self.common.open_or_create("objects")?.open_or_create("pack")?;
        let second_name = temporary_name();
        let locked = directory.create_linked_file(&lock, 0o666, &packs, &second_name);
        let mut locked = locked.map_err(|error| match error {
            Error::Io { path, source } if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Error::refused(
                    &path,
                    "exists: another git is using the repository; if none is, remove that file",
                )
            }
            error => error,
        })?;
        let io = |source| Error::Io { path: self.common.path().join(&path), source };
        let written =
            locked.write_all(format!("{commit}\n").as_bytes()).and_then(|()| locked.sync_all()).map_err(io);
        let named = written.and_then(|()| directory.rename_file(&lock, file));
        if named.is_err() {
            let _ = directory.remove_file(&lock);
        }
        let _ = packs.remove_file(&second_name);
        named?;
        directory.sync_names()
    }

    /// Removes a branch that was just created.
    pub fn remove_branch(&self, branch: &str) -> Result<(), Error> {
        let (around, file, _) = split_branch(branch);
        let Some(heads) = self.common.open_below("refs/heads")? else { return Ok(()) };
        if let Some(directory) = heads.open_below(around)? {
            directory.remove_file(file)?;
            heads.remove_empty(around);
        }
        Ok(())
    }

    /// Refuses to move a branch that is checked out in a worktree.
    fn ensure_not_checked_out(&self, name: &str, commit: &str) -> Result<(), Error> {
        let mut places = vec![self.git_dir.try_clone()?, self.common.try_clone()?];
        if let Some(worktrees) = self.common.open_below("worktrees")? {
            let entries = worktrees.list_entries(MAX_REF_ENTRIES)?.unwrap_or_default();
            let directories = entries.iter().filter(|entry| entry.kind == FileType::Directory);
            places.extend(directories.filter_map(|entry| worktrees.open_below(entry.name_os_str()).ok()?));
        }
        for place in places {
            let Ok(text) = place.read_text("HEAD", MAX_REF_BYTES) else { continue };
            let is_here = text.strip_prefix("ref:").is_some_and(|there| there.trim() == name);
            let at = self.common.read_text(name, MAX_REF_BYTES);
            if is_here && at.is_ok_and(|at| at.trim() != commit) {
                let path = place.path().display();
                return Err(self.result_rejected(format!("{name} is checked out at {path}")));
            }
        }
        Ok(())
    }

    /// Reads the packed references.
    fn read_packed_refs(&self) -> Result<PackedRefs, Error> {
        let bytes = match self.common.read(Path::new("packed-refs"), MAX_PACKED_REFS_BYTES) {
            Err(error) if error.is_absent() => Vec::new(),
            bytes => bytes?,
        };
        Ok(PackedRefs { bytes, format: self.format })
    }

    /// Follows a reference to the object that it names.
    fn resolve_ref(&self, mut said: RefTarget, packed: &PackedRefs) -> Result<Option<String>, Error> {
        for _ in 0..MAX_REF_HOPS {
            let name = match said {
                RefTarget::Id(id) => return Ok(Some(id)),
                RefTarget::Nothing => return Ok(None),
                RefTarget::Name(name) => name,
            };
            let own =
                ["refs/bisect/", "refs/worktree/", "refs/rewritten/"].iter().any(|own| name.starts_with(own));
            let around = if own { &self.git_dir } else { &self.common };
            said = self.read_ref(around, &name)?;
            if matches!(said, RefTarget::Nothing) {
                return Ok(packed.iter().find(|(packed, _)| *packed == name).map(|(_, id)| id.to_owned()));
            }
        }
        Ok(None)
    }

    fn read_ref(&self, around: &RepoDirectory, name: &str) -> Result<RefTarget, Error> {
        match around.read_text(name, MAX_REF_BYTES) {
            // A directory means that only branches below this name exist.
            Err(error) if error.is_absent() || around.open_below(name).is_ok_and(|there| there.is_some()) => {
                Ok(RefTarget::Nothing)
            }
            Err(error) => Err(error.into()),
            Ok(text) => parse_ref(&text, self)
                .ok_or_else(|| Error::refused(&around.path().join(name), "is not a git reference")),
        }
    }

    /// Collects the objects named by the references below a directory.
    fn collect_commits(
        &self,
        directory: &RepoDirectory,
        depth: usize,
        known: &mut Vec<String>,
        bounds: &WorkBounds,
    ) -> Result<(), Error> {
        let Some(entries) = directory.list_entries(MAX_REF_ENTRIES)? else { return Ok(()) };
        for entry in entries {
            check_stopped(bounds)?;
            if known.len() >= MAX_KNOWN_COMMITS {
                return Ok(());
            }
            match entry.kind {
                FileType::Directory if depth > 0 => {
                    if let Some(below) = directory.open_below(entry.name_os_str())? {
                        self.collect_commits(&below, depth - 1, known, bounds)?;
                    }
                }
                FileType::RegularFile => {
                    let bytes = directory.read(Path::new(entry.name_os_str()), MAX_REF_BYTES);
                    let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
                    if let Some(RefTarget::Id(id)) = text.and_then(|text| parse_ref(&text, self)) {
                        known.push(id);
                    }
                }
                // Only regular files are branches.
                _ => {}
            }
        }
        Ok(())
    }

    fn result_rejected(&self, why: String) -> Error {
        Error::NotTaken { repo: self.root.clone(), why }
    }
}

/// Reads what is checked out.
pub(super) fn read_head(repository: &Repository) -> Result<RefTarget, Error> {
    let path = repository.git_dir.path().join("HEAD");
    let text = repository.git_dir.read_text("HEAD", MAX_REF_BYTES)?;
    parse_ref(&text, repository).ok_or_else(|| Error::refused(&path, "names neither a branch nor a commit"))
}

/// Parses the text of a reference; returns `None` if it is invalid.
fn parse_ref(text: &str, repository: &Repository) -> Option<RefTarget> {
    if let Some(name) = text.strip_prefix("ref:") {
        let name = name.trim();
        let plain = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        return (name.starts_with("refs/") && plain && !name.contains('\0'))
            .then(|| RefTarget::Name(name.to_owned()));
    }
    let id = text.split_whitespace().next()?;
    repository.format.is_object_id(id).then(|| RefTarget::Id(id.to_owned()))
}

/// Splits a branch of two components into its directory, file and path.
fn split_branch(branch: &str) -> (&str, &str, String) {
    let (around, file) = branch.split_once('/').unwrap_or(("forge", branch));
    (around, file, format!("refs/heads/{around}/{file}"))
}
