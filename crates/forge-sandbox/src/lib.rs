//! Sandbox backends: the boxes in which everything happens that a model asks for.
//!
//! `native` isolates through `forge-jail`; `process` isolates nothing and must be allowed by name. Walks of the
//! workspace run in the box by the same binary, and so does the box's init: a `main` that opens boxes begins with
//! [`helper_main`]. What this crate does not know: tools, models, configuration, and what a command is for.

mod capture;
pub mod docker;
mod file_requests;
mod guard;
pub mod images;
mod jailed_workspace;
mod native;
mod one_shot;
mod process;
mod stale_temps;
mod stream;

use docker::{DockerBackend, EngineKind};
pub use forge_covers::secrets_in_history;
pub use forge_egress as egress;
pub use forge_file_search::SEARCH_HELPER;
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace, async_trait};
use forge_types::{RunId, SandboxLayer, SandboxSpec, SnapshotId};
pub use forge_verify as verify;
use forge_workspace::{ForcedCopy, LocalWorkspaces, WorkspaceStorage};
use native::NativeBackend;
pub use one_shot::{OneShotResult, OneShotSpec, ProgramLanguage};
use process::ProcessBackend;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the backends are told by their caller; this crate reads no environment.
#[derive(Clone, Default)]
pub struct BackendOptions {
    /// The folder that holds one folder per run; what a run keeps of its workspace is in `<views>/<run-id>/view`.
    pub workspaces: PathBuf,
    /// This user's private directory for temporary things, made if it is missing.
    pub temporary: PathBuf,
    /// The user's runtime directory, if there is one: sockets of containers lie there.
    pub runtime: Option<PathBuf>,
    /// The folder for locks of repositories, the same for all who apply to them.
    pub locks: PathBuf,
    /// The folder of root folders made by `forge sandbox build`.
    pub images: PathBuf,
    /// Where a container engine listens; `None`: at its usual place.
    pub docker_host: Option<String>,
    /// Keys that the egress proxy puts into requests, by the variables that the rules name.
    pub keys: BTreeMap<String, String>,
    /// Whether boxes with a network get writable caches at `/cache`.
    pub caches: bool,
    /// Another binary as the boxes' init, whose `main` begins with [`helper_main`]; `None`: the running one. For
    /// programs whose own `main` can't, such as test runners.
    pub exe: Option<PathBuf>,
    /// For tests: no view is an overlay.
    #[doc(hidden)]
    pub copies: bool,
    /// For tests: protective measures that native boxes go without. Only the init of a test's own binary obeys this.
    #[doc(hidden)]
    pub without: Vec<forge_jail::DisabledProtection>,
}

impl fmt::Debug for BackendOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys are nobody's business.
        f.debug_struct("Options")
            .field("views", &self.workspaces)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}

impl BackendOptions {
    /// Options that keep everything below one folder.
    #[must_use]
    pub fn under_directory(folder: &Path) -> Self {
        Self {
            workspaces: folder.join("runs"),
            temporary: folder.join("tmp"),
            locks: folder.join("locks"),
            images: folder.join("images"),
            caches: true,
            ..Self::default()
        }
    }

    /// Where views are kept, and how they are made.
    pub(crate) fn workspace_storage(&self) -> WorkspaceStorage {
        let limit = self.copies.then(|| ForcedCopy { why: "asked for".to_owned() });
        WorkspaceStorage { workspaces: self.workspaces.clone(), locks: self.locks.clone(), limit }
    }

    fn docker_backend(self: &Arc<Self>, kind: EngineKind) -> DockerBackend {
        let mut options = docker::EngineOptions::new(kind, &self.temporary);
        options.runtime.clone_from(&self.runtime);
        options.host = kind.matching_host(self.docker_host.as_deref()).map(str::to_owned);
        if let Some(exe) = &self.exe {
            options.exe.clone_from(exe);
        }
        DockerBackend::new(options, Arc::clone(self))
    }
}

/// All backends; the specification names the one that is used.
#[derive(Clone, Debug)]
pub struct Backends {
    options: Arc<BackendOptions>,
    native: NativeBackend,
    docker: DockerBackend,
    podman: DockerBackend,
    process: ProcessBackend,
}

impl Backends {
    /// The backends of this machine.
    #[must_use]
    pub fn new(options: BackendOptions) -> Self {
        let options = Arc::new(options);
        Self {
            native: NativeBackend::new(Arc::clone(&options)),
            docker: options.docker_backend(EngineKind::Docker),
            podman: options.docker_backend(EngineKind::Podman),
            process: ProcessBackend::new(Arc::clone(&options)),
            options,
        }
    }

    /// Begins the box that is likely to be asked for next, beside what the caller does until then: its namespaces, network,
    /// root folder and control groups, all but the workspace. [`Sandbox::open`] finishes it if it fits what is then
    /// asked for, else makes another from nothing; one that nobody asks for goes with this value. Nothing is waited
    /// for, and only what `native` would do is begun.
    pub fn prewarm(&self, spec: &SandboxSpec) {
        if matches!(spec.backend.as_str(), "native" | "auto") {
            self.native.prewarm(spec);
        }
    }

    /// Waits until the box that was [begun](Self::begin) stands as far as it goes.
    pub fn wait_prewarmed(&self) {
        self.native.wait_prewarmed();
    }

    /// Runs a program once, in a native box of its own.
    ///
    /// # Errors
    /// As when any box is opened; what the program does is no error.
    pub async fn run_one_shot(&self, once: OneShotSpec) -> Result<OneShotResult, Error> {
        one_shot::run_one_shot(&self.native, once).await
    }

    /// Returns the workspaces of runs while no sandbox is open on them.
    #[must_use]
    pub fn workspaces(&self) -> LocalWorkspaces<Self> {
        LocalWorkspaces::new(self.options.workspace_storage(), self.clone())
    }

    /// Removes what boxes left behind whose owner died: control groups, temporary files, containers. Names each thing.
    pub async fn remove_stale(&self) -> Vec<String> {
        let temporary = self.options.temporary.clone();
        let store = self.options.workspace_storage();
        let work = move || {
            forge_workspace::remove_stale_packs(&store);
            Ok::<_, Error>(remove_stale_resources(&temporary))
        };
        let here = forge_workspace::run_blocking(work).await.unwrap_or_default();
        let mut removed: Vec<String> = here.into_iter().map(|path| path.display().to_string()).collect();
        for engine in [&self.docker, &self.podman] {
            // An engine that does not run has nothing of ours.
            removed.extend(engine.remove_stale_containers().await.unwrap_or_default());
        }
        removed
    }

    /// The backends with container engines at other places, each with its own options.
    #[must_use]
    pub fn with_engine(mut self, options: docker::EngineOptions) -> Self {
        match options.kind {
            EngineKind::Docker => self.docker = DockerBackend::new(options, Arc::clone(&self.options)),
            EngineKind::Podman => self.podman = DockerBackend::new(options, Arc::clone(&self.options)),
        }
        self
    }

    /// The backend of an engine.
    #[must_use]
    pub const fn engine_backend(&self, kind: EngineKind) -> &DockerBackend {
        match kind {
            EngineKind::Docker => &self.docker,
            EngineKind::Podman => &self.podman,
        }
    }

    /// The version of what stands behind a backend beside the kernel: of a container engine, else nothing.
    ///
    /// # Errors
    /// [`Error::Missing`] when the engine does not answer or is too old.
    pub async fn engine_version(&self, backend: &str) -> Result<String, Error> {
        match backend {
            "docker" => self.docker.engine_version().await,
            "podman" => self.podman.engine_version().await,
            _ => Ok(String::new()),
        }
    }

    /// The isolation of this machine, else that of an engine, and never less.
    async fn open_any(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        let mut lacking = Vec::new();
        let backends: [&dyn Sandbox; 3] = [&self.native, &self.docker, &self.podman];
        for backend in backends {
            match backend.open(spec, run, at).await {
                Err(Error::Missing { missing }) => lacking.extend(missing),
                opened => return opened,
            }
        }
        Err(Error::Missing { missing: lacking })
    }
}

#[async_trait]
impl Sandbox for Backends {
    async fn probe_layers(&self) -> Vec<SandboxLayer> {
        self.native.probe_layers().await
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        stale_temps::remove_stale_in_background(&self.options);
        match spec.backend.as_str() {
            // Each of these means the isolation of this machine, and never less.
            "native" | "bwrap" => self.native.open(spec, run, at).await,
            "docker" => self.docker.open(spec, run, at).await,
            "podman" => self.podman.open(spec, run, at).await,
            "auto" => self.open_any(spec, run, at).await,
            "process" => self.process.open(spec, run, at).await,
            other => {
                let missing = format!(
                    "there is no sandbox backend `{other}` in this build (there are: native, docker, podman, process)"
                );
                Err(Error::Missing { missing: vec![missing] })
            }
        }
    }
}

/// Removes what boxes left behind whose owner died: control groups, temporary files in `temporary`. Returns their paths.
#[must_use]
pub fn remove_stale_resources(temporary: &Path) -> Vec<PathBuf> {
    let mut removed = forge_jail::prune_stale_groups();
    removed.extend(stale_temps::remove_stale_temps(temporary));
    removed
}

/// Answers as the init of a box or as one of the programs that run inside it, if the binary was started under such a
/// name.
///
/// Must be the first thing that `main` does, before any thread starts. Gives the exit code to end with, or `None` for
/// an ordinary start; as init it does not return.
pub fn helper_main(arguments: &[String]) -> Option<i32> {
    let (name, rest) = arguments.split_first()?;
    if name == forge_jail::INIT_ARGV0 {
        forge_jail::init_main();
    }
    // An engine names a static binary by its path.
    if name.rsplit('/').next() == Some(forge_jail::CONTAINED_ARGV0) {
        forge_jail::contained_main();
    }
    // Where it stands in every box there is no other program that could be meant.
    if let ([prober, task @ ..], true) = (rest, name == forge_jail::HELPER_PATH) {
        return (prober == verify::PROBER_ARG)
            .then(|| verify::run_prober_task(task.first().map(String::as_str)));
    }
    (name == SEARCH_HELPER).then(|| forge_file_search::run_search_helper(rest.first().map(String::as_str)))
}
