//! The `docker` and `podman` backends: one hardened container around each run, its commands through our own init.
//!
//! The engine builds the walls: namespaces, a read-only root folder out of an image, limits by control groups, no
//! capabilities, a call filter. Process 1 of the container is the init of `forge-jail`, which connects back over a
//! socket that is bound into the container, checks the walls, adds its own (Landlock, its own filter, limits), and
//! serves commands and files as in a native box: an engine is asked twice per run, never per command. The init ends
//! when the socket closes, so a container does not outlive the process that opened it.
//!
//! What this module does not do: pulling images, remote engines (open files cannot be passed to another kernel).

mod container;
mod engine;
mod error;
mod ground;
mod owner;
mod place;

use crate::door::blocking;
use crate::room::{Parts, Room, layer, refusal};
use bollard::query_parameters::WaitContainerOptions;
use container::{Container, Plan};
use engine::Engine;
use error::Error;
use forge_jail::{Helper, Jail, JailSpec, NOBODY, RunUser};
use forge_ports::{Sandbox, Workspace, async_trait, sandbox};
use forge_types::{Layer, LayerState, NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId};
use futures::StreamExt as _;
use ground::Ground;
use place::Place;
use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The image of boxes whose run names none.
pub(crate) const DEFAULT_IMAGE: &str = "forge-sandbox:latest";
/// How long a started container may take until its init connects.
const CONNECTS: Duration = Duration::from_secs(30);
/// Size of the writable caches of a box with a network.
const CACHES: u64 = 1 << 30;

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Docker Engine 20.10 or newer.
    Docker,
    /// Podman 4 or newer, through its Docker-compatible API.
    Podman,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Kind {
    /// The backend's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }

    /// Where its socket usually is: of the machine, then of this user.
    fn sockets(self) -> Vec<PathBuf> {
        let user = PathBuf::from(format!("/run/user/{}", rustix::process::geteuid().as_raw()));
        match self {
            Self::Docker => vec!["/var/run/docker.sock".into(), user.join("docker.sock")],
            Self::Podman if rustix::process::geteuid().is_root() => vec!["/run/podman/podman.sock".into()],
            Self::Podman => vec![user.join("podman/podman.sock"), "/run/podman/podman.sock".into()],
        }
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

/// What the backend is told by its caller; it reads no environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which engine.
    pub kind: Kind,
    /// `unix:///path/to/the.sock` or the path; `None`: the usual places of the engine.
    pub host: Option<String>,
    /// A folder for the sockets of boxes, for this user alone. It is made if it is missing.
    pub folder: PathBuf,
    /// The binary that is the containers' init, whose `main` begins with [`crate::helper_main`].
    pub exe: PathBuf,
}

impl Options {
    /// An engine at its usual place, with the running binary as the init.
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        let user = rustix::process::geteuid().as_raw();
        Self {
            kind,
            host: None,
            folder: std::env::temp_dir().join(format!("forge-boxes-{user}")),
            exe: PathBuf::from("/proc/self/exe"),
        }
    }
}

/// The backend.
#[derive(Clone, Debug)]
pub struct Docker {
    options: Arc<Options>,
}

impl Docker {
    /// The backend of an engine.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { options: Arc::new(options) }
    }

    async fn engine(&self) -> Result<Engine, Error> {
        Engine::connect(self.options.kind, self.options.host.as_deref()).await
    }

    /// Whether the engine can be used here; the error says what is in the way.
    ///
    /// # Errors
    /// [`sandbox::Error::Missing`] with what is missing and what to do.
    pub async fn available(&self) -> Result<(), sandbox::Error> {
        self.engine().await?;
        Ok(())
    }

    /// Removes containers whose owner is gone. Gives the runs they belonged to.
    ///
    /// # Errors
    /// When the engine cannot be used or refuses.
    pub async fn prune(&self) -> Result<Vec<String>, sandbox::Error> {
        let engine = self.engine().await?;
        let removed = owner::prune(&engine).await?;
        place::prune(&self.options.folder);
        Ok(removed)
    }

    async fn start(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Room, sandbox::Error> {
        let engine = self.engine().await?;
        let image = spec.image.as_deref().unwrap_or(DEFAULT_IMAGE);
        let inspected = container::image(&engine, image).await?;
        let helper = Helper::of(&self.options.exe)
            .map_err(Error::host(format!("reading the own binary {}", self.options.exe.display())))?;
        let mut box_of = {
            let (spec, options) = (spec.clone(), Arc::clone(&self.options));
            blocking(move || Prepared::new(&spec, run, at, &options)).await?
        };
        if let Some(path) = container::search_path(&inspected)
            && !spec.env.iter().any(|(name, _)| name == "PATH")
        {
            box_of.jail.env.retain(|(name, _)| *name != path.0);
            box_of.jail.env.push(path);
        }
        let plan = Plan {
            run: run.to_string(),
            image,
            user: box_of.user,
            jail: &box_of.jail,
            helper: &helper,
            place: &box_of.place,
            shown: box_of.ground.shown.clone(),
            covered: box_of.ground.covered(),
            caches: (spec.network != NetworkPolicy::Off).then_some(CACHES),
        };
        let (container, warnings) = Container::create(&engine, &plan).await?;
        let socket = connected(&engine, &container, image, &box_of.listener).await?;
        let cpus = spec.limits.cpus.is_some();
        let ceilings =
            engine.ceilings.iter().filter(|c| cpus || c.layer != forge_jail::Layer::Cpu).cloned().collect();
        let id: String = container.id.chars().take(12).collect();
        box_of
            .room(socket, ceilings, container, Named { kind: engine.kind, id, warnings }, helper, spec)
            .await
    }
}

/// What a box is called, and what the engine had to say.
struct Named {
    kind: Kind,
    id: String,
    warnings: Vec<String>,
}

/// Everything of a box that is made before its container.
struct Prepared {
    user: (u32, u32),
    taken: Option<RunUser>,
    place: Place,
    listener: OwnedFd,
    ground: Ground,
    jail: JailSpec,
}

impl Prepared {
    fn new(
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
        options: &Options,
    ) -> Result<Self, sandbox::Error> {
        let root = rustix::process::geteuid().is_root();
        // In the user namespace of a rootless engine no id is one of the host's that matters.
        let taken = if root {
            Some(RunUser::take(None).map_err(Error::host("taking an unused user id"))?)
        } else {
            None
        };
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let user = taken.as_ref().map_or(own, |taken| (taken.id(), taken.id()));
        let place = Place::new(&options.folder, user)?;
        let listener = place.listen().map_err(Error::host("making the box's socket"))?;
        let ground = Ground::prepare(spec, run, at, taken.as_ref(), &place)?;
        let jail = ground.describe(spec, run);
        Ok(Self { user, taken, place, listener, ground, jail })
    }

    /// Takes the container over.
    async fn room(
        self,
        socket: OwnedFd,
        ceilings: Vec<forge_jail::LayerReport>,
        container: Container,
        named: Named,
        helper: Helper,
        spec: &SandboxSpec,
    ) -> Result<Room, sandbox::Error> {
        let Self { taken, place, listener, ground, jail: described, .. } = self;
        drop(listener);
        let folder = ground.seen.clone();
        // If it does not come up, everything of it goes on a thread that may wait.
        let (jail, container, ground) = blocking(move || {
            let asked =
                forge_jail::Container { socket, spec: &described, workspace: folder.as_deref(), ceilings };
            let jail = Jail::adopt(asked).map_err(refusal)?;
            Ok((jail, container, ground))
        })
        .await?;
        let Ground { view, places, report, maps, .. } = ground;
        drop(maps);
        let report = SandboxReport {
            backend: named.kind.name().to_owned(),
            id: named.id,
            warnings: report.warnings.into_iter().chain(named.warnings).collect(),
            ..report
        };
        let keep: Vec<Box<dyn Any + Send + Sync>> =
            vec![Box::new(container), Box::new(place), Box::new(taken)];
        let longest = Duration::from_millis(spec.limits.command_ms);
        let parts = Parts { jail, view, places, longest, report, reached: None, keep };
        Ok(Room::new(parts).with_helper(helper))
    }
}

/// Starts the container and waits until its init connects, or until it is known that it will not.
async fn connected(
    engine: &Engine,
    container: &Container,
    image: &str,
    listener: &OwnedFd,
) -> Result<OwnedFd, Error> {
    let ended = |why: String| Error::Ended { image: image.to_owned(), why };
    let copy = listener.try_clone().map_err(Error::host("waiting for the container"))?;
    let mut waiting = tokio::task::spawn_blocking(move || accept(&copy));
    // Asked for before the start, so that an end right after it is not missed.
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
                    Err(ended(format!("its init did not connect within {} seconds", CONNECTS.as_secs())))
                }
                Ok(Err(error)) => Err(Error::host("waiting for the container")(error)),
                Err(error) => Err(Error::host("waiting for the container")(std::io::Error::other(error))),
            },
            exit = exits.next() => {
                // What the start has to say is clearer.
                if !started && let Err(error) = starting.await {
                    break Err(error);
                }
                break Err(ended(exit_in_words(exit)));
            }
        }
    };
    // Wakes the thread that waits, if it still does.
    let _ = rustix::net::shutdown(listener, rustix::net::Shutdown::Both);
    waited
}

/// Waits for one connection; `None` when none came in time or the listener was shut.
fn accept(listener: &OwnedFd) -> std::io::Result<Option<OwnedFd>> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let limit = Timespec { tv_sec: CONNECTS.as_secs().cast_signed(), tv_nsec: 0 };
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

/// What the end of a container means whose init never connected.
fn exit_in_words(
    exit: Option<Result<bollard::models::ContainerWaitResponse, bollard::errors::Error>>,
) -> String {
    let code = match exit {
        Some(Ok(response)) => response.status_code,
        Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => code,
        Some(Err(error)) => return error.to_string(),
        None => return "the engine does not say why".to_owned(),
    };
    if code == i64::from(NOBODY) {
        "its init found nobody behind the socket; the engine runs on another machine or in a virtual one, where \
         sockets of this one do not lead"
            .to_owned()
    } else {
        format!("its init ended with code {code}")
    }
}

#[async_trait]
impl Sandbox for Docker {
    async fn probe(&self) -> Vec<Layer> {
        let name = format!("{} engine", self.options.kind);
        let engine = match self.engine().await {
            Ok(engine) => engine,
            Err(error) => {
                let state = LayerState::Absent(error.to_string());
                return vec![Layer { name, state, remedy: None }];
            }
        };
        let mut layers = vec![Layer { name, state: LayerState::Enforced, remedy: None }];
        match self.trial(&engine).await {
            Ok(found) => layers.extend(found),
            Err(error) => {
                layers.push(Layer {
                    name: format!("{} container", engine.kind),
                    state: LayerState::Absent(error.to_string()),
                    remedy: None,
                });
                layers.extend(engine.ceilings.iter().map(layer));
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
        Ok(Arc::new(self.start(spec, run, at).await?))
    }
}

impl Docker {
    /// A box around an empty folder: the truest answer.
    async fn trial(&self, engine: &Engine) -> Result<Vec<Layer>, sandbox::Error> {
        container::image(engine, DEFAULT_IMAGE).await?;
        let folder = self.options.folder.join(format!("probe-{}", std::process::id()));
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
            reveal: Vec::new(),
            env: Vec::new(),
            read_only: Vec::new(),
            writable: Vec::new(),
            allow_unisolated: false,
        };
        let opened = self.start(&spec, RunId::generate(), None).await;
        let layers = opened.map(|room| room.report().layers);
        let _ = std::fs::remove_dir(&folder);
        layers
    }
}
