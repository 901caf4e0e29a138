//! The file and its lock.

use forge_files::{Directory, OWNER_ONLY_MODE};
use forge_ports::memory::{Error, Memory, StoredMemory};
use forge_ports::{Clock, async_trait};
use forge_types::{ChatMessage, Digest, MemoryFact};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Messages that the file keeps at most; the oldest go first. Far more than any prompt holds.
const MAX_MESSAGES: usize = 2_000;
/// Facts that the file keeps at most.
const MAX_FACTS: usize = 500;
/// A file larger than this is no memory of ours.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Bytes of the record of what is believed.
const MAX_RECORD_BYTES: u64 = 4 << 10;
/// Contents that are believed at a time: what is there, what is being written, and what the user accepted.
const MAX_TRUSTED_DIGESTS: usize = 8;
/// Names that are tried for a file that is set aside within one second.
const MAX_ASIDE_NAMES: u32 = 1_000;
/// The field of the file that tells what was taken in from elsewhere.
const ADOPTED_FIELD: &str = "adopted";

/// What the file holds. Fields that are not known are kept as they are.
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
    /// What was said to the user already: once is enough.
    pending_warning: Mutex<Option<String>>,
}

/// What keeps a memory apart from everybody else who can write where it lies.
///
/// A file in a repository may have come with a clone, and a run may have changed it. So it is believed only as Forge
/// itself left it or as the user accepted it, which the user's own record tells, and no link below the repository is
/// followed on the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoMemoryGuard {
    /// The repository.
    pub root: PathBuf,
    /// The file's path from there.
    pub relative: PathBuf,
    /// The user's record of what is believed; it lies in no repository.
    pub record: PathBuf,
}

impl RepoMemoryGuard {
    /// Believes this content from now on, beside what was believed before.
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

/// What was read of the file.
struct ReadMemory {
    content: MemoryContents,
    warning: Option<String>,
    /// What is there is not ours to replace.
    foreign: bool,
}

impl FileMemory {
    /// The memory in the file `path`, which need not exist and lies where only the user writes.
    pub fn new(path: PathBuf, clock: Arc<dyn Clock>) -> Self {
        Self { path, guard: None, clock, pending_warning: Mutex::new(None) }
    }

    /// As [`FileMemory::new`], for a file in a repository.
    pub fn new_guarded(guard: RepoMemoryGuard, clock: Arc<dyn Clock>) -> Self {
        let path = guard.root.join(&guard.relative);
        Self { path, guard: Some(guard), clock, pending_warning: Mutex::new(None) }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file_error(&self, what: &'static str, why: impl ToString) -> Error {
        Error { file: self.path.display().to_string(), what, why: why.to_string() }
    }

    fn file_name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The directory that holds the file.
    fn open_dir(&self) -> Result<Directory, forge_files::Error> {
        match &self.guard {
            Some(guard) => Directory::open_within(&guard.root, parent_dir(&guard.relative)),
            None => Directory::open(parent_dir(&self.path)),
        }
    }

    /// As [`FileMemory::directory`], made if it is not there. One of our own making keeps what it holds out of git.
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
            // Not fatal: git then shows the files.
            let _ = directory.create_file(".gitignore", b"*\n", 0o644);
        }
        Ok(directory)
    }

    /// Reads the file. What is no memory is set aside, so that it is not lost and not in the way.
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
                "the memory {} is ignored: it lies in a repository and is not as Forge left it; look at it and accept it \
                 with `forge trust`",
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
                    "the memory {} is damaged ({error}); it was set aside as {} and a new one begins",
                    self.path.display(),
                    self.path.with_file_name(aside).display()
                );
                nothing(Some(warning), false)
            }
        }
    }

    /// Gives the file a name that is free; tells it.
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
                    return Err(self.file_error("is damaged and can't be set aside", error.reason()));
                }
            }
        }
        Err(self.file_error(
            "is damaged and can't be set aside",
            "too many files beside it were set aside before",
        ))
    }

    /// Takes in a memory that lay elsewhere before, once: what was said comes before what is here, and a fact that is
    /// known here stays as it is. Says whether it was taken in now.
    ///
    /// # Errors
    /// If it is no memory, or the file can't be written.
    pub fn adopt(&self, other: &[u8]) -> Result<bool, Error> {
        let digest = Digest::of_bytes(other).to_string();
        let other: MemoryContents = serde_json::from_slice(other)
            .map_err(|error| self.file_error("can't take in another one", error))?;
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
        let directory = self.open_or_create_dir().map_err(|error| self.file_error("can't be kept", error))?;
        let _lock = self.lock(&directory)?;
        let ReadMemory { mut content, warning, foreign } = self.read(&directory)?;
        if let Some(warning) = warning {
            tracing::warn!("{warning}");
            *self.pending_warning.lock().unwrap_or_else(PoisonError::into_inner) = Some(warning);
        }
        if foreign {
            return Err(
                self.file_error("is not changed", "it is not as Forge left it; accept it with `forge trust`")
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

    /// Held until the value is dropped; also by a process that died it is free at once.
    fn lock(&self, directory: &Directory) -> Result<File, Error> {
        let file = match &self.guard {
            // In the repository, a run could hold it for ever.
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
            // Before the file, so that it is believed if this process dies in between; what it was is believed as long.
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
            // A directory that can't be written may still be read.
            Err(_) => self.read(&directory),
        };
        let earlier = self.pending_warning.lock().unwrap_or_else(PoisonError::into_inner).take();
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
