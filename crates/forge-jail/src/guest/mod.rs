//! The resident init of a sandbox: process 1 inside, the same binary started again under another `argv[0]`.
//!
//! It starts with the control socket as descriptor 0 and the description of the sandbox in a memory file as descriptor
//! 1; started by root, also with the socket that holds the name of its user id as descriptor 2. The steps, with their
//! reasons:
//! 1. As root, create the mapping that shows the workspace under the unused user id it was given; as an ordinary user,
//!    enter a user namespace, which gives the privileges for the steps below and nothing else.
//! 2. Create new namespaces, then fork, because only a child enters the new pid namespace. The child becomes a child of
//!    the caller (`CLONE_PARENT`), so that nothing of the first process remains.
//! 3. Build the root directory as all sandboxes have it. Meanwhile the first process creates the network, which also
//!    takes time, hands it over and exits. The init then waits for its specification, attaches the workspace, enters
//!    the root directory and detaches the old one.
//! 4. As root, become the unused user id and only now enter the user namespace: mounts and network then belong to a
//!    parent namespace, over which nothing in the sandbox ever has privileges.
//! 5. Apply limits, capabilities, Landlock and seccomp: from here on the init can do no more than its children.
//! 6. Serve requests until the socket closes.

mod contained;
mod domains;
mod etc;
mod exec;
mod file_conversions;
mod files;
mod git_directories;
mod harden;
mod identity;
mod mounts;
mod network;
mod programs;
mod rootfs;
mod roots;
mod serve;
mod share;

pub use contained::contained_main;
pub use files::RootedFiles;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use self::identity::{InheritedUid, JailIds};
use self::network::NetworkHandover;
use self::programs::{IsolationProvider, ProgramList};
use crate::protocol::helper_binary::HelperBinary;
use crate::protocol::startup::{FailureCause, InitBoot, SetupCommand, StartupMessage};
use crate::protocol::wire;
use crate::sys::{self, ForkSide};
use forge_jail_protocol::{
    DisabledProtection, IsolationLayer, JailSpec, LayerReport, NetworkAccess, OverlayAttributes,
};
use forge_processes::sockets::{self, SocketDiag};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct InitSetupError {
    about: FailureCause,
    step: String,
    errno: i32,
}

/// The data that the init reports or keeps when the sandbox is ready.
struct InitReady {
    layers: Vec<LayerReport>,
    overlay: Option<OverlayAttributes>,
    listener: Option<OwnedFd>,
    helper: Option<HelperBinary>,
    /// Diagnostics for the bytes queued in sockets.
    sockets: Option<SocketDiag>,
    /// The secret with which the init marks commands.
    key: u64,
    programs: Option<ProgramList>,
    warnings: Vec<String>,
}

/// Adds the step and the layer to a failure.
trait SetupContext<T> {
    /// Reports a failure which means that `layer` is missing on this machine.
    fn layer_context(self, layer: IsolationLayer, step: &str) -> Result<T, InitSetupError>;
    /// Reports the failure of a step that works on every machine.
    fn step_context(self, step: impl Into<String>) -> Result<T, InitSetupError>;
    /// Reports a failure with another meaning.
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

/// Whether a sandbox may be started without a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WeakeningPolicy {
    Refused,
    Obeyed,
}

/// Runs as the init of a sandbox. Called by the binary's `main`, before any thread exists, when `argv[0]` is
/// [`crate::INIT_ARGV0`]. Started any other way it exits with code 125. A sandbox [without](JailSpec::without) some protection
/// is refused.
pub fn init_main() -> ! {
    run_init(WeakeningPolicy::Refused)
}

/// Runs like [`init_main`], but leaves out the protections in [`JailSpec::without`]. Only for the binaries of tests
/// that show that escape attempts are detected: a production binary never calls this.
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

/// Takes over the descriptors the process was started with and runs the steps; reports failures over the control
/// socket, the only connection to the outside.
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
    // Commands get their own 0, 1 and 2; the init keeps /dev/null there so that no other descriptor ever lands on them.
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
    forge_processes::init_name::set_init_name(&spec.label);
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
            // Reaps the killed processes in which mappings were created.
            while sys::reap(-1, 0).step_context("reaping")?.is_some() {}
            return Ok(());
        }
        ForkSide::Child => {}
    }
    let built = build_root(&spec, helper.as_ref(), &ids);
    // Also after a failure: it is reported only once the caller knows this process.
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
    forge_processes::init_name::set_init_name(&spec.label);
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

/// Returns the scope of the sockets that the kernel reports to the init.
fn socket_scope(spec: &JailSpec) -> sockets::SocketScope {
    let own = spec.network == NetworkAccess::Off && !spec.lacks_protection(DisabledProtection::NetNamespace);
    if own { sockets::SocketScope::Own } else { sockets::SocketScope::Shared }
}

fn open_proc() -> io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(c"/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Resolves the program list and starts to enforce it; returns it with warnings for the user.
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

/// Reports the base as ready and waits for the specification; `None` when the caller no longer wants the sandbox.
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
    // Leaves the caller's session: its terminal and its Ctrl-C must not affect the sandbox.
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
    // Hides only the names of groups: no control group is mounted in the sandbox.
    layers.push(match identity::unshare_namespaces(Flag::NEWCGROUP) {
        Ok(()) => LayerReport::enforced(IsolationLayer::CgroupNamespace, ""),
        Err(error) => LayerReport::missing(IsolationLayer::CgroupNamespace, error.to_string(), None),
    });
    match spec.network {
        // Created by the first process.
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
