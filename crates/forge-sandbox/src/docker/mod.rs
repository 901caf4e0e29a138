//! The `docker` and `podman` backends: one hardened container around each run, with commands run by Forge's own init.
//!
//! The engine provides the outer isolation layers: namespaces, a read-only root directory from an image, limits by
//! control groups, no capabilities, a syscall filter. Process 1 of the container is the init of `forge-jail`, which
//! connects back over a socket that is bound into the container, checks these layers, adds its own (Landlock, its own
//! filter, limits), and serves commands and files as in a native sandbox: an engine is called twice per run, never per
//! command. The init ends when the socket closes, so a container does not outlive the process that opened it.
//!
//! Out of scope: pulling images, and remote engines (open files cannot be passed to another kernel).

mod container;
mod engine;
mod error;
mod host_dir;
mod mounts;
mod owner;

use crate::guard::GuardedWorkspace;
use crate::jail_setup::{EgressSetup, apply_spec};
use crate::jailed_workspace::{JailedWorkspace, SandboxParts, to_port_error, to_port_layer};
use crate::stale_temps;
use bollard::query_parameters::WaitContainerOptions;
pub(crate) use container::inspect_image;
use container::{ContainerPlan, EngineContainer};
pub(crate) use engine::EngineClient;
use error::Error;
pub(crate) use error::Error as Fault;
use forge_files::PrivateDir;
use forge_jail::{HelperBinary, Jail, JailSpec, NO_CALLER_EXIT_CODE, RootMode, RunUser};
use forge_ports::{Sandbox, Workspace, async_trait, sandbox};
use forge_types::{
    NetworkPolicy, RunId, SandboxLayer, SandboxLayerState, SandboxReport, SandboxSpec, SnapshotId,
};
use forge_workspace::paths::WorkspacePaths;
use forge_workspace::run_blocking;
use forge_workspace::{self as workspace, ForcedCopy, RunWorkspace};
use futures::StreamExt as _;
use host_dir::ContainerHostDir;
use mounts::ContainerMounts;
use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Image of sandboxes for runs that name none.
pub(crate) const DEFAULT_IMAGE: &str = "forge-sandbox:latest";
/// Longest time that a started container may take until its init connects.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// A kind of container engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    /// Docker Engine 20.10 or newer.
    Docker,
    /// Podman 4 or newer, through its Docker-compatible API.
    Podman,
}

impl fmt::Display for EngineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl EngineKind {
    /// Returns the name of the backend.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Returns the usual paths of the socket, in the order in which they are tried.
    fn socket_paths(self) -> Vec<PathBuf> {
        let user = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
        match self {
            Self::Docker => vec!["/var/run/docker.sock".into(), user.join("docker.sock")],
            Self::Podman if rustix::process::geteuid().is_root() => vec!["/run/podman/podman.sock".into()],
            Self::Podman => vec![user.join("podman/podman.sock"), "/run/podman/podman.sock".into()],
        }
    }

    /// Returns the host for this engine from the setting shared by both: one that names podman is podman's.
    pub(crate) fn matching_host(self, host: Option<&str>) -> Option<&str> {
        host.filter(|host| host.contains("podman") == (self == Self::Podman))
    }

    const fn how_to_start(self) -> &'static str {
        match self {
            Self::Docker => {
                "start it (systemctl start docker, or dockerd), or name its socket with sandbox.docker_host"
            }
            Self::Podman => {
                "start its service (systemctl --user start podman.socket, or podman system service --time 0), or \
                 name its socket with sandbox.docker_host"
            }
        }
    }

    const fn how_to_permit(self) -> &'static str {
        match self {
            Self::Docker => {
                "join its group (sudo usermod -aG docker $USER, then log in again; members of it are as good as \
                 root on this machine), use rootless Docker, or the native backend, which needs neither"
            }
            Self::Podman => "use the service of this user: systemctl --user start podman.socket",
        }
    }
}

/// Options that the caller passes to the backend; it reads no environment.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Kind of the engine.
    pub kind: EngineKind,
    /// Socket as `unix:///path/to/the.sock` or as a path; `None` means the usual paths of the engine.
    pub host: Option<String>,
    /// Runtime directory of the user, if there is one: preferred for the sockets of sandboxes.
    pub runtime: Option<PathBuf>,
    /// Directory of this user alone for the sockets otherwise. Created if it is missing.
    pub temp_dir: PathBuf,
    /// Binary of the containers' init, with a `main` that begins with [`crate::helper_main`].
    pub exe: PathBuf,
}

impl EngineOptions {
    /// Returns options for an engine at its usual place, with the running binary as the init and a socket directory.
    #[must_use]
    pub fn new(kind: EngineKind, folder: &Path) -> Self {
        let exe = PathBuf::from("/proc/self/exe");
        Self { kind, host: None, runtime: None, temp_dir: folder.to_owned(), exe }
    }

    /// Returns the directory for the sockets of sandboxes.
    fn private_dir(&self) -> Result<PrivateDir, Error> {
        let made = stale_temps::socket_directory(self.runtime.as_deref(), &self.temp_dir);
        made.map_err(|error| {
            Error::host_failure("keeping the sandbox's socket private")(std::io::Error::other(error))
        })
    }
}

/// A backend that runs sandboxes in containers.
#[derive(Clone, Debug)]
pub struct DockerBackend {
    options: Arc<EngineOptions>,
    backends: Arc<crate::BackendOptions>,
}

impl DockerBackend {
    pub(crate) fn new(options: EngineOptions, backends: Arc<crate::BackendOptions>) -> Self {
        Self { options: Arc::new(options), backends }
    }

    async fn connect_engine(&self) -> Result<EngineClient, Error> {
        EngineClient::connect(self.options.kind, self.options.host.as_deref()).await
    }

    /// Returns the versions of the engine and its components, as it reports them.
    ///
    /// # Errors
    /// [`sandbox::Error::Missing`] when no engine answers or it is too old.
    pub async fn engine_version(&self) -> Result<String, sandbox::Error> {
        Ok(self.connect_engine().await?.version)
    }

    /// Checks whether the engine can be used here.
    ///
    /// # Errors
    /// [`sandbox::Error::Missing`] with what is missing and what to do.
    pub async fn check_available(&self) -> Result<(), sandbox::Error> {
        self.connect_engine().await?;
        Ok(())
    }

    /// Removes containers with a dead owner. Returns the runs they belonged to.
    ///
    /// # Errors
    /// An error if the engine cannot be used or refuses.
    pub async fn remove_stale_containers(&self) -> Result<Vec<String>, sandbox::Error> {
        let engine = self.connect_engine().await?;
        let removed = owner::remove_stale_containers(&engine).await?;
        let options = Arc::clone(&self.options);
        run_blocking(move || {
            let directories = stale_temps::socket_directories(options.runtime.as_deref(), &options.temp_dir);
            directories.iter().for_each(|directory| host_dir::remove_stale_dirs(directory));
            Ok::<_, sandbox::Error>(())
        })
        .await?;
        Ok(removed)
    }

    async fn start_sandbox(
        &self,
        engine: &EngineClient,
        spec: &SandboxSpec,
        run: RunId,
        ground: impl Future<Output = Result<PreparedWorkspace, sandbox::Error>>,
    ) -> Result<JailedWorkspace, sandbox::Error> {
        let image = spec.image.as_deref().unwrap_or(DEFAULT_IMAGE);
        let inspected = container::inspect_image(engine, image).await?;
        let (view, keep) = ground.await?;
        let mut jail = JailSpec::new(run.to_string(), &spec.repo);
        let mut report = SandboxReport { backend: engine.kind.name().to_owned(), ..SandboxReport::default() };
        apply_spec(&self.backends, &mut jail, spec, &mut report);
        let egress = EgressSetup::prepare(&self.backends, spec, view.as_ref(), &mut jail)?;
        container::prepend_search_path(&inspected, &mut jail.env);
        match &view {
            Some(view) => {
                jail.roots = view.jail_roots();
                jail.masked = view.masked_paths();
                jail.binds.extend(view.git_binds());
                view.describe(&mut report);
            }
            None => jail.roots.iter_mut().for_each(|root| root.mode = RootMode::Owned),
        }
        let options = Arc::clone(&self.options);
        let prepared = run_blocking(move || Ok(PreparedContainer::new(view, jail, &options)?)).await?;
        let plan = ContainerPlan {
            run: run.to_string(),
            image,
            user: prepared.user,
            jail: &prepared.jail,
            helper: &prepared.helper,
            host_dir: &prepared.host_dir,
            mounts: prepared.mounts.mounts.clone(),
            covered: prepared.mounts.covered.clone(),
        };
        let (container, warnings) = EngineContainer::create(engine, &plan).await?;
        let socket = wait_connected(engine, &container, image, &prepared.listener).await?;
        report.id = container.id.chars().take(12).collect();
        report.warnings.extend(warnings);
        let cpus = spec.limits.cpus.is_some();
        let ceilings = engine
            .ceilings
            .iter()
            .filter(|c| cpus || c.layer != forge_jail::IsolationLayer::Cpu)
            .cloned()
            .collect();
        let (jail, prepared, container) = prepared.attach_jail(socket, ceilings, container).await?;
        let PreparedContainer { workspace: view, run_user: taken, host_dir: place, helper, .. } = prepared;
        let reached = egress.start(&jail)?;
        // In this order: the container ends before its directory, its user and its repositories are released.
        let mut ends: Vec<Box<dyn Any + Send + Sync>> =
            vec![Box::new(container), Box::new(place), Box::new(taken)];
        ends.extend(keep);
        let longest = Duration::from_millis(spec.limits.command_ms);
        let places =
            view.as_ref().map_or_else(|| WorkspacePaths::for_root(&spec.repo), RunWorkspace::workspace_paths);
        let view = view.map(Arc::new);
        let limits = spec.workspace;
        let parts = SandboxParts {
            jail,
            workspace: view,
            paths: places,
            longest,
            run,
            limits,
            report,
            reached,
            resources: ends,
        };
        Ok(JailedWorkspace::new(parts).with_helper(helper))
    }
}

/// The workspace of a sandbox, unless its directory is discarded, and the resources that must outlive the sandbox.
type PreparedWorkspace = (Option<RunWorkspace>, Vec<Box<dyn Any + Send + Sync>>);

/// The parts of a sandbox that are created before its container.
struct PreparedContainer {
    workspace: Option<RunWorkspace>,
    user: (u32, u32),
    run_user: Option<RunUser>,
    host_dir: ContainerHostDir,
    listener: OwnedFd,
    mounts: ContainerMounts,
    jail: JailSpec,
    helper: HelperBinary,
}

impl PreparedContainer {
    fn new(view: Option<RunWorkspace>, jail: JailSpec, options: &EngineOptions) -> Result<Self, Error> {
        let helper = HelperBinary::of_binary(&options.exe)
            .map_err(Error::host_failure(format!("reading Forge's own binary {}", options.exe.display())))?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let taken = if own.0 == 0 {
            let taken = RunUser::reserve(mounts::existing_owner(&jail));
            Some(taken.map_err(Error::host_failure("reserving an unused user id"))?)
        } else {
            None
        };
        let user = taken.as_ref().map_or(own, |taken| (taken.id(), taken.id()));
        let place = ContainerHostDir::new(&options.private_dir()?, user)?;
        let listener = place.listen().map_err(Error::host_failure("creating the sandbox's socket"))?;
        let ground = ContainerMounts::prepare(&jail, taken.as_ref(), &place)?;
        if let (Some(view), Some(_)) = (&view, &taken) {
            view.record_owner_change()
                .map_err(Error::host_failure("examining the copy made for the sandbox"))?;
        }
        Ok(Self {
            workspace: view,
            user,
            run_user: taken,
            host_dir: place,
            listener,
            mounts: ground,
            jail,
            helper,
        })
    }

    /// Attaches to the container. If it does not start, everything is dropped on a thread that may block.
    async fn attach_jail(
        mut self,
        socket: OwnedFd,
        ceilings: Vec<forge_jail::LayerReport>,
        container: EngineContainer,
    ) -> Result<(Jail, Self, EngineContainer), sandbox::Error> {
        run_blocking(move || {
            let asked = forge_jail::ConnectedContainer {
                socket,
                spec: &self.jail,
                workspace: self.mounts.seen.as_deref(),
                ceilings,
            };
            let jail = Jail::attach_container(asked).map_err(to_port_error)?;
            // The container has its own mounts by now.
            self.mounts.maps.clear();
            Ok((jail, self, container))
        })
        .await
    }
}

/// Starts the container and waits until its init connects, or until it is known that it will not.
async fn wait_connected(
    engine: &EngineClient,
    container: &EngineContainer,
    image: &str,
    listener: &OwnedFd,
) -> Result<OwnedFd, Error> {
    let ended = |why: String| Error::Ended { image: image.to_owned(), why };
    let copy = listener.try_clone().map_err(Error::host_failure("waiting for the container"))?;
    let mut waiting = tokio::task::spawn_blocking(move || accept_connection(&copy));
    // Requested before the start, so that an immediate exit is not missed.
    let next = WaitContainerOptions { condition: "next-exit".to_owned() };
    let mut exits = engine.api.wait_container(&container.id, Some(next));
    let mut starting = std::pin::pin!(container.start(engine));
    let mut started = false;
    let waited = loop {
        tokio::select! {
            biased;
            done = &mut starting, if !started => match done {
                Ok(()) => started = true,
                Err(error) => break Err(error),
            },
            accepted = &mut waiting, if started => break match accepted {
                Ok(Ok(Some(socket))) => Ok(socket),
                Ok(Ok(None)) => {
                    Err(ended(format!("its init did not connect within {} seconds", CONNECT_TIMEOUT.as_secs())))
                }
                Ok(Err(error)) => Err(Error::host_failure("waiting for the container")(error)),
                Err(error) => Err(Error::host_failure("waiting for the container")(std::io::Error::other(error))),
            },
            exit = exits.next() => {
                // The error of the start is clearer.
                if !started && let Err(error) = starting.await {
                    break Err(error);
                }
                break Err(ended(describe_exit(exit)));
            }
        }
    };
    // Wakes the waiting thread, if it still waits.
    let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
    waited
}

/// Waits for one connection; `None` if none came in time or the listener was shut down.
fn accept_connection(listener: &OwnedFd) -> std::io::Result<Option<OwnedFd>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: CONNECT_TIMEOUT.as_secs().cast_signed(), tv_nsec: 0 };
    match poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&limit)) {
        Ok(0) => Ok(None),
        Err(errno) => Err(errno.into()),
        Ok(_) => match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            Ok(socket) => Ok(Some(socket)),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno.into()),
        },
    }
}

/// Explains the exit of a container before its init connected.
fn describe_exit(
    exit: Option<Result<bollard::models::ContainerWaitResponse, bollard::errors::Error>>,
) -> String {
    let code = match exit {
        Some(Ok(response)) => response.status_code,
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return error.to_string(),
        None => return "the engine gave no reason".to_owned(),
    };
    if code == i64::from(NO_CALLER_EXIT_CODE) {
        "its init found no listener behind the socket; the engine runs on another machine or in a virtual one, \
         which sockets of this one do not reach"
            .to_owned()
    } else {
        format!("its init exited with code {code}")
    }
}

#[async_trait]
impl Sandbox for DockerBackend {
    async fn probe_layers(&self) -> Vec<SandboxLayer> {
        let name = format!("{} engine", self.options.kind);
        let engine = match self.connect_engine().await {
            Ok(engine) => engine,
            Err(error) => {
                let state = SandboxLayerState::Absent(error.to_string());
                return vec![SandboxLayer { name, state, remedy: None }];
            }
        };
        let mut layers = vec![SandboxLayer { name, state: SandboxLayerState::Enforced, remedy: None }];
        match self.probe_isolation(&engine).await {
            Ok(found) => layers.extend(found),
            Err(error) => {
                layers.push(SandboxLayer {
                    name: format!("{} container", engine.kind),
                    state: SandboxLayerState::Absent(error.to_string()),
                    remedy: None,
                });
                layers.extend(engine.ceilings.iter().map(to_port_layer));
            }
        }
        layers
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, sandbox::Error> {
        let (own, spec) = (self.clone(), spec.clone());
        let held = move |at| {
            let (own, spec) = (own.clone(), spec.clone());
            async move { own.open_sandbox(&spec, run, at).await }
        };
        GuardedWorkspace::open(at, held).await
    }
}

impl DockerBackend {
    async fn open_sandbox(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<JailedWorkspace>, sandbox::Error> {
        let engine = self.connect_engine().await?;
        let mut store = self.backends.workspace_storage();
        store
            .limit
            .get_or_insert(ForcedCopy { why: "an overlay cannot be mounted in a container".to_owned() });
        let view = async {
            let (view, keep) = workspace::prepare_workspace(&store, spec, run, at).await?;
            Ok((Some(view), keep))
        };
        Ok(Arc::new(self.start_sandbox(&engine, spec, run, view).await?))
    }

    /// Opens a sandbox around an empty directory and returns its layers: the most reliable answer.
    async fn probe_isolation(&self, engine: &EngineClient) -> Result<Vec<SandboxLayer>, sandbox::Error> {
        let folder = self.options.private_dir()?;
        let folder = folder.path().join(forge_files::owned_temp_name(host_dir::PROBE_DIR_KIND));
        let made = |error: std::io::Error| sandbox::Error::Startup { why: error.to_string() };
        std::fs::create_dir_all(&folder).map_err(made)?;
        let spec = SandboxSpec {
            backend: engine.kind.name().to_owned(),
            repo: folder.clone(),
            more_repos: Vec::new(),
            mode: forge_types::WorkspaceMode::Inplace,
            apply: forge_types::ApplyPolicy::Never,
            image: None,
            network: NetworkPolicy::Off,
            limits: forge_types::SandboxLimits::default(),
            workspace: forge_types::WorkspaceLimits::default(),
            reveal: Vec::new(),
            env: Vec::new(),
            read_only: Vec::new(),
            writable: Vec::new(),
            programs: None,
            allow_unisolated: false,
        };
        let bare = std::future::ready(Ok((None, Vec::new())));
        let opened = self.start_sandbox(engine, &spec, RunId::generate(), bare).await;
        let layers = opened.map(|room| room.report().layers);
        let _ = std::fs::remove_dir(&folder);
        layers
    }
}
