//! Sandbox backends. Everything that a model asks for happens in a sandbox.
//!
//! `native` isolates through `forge-jail`; `process` isolates nothing and must be enabled explicitly. Searches of the
//! workspace run in the sandbox by the same binary, as does the sandbox's init: a `main` that opens sandboxes begins
//! with [`helper_main`]. This crate does not know tools, models, configuration, or the purpose of a command.

mod capture;
pub mod docker;
mod file_requests;
mod guard;
pub mod images;
mod jail_setup;
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
pub use forge_probes as probes;
use forge_types::{RunId, SandboxLayer, SandboxSpec, SnapshotId};
use forge_workspace::{ForcedCopy, LocalWorkspaces, WorkspaceStorage};
use native::NativeBackend;
pub use one_shot::{OneShotResult, OneShotSpec, ProgramLanguage};
use process::ProcessBackend;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Options that the caller passes to the backends; this crate reads no environment.
#[derive(Clone, Default)]
pub struct BackendOptions {
    /// Directory with one subdirectory per run; a run's workspace data is in `<workspaces>/<run-id>/view`.
    pub workspaces: PathBuf,
    /// Private directory of this user for temporary files, created if it is missing.
    pub temporary: PathBuf,
    /// Runtime directory of the user, if there is one: it contains the sockets of containers.
    pub runtime: Option<PathBuf>,
    /// Directory for repository locks, shared by all processes that apply to the repositories.
    pub locks: PathBuf,
    /// Directory of the root directories made by `forge sandbox build`.
    pub images: PathBuf,
    /// Places that no repository may contain, besides the directories of workspaces and locks.
    pub protected: Vec<PathBuf>,
    /// Address of a container engine; `None` means its usual place.
    pub docker_host: Option<String>,
    /// Keys that the egress proxy puts into requests, by the variables that the rules name.
    pub keys: BTreeMap<String, String>,
    /// Whether sandboxes with a network get writable caches at `/cache`.
    pub caches: bool,
    /// Another binary as the sandboxes' init, with a `main` that begins with [`helper_main`]; `None` means the running
    /// one. For programs with a `main` that cannot, such as test runners.
    pub exe: Option<PathBuf>,
    /// For tests: whether no workspace may be an overlay.
    #[doc(hidden)]
    pub copies: bool,
    /// For tests: protections that native sandboxes omit. Only the init of a test's own binary obeys this.
    #[doc(hidden)]
    pub without: Vec<forge_jail::DisabledProtection>,
}

impl fmt::Debug for BackendOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The keys must not be printed.
        f.debug_struct("Options")
            .field("views", &self.workspaces)
            .field("images", &self.images)
            .finish_non_exhaustive()
    }
}

impl BackendOptions {
    /// Returns options that keep everything below one directory.
    #[must_use]
    pub fn under_directory(folder: &Path) -> Self {
        Self {
            workspaces: folder.join("runs"),
            temporary: folder.join("tmp"),
            locks: folder.join("locks"),
            images: folder.join("images"),
            protected: vec![folder.to_owned()],
            caches: true,
            ..Self::default()
        }
    }

    /// Returns the directories of workspaces and the limits on how workspaces are built.
    pub(crate) fn workspace_storage(&self) -> WorkspaceStorage {
        let limit = self.copies.then(|| ForcedCopy { why: "requested".to_owned() });
        WorkspaceStorage {
            workspaces: self.workspaces.clone(),
            locks: self.locks.clone(),
            protected: self.protected.clone(),
            temporary: self.temporary.clone(),
            limit,
        }
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

/// All backends; the specification names the one to use.
#[derive(Clone, Debug)]
pub struct Backends {
    options: Arc<BackendOptions>,
    native: NativeBackend,
    docker: DockerBackend,
    podman: DockerBackend,
    process: ProcessBackend,
}

impl Backends {
    /// Creates the backends of this machine.
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

    /// Prewarms the sandbox that is likely to be opened next while the caller continues: its namespaces, network, root
    /// directory and control groups, everything except the workspace. [`Sandbox::open`] completes it if it fits the
    /// specification, and otherwise creates another; an unused one ends with this value. Returns at once, and prewarms
    /// only what the `native` backend would open.
    pub fn prewarm(&self, spec: &SandboxSpec) {
        if matches!(spec.backend.as_str(), "native" | "auto") {
            self.native.prewarm(spec);
        }
    }

    /// Waits until [prewarming](Self::prewarm) has finished.
    pub fn wait_prewarmed(&self) {
        self.native.wait_prewarmed();
    }

    /// Runs a program once, in its own native sandbox.
    ///
    /// # Errors
    /// The errors of opening any sandbox; a failing program is not an error.
    pub async fn run_one_shot(&self, once: OneShotSpec) -> Result<OneShotResult, Error> {
        one_shot::run_one_shot(&self.native, once).await
    }

    /// Returns the workspaces of runs while no sandbox is open on them.
    #[must_use]
    pub fn workspaces(&self) -> LocalWorkspaces<Self> {
        LocalWorkspaces::new(self.options.workspace_storage(), self.clone())
    }

    /// Removes what sandboxes with a dead owner left: control groups, temporary files, containers. Returns their names.
    pub async fn remove_stale(&self) -> Vec<String> {
        let temporary = self.options.temporary.clone();
        let store = self.options.workspace_storage();
        let work = move || {
            forge_workspace::remove_stale_packs(&store);
            forge_workspace::remove_stale_entries(&store);
            Ok::<_, Error>(remove_stale_resources(&temporary))
        };
        let here = forge_workspace::run_blocking(work).await.unwrap_or_default();
        let mut removed: Vec<String> = here.into_iter().map(|path| path.display().to_string()).collect();
        for engine in [&self.docker, &self.podman] {
            // An engine that does not run has no containers of Forge's.
            removed.extend(engine.remove_stale_containers().await.unwrap_or_default());
        }
        removed
    }

    /// Returns the backends with the given container engine at another place.
    #[must_use]
    pub fn with_engine(mut self, options: docker::EngineOptions) -> Self {
        match options.kind {
            EngineKind::Docker => self.docker = DockerBackend::new(options, Arc::clone(&self.options)),
            EngineKind::Podman => self.podman = DockerBackend::new(options, Arc::clone(&self.options)),
        }
        self
    }

    /// Returns the backend of an engine.
    #[must_use]
    pub const fn engine_backend(&self, kind: EngineKind) -> &DockerBackend {
        match kind {
            EngineKind::Docker => &self.docker,
            EngineKind::Podman => &self.podman,
        }
    }

    /// Returns the version of a backend's container engine; empty for backends without one.
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

    /// Opens a sandbox with the isolation of this machine, or else that of an engine, and never with less.
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
                let missing =
                    format!("unknown sandbox backend `{other}` (available: native, docker, podman, process)");
                Err(Error::missing(missing))
            }
        }
    }
}

/// Removes control groups and temporary files in `temporary` that sandboxes with a dead owner left. Returns their
/// paths.
#[must_use]
pub fn remove_stale_resources(temporary: &Path) -> Vec<PathBuf> {
    let mut removed = forge_jail::prune_stale_groups();
    removed.extend(stale_temps::remove_stale_temps(temporary));
    removed
}

/// Undoes the applies of all runs in the directory `workspaces` that were interrupted by the death of their process.
/// Must precede the removal of such a directory. Returns notes on paths that changed since. Blocks the thread. `locks` is
/// the directory of repository locks.
///
/// # Errors
/// Returns the first error: a repository contains a part of a run's result, and the directory must be kept.
pub fn undo_applies_before_removal(workspaces: &Path, locks: &Path) -> Result<Vec<String>, Error> {
    let (workspaces, locks) = (workspaces.to_owned(), locks.to_owned());
    let options = BackendOptions { workspaces, locks, ..BackendOptions::default() };
    forge_workspace::undo_applies_before_removal(&options.workspace_storage())
}

/// Runs as the init of a sandbox, or as a program that runs inside it, if the binary was started under such a name.
///
/// Must be the first thing that `main` does, before any thread starts. Returns the exit code to end with, or `None` for
/// an ordinary start; as the init it does not return.
pub fn helper_main(arguments: &[String]) -> Option<i32> {
    let (name, rest) = arguments.split_first()?;
    if name == forge_jail::INIT_ARGV0 {
        forge_jail::init_main();
    }
    // An engine starts a static binary under its path.
    if name.rsplit('/').next() == Some(forge_jail::CONTAINED_ARGV0) {
        forge_jail::contained_main();
    }
    // In every sandbox this path belongs to the helper, so no other program can be meant.
    if let ([prober, task @ ..], true) = (rest, name == forge_jail::HELPER_PATH) {
        return (prober == probes::PROBER_ARG)
            .then(|| probes::run_prober_task(task.first().map(String::as_str)));
    }
    (name == SEARCH_HELPER).then(|| forge_file_search::run_search_helper(rest.first().map(String::as_str)))
}
