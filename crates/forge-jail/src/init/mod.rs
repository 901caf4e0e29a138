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

pub use contained::{CONTAINED_ARGV0, CONTAINER_SOCKET_PATH, NO_CALLER_EXIT_CODE, contained_main};
pub(crate) use contained::{ContainerBoot, own_namespaces};
pub use files::{RootedFiles, TEMP_PREFIX};
pub(crate) use identity::{create_mapping as id_mapping, is_run_user_id, reserve_run_user};
pub(crate) use mounts::to_c_path;
pub(crate) use reserve::{FIRST_UID, ReservedUid, UID_COUNT};
pub(crate) use serve::InitRequest;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use self::identity::JailIds;
use self::network::NetworkHandover;
use self::programs::{IsolationProvider, ProgramList};
use self::reserve::InheritedUid;
use crate::isolation_layer::{IsolationLayer, LayerReport};
use crate::loader::HelperBinary;
use crate::spec::{DisabledProtection, JailSpec, NetworkAccess};
use crate::sys::{self, ForkSide};
use crate::wire::{self, OverlayAttributes, RawBytes, StartupMessage};
use forge_processes::sockets::{self, SocketDiag};

/// The `argv[0]` under which a binary must call [`init_main`] before it does anything else.
pub const INIT_ARGV0: &str = "forge-jail-init";

/// What the init is told: the box, and nothing that the caller's memory held besides.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitBoot {
    /// The description of the box.
    pub(crate) spec: JailSpec,
    /// The user id that it runs as, started by root; its name is descriptor 2, if `named`.
    pub(crate) user: Option<u32>,
    /// Whether there is a name.
    pub(crate) has_name_fd: bool,
    /// How the own binary runs inside, where its libraries are not.
    pub(crate) helper: Option<HelperBinary>,
}

/// What the init is told when the ground stands.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum SetupCommand {
    /// Go into the control groups whose lists of threads are beside the message.
    Join,
    /// Become this box. What the ground is made of is the same as before.
    ApplySpec(Box<JailSpec>),
}

/// What a failed step means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FailureCause {
    /// Something that every machine can do.
    Step,
    /// The layer is missing here.
    Layer(IsolationLayer),
    /// The file system of this path cannot show files under another owner.
    IdMap(RawBytes),
    /// A copy-on-write view cannot be had.
    Overlay,
    /// The image is not one that can be used.
    Image,
}

/// A step that failed.
#[derive(Debug)]
pub(crate) struct InitSetupError {
    about: FailureCause,
    step: String,
    errno: i32,
}

/// What the init has to say when the box stands.
struct InitReady {
    layers: Vec<LayerReport>,
    overlay: Option<OverlayAttributes>,
    listener: Option<OwnedFd>,
    helper: Option<HelperBinary>,
    /// Tells what waits in sockets.
    sockets: Option<SocketDiag>,
    /// Lets the init mark commands.
    key: u64,
    programs: Option<ProgramList>,
    warnings: Vec<String>,
}

/// Names the step and layer of a failure.
trait SetupContext<T> {
    /// A failure that means that `layer` is missing here.
    fn layer_context(self, layer: IsolationLayer, step: &str) -> Result<T, InitSetupError>;
    /// A failure of something that every machine can do.
    fn step_context(self, step: impl Into<String>) -> Result<T, InitSetupError>;
    /// A failure that means something else.
    fn cause_context(self, about: FailureCause, step: impl Into<String>) -> Result<T, InitSetupError>;
}

impl<T, E: Into<io::Error>> SetupContext<T> for Result<T, E> {
    fn layer_context(self, layer: IsolationLayer, step: &str) -> Result<T, InitSetupError> {
        self.cause_context(FailureCause::Layer(layer), step)
    }

    fn step_context(self, step: impl Into<String>) -> Result<T, InitSetupError> {
        self.cause_context(FailureCause::Step, step)
    }

    fn cause_context(self, about: FailureCause, step: impl Into<String>) -> Result<T, InitSetupError> {
        self.map_err(|e| InitSetupError { about, step: step.into(), errno: raw_errno(&e.into()) })
    }
}

fn raw_errno(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// Whether a box may be started without a protective measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WeakeningPolicy {
    Refused,
    Obeyed,
}

/// Plays the init of a box. Called by the binary's `main`, before any thread exists, when `argv[0]` is
/// [`INIT_ARGV0`]. Started any other way it ends with code 125. A box that is to be
/// [without](JailSpec::without) a protective measure is refused.
pub fn init_main() -> ! {
    run_init(WeakeningPolicy::Refused)
}

/// As [`init_main`], but leaves out what [`JailSpec::without`] names. Only for the binaries of tests that show that
/// escape attempts are noticed: a binary that people run never calls this.
pub fn init_main_weakened() -> ! {
    run_init(WeakeningPolicy::Obeyed)
}

fn run_init(weakening: WeakeningPolicy) -> ! {
    let code = match boot_init(weakening) {
        Ok(()) => 0,
        Err(_) => 125,
    };
    sys::exit_now(code)
}

/// Takes over the descriptors the process was started with and runs the steps; failures are reported over the
/// control socket, which is the only thing connected to the outside.
fn boot_init(weakening: WeakeningPolicy) -> io::Result<()> {
    sys::close_from(3)?;
    let control = sys::adopt_fd(0)?;
    let boot: InitBoot = {
        let memory = File::from(sys::adopt_fd(1)?);
        serde_json::from_slice(&wire::read_memory_file(memory)?).map_err(io::Error::other)?
    };
    let name = boot.has_name_fd.then(|| sys::adopt_fd(2)).transpose()?;
    let name = name.map(|name| rustix::io::fcntl_dupfd_cloexec(&name, 10)).transpose()?;
    let user = boot.user.map(|id| InheritedUid { id, _name: name });
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
    match run_stages(boot, user, weakening, &moved) {
        Ok(()) => Ok(()),
        Err(fault) => {
            let said = StartupMessage::Failed { about: fault.about, step: fault.step, errno: fault.errno };
            wire::send_message(moved.as_fd(), &said, &[])?;
            Err(io::Error::from_raw_os_error(fault.errno))
        }
    }
}

fn run_stages(
    boot: InitBoot,
    user: Option<InheritedUid>,
    weakening: WeakeningPolicy,
    control: &OwnedFd,
) -> Result<(), InitSetupError> {
    harden::reset_signals();
    let InitBoot { spec, helper, .. } = boot;
    if weakening == WeakeningPolicy::Refused && !spec.without.is_empty() {
        let names: Vec<_> = spec.without.iter().map(|w| w.describe()).collect();
        let step = format!("leaving out {} (only the init of a test does this)", names.join(", "));
        return Err(io::Error::from_raw_os_error(libc::EPERM)).step_context(step);
    }
    crate::owner::set_init_name(&spec.label);
    let mut layers: Vec<LayerReport> = Vec::with_capacity(14);
    layers.extend(spec.without.iter().map(|weakness| LayerReport::left_out(*weakness)));
    let ids = identity::prepare_ids(&spec, user)?;
    enter_namespaces(&spec, &mut layers)?;
    let network = NetworkHandover::new(&spec).step_context("preparing the network's handover")?;
    match sys::fork(libc::CLONE_PARENT).step_context("starting the process that becomes the init")? {
        ForkSide::Parent(pid) => {
            wire::send_message(control.as_fd(), &StartupMessage::Pid { pid }, &[])
                .step_context("reporting the init")?;
            if let Err(fault) = network.create_and_send(&spec) {
                let said =
                    StartupMessage::Failed { about: fault.about, step: fault.step, errno: fault.errno };
                wire::send_message(control.as_fd(), &said, &[]).step_context("reporting a failure")?;
            }
            // The processes that mappings were made in are dead and wait for this.
            while sys::reap(-1, 0).step_context("reaping")?.is_some() {}
            return Ok(());
        }
        ForkSide::Child => {}
    }
    let built = build_root(&spec, helper.as_ref(), &ids);
    // Also when that failed: nothing is said before the caller knows this process.
    let taken = network.receive_and_enter(&mut layers)?;
    let ground = built?;
    let Some(listener) = taken else { return Ok(()) };
    share::limit_ipc(&spec);
    if let JailIds::User { .. } = ids {
        share::limit_user_counts(open_proc().step_context("opening /proc")?.as_fd(), &spec, &mut layers);
    }
    let key = harden::random_key().step_context("taking a random number")?;
    let filter = forge_seccomp::compile_marking(forge_seccomp::JAIL_RULES, key);
    let Some(spec) = wait_for_spec(control).step_context("waiting for the description of the box")? else {
        return Ok(());
    };
    crate::owner::set_init_name(&spec.label);
    rootfs::complete_root_fs(&spec, &ids, ground)?;
    let overlay = ids.overlay_attributes(&spec);
    ids.enter_user(&spec, &mut layers)?;
    roots::check_roots(&spec)?;
    let sockets = SocketDiag::open(socket_scope(&spec));
    harden::apply_hardening(&spec, &filter, &mut layers)?;
    let (programs, warnings) = prepare_programs(&spec, IsolationProvider::Own, &mut layers)?;
    let ready = InitReady { layers, overlay, listener, helper, sockets, key, programs, warnings };
    serve::serve_requests(control, &spec, ready).step_context("serving requests")
}

/// Whose sockets the kernel tells the init of.
fn socket_scope(spec: &JailSpec) -> sockets::SocketScope {
    let own = spec.network == NetworkAccess::Off && !spec.lacks_protection(DisabledProtection::NetNamespace);
    if own { sockets::SocketScope::Own } else { sockets::SocketScope::Shared }
}

fn open_proc() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(c"/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The list of programs, from here on looked after, and what is to be said about it.
fn prepare_programs(
    spec: &JailSpec,
    walls: IsolationProvider,
    layers: &mut Vec<LayerReport>,
) -> Result<(Option<ProgramList>, Vec<String>), InitSetupError> {
    let mut warnings = Vec::new();
    let programs = ProgramList::resolve(spec, walls, layers, &mut warnings)?;
    if let Some(programs) = &programs {
        programs.watch_exec().layer_context(
            IsolationLayer::ProgramList,
            "having programs looked at before they are executed",
        )?;
    }
    Ok((programs, warnings))
}

/// The ground stands: waits to be told the rest. `None` when nobody wants the box any more.
fn wait_for_spec(control: &OwnedFd) -> io::Result<Option<JailSpec>> {
    wire::send_message(control.as_fd(), &StartupMessage::BaseReady, &[])?;
    let mut buffer = Vec::new();
    loop {
        match wire::receive_message::<SetupCommand>(control.as_fd(), &mut buffer)? {
            None => return Ok(None),
            Some((SetupCommand::ApplySpec(spec), _)) => return Ok(Some(*spec)),
            Some((SetupCommand::Join, lists)) => {
                let joined = serve::join_control_groups(&lists).is_ok();
                wire::send_message(control.as_fd(), &StartupMessage::Joined { joined }, &[])?;
            }
        }
    }
}

fn build_root(
    spec: &JailSpec,
    helper: Option<&HelperBinary>,
    ids: &JailIds,
) -> Result<rootfs::RootFs, InitSetupError> {
    // Out of the caller's session: its terminal and its Ctrl-C are not the box's business.
    rustix::process::setsid().step_context("making a session")?;
    let ground = rootfs::build_root_fs(spec, helper, ids)?;
    if !spec.lacks_protection(DisabledProtection::UtsNamespace) {
        sys::set_hostname(&spec.hostname)
            .layer_context(IsolationLayer::UtsNamespace, "setting the host name")?;
    }
    Ok(ground)
}

fn enter_namespaces(spec: &JailSpec, layers: &mut Vec<LayerReport>) -> Result<(), InitSetupError> {
    use rustix::thread::UnshareFlags as Flag;
    let wanted = [
        (Flag::NEWNS, IsolationLayer::MountNamespace),
        (Flag::NEWPID, IsolationLayer::PidNamespace),
        (Flag::NEWIPC, IsolationLayer::IpcNamespace),
        (Flag::NEWUTS, IsolationLayer::UtsNamespace),
    ];
    let left_out = |layer: IsolationLayer| spec.without.iter().any(|weakness| weakness.layer() == layer);
    for (flag, layer) in wanted.into_iter().filter(|(_, layer)| !left_out(*layer)) {
        identity::unshare_namespaces(flag).layer_context(layer, "entering new namespaces")?;
        layers.push(LayerReport::enforced(layer, ""));
    }
    // Hides the names of groups only: no control group is mounted in the box.
    layers.push(match identity::unshare_namespaces(Flag::NEWCGROUP) {
        Ok(()) => LayerReport::enforced(IsolationLayer::CgroupNamespace, ""),
        Err(error) => LayerReport::missing(IsolationLayer::CgroupNamespace, error.to_string(), None),
    });
    match spec.network {
        // The first process makes it.
        NetworkAccess::Off => {}
        NetworkAccess::Host => {
            layers.push(LayerReport::degraded(
                IsolationLayer::NetNamespace,
                "the host's network was asked for",
                None,
            ));
        }
    }
    Ok(())
}
