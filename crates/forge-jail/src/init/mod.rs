//! The resident init of a box: process 1 inside, the same binary started again under another `argv[0]`.
//!
//! It starts with the control socket as descriptor 0 and the description of the box in a memory file as
//! descriptor 1; started by root, with the name of its user id as descriptor 2. In order, each step with its why:
//! 1. as root, make the mapping that shows the workspace under the unused user id that it was told; as an ordinary
//!    user, enter a user namespace, which gives the rights for the steps below and nothing else;
//! 2. new namespaces, then a fork: only a child enters the new pid namespace. It becomes a child of the caller
//!    (`CLONE_PARENT`), so that nothing of the first process stays behind;
//! 3. build the root folder as all boxes have it. The first process makes the network meanwhile, which takes the
//!    kernel as long, hands it over and ends. Here the init waits to be told what the box is for;
//!    then the workspace joins, the root folder is entered and the old one forgotten;
//! 4. as root, become the unused user id and enter the user namespace now: mounts and network then belong to a
//!    namespace above, over which nothing in the box ever has rights;
//! 5. limits, capabilities, Landlock, seccomp: from here on the init can do no more than its children;
//! 6. serve requests until the socket closes.

mod contained;
mod domains;
mod etc;
mod exec;
mod files;
mod git_directories;
mod harden;
mod identity;
mod mounts;
mod network;
mod programs;
mod reserve;
mod rootfs;
mod roots;
mod serve;
mod share;

pub use contained::{CONTAINED_ARGV0, NOBODY, SOCKET, contained_main};
pub(crate) use contained::{Guest, own_namespaces};
pub use files::{Files, TEMP_PREFIX};
pub(crate) use identity::{mapping as id_mapping, owner_is_box, run_user};
pub(crate) use mounts::c_path;
pub(crate) use reserve::{FIRST_UID, Reserved, UIDS};
pub(crate) use serve::Order;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use self::identity::Ids;
use self::network::Handover;
use self::programs::{Programs, Walls};
use self::reserve::Named;
use crate::layers::{Layer, LayerReport};
use crate::loader::Helper;
use crate::spec::{JailSpec, Network, Weakness};
use crate::sys::{self, Fork};
use crate::wire::{self, OverlayAttributes, Raw, Startup};
use forge_processes::sockets::{self, Sockets};

/// The `argv[0]` under which a binary must call [`init_main`] before it does anything else.
pub const INIT_ARGV0: &str = "forge-jail-init";

/// What the init is told: the box, and nothing that the caller's memory held besides.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Boot {
    /// The description of the box.
    pub(crate) spec: JailSpec,
    /// The user id that it runs as, started by root; its name is descriptor 2, if `named`.
    pub(crate) user: Option<u32>,
    /// Whether there is a name.
    pub(crate) named: bool,
    /// How the own binary runs inside, where its libraries are not.
    pub(crate) helper: Option<Helper>,
}

/// What the init is told when the ground stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Ahead {
    /// Go into the control groups whose lists of threads are beside the message.
    Join,
    /// Become this box. What the ground is made of is the same as before.
    Furnish(Box<JailSpec>),
}

/// What a failed step means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum About {
    /// Something that every machine can do.
    Step,
    /// The layer is missing here.
    Layer(Layer),
    /// The file system of this path cannot show files under another owner.
    IdMap(Raw),
    /// A copy-on-write view cannot be had.
    Overlay,
    /// The image is not one that can be used.
    Image,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Fault {
    about: About,
    step: String,
    errno: i32,
}

/// What the init has to say when the box stands.
struct Ready {
    layers: Vec<LayerReport>,
    overlay: Option<OverlayAttributes>,
    listener: Option<OwnedFd>,
    helper: Option<Helper>,
    /// Tells what waits in sockets.
    sockets: Option<Sockets>,
    /// Lets the init mark commands.
    key: u64,
    programs: Option<Programs>,
    warnings: Vec<String>,
}

/// Names the step and layer of a failure.
trait During<T> {
    /// A failure that means that `layer` is missing here.
    fn layer(self, layer: Layer, step: &str) -> Result<T, Fault>;
    /// A failure of something that every machine can do.
    fn step(self, step: impl Into<String>) -> Result<T, Fault>;
    /// A failure that means something else.
    fn about(self, about: About, step: impl Into<String>) -> Result<T, Fault>;
}

impl<T, E: Into<io::Error>> During<T> for Result<T, E> {
    fn layer(self, layer: Layer, step: &str) -> Result<T, Fault> {
        self.about(About::Layer(layer), step)
    }

    fn step(self, step: impl Into<String>) -> Result<T, Fault> {
        self.about(About::Step, step)
    }

    fn about(self, about: About, step: impl Into<String>) -> Result<T, Fault> {
        self.map_err(|e| Fault { about, step: step.into(), errno: errno(&e.into()) })
    }
}

fn errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Whether a box may be started without a protective measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weakening {
    Refused,
    Obeyed,
}

/// Plays the init of a box. Called by the binary's `main`, before any thread exists, when `argv[0]` is
/// [`INIT_ARGV0`]. Started any other way it ends with code 125. A box that is to be
/// [without](JailSpec::without) a protective measure is refused.
pub fn init_main() -> ! {
    play(Weakening::Refused)
}

/// As [`init_main`], but leaves out what [`JailSpec::without`] names. Only for the binaries of tests that show that
/// escape attempts are noticed: a binary that people run never calls this.
pub fn init_main_weakened() -> ! {
    play(Weakening::Obeyed)
}

fn play(weakening: Weakening) -> ! {
    let code = match start(weakening) {
        Ok(()) => 0,
        Err(_) => 125,
    };
    sys::exit_now(code)
}

/// Takes over the descriptors the process was started with and runs the steps; failures are reported over the
/// control socket, which is the only thing connected to the outside.
fn start(weakening: Weakening) -> io::Result<()> {
    sys::close_from(3)?;
    let control = sys::adopt(0)?;
    let boot: Boot = {
        let memory = File::from(sys::adopt(1)?);
        serde_json::from_slice(&wire::read_memory(memory)?).map_err(io::Error::other)?
    };
    let name = boot.named.then(|| sys::adopt(2)).transpose()?;
    let name = name.map(|name| rustix::io::fcntl_dupfd_cloexec(&name, 10)).transpose()?;
    let user = boot.user.map(|id| Named { id, _name: name });
    // Commands get their own 0, 1 and 2; the init keeps /dev/null there so that nothing else ever lands on them.
    let moved = rustix::io::fcntl_dupfd_cloexec(&control, 10)?;
    drop(control);
    let null = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    let mut low = vec![null];
    while low.len() < 3 {
        let next = rustix::io::dup(&low[0])?;
        low.push(next);
    }
    std::mem::forget(low);
    match stages(boot, user, weakening, &moved) {
        Ok(()) => Ok(()),
        Err(fault) => {
            let said = Startup::Failed { about: fault.about, step: fault.step, errno: fault.errno };
            wire::send(moved.as_fd(), &said, &[])?;
            Err(io::Error::from_raw_os_error(fault.errno))
        }
    }
}

fn stages(boot: Boot, user: Option<Named>, weakening: Weakening, control: &OwnedFd) -> Result<(), Fault> {
    harden::default_signals();
    let Boot { spec, helper, .. } = boot;
    if weakening == Weakening::Refused && !spec.without.is_empty() {
        let names: Vec<_> = spec.without.iter().map(|w| w.describe()).collect();
        let step = format!("leaving out {} (only the init of a test does this)", names.join(", "));
        return Err(io::Error::from_raw_os_error(libc::EPERM)).step(step);
    }
    crate::owner::name_init(&spec.label);
    let mut layers: Vec<LayerReport> = Vec::with_capacity(14);
    layers.extend(spec.without.iter().map(|weakness| LayerReport::left_out(*weakness)));
    let ids = identity::prepare(&spec, user)?;
    namespaces(&spec, &mut layers)?;
    let network = Handover::new(&spec).step("preparing the network's handover")?;
    match sys::fork(libc::CLONE_PARENT).step("starting the process that becomes the init")? {
        Fork::Parent(pid) => {
            wire::send(control.as_fd(), &Startup::Pid { pid }, &[]).step("reporting the init")?;
            if let Err(fault) = network.give(&spec) {
                let said = Startup::Failed { about: fault.about, step: fault.step, errno: fault.errno };
                wire::send(control.as_fd(), &said, &[]).step("reporting a failure")?;
            }
            // The processes that mappings were made in are dead and wait for this.
            while sys::reap(-1, 0).step("reaping")?.is_some() {}
            return Ok(());
        }
        Fork::Child => {}
    }
    let built = root(&spec, helper.as_ref(), &ids);
    // Also when that failed: nothing is said before the caller knows this process.
    let taken = network.take(&mut layers)?;
    let ground = built?;
    let Some(listener) = taken else { return Ok(()) };
    share::of_ipc(&spec);
    if let Ids::User { .. } = ids {
        share::of_user(open_proc().step("opening /proc")?.as_fd(), &spec, &mut layers);
    }
    let key = harden::key().step("taking a random number")?;
    let filter = forge_seccomp::compile_marking(forge_seccomp::RULES, key);
    let Some(spec) = wait(control).step("waiting for the description of the box")? else { return Ok(()) };
    crate::owner::name_init(&spec.label);
    rootfs::furnish(&spec, &ids, ground)?;
    let overlay = ids.attributes(&spec);
    ids.enter(&spec, &mut layers)?;
    roots::check(&spec)?;
    let sockets = Sockets::open(socket_network(&spec));
    harden::apply(&spec, &filter, &mut layers)?;
    let (programs, warnings) = listed(&spec, Walls::Own, &mut layers)?;
    let ready = Ready { layers, overlay, listener, helper, sockets, key, programs, warnings };
    serve::run(control, &spec, ready).step("serving requests")
}

/// Whose sockets the kernel tells the init of.
fn socket_network(spec: &JailSpec) -> sockets::Network {
    let own = spec.network == Network::Off && !spec.lacks(Weakness::NetNamespace);
    if own { sockets::Network::Own } else { sockets::Network::Shared }
}

fn open_proc() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(c"/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The list of programs, from here on looked after, and what is to be said about it.
fn listed(
    spec: &JailSpec,
    walls: Walls,
    layers: &mut Vec<LayerReport>,
) -> Result<(Option<Programs>, Vec<String>), Fault> {
    let mut warnings = Vec::new();
    let programs = Programs::resolve(spec, walls, layers, &mut warnings)?;
    if let Some(programs) = &programs {
        programs.watch().layer(Layer::ProgramList, "having programs looked at before they are executed")?;
    }
    Ok((programs, warnings))
}

/// The ground stands: waits to be told the rest. `None` when nobody wants the box any more.
fn wait(control: &OwnedFd) -> io::Result<Option<JailSpec>> {
    wire::send(control.as_fd(), &Startup::Ground, &[])?;
    let mut buffer = Vec::new();
    loop {
        match wire::receive::<Ahead>(control.as_fd(), &mut buffer)? {
            None => return Ok(None),
            Some((Ahead::Furnish(spec), _)) => return Ok(Some(*spec)),
            Some((Ahead::Join, lists)) => {
                let joined = serve::join(&lists).is_ok();
                wire::send(control.as_fd(), &Startup::Joined { joined }, &[])?;
            }
        }
    }
}

fn root(spec: &JailSpec, helper: Option<&Helper>, ids: &Ids) -> Result<rootfs::Ground, Fault> {
    // Out of the caller's session: its terminal and its Ctrl-C are not the box's business.
    rustix::process::setsid().step("making a session")?;
    let ground = rootfs::build(spec, helper, ids)?;
    if !spec.lacks(Weakness::UtsNamespace) {
        sys::set_hostname(&spec.hostname).layer(Layer::UtsNamespace, "setting the host name")?;
    }
    Ok(ground)
}

fn namespaces(spec: &JailSpec, layers: &mut Vec<LayerReport>) -> Result<(), Fault> {
    use rustix::thread::UnshareFlags as Flag;
    let wanted = [
        (Flag::NEWNS, Layer::MountNamespace),
        (Flag::NEWPID, Layer::PidNamespace),
        (Flag::NEWIPC, Layer::IpcNamespace),
        (Flag::NEWUTS, Layer::UtsNamespace),
    ];
    let left_out = |layer: Layer| spec.without.iter().any(|weakness| weakness.layer() == layer);
    for (flag, layer) in wanted.into_iter().filter(|(_, layer)| !left_out(*layer)) {
        identity::unshare(flag).layer(layer, "entering new namespaces")?;
        layers.push(LayerReport::enforced(layer, ""));
    }
    // Hides the names of groups only: no control group is mounted in the box.
    layers.push(match identity::unshare(Flag::NEWCGROUP) {
        Ok(()) => LayerReport::enforced(Layer::CgroupNamespace, ""),
        Err(error) => LayerReport::missing(Layer::CgroupNamespace, error.to_string(), None),
    });
    match spec.network {
        // The first process makes it.
        Network::Off => {}
        Network::Host => {
            layers.push(LayerReport::degraded(Layer::NetNamespace, "the host's network was asked for", None));
        }
    }
    Ok(())
}
