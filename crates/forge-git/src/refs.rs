//! The references of a repository, read and written without git: files of a known form and limited size.

use crate::directory::Directory;
use crate::format::ObjectFormat;
use crate::{Error, Repository};
use forge_files::{read_text_within, read_within};
use rustix::fs::FileType;
use std::io::Write as _;
use std::path::Path;

/// A longer reference is none.
const MAX_REF_BYTES: u64 = 4 << 10;
/// The most that packed references may take: about 900,000 of them.
const MAX_PACKED_REFS_BYTES: u64 = 64 << 20;
/// How often one reference may lead to another.
const MAX_REF_HOPS: usize = 5;
/// Directories below one another in which references are looked for.
const MAX_REF_DEPTH: usize = 32;
/// Entries of one directory of references.
const MAX_REF_ENTRIES: usize = 20_000;
/// A repository with more branches than this is told of the first so many: the result holds more than it has to then.
const MAX_KNOWN: usize = 400;

/// What a repository is at before anything is added.
#[derive(Debug)]
pub struct Heads {
    /// The commit that is checked out; `None`: there is none yet.
    pub head: Option<String>,
    /// Commits that its branches are at.
    pub known: Vec<String>,
}

/// What a reference says.
pub(super) enum Said {
    Id(String),
    Name(String),
    Nothing,
}

/// References in one file, kept as it is: there may be many.
struct Packed {
    bytes: Vec<u8>,
    format: ObjectFormat,
}

impl Packed {
    /// Names and objects.
    fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.bytes.split(|byte| *byte == b'\n').filter_map(|line| {
            let (id, name) = std::str::from_utf8(line).ok()?.split_once(' ')?;
            self.format.is_id(id).then_some((name, id))
        })
    }
}

impl Repository {
    /// Looks at the references.
    ///
    /// # Errors
    /// One of the files is none, leads elsewhere, or is too large.
    pub fn heads(&self) -> Result<Heads, Error> {
        let packed = self.packed()?;
        let head = self.resolve(head(self)?, &packed)?;
        let mut known: Vec<String> = head.iter().cloned().collect();
        for below in ["refs/heads", "refs/remotes"] {
            if let Some(directory) = self.common.below(below)? {
                self.collect(&directory, MAX_REF_DEPTH, &mut known)?;
            }
        }
        let branches = packed
            .iter()
            .filter(|(name, _)| name.starts_with("refs/heads/") || name.starts_with("refs/remotes/"));
        known.extend(branches.map(|(_, id)| id.to_owned()).take(MAX_KNOWN));
        known.truncate(MAX_KNOWN);
        Ok(Heads { head, known })
    }

    /// Makes the branch `branch` of this repository be at `commit`, whatever it was at before.
    ///
    /// # Errors
    /// The branch is checked out, or its name is taken, or its place leads elsewhere.
    pub fn set_branch(&self, branch: &str, commit: &str) -> Result<(), Error> {
        let (around, file, path) = parts(branch);
        let name = format!("refs/heads/{branch}");
        self.not_checked_out(&name, commit)?;
        let taken = format!("refs/heads/{around}");
        if self.packed()?.iter().any(|(packed, _)| packed == taken) {
            return Err(self.not_taken(format!("a branch is named {around}, so none can be named {branch}")));
        }
        let directory = self.common.below("refs/heads")?;
        let directory = match directory {
            Some(directory) => directory,
            None => self.common.ensure("refs")?.ensure("heads")?,
        };
        let directory = directory.ensure(around)?;
        let lock = format!("{file}.lock");
        let mut locked = directory.create(&lock, 0o666).map_err(|error| match error {
            Error::Io { path, source } if source.kind() == std::io::ErrorKind::AlreadyExists => {
                Error::refused(
                    &path,
                    "is there already: another git is at work; if none is, remove that file",
                )
            }
            error => error,
        })?;
        let io = |source| Error::Io { path: self.common.path().join(&path), source };
        let written =
            locked.write_all(format!("{commit}\n").as_bytes()).and_then(|()| locked.sync_all()).map_err(io);
        let named = written.and_then(|()| directory.rename(&lock, file));
        if named.is_err() {
            let _ = directory.remove(&lock);
        }
        named?;
        directory.sync()
    }

    /// Takes a branch away that was just made.
    pub fn remove_branch(&self, branch: &str) -> Result<(), Error> {
        let (around, file, _) = parts(branch);
        let Some(heads) = self.common.below("refs/heads")? else { return Ok(()) };
        if let Some(directory) = heads.below(around)? {
            directory.remove(file)?;
            heads.remove_empty(around);
        }
        Ok(())
    }

    /// A branch that somebody works on is not moved under their feet.
    fn not_checked_out(&self, name: &str, commit: &str) -> Result<(), Error> {
        let mut places = vec![self.git_dir.path().to_owned(), self.common.path().to_owned()];
        if let Some(worktrees) = self.common.below("worktrees")? {
            let entries = worktrees.entries(MAX_REF_ENTRIES)?.unwrap_or_default();
            places.extend(entries.iter().map(|entry| worktrees.path().join(entry.os())));
        }
        for place in places {
            let Ok(text) = read_text_within(&place, Path::new("HEAD"), MAX_REF_BYTES) else { continue };
            let is_here = text.strip_prefix("ref:").is_some_and(|there| there.trim() == name);
            let at = read_text_within(self.common.path(), Path::new(name), MAX_REF_BYTES);
            if is_here && at.is_ok_and(|at| at.trim() != commit) {
                return Err(self.not_taken(format!("{name} is checked out at {}", place.display())));
            }
        }
        Ok(())
    }

    /// The packed references.
    fn packed(&self) -> Result<Packed, Error> {
        let bytes = match read_within(self.common.path(), Path::new("packed-refs"), MAX_PACKED_REFS_BYTES) {
            Err(error) if error.is_absent() => Vec::new(),
            bytes => bytes?,
        };
        Ok(Packed { bytes, format: self.format })
    }

    /// Follows a reference to the object that it names.
    fn resolve(&self, mut said: Said, packed: &Packed) -> Result<Option<String>, Error> {
        for _ in 0..MAX_REF_HOPS {
            let name = match said {
                Said::Id(id) => return Ok(Some(id)),
                Said::Nothing => return Ok(None),
                Said::Name(name) => name,
            };
            let own =
                ["refs/bisect/", "refs/worktree/", "refs/rewritten/"].iter().any(|own| name.starts_with(own));
            let around = if own { &self.git_dir } else { &self.common };
            said = self.read(around.path(), &name)?;
            if matches!(said, Said::Nothing) {
                return Ok(packed.iter().find(|(packed, _)| *packed == name).map(|(_, id)| id.to_owned()));
            }
        }
        Ok(None)
    }

    fn read(&self, around: &Path, name: &str) -> Result<Said, Error> {
        match read_text_within(around, Path::new(name), MAX_REF_BYTES) {
            // A directory: there are branches below that name, so there is none of it.
            Err(error) if error.is_absent() || around.join(name).is_dir() => Ok(Said::Nothing),
            Err(error) => Err(error.into()),
            Ok(text) => said(&text, self)
                .ok_or_else(|| Error::refused(&around.join(name), "is no reference of git's")),
        }
    }

    /// The objects that the references below a directory name.
    fn collect(&self, directory: &Directory, depth: usize, known: &mut Vec<String>) -> Result<(), Error> {
        let Some(entries) = directory.entries(MAX_REF_ENTRIES)? else { return Ok(()) };
        for entry in entries {
            if known.len() >= MAX_KNOWN {
                return Ok(());
            }
            match entry.kind {
                FileType::Directory if depth > 0 => {
                    if let Some(below) = directory.below(entry.os())? {
                        self.collect(&below, depth - 1, known)?;
                    }
                }
                FileType::RegularFile => {
                    let text = read_text_within(directory.path(), Path::new(entry.os()), MAX_REF_BYTES);
                    if let Some(Said::Id(id)) = text.ok().and_then(|text| said(&text, self)) {
                        known.push(id);
                    }
                }
                // What is no file is no branch.
                _ => {}
            }
        }
        Ok(())
    }

    fn not_taken(&self, why: String) -> Error {
        Error::NotTaken { repo: self.root.clone(), why }
    }
}

/// What is checked out.
pub(super) fn head(repository: &Repository) -> Result<Said, Error> {
    let path = repository.git_dir.path().join("HEAD");
    let text = read_text_within(repository.git_dir.path(), Path::new("HEAD"), MAX_REF_BYTES)?;
    said(&text, repository).ok_or_else(|| Error::refused(&path, "names neither a branch nor a commit"))
}

/// What the text of a reference says; `None`: it is none.
fn said(text: &str, repository: &Repository) -> Option<Said> {
    if let Some(name) = text.strip_prefix("ref:") {
        let name = name.trim();
        let plain = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        return (name.starts_with("refs/") && plain && !name.contains('\0'))
            .then(|| Said::Name(name.to_owned()));
    }
    let id = text.split_whitespace().next()?;
    repository.format.is_id(id).then(|| Said::Id(id.to_owned()))
}

/// The directory, the file and the path of a branch of two names.
fn parts(branch: &str) -> (&str, &str, String) {
    let (around, file) = branch.split_once('/').unwrap_or(("forge", branch));
    (around, file, format!("refs/heads/{around}/{file}"))
}
