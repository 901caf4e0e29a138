//! One-shot boxes for generated programs: a fresh box per execution, the code read-only beside an empty workspace.

use crate::native::NativeBackend;
use crate::stale_temps;
use forge_files::PrivateDir;
use forge_jail::{HostBind, MissingSource};
use forge_ports::Workspace as _;
use forge_ports::sandbox::{BackgroundPolicy, CapturedOutput, Error, ExecSpec};
use forge_types::{NetworkPolicy, RunId, SandboxLimits, SandboxSpec, WorkspaceMode};
use forge_workspace::run_blocking;
use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

/// Where the code stands in the box.
const CODE_DIR: &str = "/code";
/// Bytes kept of each stream.
const MAX_STREAM_BYTES: usize = 512 << 10;
/// Size of `/tmp`.
const MAX_TMP_BYTES: u64 = 64 << 20;
/// Processes and threads.
const MAX_PIDS: u32 = 256;

/// What a program is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramLanguage {
    /// Python 3: `/code/main.py`.
    Python,
    /// JavaScript for Node: `/code/main.js`.
    Node,
}

impl ProgramLanguage {
    /// The name of the program's file.
    #[must_use]
    pub const fn source_file_name(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::Node => "main.js",
        }
    }

    /// What runs it, looked up in the folders of the box's `PATH`.
    #[must_use]
    pub const fn interpreter(self) -> &'static str {
        match self {
            Self::Python => "python3",
            Self::Node => "node",
        }
    }
}

/// A program to run once.
#[derive(Clone, Debug)]
pub struct OneShotSpec {
    /// The program.
    pub code: String,
    /// What it is written in.
    pub language: ProgramLanguage,
    /// What it may reach; usually nothing.
    pub network: NetworkPolicy,
    /// After this time it and all it started are killed.
    pub timeout: Duration,
    /// Memory of all its processes together, bytes.
    pub memory_bytes: u64,
    /// The image that gives the root folder; `None`: the host's system folders.
    pub image: Option<String>,
    /// Variables of its environment beside the fixed ones.
    pub env: Vec<(String, String)>,
    /// Host folders bound read-only, for toolchains that do not lie under `/usr`.
    pub read_only: Vec<PathBuf>,
}

impl OneShotSpec {
    /// A program without network, with 30 seconds and 512 MB.
    #[must_use]
    pub fn new(language: ProgramLanguage, code: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            language,
            network: NetworkPolicy::Off,
            timeout: Duration::from_secs(30),
            memory_bytes: 512 << 20,
            image: None,
            env: Vec::new(),
            read_only: Vec::new(),
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneShotResult {
    /// Exit code; 124 after a timeout, 128 + N after signal N, 127 if there is nothing to run it with.
    pub exit_code: i32,
    /// Standard output; of more than 512 KiB its beginning and its end.
    pub stdout: CapturedOutput,
    /// Standard error, likewise.
    pub stderr: CapturedOutput,
    /// Milliseconds it took, without the box.
    pub duration_ms: u64,
    /// Most memory that it used, in MB, rounded up.
    pub memory_mb: u64,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Whether the memory limit ended it.
    pub out_of_memory: bool,
}

/// Runs a program in a box of its own, which is gone when this returns.
///
/// # Errors
/// As when any box is opened; what the program does is no error.
pub(crate) async fn run_one_shot(native: &NativeBackend, once: OneShotSpec) -> Result<OneShotResult, Error> {
    let id = RunId::generate();
    let (language, code) = (once.language, once.code.clone());
    let temporary = native.temp_directory()?;
    let place = run_blocking(move || OneShotDir::new(&temporary, language, &code)).await?;
    let spec = SandboxSpec {
        backend: "native".to_owned(),
        repo: place.work_dir(),
        more_repos: Vec::new(),
        mode: WorkspaceMode::Inplace,
        apply: forge_types::ApplyPolicy::Never,
        image: once.image,
        network: once.network,
        limits: SandboxLimits {
            memory_bytes: once.memory_bytes,
            pids: MAX_PIDS,
            cpus: Some(1.0),
            tmp_bytes: MAX_TMP_BYTES,
            command_ms: u64::try_from(once.timeout.as_millis()).unwrap_or(u64::MAX),
        },
        workspace: forge_types::WorkspaceLimits::default(),
        reveal: Vec::new(),
        env: once.env,
        read_only: once.read_only,
        writable: Vec::new(),
        programs: None,
        allow_unisolated: false,
    };
    let code =
        HostBind { source: place.code_dir(), target: PathBuf::from(CODE_DIR), missing: MissingSource::Fail };
    let keep: Vec<Box<dyn Any + Send + Sync>> = vec![Box::new(place)];
    let room = native.open_bare(&spec, id, vec![code], keep).await?;
    let command = ExecSpec {
        argv: vec![language.interpreter().to_owned(), format!("{CODE_DIR}/{}", language.source_file_name())],
        cwd: String::new(),
        env: BTreeMap::new(),
        timeout: once.timeout,
        keep_bytes: MAX_STREAM_BYTES,
        background: BackgroundPolicy::Kill,
        also: Vec::new(),
    };
    let ran = room.exec(command, &()).await;
    room.close().await;
    let ran = ran?;
    Ok(OneShotResult {
        exit_code: ran.exit_code,
        stdout: ran.stdout,
        stderr: ran.stderr,
        duration_ms: ran.duration_ms,
        memory_mb: ran.peak_memory.div_ceil(1 << 20),
        timed_out: ran.timed_out,
        out_of_memory: ran.out_of_memory,
    })
}

/// A folder with the code and an empty one to work in; removed when dropped.
struct OneShotDir(PathBuf);

impl OneShotDir {
    fn new(temporary: &PrivateDir, language: ProgramLanguage, code: &str) -> Result<Self, Error> {
        let path = temporary.path().join(forge_files::owned_temp_name(stale_temps::ONE_SHOT_KIND));
        let failed = |error: std::io::Error| Error::Startup { why: format!("{}: {error}", path.display()) };
        // Nobody else looks in; the box gets the two folders below.
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        // From here on what fails half-way is removed.
        let place = Self(path.clone());
        let file = place.code_dir().join(language.source_file_name());
        let made = fs::create_dir(place.work_dir())
            .and_then(|()| fs::create_dir(place.code_dir()))
            .and_then(|()| fs::write(&file, code))
            // Whatever the caller's mask: the box's user reads it.
            .and_then(|()| fs::set_permissions(place.code_dir(), fs::Permissions::from_mode(0o755)))
            .and_then(|()| fs::set_permissions(&file, fs::Permissions::from_mode(0o644)));
        made.map_err(failed)?;
        Ok(place)
    }

    fn work_dir(&self) -> PathBuf {
        self.0.join("work")
    }

    fn code_dir(&self) -> PathBuf {
        self.0.join("code")
    }
}

impl Drop for OneShotDir {
    fn drop(&mut self) {
        forge_files::remove_tree(&self.0);
    }
}
