//! Temporary git directories in which the host's git works.
//!
//! One is created per use in a private directory, with a minimal configuration and no hooks, remotes or
//! references. It borrows the objects of one repository through symbolic links to that repository's packs and loose
//! objects, each a regular file. Other files next to the objects (alternates, commit graphs, bitmaps, promisor marks)
//! are not visible to git.

use crate::directory::{DIRECTORY_FLAGS, RepoDirEntry, RepoDirectory, is_stale_temporary, temporary_name};
use crate::run::{GitLimits, GitOutput, run_git};
use crate::{Error, Repository, check_stopped, run};
use forge_files::PrivateDir;
use forge_tree::WorkBounds;
use rustix::fs::{FileType, Mode};
use rustix::process::{Gid, Uid};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum size of a result in bytes.
const MAX_PACK_BYTES: u64 = 4 << 30;
/// Maximum number of packs of a repository.
const MAX_PACKS: usize = 20_000;
/// Maximum number of loose objects with the same first byte.
const MAX_LOOSE_PER_BYTE: usize = 50_000;
/// Maximum size of the list of a shallow repository's boundary commits.
const MAX_SHALLOW_BYTES: u64 = 16 << 20;
/// Maximum size of an index.
const MAX_INDEX_BYTES: u64 = 1 << 30;
/// Limits for importing a result, which checks every object of it.
const IMPORT_LIMITS: GitLimits = GitLimits { time: Duration::from_secs(900), output_bytes: 64 << 10 };
/// Limits for inspecting one file or object.
const QUERY_LIMITS: GitLimits = GitLimits { time: Duration::from_secs(60), output_bytes: 1 << 20 };

/// Bytes of a pack copied at once, and written to disk before the next ones, so that no step takes long.
const COPY_CHUNK_BYTES: u64 = 16 << 20;

/// Kind of the name of a scratch repository, used to find stale ones.
pub const DIRECTORY_KIND: &str = "git";

/// A git directory that exposes the objects of a repository.
#[derive(Debug)]
pub struct ScratchRepository {
    pub(crate) path: PathBuf,
    user: Option<(u32, u32)>,
    /// Whether objects may be missing because a remote promised them.
    partial: bool,
    /// Bounds of the work that needs this directory.
    bounds: WorkBounds,
}

impl Drop for ScratchRepository {
    fn drop(&mut self) {
        forge_files::remove_own_tree(&self.path);
    }
}

impl ScratchRepository {
    /// Checks that a git directory for a repository can be created.
    ///
    /// # Errors
    /// It cannot.
    pub fn check_place(repository: &Repository, private: &Path) -> Result<(), Error> {
        let user = repository.git_user();
        let path = Self::create_directory(user, private)?;
        drop(Self { path, user, partial: false, bounds: WorkBounds::unbounded().clone() });
        Ok(())
    }

    /// Creates the directory itself in `private`, or in the shared directory for temporary files if git runs as another
    /// user, who cannot enter a private one.
    fn create_directory(user: Option<(u32, u32)>, private: &Path) -> Result<PathBuf, Error> {
        let (place, mode) = match user {
            Some(_) => (std::env::temp_dir(), 0o711),
            None => {
                let place = PrivateDir::open_or_create(private);
                let place = place.map_err(|error| Error::refused(private, error.to_string()))?;
                (place.path().to_owned(), 0o700)
            }
        };
        let path = place.join(forge_files::owned_temp_name(DIRECTORY_KIND));
        // Fails if the name exists.
        let made = DirBuilder::new().mode(mode).create(&path);
        made.map_err(|source| Error::refused(&place, format!("can't be written to ({source})")))?;
        Ok(path)
    }

    /// Creates a git directory for a repository, in the private directory `private`. Everything done with it ends when the work of `bounds` is stopped.
    ///
    /// # Errors
    /// The disk is full, the repository has more objects than the limits allow, or the work was stopped.
    pub fn new(repository: &Repository, private: &Path, bounds: &WorkBounds) -> Result<Self, Error> {
        check_stopped(bounds)?;
        let user = repository.git_user();
        let path = Self::create_directory(user, private)?;
        let mut private = Self { path, user, partial: false, bounds: bounds.clone() };
        private
            .write_skeleton(repository)
            .map_err(|source| Error::Io { path: private.path.clone(), source })?;
        private.link_objects(repository)?;
        Ok(private)
    }

    fn write_skeleton(&self, repository: &Repository) -> std::io::Result<()> {
        let format = repository.format.config_value();
        let config = format!(
            "[core]\n\trepositoryformatversion = 1\n\tbare = true\n\thooksPath = /dev/null\n\tfsmonitor = false\n\
             \tlogAllRefUpdates = false\n\tattributesFile = /dev/null\n\texcludesFile = /dev/null\n\
             \tpackedGitWindowSize = 64m\n\tpackedGitLimit = 1g\n\tbigFileThreshold = 64m\n\
             [extensions]\n\tobjectFormat = {format}\n[protocol]\n\tallow = never\n[gc]\n\tauto = 0\n\
             [maintenance]\n\tauto = false\n[credential]\n\thelper =\n[safe]\n\tdirectory = *\n"
        );
        let folder = |name: &str| {
            let path = self.path.join(name);
            fs::create_dir(&path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        };
        let file = |name: &str, text: &str| {
            let path = self.path.join(name);
            let mut file = File::options().write(true).create_new(true).mode(0o644).open(&path)?;
            file.write_all(text.as_bytes())?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644))
        };
        for name in ["refs", "objects", "objects/info", "objects/pack", "borrowed", "borrowed/pack"] {
            folder(name)?;
        }
        file("HEAD", "ref: refs/heads/none\n")?;
        file("config", &config)?;
        file("objects/info/alternates", "../borrowed\n")?;
        if let Some((uid, gid)) = self.user {
            // Git writes only packs. So only this directory is given to that user, by its descriptor. The directories
            // above still belong to this process, so no path that this process opens can be redirected.
            let packs = rustix::fs::open(self.path.join("objects/pack"), DIRECTORY_FLAGS, Mode::empty())?;
            rustix::fs::fchown(&packs, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
        Ok(())
    }

    /// Links to the repository's objects.
    fn link_objects(&mut self, repository: &Repository) -> Result<(), Error> {
        let borrowed = self.path.join("borrowed");
        let Some(objects) = repository.common.open_below("objects")? else { return Ok(()) };
        for byte in 0..=u8::MAX {
            let name = format!("{byte:02x}");
            check_stopped(&self.bounds)?;
            if let Some(loose) = objects.open_below(&name)? {
                link_loose_objects(&loose, &borrowed.join(name), repository, &self.bounds)?;
            }
        }
        if let Some(packs) = objects.open_below("pack")? {
            repository.remove_stale_packs();
            self.link_packs(&packs, &borrowed.join("pack"))?;
        }
        if let Some(shallow) = read_shallow(repository)? {
            let path = self.path.join("shallow");
            fs::write(&path, shallow).map_err(|source| Error::Io { path, source })?;
        }
        Ok(())
    }

    fn link_packs(&mut self, packs: &RepoDirectory, to: &Path) -> Result<(), Error> {
        let entries = packs.list_entries(MAX_PACKS * 8)?;
        let entries = entries.ok_or_else(|| Error::refused(packs.path(), too_many_objects()))?;
        let regular: BTreeSet<&[u8]> = entries
            .iter()
            .filter(|entry| entry.kind == FileType::RegularFile)
            .map(RepoDirEntry::name_bytes)
            .collect();
        let mut links = 0;
        for entry in &entries {
            check_stopped(&self.bounds)?;
            let Some(stem) =
                entry.name_bytes().strip_suffix(b".pack").filter(|stem| stem.starts_with(b"pack-"))
            else {
                continue;
            };
            let index = [stem, b".idx"].concat();
            if !regular.contains(entry.name_bytes()) || !regular.contains(index.as_slice()) {
                continue;
            }
            links += 1;
            if links > MAX_PACKS {
                return Err(Error::refused(packs.path(), too_many_objects()));
            }
            self.partial |= regular.contains([stem, b".promisor"].concat().as_slice());
            for name in [entry.name_bytes(), &index] {
                link_file(packs.path(), OsStr::from_bytes(name), to)?;
            }
        }
        Ok(())
    }

    /// Adds the index of the repository.
    ///
    /// # Errors
    /// The index is missing, not a regular file, or too large.
    pub fn with_index(self, repository: &Repository) -> Result<Self, Error> {
        let dir = &repository.git_dir;
        let size = dir.open_regular(Path::new("index"))?.metadata();
        let size = size.map_err(|source| Error::Io { path: dir.path().join("index"), source })?.len();
        if size > MAX_INDEX_BYTES {
            return Err(forge_files::Error::TooLarge {
                path: dir.path().join("index"),
                limit: MAX_INDEX_BYTES,
            }
            .into());
        }
        link_file(dir.path(), OsStr::new("index"), &self.path)?;
        // An index may be split into two files.
        for entry in dir.list_entries(MAX_PACKS)?.unwrap_or_default() {
            if entry.kind == FileType::RegularFile && entry.name_bytes().starts_with(b"sharedindex.") {
                link_file(dir.path(), entry.name_os_str(), &self.path)?;
            }
        }
        Ok(self)
    }

    /// Runs git for a short query. Returns `None` if it ended with an error.
    ///
    /// # Errors
    /// Git did not start, did not end, or printed more than `output_bytes`.
    pub fn run_query(&self, arguments: &[&OsStr], output_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let output_bytes = usize::try_from(output_bytes).unwrap_or(usize::MAX);
        let limits = GitLimits { output_bytes, ..QUERY_LIMITS };
        let ended = run_git(&self.path, self.user, arguments, None, limits, &self.bounds)?;
        Ok(ended.status.success().then_some(ended.stdout))
    }

    /// Creates a file that receives a pack for the repository.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create_incoming(self) -> Result<IncomingPack, Error> {
        let path = self.path.join("incoming.pack");
        let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path);
        let file = file.map_err(|source| Error::Io { path, source })?;
        Ok(IncomingPack { private: self, file, bytes: 0 })
    }

    fn run_import(&self, arguments: &[&str], input: Option<File>) -> Result<GitOutput, Error> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        run::run_git(&self.path, self.user, &arguments, input, IMPORT_LIMITS, &self.bounds)
    }
}

/// A pack with the result of a run, not yet checked.
#[derive(Debug)]
pub struct IncomingPack {
    private: ScratchRepository,
    file: File,
    bytes: u64,
}

impl IncomingPack {
    /// Appends bytes to the pack.
    ///
    /// # Errors
    /// The disk is full, the pack exceeds the size limit, or the work was stopped.
    pub fn append(mut self, bytes: &[u8]) -> Result<Self, Error> {
        check_stopped(&self.private.bounds)?;
        self.bytes += bytes.len() as u64;
        let path = || self.private.path.join("incoming.pack");
        if self.bytes > MAX_PACK_BYTES {
            return Err(forge_files::Error::TooLarge { path: path(), limit: MAX_PACK_BYTES }.into());
        }
        self.file.write_all(bytes).map_err(|source| Error::Io { path: path(), source })?;
        Ok(self)
    }

    /// Checks every object and that the commit is complete together with the repository's objects. Then installs the
    /// objects in the repository and finally sets the branch.
    ///
    /// # Errors
    /// The failed check, in git's words, or [`Error::Stopped`]. The repository is then unchanged or contains unreferenced
    /// objects, and has no new branch.
    pub fn import_into(
        mut self,
        repository: &Repository,
        branch: &str,
        commit: &str,
        known: &[String],
    ) -> Result<(), Error> {
        let not_taken = |why: String| Error::NotTaken { repo: repository.root.clone(), why };
        if !repository.format.is_object_id(commit) {
            return Err(not_taken(format!("`{commit}` names no object")));
        }
        let io = |source| Error::Io { path: self.private.path.clone(), source };
        let mut head = [0; 12];
        self.file.rewind().and_then(|()| self.file.read_exact(&mut head)).map_err(io)?;
        self.file.rewind().map_err(io)?;
        let Self { private, file, .. } = self;
        // A commit that the repository already has needs no pack, and git writes none without objects.
        if head[8..] != [0; 4] {
            // In a partial repository git cannot request each missing object; the walk below checks them instead.
            let strict = if private.partial { "--fsck-objects" } else { "--strict" };
            let limit = format!("--max-input-size={MAX_PACK_BYTES}");
            let ended = private.run_import(&["index-pack", "--stdin", strict, &limit], Some(file))?;
            if !ended.status.success() {
                return Err(not_taken(ended.error_message()));
            }
        }
        let ended = private.run_import(&["cat-file", "-t", commit], None)?;
        if ended.stdout != b"commit\n" {
            return Err(not_taken(format!(
                "{commit} is not a commit in the result: {}",
                ended.error_message()
            )));
        }
        let mut walk = vec!["rev-list", "--objects", "--quiet", "--ignore-missing", commit];
        if !known.is_empty() {
            walk.push("--not");
            walk.extend(known.iter().map(String::as_str));
        }
        let ended = private.run_import(&walk, None)?;
        if !ended.status.success() {
            return Err(not_taken(format!("the result is incomplete: {}", ended.error_message())));
        }
        private.install_packs(repository)?;
        check_stopped(&private.bounds)?;
        repository.set_branch(branch, commit)
    }
}

impl ScratchRepository {
    /// Moves the packs that git wrote here into the repository.
    pub(crate) fn install_packs(&self, repository: &Repository) -> Result<(), Error> {
        let own = RepoDirectory::open(&self.path.join("objects/pack"))?;
        let entries = own.list_entries(MAX_PACKS)?.unwrap_or_default();
        let mut names: Vec<&str> = entries.iter().filter_map(|entry| entry.name_os_str().to_str()).collect();
        // The file that makes a pack visible is moved last.
        names.retain(|name| name.starts_with("pack-"));
        names.sort_by_key(|name| name.ends_with(".idx"));
        let Some(objects) = repository.common.open_below("objects")? else { return Ok(()) };
        let packs = objects.open_or_create("pack")?;
        names.retain(|name| [".pack", ".idx", ".rev"].iter().any(|end| name.ends_with(end)));
        // All are copied before the first one gets its name: after a stop or an error, none of them is there.
        let mut copies = Vec::with_capacity(names.len());
        let copied = names.iter().try_for_each(|name| {
            let from = own.open_file(name, self.user.map(|(uid, _)| uid))?;
            // The name lets git's own cleanup find the file if this process is killed.
            let temporary = temporary_name();
            let to = packs.create_file(&temporary, 0o444)?;
            copies.push((temporary, *name));
            self.copy_pack(from, to, &packs.path().join(name))
        });
        let named = copied.and_then(|()| {
            copies.iter().try_for_each(|(temporary, name)| packs.rename_file(temporary, name))
        });
        if named.is_err() {
            copies.iter().for_each(|(temporary, _)| drop(packs.remove_file(temporary)));
        }
        named?;
        packs.sync_names()
    }

    /// Copies a file of a pack to disk.
    fn copy_pack(&self, from: File, mut to: File, path: &Path) -> Result<(), Error> {
        let io = |source| Error::Io { path: path.to_owned(), source };
        loop {
            check_stopped(&self.bounds)?;
            let copied = std::io::copy(&mut (&from).take(COPY_CHUNK_BYTES), &mut to).map_err(io)?;
            if copied == 0 {
                return to.sync_all().map_err(io);
            }
            to.sync_data().map_err(io)?;
        }
    }
}

impl Repository {
    /// Removes what killed processes left among the packs: incomplete packs, and locks of branches with a name there.
    fn remove_stale_files(&self, packs: &RepoDirectory, entries: &[RepoDirEntry]) {
        for name in entries.iter().filter_map(|entry| entry.name_os_str().to_str()) {
            if is_stale_temporary(name) {
                if let Some((device, inode, true)) = packs.entry_identity(name) {
                    self.remove_stale_lock((device, inode));
                }
                let _ = packs.remove_file(name);
            }
        }
    }

    /// Removes the lock of a branch of a run that is this file.
    fn remove_stale_lock(&self, file: (u64, u64)) {
        let branches = self.common.open_below("refs/heads/forge").ok().flatten();
        let Some(branches) = branches else { return };
        let entries = branches.list_entries(MAX_PACKS * 8).ok().flatten().unwrap_or_default();
        for name in entries.iter().filter_map(|entry| entry.name_os_str().to_str()) {
            let is_it = || branches.entry_identity(name).is_some_and(|(dev, ino, _)| (dev, ino) == file);
            if name.ends_with(".lock") && is_it() {
                let _ = branches.remove_file(name);
            }
        }
    }

    /// Removes packs that killed processes were adding. Packs that cannot be removed are left for the next attempt.
    pub fn remove_stale_packs(&self) {
        let packs = self.common.open_below("objects/pack").ok().flatten();
        if let Some(packs) = packs
            && let Ok(Some(entries)) = packs.list_entries(MAX_PACKS * 8)
        {
            self.remove_stale_files(&packs, &entries);
        }
    }
}

/// Links to the loose objects of one directory, or to the whole directory if it contains only objects.
fn link_loose_objects(
    loose: &RepoDirectory,
    to: &Path,
    repository: &Repository,
    bounds: &WorkBounds,
) -> Result<(), Error> {
    let entries = loose
        .list_entries(MAX_LOOSE_PER_BYTE)?
        .ok_or_else(|| Error::refused(loose.path(), too_many_objects()))?;
    let length = repository.format.hex_len() - 2;
    let is_object = |entry: &&RepoDirEntry| {
        entry.kind == FileType::RegularFile
            && entry.name_bytes().len() == length
            && entry.name_bytes().iter().all(u8::is_ascii_hexdigit)
    };
    let io = |source| Error::Io { path: to.to_owned(), source };
    if entries.iter().all(|entry| entry.kind == FileType::RegularFile) {
        return symlink(loose.path(), to).map_err(io);
    }
    fs::create_dir(to).map_err(io)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(io)?;
    entries.iter().filter(is_object).try_for_each(|entry| {
        check_stopped(bounds)?;
        link_file(loose.path(), entry.name_os_str(), to)
    })
}

/// Reads the boundary commits of a shallow repository.
fn read_shallow(repository: &Repository) -> Result<Option<Vec<u8>>, Error> {
    let common = &repository.common;
    match common.read(Path::new("shallow"), MAX_SHALLOW_BYTES) {
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
        Ok(text) => {
            let plain = text.split(|byte| *byte == b'\n').all(|line| {
                line.is_empty()
                    || std::str::from_utf8(line).is_ok_and(|id| repository.format.is_object_id(id))
            });
            let refused = || Error::refused(&common.path().join("shallow"), "is not a list of commits");
            if plain { Ok(Some(text)) } else { Err(refused()) }
        }
    }
}

fn link_file(from: &Path, name: &OsStr, to: &Path) -> Result<(), Error> {
    let path = to.join(name);
    symlink(from.join(name), &path).map_err(|source| Error::Io { path, source })
}

fn too_many_objects() -> String {
    "contains too many objects; run `git gc`".to_owned()
}
