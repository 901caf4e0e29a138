//! One-shot sandboxes for generated programs: a new sandbox per execution, with the code read-only next to an empty
//! workspace.

use crate::native::NativeBackend;
use crate::stale_temps;
use forge_files::PrivateDir;
use forge_jail::{HostBind, MissingSource};
use forge_ports::Workspace as _;
use forge_ports::sandbox::{BackgroundPolicy, CapturedOutput, Error, ExecSpec, InheritedEnv};
use forge_types::{NetworkPolicy, RunId, SandboxLimits, SandboxSpec, WorkspaceMode};
use forge_workspace::run_blocking;
use std::any::Any;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

/// Directory of the code in the sandbox.
const CODE_DIR: &str = "/code";
/// Maximum number of bytes kept of each stream.
const MAX_STREAM_BYTES: usize = 512 << 10;
/// Size of `/tmp`.
const MAX_TMP_BYTES: u64 = 64 << 20;
/// Maximum number of processes and threads.
const MAX_PIDS: u32 = 256;

/// The language of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramLanguage {
    /// Python 3: `/code/main.py`.
    Python,
    /// JavaScript for Node: `/code/main.js`.
    Node,
}

impl ProgramLanguage {
    /// Returns the name of the program's file.
    #[must_use]
    pub const fn source_file_name(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::Node => "main.js",
        }
    }

    /// Returns the interpreter, which is looked up in the directories of the sandbox's `PATH`.
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
    /// Source code of the program.
    pub code: String,
    /// Language of the program.
    pub language: ProgramLanguage,
    /// Network access of the program; usually none.
    pub network: NetworkPolicy,
    /// Time after which the program and all processes it started are killed.
    pub timeout: Duration,
    /// Memory limit of all its processes together, in bytes.
    pub memory_bytes: u64,
    /// Image that provides the root directory; `None` for the host's system directories.
    pub image: Option<String>,
    /// Environment variables in addition to the fixed ones.
    pub env: Vec<(String, String)>,
    /// Host directories bound read-only, for toolchains that are not under `/usr`.
    pub read_only: Vec<PathBuf>,
}

impl OneShotSpec {
    /// Creates the specification of a program without network, limited to 30 seconds and 512 MB.
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

/// The result of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneShotResult {
    /// Exit code; 124 after a timeout, 128 + N after signal N, 127 if the interpreter is not found.
    pub exit_code: i32,
    /// Standard output; only its beginning and its end if it exceeds 512 KiB.
    pub stdout: CapturedOutput,
    /// Standard error, likewise.
    pub stderr: CapturedOutput,
    /// Run time in milliseconds, without the sandbox.
    pub duration_ms: u64,
    /// Peak memory in MB, rounded up.
    pub memory_mb: u64,
    /// Whether the time limit was exceeded.
    pub timed_out: bool,
    /// Whether the memory limit ended the program.
    pub out_of_memory: bool,
}

/// Runs a program in its own sandbox, which is gone when this returns.
///
/// # Errors
/// The errors of opening any sandbox; a failing program is not an error.
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
    let code = HostBind {
        examined: None,
        source: place.code_dir(),
        target: PathBuf::from(CODE_DIR),
        missing: MissingSource::Fail,
    };
    let keep: Vec<Box<dyn Any + Send + Sync>> = vec![Box::new(place)];
    let room = native.open_bare(&spec, id, vec![code], keep).await?;
    let command = ExecSpec {
        argv: vec![language.interpreter().to_owned(), format!("{CODE_DIR}/{}", language.source_file_name())],
        cwd: String::new(),
        env: BTreeMap::new(),
        timeout: once.timeout,
        keep_bytes: MAX_STREAM_BYTES,
        inherited_env: InheritedEnv::All,
        stdin: None,
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

/// A directory with the code and an empty work directory; removed when dropped.
struct OneShotDir(PathBuf);

impl OneShotDir {
    fn new(temporary: &PrivateDir, language: ProgramLanguage, code: &str) -> Result<Self, Error> {
        let path = temporary.path().join(forge_files::owned_temp_name(stale_temps::ONE_SHOT_KIND));
        let failed = |error: std::io::Error| Error::Startup { why: format!("{}: {error}", path.display()) };
        // Closed to other users; the sandbox gets the two directories below.
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        // From here on a failure removes the directory.
        let place = Self(path.clone());
        let file = place.code_dir().join(language.source_file_name());
        let made = fs::create_dir(place.work_dir())
            .and_then(|()| fs::create_dir(place.code_dir()))
            .and_then(|()| fs::write(&file, code))
            // The sandbox's user must be able to read it, whatever the caller's umask.
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
