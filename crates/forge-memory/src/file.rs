//! The memory file and its lock.

use forge_files::{Directory, OWNER_ONLY_MODE};
use forge_ports::memory::{Error, Memory, StoredMemory};
use forge_ports::{Clock, async_trait};
use forge_types::{ChatMessage, Digest, MemoryFact};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most messages that the file keeps; the oldest are dropped first. Far more than any prompt holds.
const MAX_MESSAGES: usize = 2_000;
/// The most facts that the file keeps.
const MAX_FACTS: usize = 500;
/// The largest accepted size of the file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// The largest size of the record of accepted digests, in bytes.
const MAX_RECORD_BYTES: u64 = 4 << 10;
/// The most digests accepted at a time: the current content, the one being written, and those that the user
/// accepted.
const MAX_TRUSTED_DIGESTS: usize = 8;
/// The most names tried for a damaged file within one second.
const MAX_ASIDE_NAMES: u32 = 1_000;
/// The field of the file that lists the digests of adopted memories.
const ADOPTED_FIELD: &str = "adopted";

/// The content of the file. Unknown fields are preserved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct MemoryContents {
    #[serde(default)]
    history: Vec<ChatMessage>,
    #[serde(default)]
    facts: Vec<MemoryFact>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

/// A memory in a file.
pub struct FileMemory {
    path: PathBuf,
    guard: Option<RepoMemoryGuard>,
    clock: Arc<dyn Clock>,
    /// A warning to report with the next read, once.
    pending_warning: Mutex<Option<String>>,
}

/// Protection of a memory against anyone else who can write to its location.
///
/// A file in a repository may have come with a clone, and a run may have changed it. So it is used only if its
/// digest is in the user's own record, which lists contents that Forge wrote or the user accepted, and no
/// symbolic link below the repository is followed on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoMemoryGuard {
    /// The repository.
    pub root: PathBuf,
    /// The file's path relative to the repository.
    pub relative: PathBuf,
    /// The user's record of accepted digests; outside any repository.
    pub record: PathBuf,
}

impl RepoMemoryGuard {
    /// Accepts this content from now on, in addition to those accepted before.
    ///
    /// # Errors
    /// If the record can't be written.
    pub fn accept(&self, content: Digest) -> std::io::Result<()> {
        let mut all = self.accepted_digests();
        if !all.contains(&content) {
            all.push(content);
        }
        self.write_record(&all)
    }

    fn accepted_digests(&self) -> Vec<Digest> {
        let text = forge_files::read_text(&self.record, MAX_RECORD_BYTES).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn write_record(&self, contents: &[Digest]) -> std::io::Result<()> {
        let text: String =
            contents.iter().rev().take(MAX_TRUSTED_DIGESTS).rev().map(|one| format!("{one}\n")).collect();
        let name = self.record.file_name().unwrap_or_default().to_string_lossy();
        let directory =
            Directory::open_or_create(parent_dir(&self.record)).map_err(forge_files::Error::into_io_error)?;
        directory
            .replace_file(&name, text.as_bytes(), OWNER_ONLY_MODE)
            .map_err(forge_files::Error::into_io_error)
    }
}

/// The outcome of reading the file.
struct ReadMemory {
    content: MemoryContents,
    warning: Option<String>,
    /// Whether the file is not trusted and must not be replaced.
    foreign: bool,
}

impl FileMemory {
    /// Returns the memory in the file `path`, which need not exist and must be in a place where only the user
    /// can write.
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { path, guard: None, clock, pending_warning: Mutex::new(None) }
    }

    /// Returns the memory in a file in a repository; otherwise as [`FileMemory::new`].
    pub fn new_guarded(guard: RepoMemoryGuard, clock: Arc<dyn Clock>) -> Self {
        let path = guard.root.join(&guard.relative);
        Self { path, guard: Some(guard), clock, pending_warning: Mutex::new(None) }
    }

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file_error(&self, what: &'static str, why: impl ToString) -> Error {
        Error { file: self.path.display().to_string(), what, why: why.to_string() }
    }

    fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Opens the directory that contains the file.
    fn open_dir(&self) -> Result<Directory, forge_files::Error> {
        match &self.guard {
            Some(guard) => Directory::open_within(&guard.root, parent_dir(&guard.relative)),
            None => Directory::open(parent_dir(&self.path)),
        }
    }

    /// Opens the directory or creates it. A directory that Forge creates is excluded from git.
    fn open_or_create_dir(&self) -> Result<Directory, forge_files::Error> {
        match self.open_dir() {
            Err(error) if error.is_absent() => {}
            other => return other,
        }
        let directory = match &self.guard {
            Some(guard) => Directory::open_or_create_within(&guard.root, parent_dir(&guard.relative))?,
            None => Directory::open_or_create(parent_dir(&self.path))?,
        };
        if directory.path().ends_with(".forge/memory") {
            // Not fatal: git then lists the files.
            let _ = directory.create_file(".gitignore", b"*\n", 0o644);
        }
        Ok(directory)
    }

    /// Reads the file. A damaged one is renamed, so that it is neither lost nor in the way.
    fn read(&self, directory: &Directory) -> Result<ReadMemory, Error> {
        let nothing =
            |warning, foreign| Ok(ReadMemory { content: MemoryContents::default(), warning, foreign });
        let bytes = match directory.read_file(&self.file_name(), MAX_FILE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => return nothing(None, false),
            Err(error) => return Err(self.file_error("can't be read", error.reason())),
        };
        if let Some(guard) = &self.guard
            && !guard.accepted_digests().contains(&Digest::of_bytes(&bytes))
        {
            let warning = format!(
                "the memory {} is ignored: it is in a repository and was not last written by Forge; review and \
                 accept it",
                self.path.display()
            );
            return nothing(Some(warning), true);
        }
        let text = String::from_utf8_lossy(&bytes);
        if text.trim().is_empty() {
            return nothing(None, false);
        }
        match serde_json::from_str(&text) {
            Ok(content) => Ok(ReadMemory { content, warning: None, foreign: false }),
            Err(error) => {
                let aside = self.move_aside(directory)?;
                let warning = format!(
                    "the memory {} is damaged ({error}); it was renamed to {} and a new one was started",
                    self.path.display(),
                    self.path.with_file_name(aside).display()
                );
                nothing(Some(warning), false)
            }
        }
    }

    /// Renames the file to an unused name and returns that name.
    fn move_aside(&self, directory: &Directory) -> Result<String, Error> {
        let name = self.file_name();
        let stamp = self.clock.now().as_micros() / 1_000_000;
        for number in 0..MAX_ASIDE_NAMES {
            let numbered = if number == 0 { String::new() } else { format!("-{number}") };
            let aside = format!("{name}.corrupt-{stamp}{numbered}");
            match directory.rename_file(&name, &aside) {
                Ok(()) => return Ok(aside),
                Err(forge_files::Error::Io { source, .. }) if source.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(self.file_error("is damaged and can't be renamed", error.reason()));
                }
            }
        }
        Err(self.file_error(
            "is damaged and can't be renamed",
            "there are too many renamed files next to it already",
        ))
    }

    /// Adopts a memory from another place, once: its messages come before those already here, and facts that
    /// exist here keep their values. Returns whether it was adopted now.
    ///
    /// # Errors
    /// If `other` is no memory, or the file can't be written.
    pub fn adopt(&self, other: &[u8]) -> Result<bool, Error> {
        let digest = Digest::of_bytes(other).to_string();
        let other: MemoryContents = serde_json::from_slice(other)
            .map_err(|error| self.file_error("can't adopt another one", error))?;
        self.update_file(|content| {
            let taken = content.rest.entry(ADOPTED_FIELD).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(taken) = taken else { return false };
            if taken.iter().any(|known| known.as_str() == Some(&digest)) {
                return false;
            }
            taken.push(Value::String(digest));
            content.history.splice(0..0, other.history);
            let known = |fact: &MemoryFact| content.facts.iter().any(|own| own.key == fact.key);
            let new: Vec<MemoryFact> = other.facts.into_iter().filter(|fact| !known(fact)).collect();
            content.facts.splice(0..0, new);
            true
        })
    }

    /// Changes the file under its lock.
    fn update_file<T>(&self, change: impl FnOnce(&mut MemoryContents) -> T) -> Result<T, Error> {
        let directory =
            self.open_or_create_dir().map_err(|error| self.file_error("can't be saved", error))?;
        let _lock = self.lock(&directory)?;
        let ReadMemory { mut content, warning, foreign } = self.read(&directory)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
            *self.pending_warning.lock() = Some(warning);
        }
        if foreign {
            return Err(
                self.file_error("is not changed", "it was not last written by Forge; accept it first")
            );
        }
        let made = change(&mut content);
        let drop = content.history.len().saturating_sub(MAX_MESSAGES);
        content.history.drain(..drop);
        let drop = content.facts.len().saturating_sub(MAX_FACTS);
        content.facts.drain(..drop);
        self.write(&directory, &content).map_err(|error| self.file_error("can't be written", error))?;
        Ok(made)
    }

    /// Locks the file until the value is dropped or the process dies.
    fn lock(&self, directory: &Directory) -> Result<File, Error> {
        let file = match &self.guard {
            // A lock in the repository could be held by a run for ever.
            Some(guard) => Directory::open_or_create(parent_dir(&guard.record)).and_then(|records| {
                let name = guard.record.file_name().unwrap_or_default().to_string_lossy();
                records.open_lock_file(&format!(".{name}.lock"))
            }),
            None => directory.open_lock_file(&format!(".{}.lock", self.file_name())),
        };
        let file = file.map_err(|error| self.file_error("can't be locked", error.reason()))?;
        file.lock().map_err(|error| self.file_error("can't be locked", error))?;
        Ok(file)
    }

    fn write(&self, directory: &Directory, content: &MemoryContents) -> std::io::Result<()> {
        let mut text = serde_json::to_string_pretty(content)?;
        text.push('\n');
        let name = self.file_name();
        let mode =
            directory.file_mode(&name).map_err(forge_files::Error::into_io_error)?.unwrap_or(OWNER_ONLY_MODE);
        let new = Digest::of_bytes(text.as_bytes());
        if let Some(guard) = &self.guard {
            // Accepted before the file is written, so that the new content is trusted if this process dies in
            // between; until then the old content stays accepted too.
            guard.accept(new)?;
        }
        directory.replace_file(&name, text.as_bytes(), mode).map_err(forge_files::Error::into_io_error)?;
        match &self.guard {
            Some(guard) => guard.write_record(&[new]),
            None => Ok(()),
        }
    }

    fn set_fact(content: &mut MemoryContents, fact: MemoryFact) -> bool {
        match content.facts.iter_mut().find(|old| old.key == fact.key) {
            Some(old) => {
                old.value = fact.value;
                true
            }
            None => {
                content.facts.push(fact);
                false
            }
        }
    }
}

fn parent_dir(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[async_trait]
impl Memory for FileMemory {
    async fn load_all(&self) -> StoredMemory {
        let failed = |error: String| StoredMemory { warning: Some(error), ..StoredMemory::default() };
        let directory = match self.open_dir() {
            Ok(directory) => directory,
            Err(error) if error.is_absent() => return StoredMemory::default(),
            Err(error) => return failed(self.file_error("can't be read", error).to_string()),
        };
        if matches!(directory.contains_file(&self.file_name()), Ok(false)) {
            return StoredMemory::default();
        }
        let read = match self.lock(&directory) {
            Ok(_lock) => self.read(&directory),
            // A directory that can't be written may still be readable.
            Err(_) => self.read(&directory),
        };
        let earlier = self.pending_warning.lock().take();
        match read {
            Ok(ReadMemory { content, warning, .. }) => {
                StoredMemory { history: content.history, facts: content.facts, warning: warning.or(earlier) }
            }
            Err(error) => failed(error.to_string()),
        }
    }

    async fn list_facts(&self) -> Vec<MemoryFact> {
        self.load_all().await.facts
    }

    async fn add_turn(&self, said: Vec<ChatMessage>) -> Result<(), Error> {
        self.update_file(|content| content.history.extend(said))
    }

    async fn add_fact(&self, fact: MemoryFact) -> Result<(), Error> {
        self.update_file(|content| {
            let _ = Self::set_fact(content, fact);
        })
    }

    async fn update_fact(&self, fact: MemoryFact) -> Result<bool, Error> {
        self.update_file(|content| {
            let known = content.facts.iter().any(|old| old.key == fact.key);
            known && Self::set_fact(content, fact)
        })
    }

    async fn clear_history(&self) -> Result<(), Error> {
        self.update_file(|content| content.history.clear())
    }
}
