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
use crate::guard::Guard;
use crate::leftovers;
use crate::native::{Way, furnish};
use crate::paths::Places;
use crate::room::{Parts, Room, layer, refusal};
use crate::view::{self, Limit, View};
use bollard::query_parameters::WaitContainerOptions;
pub(crate) use container::image;
use container::{Container, Plan};
pub(crate) use engine::Engine;
use error::Error;
pub(crate) use error::Error as Fault;
use forge_files::PrivateDir;
use forge_jail::{Helper, Jail, JailSpec, NOBODY, RunUser, Show};
use forge_ports::{Sandbox, Workspace, async_trait, sandbox};
use forge_types::{Layer, LayerState, NetworkPolicy, RunId, SandboxReport, SandboxSpec, SnapshotId};
use futures::StreamExt as _;
use ground::Ground;
use place::Place;
use std::any::Any;
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The image of boxes whose run names none.
pub(crate) const DEFAULT_IMAGE: &str = "forge-sandbox:latest";
/// How long a started container may take until its init connects.
const CONNECTS: Duration = Duration::from_secs(30);

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

    /// The host of this engine out of the one setting for both: what names podman is podman's.
    pub(crate) fn named(self, host: Option<&str>) -> Option<&str> {
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

/// What the backend is told by its caller; it reads no environment.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which engine.
    pub kind: Kind,
    /// `unix:///path/to/the.sock` or the path; `None`: the usual places of the engine.
    pub host: Option<String>,
    /// The user's runtime directory, if there is one: the sockets of boxes lie below it.
    pub runtime: Option<PathBuf>,
    /// A directory for this user alone, where they lie otherwise. It is made if it is missing.
    pub folder: PathBuf,
    /// The binary that is the containers' init, whose `main` begins with [`crate::helper_main`].
    pub exe: PathBuf,
}

impl Options {
    /// An engine at its usual place, with the running binary as the init and the sockets of boxes in `folder`.
    #[must_use]
    pub fn new(kind: Kind, folder: &Path) -> Self {
        let exe = PathBuf::from("/proc/self/exe");
        Self { kind, host: None, runtime: None, folder: folder.to_owned(), exe }
    }

    /// The directory for sockets of boxes.
    fn private(&self) -> Result<PrivateDir, Error> {
        let made = leftovers::for_sockets(self.runtime.as_deref(), &self.folder);
        made.map_err(|error| Error::host("keeping the box's socket private")(std::io::Error::other(error)))
    }
}

/// The backend.
#[derive(Clone, Debug)]
pub struct Docker {
    options: Arc<Options>,
    backends: Arc<crate::Options>,
}

impl Docker {
    pub(crate) fn new(options: Options, backends: Arc<crate::Options>) -> Self {
        Self { options: Arc::new(options), backends }
    }

    async fn engine(&self) -> Result<Engine, Error> {
        Engine::connect(self.options.kind, self.options.host.as_deref()).await
    }

    /// The version of the engine and of its parts, in its own words.
    ///
    /// # Errors
    /// [`sandbox::Error::Missing`] when no engine answers or it is too old.
    pub async fn version(&self) -> Result<String, sandbox::Error> {
        Ok(self.engine().await?.version)
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
        let options = Arc::clone(&self.options);
        blocking(move || {
            let directories = leftovers::with_sockets(options.runtime.as_deref(), &options.folder);
            directories.iter().for_each(|directory| place::prune(directory));
            Ok::<_, sandbox::Error>(())
        })
        .await?;
        Ok(removed)
    }

    async fn start(
        &self,
        engine: &Engine,
        spec: &SandboxSpec,
        run: RunId,
        ground: impl Future<Output = Result<Viewed, sandbox::Error>>,
    ) -> Result<Room, sandbox::Error> {
        let image = spec.image.as_deref().unwrap_or(DEFAULT_IMAGE);
        let inspected = container::image(engine, image).await?;
        let (view, keep) = ground.await?;
        let mut jail = JailSpec::new(run.to_string(), &spec.repo);
        let mut report = SandboxReport { backend: engine.kind.name().to_owned(), ..SandboxReport::default() };
        furnish(&self.backends, &mut jail, spec, &mut report);
        let egress = Way::out(&self.backends, spec, view.as_ref(), &mut jail)?;
        container::search_path(&inspected, &mut jail.env);
        match &view {
            Some(view) => {
                jail.roots = view.roots();
                jail.masked = view.masked();
                jail.binds.extend(view.git_binds());
                view.describe(&mut report);
            }
            None => jail.roots.iter_mut().for_each(|root| root.show = Show::Owned),
        }
        let options = Arc::clone(&self.options);
        let prepared = blocking(move || Ok(Prepared::new(view, jail, &options)?)).await?;
        let plan = Plan {
            run: run.to_string(),
            image,
            user: prepared.user,
            jail: &prepared.jail,
            helper: &prepared.helper,
            place: &prepared.place,
            shown: prepared.ground.shown.clone(),
            covered: prepared.ground.covered.clone(),
        };
        let (container, warnings) = Container::create(engine, &plan).await?;
        let socket = connected(engine, &container, image, &prepared.listener).await?;
        report.id = container.id.chars().take(12).collect();
        report.warnings.extend(warnings);
        let cpus = spec.limits.cpus.is_some();
        let ceilings =
            engine.ceilings.iter().filter(|c| cpus || c.layer != forge_jail::Layer::Cpu).cloned().collect();
        let (jail, prepared, container) = prepared.adopt(socket, ceilings, container).await?;
        let Prepared { view, taken, place, helper, .. } = prepared;
        let reached = egress.open(&jail)?;
        // In this order: the container ends before its folder, its user and its repositories are let go.
        let mut ends: Vec<Box<dyn Any + Send + Sync>> =
            vec![Box::new(container), Box::new(place), Box::new(taken)];
        ends.extend(keep);
        let longest = Duration::from_millis(spec.limits.command_ms);
        let places = view.as_ref().map_or_else(|| Places::one(&spec.repo), View::places);
        let view = view.map(Arc::new);
        let limits = spec.workspace;
        let parts = Parts { jail, view, places, longest, run, limits, report, reached, keep: ends };
        Ok(Room::new(parts).with_helper(helper))
    }
}

/// The workspace of a box, if it is more than a folder that is thrown away, and what ends after the box.
type Viewed = (Option<View>, Vec<Box<dyn Any + Send + Sync>>);

/// Everything of a box that is made before its container.
struct Prepared {
    view: Option<View>,
    user: (u32, u32),
    taken: Option<RunUser>,
    place: Place,
    listener: OwnedFd,
    ground: Ground,
    jail: JailSpec,
    helper: Helper,
}

impl Prepared {
    fn new(view: Option<View>, jail: JailSpec, options: &Options) -> Result<Self, Error> {
        let helper = Helper::of(&options.exe)
            .map_err(Error::host(format!("reading the own binary {}", options.exe.display())))?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let taken = if own.0 == 0 {
            let taken = RunUser::take(ground::kept_user(&jail));
            Some(taken.map_err(Error::host("taking an unused user id"))?)
        } else {
            None
        };
        let user = taken.as_ref().map_or(own, |taken| (taken.id(), taken.id()));
        let place = Place::new(&options.private()?, user)?;
        let listener = place.listen().map_err(Error::host("making the box's socket"))?;
        let ground = Ground::prepare(&jail, taken.as_ref(), &place)?;
        if let (Some(view), Some(_)) = (&view, &taken) {
            view.given().map_err(Error::host("looking at the copy that was made for the box"))?;
        }
        Ok(Self { view, user, taken, place, listener, ground, jail, helper })
    }

    /// Takes the container over. If it does not come up, everything goes on a thread that may wait.
    async fn adopt(
        mut self,
        socket: OwnedFd,
        ceilings: Vec<forge_jail::LayerReport>,
        container: Container,
    ) -> Result<(Jail, Self, Container), sandbox::Error> {
        blocking(move || {
            let asked = forge_jail::Container {
                socket,
                spec: &self.jail,
                workspace: self.ground.seen.as_deref(),
                ceilings,
            };
            let jail = Jail::adopt(asked).map_err(refusal)?;
            // The container has mounts of its own by now.
            self.ground.maps.clear();
            Ok((jail, self, container))
        })
        .await
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
        let (own, spec) = (self.clone(), spec.clone());
        let held = move |at| {
            let (own, spec) = (own.clone(), spec.clone());
            async move { own.held(&spec, run, at).await }
        };
        Guard::open(at, held).await
    }
}

impl Docker {
    async fn held(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<Room>, sandbox::Error> {
        let engine = self.engine().await?;
        let mut store = self.backends.store();
        store.limit.get_or_insert(Limit { why: "a container cannot be shown an overlay".to_owned() });
        let view = async {
            let (view, keep) = view::prepare(&store, spec, run, at).await?;
            Ok((Some(view), keep))
        };
        Ok(Arc::new(self.start(&engine, spec, run, view).await?))
    }

    /// A box around an empty folder: the truest answer.
    async fn trial(&self, engine: &Engine) -> Result<Vec<Layer>, sandbox::Error> {
        let folder = self.options.private()?;
        let folder = folder.path().join(forge_files::own_name(place::PROBE));
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
        let opened = self.start(engine, &spec, RunId::generate(), bare).await;
        let layers = opened.map(|room| room.report().layers);
        let _ = std::fs::remove_dir(&folder);
        layers
    }
}
