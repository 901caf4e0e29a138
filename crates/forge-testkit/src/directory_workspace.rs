//! A workspace that is a plain folder of the host, for tests of what acts through a workspace.
//!
//! It isolates nothing and ignores no file but those of git. Paths are checked before they are opened, which is
//! good enough where nobody swaps files in between.

use forge_ports::sandbox::InheritedEnv;
use forge_ports::sandbox::{
    BoundedList, CapturedOutput, EntryKind, Error, ExecResult, ExecSpec, FileChunk, OutputSink,
    PathErrorKind, SearchMatch, SearchSpec, StdStream, WorkspaceEntry, omission_marker,
};
use forge_ports::{Workspace, WorkspaceFiles, async_trait};
use forge_types::{Digest, EgressRecord, SandboxReport, SnapshotId};
use std::fs;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;
use tokio::io::AsyncWriteExt as _;

/// A folder as a workspace.
#[derive(Debug)]
pub struct DirectoryWorkspace {
    root: PathBuf,
    masked: Vec<String>,
    /// What the next commands give instead of being run.
    canned: Mutex<Vec<Result<ExecResult, Error>>>,
    /// What was asked to be run, in order.
    asked: Mutex<Vec<ExecSpec>>,
}

type WorkspaceResult<T> = Result<T, Error>;

impl DirectoryWorkspace {
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
    pub fn mask_path(mut self, path: &str) -> Self {
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
    pub fn requested_commands(&self) -> Vec<ExecSpec> {
        self.asked.lock().expect("no thread panicked").clone()
    }

    fn path_error(path: &str, why: &str, kind: PathErrorKind) -> Error {
        Error::Path { path: path.to_owned(), why: why.to_owned(), kind }
    }

    fn io_error(path: &str, error: &std::io::Error) -> Error {
        let kind = match error.kind() {
            ErrorKind::NotFound => PathErrorKind::NotFound,
            ErrorKind::PermissionDenied => PathErrorKind::Denied,
            ErrorKind::NotADirectory => PathErrorKind::NotDirectory,
            ErrorKind::IsADirectory => PathErrorKind::IsDirectory,
            ErrorKind::StorageFull => PathErrorKind::NoSpace,
            _ => PathErrorKind::Other,
        };
        Self::path_error(path, &error.to_string(), kind)
    }

    /// The real place of something that exists.
    fn resolve_path(&self, path: &str) -> WorkspaceResult<PathBuf> {
        if self.masked.iter().any(|masked| masked == path) {
            return Err(Self::path_error(path, "it is masked", PathErrorKind::Denied));
        }
        let real = self.root.join(path).canonicalize().map_err(|error| Self::io_error(path, &error))?;
        if real.starts_with(&self.root) {
            return Ok(real);
        }
        Err(Self::path_error(path, "it leads out of the workspace", PathErrorKind::Escapes))
    }

    fn require_regular(path: &str, real: &Path) -> WorkspaceResult<fs::Metadata> {
        let meta = fs::metadata(real).map_err(|error| Self::io_error(path, &error))?;
        if meta.is_dir() {
            return Err(Self::path_error(path, "it is a directory", PathErrorKind::IsDirectory));
        }
        if !meta.is_file() {
            return Err(Self::path_error(path, "it is a FIFO, device or socket", PathErrorKind::Special));
        }
        Ok(meta)
    }

    /// Refuses a real place in git's own data, whatever path led there.
    fn refuse_git_path(&self, path: &str, real: &Path) -> WorkspaceResult<()> {
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
            return Err(Self::path_error(path, "it belongs to git", PathErrorKind::Denied));
        }
        Ok(())
    }

    fn relative_path(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn read_entry(&self, path: &Path) -> Option<WorkspaceEntry> {
        let meta = fs::symlink_metadata(path).ok()?;
        let kind = match meta.file_type() {
            kind if kind.is_dir() => EntryKind::Directory,
            kind if kind.is_symlink() => EntryKind::Symlink,
            kind if kind.is_fifo() || kind.is_socket() || !kind.is_file() => EntryKind::Special,
            _ => EntryKind::File,
        };
        Some(WorkspaceEntry { path: self.relative_path(path), kind, size: meta.len() })
    }

    /// Entries below a folder, sorted by path, not following symlinks.
    fn collect_entries(
        &self,
        folder: &Path,
        depth: u32,
        found: &mut Vec<WorkspaceEntry>,
    ) -> std::io::Result<()> {
        let mut paths: Vec<_> = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let Some(entry) = self.read_entry(&path) else { continue };
            let below = entry.kind == EntryKind::Directory && depth > 1;
            found.push(entry);
            if below {
                // A folder that can't be read is listed without its entries.
                let _ = self.collect_entries(&path, depth - 1, found);
            }
        }
        Ok(())
    }

    fn collect_files(&self, folder: &Path) -> Vec<WorkspaceEntry> {
        let mut found = Vec::new();
        let _ = self.collect_entries(folder, u32::MAX, &mut found);
        found.retain(|entry| {
            entry.kind == EntryKind::File && !entry.path.split('/').any(|part| part == ".git")
        });
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    fn compile_glob(glob: &str) -> WorkspaceResult<globset::GlobMatcher> {
        let whole = if glob.contains('/') { glob.to_owned() } else { format!("**/{glob}") };
        let built = globset::GlobBuilder::new(&whole).literal_separator(true).build();
        built.map(|glob| glob.compile_matcher()).map_err(|error| Error::Invalid { why: error.to_string() })
    }
}

fn truncate_items<T>(mut items: Vec<T>, limit: usize) -> BoundedList<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    BoundedList { items, more }
}

fn truncate_output(bytes: &[u8], limit: usize) -> CapturedOutput {
    let total = bytes.len() as u64;
    if bytes.len() <= limit {
        return CapturedOutput { bytes: bytes.to_vec(), total, missing: 0 };
    }
    let mut kept = bytes[..limit / 2].to_vec();
    kept.extend_from_slice(omission_marker((bytes.len() - limit) as u64).as_bytes());
    kept.extend_from_slice(&bytes[bytes.len() - limit / 2..]);
    CapturedOutput { bytes: kept, total, missing: (bytes.len() - limit) as u64 }
}

#[async_trait]
impl Workspace for DirectoryWorkspace {
    fn report(&self) -> SandboxReport {
        SandboxReport { backend: "folder".into(), masked: self.masked.clone(), ..SandboxReport::default() }
    }

    async fn exec(&self, spec: ExecSpec, output: &dyn OutputSink) -> WorkspaceResult<ExecResult> {
        self.asked.lock().expect("no thread panicked").push(spec.clone());
        let canned = self.canned.lock().expect("no thread panicked").pop();
        if let Some(result) = canned {
            return result;
        }
        let cwd = self.resolve_path(&spec.cwd)?;
        let (program, arguments) =
            spec.argv.split_first().ok_or_else(|| Error::Invalid { why: "there is no program".into() })?;
        let started = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "this double is what starts processes for tests")]
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).current_dir(cwd).kill_on_drop(true);
        if let InheritedEnv::Only(names) = &spec.inherited_env {
            // The sandbox that this stands for has no other variable.
            command.env_clear();
            if names.iter().any(|name| name == "PATH") {
                command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
            }
        }
        command.envs(&spec.env).stdin(Stdio::piped());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = child.map_err(|error| Self::io_error(program, &error))?;
        if let Some(mut stdin) = child.stdin.take() {
            let content = spec.stdin.unwrap_or_default();
            tokio::spawn(async move { stdin.write_all(&content).await });
        }
        let ended = tokio::time::timeout(spec.timeout, child.wait_with_output()).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let nothing = ExecResult {
            exit_code: 124,
            timed_out: true,
            out_of_memory: false,
            stdout: CapturedOutput::default(),
            stderr: CapturedOutput::default(),
            duration_ms,
            peak_memory: 0,
        };
        let Ok(ended) = ended else { return Ok(nothing) };
        let ended = ended.map_err(|error| Self::io_error(program, &error))?;
        output.write_output(StdStream::Stdout, &ended.stdout);
        output.write_output(StdStream::Stderr, &ended.stderr);
        let signal = ended.status.signal().map_or(-1, |signal| 128 + signal);
        Ok(ExecResult {
            exit_code: ended.status.code().unwrap_or(signal),
            timed_out: false,
            stdout: truncate_output(&ended.stdout, spec.keep_bytes),
            stderr: truncate_output(&ended.stderr, spec.keep_bytes),
            ..nothing
        })
    }

    /// The digest of all paths, modes and contents; nothing is kept.
    async fn snapshot(&self) -> WorkspaceResult<SnapshotId> {
        let mut found = Vec::new();
        let _ = self.collect_entries(&self.root, u32::MAX, &mut found);
        let mut text = Vec::new();
        for entry in found {
            let path = self.root.join(&entry.path);
            let mode = fs::symlink_metadata(&path).map(|meta| meta.permissions().mode()).unwrap_or_default();
            let content =
                if entry.kind == EntryKind::File { fs::read(&path).unwrap_or_default() } else { Vec::new() };
            text.extend_from_slice(
                format!("{} {mode:o} {}\n", entry.path, Digest::of_bytes(&content)).as_bytes(),
            );
        }
        Ok(SnapshotId(Digest::of_bytes(&text)))
    }

    fn drain_egress_records(&self) -> Vec<EgressRecord> {
        Vec::new()
    }
}

#[async_trait]
impl WorkspaceFiles for DirectoryWorkspace {
    async fn read_file(&self, path: &str, offset: u64, limit: usize) -> WorkspaceResult<FileChunk> {
        let real = self.resolve_path(path)?;
        let meta = Self::require_regular(path, &real)?;
        let io = |error| Self::io_error(path, &error);
        let mut file = fs::File::open(real).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).map_err(io)?;
        let mut bytes = Vec::new();
        file.take(limit as u64).read_to_end(&mut bytes).map_err(io)?;
        Ok(FileChunk { bytes, size: meta.len(), mode: meta.permissions().mode() & 0o7777 })
    }

    async fn write_file(&self, path: &str, bytes: &[u8]) -> WorkspaceResult<()> {
        let io = |error| Self::io_error(path, &error);
        let target = match self.resolve_path(path) {
            Ok(real) => {
                Self::require_regular(path, &real)?;
                real
            }
            Err(Error::Path { kind: PathErrorKind::NotFound, .. }) => {
                let target = self.root.join(path);
                let parent = target.parent().unwrap_or(&self.root);
                let mut there = parent;
                while let (false, Some(above)) = (there.exists(), there.parent()) {
                    there = above;
                }
                let rest = parent.strip_prefix(there).unwrap_or(parent);
                self.refuse_git_path(path, &there.canonicalize().map_err(io)?.join(rest).join("new"))?;
                fs::create_dir_all(parent).map_err(io)?;
                let above = self.relative_path(parent);
                self.resolve_path(&above)?;
                target
            }
            Err(error) => return Err(error),
        };
        let real = target.parent().and_then(|parent| parent.canonicalize().ok());
        let real = real.zip(target.file_name()).map_or(target.clone(), |(parent, name)| parent.join(name));
        self.refuse_git_path(path, &real)?;
        let mode = fs::metadata(&target).ok().map(|meta| meta.permissions());
        let temporary = target.with_extension("being-written");
        fs::write(&temporary, bytes).map_err(io)?;
        if let Some(mode) = mode {
            fs::set_permissions(&temporary, mode).map_err(io)?;
        }
        fs::rename(temporary, target).map_err(io)
    }

    async fn list_directory(
        &self,
        path: &str,
        depth: u32,
        limit: usize,
    ) -> WorkspaceResult<BoundedList<WorkspaceEntry>> {
        let real = self.resolve_path(path)?;
        if !real.is_dir() {
            return Err(Self::path_error(path, "it is not a directory", PathErrorKind::NotDirectory));
        }
        let mut found = Vec::new();
        self.collect_entries(&real, depth, &mut found).map_err(|error| Self::io_error(path, &error))?;
        Ok(truncate_items(found, limit))
    }

    async fn search_contents(&self, spec: SearchSpec) -> WorkspaceResult<BoundedList<SearchMatch>> {
        let matcher = grep_regex::RegexMatcher::new_line_matcher(&spec.pattern);
        let matcher = matcher.map_err(|error| Error::Invalid { why: error.to_string() })?;
        let glob = spec.glob.as_deref().map(Self::compile_glob).transpose()?;
        let real = self.resolve_path(&spec.path)?;
        let files = if real.is_dir() {
            self.collect_files(&real)
        } else {
            self.read_entry(&real).into_iter().collect()
        };
        let mut found = BoundedList { items: Vec::new(), more: false };
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
                    found.items.push(SearchMatch { path: file.path.clone(), line, text });
                }
                Ok(!found.more)
            });
            let searched = grep_searcher::Searcher::new().search_slice(&matcher, &bytes, sink);
            searched.map_err(|error| Self::io_error(&file.path, &error))?;
            hits += usize::from(found.items.len() > before);
        }
        Ok(found)
    }

    async fn find_files(&self, glob: &str, limit: usize) -> WorkspaceResult<BoundedList<WorkspaceEntry>> {
        let glob = Self::compile_glob(glob)?;
        let found =
            self.collect_files(&self.root).into_iter().filter(|entry| glob.is_match(&entry.path)).collect();
        Ok(truncate_items(found, limit))
    }

    async fn remove_file(&self, path: &str) -> WorkspaceResult<()> {
        let real = self.root.join(path);
        let parent = real.parent().and_then(|parent| parent.canonicalize().ok());
        if let Some((parent, name)) = parent.zip(real.file_name()) {
            self.refuse_git_path(path, &parent.join(name))?;
        }
        let meta = fs::symlink_metadata(&real).map_err(|error| Self::io_error(path, &error))?;
        if meta.is_dir() {
            return Err(Self::path_error(path, "it is a directory", PathErrorKind::IsDirectory));
        }
        fs::remove_file(real).map_err(|error| Self::io_error(path, &error))
    }
}
