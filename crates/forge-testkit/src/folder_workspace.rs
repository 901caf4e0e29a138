//! A workspace that is a plain folder of the host, for tests of what acts through a workspace.
//!
//! It isolates nothing and ignores no file but those of git. Paths are checked before they are opened, which is
//! good enough where nobody swaps files in between.

use forge_ports::sandbox::{
    Entry, Error, ExecResult, ExecSpec, FileChunk, FileKind, Kept, Listing, Match, OutputSink, PathFault,
    SearchSpec, Stream,
};
use forge_ports::{Files, Workspace, async_trait};
use forge_types::{Digest, EgressRecord, SandboxReport, SnapshotId};
use std::fs;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;

/// A folder as a workspace.
#[derive(Debug)]
pub struct FolderWorkspace {
    root: PathBuf,
    masked: Vec<String>,
    /// What the next commands give instead of being run.
    canned: Mutex<Vec<Result<ExecResult, Error>>>,
    /// What was asked to be run, in order.
    asked: Mutex<Vec<ExecSpec>>,
}

type Answer<T> = Result<T, Error>;

impl FolderWorkspace {
    /// The folder `root`, which must exist.
    ///
    /// # Panics
    /// If it does not.
    pub fn new(root: &Path) -> Self {
        let root = root.canonicalize().expect("the folder of a workspace exists");
        Self { root, masked: Vec::new(), canned: Mutex::default(), asked: Mutex::default() }
    }

    /// Hides a path from tools.
    #[must_use]
    pub fn mask(mut self, path: &str) -> Self {
        self.masked.push(path.to_owned());
        self
    }

    /// The next command gives this instead of being run.
    ///
    /// # Panics
    /// If another thread panicked meanwhile.
    pub fn answer_next(&self, result: Result<ExecResult, Error>) {
        self.canned.lock().expect("no thread panicked").push(result);
    }

    /// The commands that were asked for.
    ///
    /// # Panics
    /// If another thread panicked meanwhile.
    pub fn asked(&self) -> Vec<ExecSpec> {
        self.asked.lock().expect("no thread panicked").clone()
    }

    fn fault(path: &str, why: &str, kind: PathFault) -> Error {
        Error::Path { path: path.to_owned(), why: why.to_owned(), kind }
    }

    fn io(path: &str, error: &std::io::Error) -> Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => PathFault::NotFound,
            ErrorKind::PermissionDenied => PathFault::Denied,
            ErrorKind::NotADirectory => PathFault::NotDirectory,
            ErrorKind::IsADirectory => PathFault::IsDirectory,
            ErrorKind::StorageFull => PathFault::NoSpace,
            _ => PathFault::Other,
        };
        Self::fault(path, &error.to_string(), kind)
    }

    /// The real place of something that exists.
    fn real(&self, path: &str) -> Answer<PathBuf> {
        if self.masked.iter().any(|masked| masked == path) {
            return Err(Self::fault(path, "it is masked", PathFault::Denied));
        }
        let real = self.root.join(path).canonicalize().map_err(|error| Self::io(path, &error))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        Err(Self::fault(path, "it leads out of the workspace", PathFault::Escapes))
    }

    fn regular(path: &str, real: &Path) -> Answer<fs::Metadata> {
        let meta = fs::metadata(real).map_err(|error| Self::io(path, &error))?;
        if meta.is_dir() {
            return Err(Self::fault(path, "it is a directory", PathFault::IsDirectory));
        }
        if !meta.is_file() {
            return Err(Self::fault(path, "it is a FIFO, device or socket", PathFault::Special));
        }
        Ok(meta)
    }

    /// Refuses a real place in git's own data, whatever path led there.
    fn not_git(&self, path: &str, real: &Path) -> Answer<()> {
        let is_git = |part: &std::ffi::OsStr| part.eq_ignore_ascii_case(".git");
        let below = real.strip_prefix(&self.root).unwrap_or(real);
        let is_repository = |folder: &&Path| {
            let has = |part: &str| folder.join(part).exists();
            let shared = has("objects") && has("refs");
            let telling = ["HEAD", "config", "config.worktree", "hooks", "packed-refs"];
            (shared && telling.iter().any(|name| has(name))) || (has("HEAD") && has("commondir"))
        };
        let inside = |folder: &&Path| folder.starts_with(&self.root);
        if below.iter().any(is_git)
            || real.ancestors().skip(1).take_while(inside).any(|folder| is_repository(&folder))
        {
            return Err(Self::fault(path, "it belongs to git", PathFault::Denied));
        }
        Ok(())
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn entry(&self, path: &Path) -> Option<Entry> {
        let meta = fs::symlink_metadata(path).ok()?;
        let kind = match meta.file_type() {
            kind if kind.is_dir() => FileKind::Directory,
            kind if kind.is_symlink() => FileKind::Symlink,
            kind if kind.is_fifo() || kind.is_socket() || !kind.is_file() => FileKind::Special,
            _ => FileKind::File,
        };
        Some(Entry { path: self.relative(path), kind, size: meta.len() })
    }

    /// Entries below a folder, sorted by path, not following symlinks.
    fn walk(&self, folder: &Path, depth: u32, found: &mut Vec<Entry>) -> std::io::Result<()> {
        let mut paths: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Some(entry) = self.entry(&path) else { continue };
            let below = entry.kind == FileKind::Directory && depth > 1;
            found.push(entry);
            if below {
                // A folder that can't be read is listed without its entries.
                let _ = self.walk(&path, depth - 1, found);
            }
        }
        Ok(())
    }

    fn files(&self, folder: &Path) -> Vec<Entry> {
        let mut found = Vec::new();
        let _ = self.walk(folder, u32::MAX, &mut found);
        found.retain(|entry| {
            entry.kind == FileKind::File && !entry.path.split('/').any(|part| part == ".git")
        });
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    fn glob(glob: &str) -> Answer<globset::GlobMatcher> {
        let whole = if glob.contains('/') { glob.to_owned() } else { format!("**/{glob}") };
        let built = globset::GlobBuilder::new(&whole).literal_separator(true).build();
        built.map(|glob| glob.compile_matcher()).map_err(|error| Error::Invalid { why: error.to_string() })
    }
}

fn cut<T>(mut items: Vec<T>, limit: usize) -> Listing<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Listing { items, more }
}

fn keep(bytes: &[u8], limit: usize) -> Kept {
    let total = bytes.len() as u64;
    if bytes.len() <= limit {
        return Kept { bytes: bytes.to_vec(), total, missing: 0 };
    }
    let mut kept = bytes[..limit / 2].to_vec();
    kept.extend_from_slice(format!("\n[{} bytes left out]\n", bytes.len() - limit).as_bytes());
    kept.extend_from_slice(&bytes[bytes.len() - limit / 2..]);
    Kept { bytes: kept, total, missing: (bytes.len() - limit) as u64 }
}

#[async_trait]
impl Workspace for FolderWorkspace {
    fn report(&self) -> SandboxReport {
        SandboxReport { backend: "folder".into(), masked: self.masked.clone(), ..SandboxReport::default() }
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> Answer<ExecResult> {
        self.asked.lock().expect("no thread panicked").push(spec.clone());
        let canned = self.canned.lock().expect("no thread panicked").pop();
        if let Some(result) = canned {
            return result;
        }
        let cwd = self.real(&spec.cwd)?;
        let (program, arguments) =
            spec.argv.split_first().ok_or_else(|| Error::Invalid { why: "there is no program".into() })?;
        let started = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "this double is what starts processes for tests")]
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).current_dir(cwd).envs(&spec.env).stdin(Stdio::null()).kill_on_drop(true);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.map_err(|error| Self::io(program, &error))?;
        let ended = tokio::time::timeout(spec.timeout, child.wait_with_output()).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let nothing = ExecResult {
            exit_code: 124,
            timed_out: true,
            out_of_memory: false,
            stdout: Kept::default(),
            stderr: Kept::default(),
            duration_ms,
            peak_memory: 0,
        };
        let Ok(ended) = ended else { return Ok(nothing) };
        let ended = ended.map_err(|error| Self::io(program, &error))?;
        output.output(Stream::Stdout, &ended.stdout);
        output.output(Stream::Stderr, &ended.stderr);
        let signal = ended.status.signal().map_or(-1, |signal| 128 + signal);
        Ok(ExecResult {
            exit_code: ended.status.code().unwrap_or(signal),
            timed_out: false,
            stdout: keep(&ended.stdout, spec.keep_bytes),
            stderr: keep(&ended.stderr, spec.keep_bytes),
            ..nothing
        })
    }

    /// The digest of all paths, modes and contents; nothing is kept.
    async fn snapshot(&self) -> Answer<SnapshotId> {
        let mut found = Vec::new();
        let _ = self.walk(&self.root, u32::MAX, &mut found);
        let mut text = Vec::new();
        for entry in found {
            let path = self.root.join(&entry.path);
            let mode = fs::symlink_metadata(&path).map(|meta| meta.permissions().mode()).unwrap_or_default();
            let content =
                if entry.kind == FileKind::File { fs::read(&path).unwrap_or_default() } else { Vec::new() };
            text.extend_from_slice(format!("{} {mode:o} {}\n", entry.path, Digest::of(&content)).as_bytes());
        }
        Ok(SnapshotId(Digest::of(&text)))
    }

    fn reached(&self) -> Vec<EgressRecord> {
        Vec::new()
    }
}

#[async_trait]
impl Files for FolderWorkspace {
    async fn read(&self, path: &str, offset: u64, limit: usize) -> Answer<FileChunk> {
        let real = self.real(path)?;
        let meta = Self::regular(path, &real)?;
        let io = |error| Self::io(path, &error);
        let mut file = fs::File::open(real).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes).map_err(io)?;
        Ok(FileChunk { bytes, size: meta.len(), mode: meta.permissions().mode() & 0o7777 })
    }

    async fn write(&self, path: &str, bytes: &[u8]) -> Answer<()> {
        let io = |error| Self::io(path, &error);
        let target = match self.real(path) {
            Ok(real) => {
                Self::regular(path, &real)?;
                real
            }
            Err(Error::Path { kind: PathFault::NotFound, .. }) => {
                let target = self.root.join(path);
                let parent = target.parent().unwrap_or(&self.root);
                let mut there = parent;
                while let (false, Some(above)) = (there.exists(), there.parent()) {
                    there = above;
                }
                let rest = parent.strip_prefix(there).unwrap_or(parent);
                self.not_git(path, &there.canonicalize().map_err(io)?.join(rest).join("new"))?;
                fs::create_dir_all(parent).map_err(io)?;
                let above = self.relative(parent);
                self.real(&above)?;
                target
            }
            Err(error) => return Err(error),
        };
        let real = target.parent().and_then(|parent| parent.canonicalize().ok());
        let real = real.zip(target.file_name()).map_or(target.clone(), |(parent, name)| parent.join(name));
        self.not_git(path, &real)?;
        let mode = fs::metadata(&target).ok().map(|meta| meta.permissions());
        let temporary = target.with_extension("being-written");
        fs::write(&temporary, bytes).map_err(io)?;
        if let Some(mode) = mode {
            fs::set_permissions(&temporary, mode).map_err(io)?;
        }
        fs::rename(temporary, target).map_err(io)
    }

    async fn list(&self, path: &str, depth: u32, limit: usize) -> Answer<Listing<Entry>> {
        let real = self.real(path)?;
        if !real.is_dir() {
            return Err(Self::fault(path, "it is not a directory", PathFault::NotDirectory));
        }
        let mut found = Vec::new();
        self.walk(&real, depth, &mut found).map_err(|error| Self::io(path, &error))?;
        Ok(cut(found, limit))
    }

    async fn search(&self, spec: SearchSpec) -> Answer<Listing<Match>> {
        let matcher = grep_regex::RegexMatcher::new_line_matcher(&spec.pattern);
        let matcher = matcher.map_err(|error| Error::Invalid { why: error.to_string() })?;
        let glob = spec.glob.as_deref().map(Self::glob).transpose()?;
        let real = self.real(&spec.path)?;
        let files = if real.is_dir() { self.files(&real) } else { self.entry(&real).into_iter().collect() };
        let mut found = Listing { items: Vec::new(), more: false };
        let mut hits = 0;
        for file in files {
            if glob.as_ref().is_some_and(|glob| !glob.is_match(&file.path)) {
                continue;
            }
            let Ok(bytes) = fs::read(self.root.join(&file.path)) else { continue };
            let before = found.items.len();
            let sink = grep_searcher::sinks::Lossy(|line, text| {
                found.more |= found.items.len() == spec.max_matches || hits == spec.max_files;
                if !found.more {
                    let text = text.chars().take(500).collect();
                    found.items.push(Match { path: file.path.clone(), line, text });
                }
                Ok(!found.more)
            });
            let searched = grep_searcher::Searcher::new().search_slice(&matcher, &bytes, sink);
            searched.map_err(|error| Self::io(&file.path, &error))?;
            hits += usize::from(found.items.len() > before);
        }
        Ok(found)
    }

    async fn find(&self, glob: &str, limit: usize) -> Answer<Listing<Entry>> {
        let glob = Self::glob(glob)?;
        let found = self.files(&self.root).into_iter().filter(|entry| glob.is_match(&entry.path)).collect();
        Ok(cut(found, limit))
    }

    async fn remove(&self, path: &str) -> Answer<()> {
        let real = self.root.join(path);
        let parent = real.parent().and_then(|parent| parent.canonicalize().ok());
        if let Some((parent, name)) = parent.zip(real.file_name()) {
            self.not_git(path, &parent.join(name))?;
        }
        let meta = fs::symlink_metadata(&real).map_err(|error| Self::io(path, &error))?;
        if meta.is_dir() {
            return Err(Self::fault(path, "it is a directory", PathFault::IsDirectory));
        }
        fs::remove_file(real).map_err(|error| Self::io(path, &error))
    }
}
