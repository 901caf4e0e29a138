//! The init of a sandbox with isolation layers built by a container engine: process 1 of a container.
//!
//! A container engine starts the caller's binary under [`crate::CONTAINED_ARGV0`]. The init connects to a socket that is bound
//! at [`CONTAINER_SOCKET_PATH`], receives its specification, removes the privileges that can still be removed from
//! inside (limits, Landlock, its own system call filter), checks the engine's promises (namespaces, capabilities, no
//! new privileges), and then serves requests exactly like the init of a native sandbox. It ends when its socket closes,
//! and the container with it, so a container never outlives the process that started it.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::programs::IsolationProvider;
use super::{InitReady, InitSetupError, SetupContext, harden, serve};
use crate::protocol::names::{CONTAINER_SOCKET_PATH, NO_CALLER_EXIT_CODE};
use crate::protocol::startup::{ContainerBoot, FailureCause, StartupMessage, own_namespaces};
use crate::protocol::wire;
use crate::sys;
use forge_jail_protocol::{
    FileIdentity, HOME_PATH, IsolationLayer, JailSpec, LayerReport, NetworkAccess, WORKSPACE_PATH,
};
use forge_processes::sockets::SocketDiag;

/// Runs as the init of a container. Called by the binary's `main`, before any thread exists, when `argv[0]` is
/// [`crate::CONTAINED_ARGV0`].
pub fn contained_main() -> ! {
    let code = match connect_to_caller() {
        Err(_) => NO_CALLER_EXIT_CODE,
        Ok(control) => match run_stages(&control) {
            Ok(()) => 0,
            Err(fault) => {
                let said =
                    StartupMessage::Failed { about: fault.about, step: fault.step, errno: fault.errno };
                // If the caller is gone, no one can receive this.
                let _ = wire::send_message(control.as_fd(), &said, &[]);
                125
            }
        },
    };
    sys::exit_now(code)
}

fn connect_to_caller() -> std::io::Result<OwnedFd> {
    sys::close_from(3)?;
    // The engine's descriptors lead to its log; commands get their own 0, 1 and 2.
    for standard in 0..3 {
        drop(sys::adopt_fd(standard)?);
    }
    let null = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    let copies = [rustix::io::dup(&null)?, rustix::io::dup(&null)?];
    std::mem::forget((null, copies));
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(CONTAINER_SOCKET_PATH)?)?;
    // Out of the way of the descriptors that commands get.
    Ok(rustix::io::fcntl_dupfd_cloexec(&socket, 10)?)
}

fn run_stages(control: &OwnedFd) -> Result<(), InitSetupError> {
    harden::reset_signals();
    let told = wire::receive_message::<ContainerBoot>(control.as_fd(), &mut Vec::new())
        .step_context("being told what to be")?;
    let Some((guest, _)) = told else { return Ok(()) };
    if std::process::id() != 1 {
        return Err(layer_error(
            IsolationLayer::PidNamespace,
            "being process 1 (the engine put another init before it)",
        ));
    }
    forge_processes::init_name::set_init_name(&guest.spec.label);
    check_same_directory(guest.workspace)?;
    check_sources(&guest.spec)?;
    let mut layers = compare_namespaces(&guest)?;
    check_no_privileges(&mut layers)?;
    let listener = guest.spec.listen.filter(|_| guest.spec.network == NetworkAccess::Off).map(|port| {
        super::network::listen_on_loopback(port)
            .step_context(format!("listening on port {port} in the container's network"))
    });
    let listener = listener.transpose()?;
    // On the private /tmp; a command that needs a home directory reports its absence itself.
    let _ = rustix::fs::mkdir(HOME_PATH, rustix::fs::Mode::from_raw_mode(0o700));
    harden::set_process_limits(&guest.spec).step_context("setting resource limits")?;
    // Paths that the engine mounted writable; elsewhere the root directory is read-only.
    let asked = guest.spec.writable.iter().map(|bind| bind.target.as_path());
    let writable: Vec<&Path> = ["/cache", "/var/tmp"].iter().map(Path::new).chain(asked).collect();
    layers.push(harden::enforce_landlock(&writable).step_context("applying Landlock")?);
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).step_context("closing the init to its children")?;
    // An engine's own filter may forbid to open it; sockets are then not counted.
    let sockets = SocketDiag::open(super::socket_scope(&guest.spec));
    let key = harden::random_key().step_context("taking a random number")?;
    sys::seccomp_install(&forge_seccomp::compile_marking(forge_seccomp::JAIL_RULES, key))
        .layer_context(IsolationLayer::Seccomp, "installing the call filter")?;
    layers.push(LayerReport::enforced(IsolationLayer::Seccomp, "allow-list, beside the engine's filter"));
    let (programs, warnings) = super::prepare_programs(&guest.spec, IsolationProvider::Engine, &mut layers)?;
    let ready = InitReady { layers, overlay: None, listener, helper: None, sockets, key, programs, warnings };
    serve::serve_requests(control, &guest.spec, ready).step_context("serving requests")
}

fn layer_error(layer: IsolationLayer, step: &str) -> InitSetupError {
    InitSetupError { about: FailureCause::Layer(layer), step: step.to_owned(), errno: libc::EPERM }
}

/// Checks that the workspace is the caller's: an engine on another machine, or in a virtual one, shows a different
/// directory under the same name.
fn check_same_directory(wanted: Option<(u64, u64)>) -> Result<(), InitSetupError> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found = fs::metadata(WORKSPACE_PATH).step_context("looking at the workspace")?;
    if (found.dev(), found.ino()) == wanted {
        return Ok(());
    }
    let step = "finding the workspace: the engine shows another folder (does it run on another machine?)";
    Err(InitSetupError { about: FailureCause::Step, step: step.to_owned(), errno: libc::EXDEV })
}

/// Checks that the mounts with a known source show it: the engine resolved their paths, in which another user may have put
/// a link or another directory meanwhile. A source that is gone was not mounted.
fn check_sources(spec: &JailSpec) -> Result<(), InitSetupError> {
    let roots = spec.roots.iter().map(|root| (root.identity, root.target.as_path()));
    let binds = spec.binds.iter();
    let binds = binds.map(|bind| (bind.examined.map(|found| found.entry), bind.target.as_path()));
    for (identity, target) in roots.chain(binds) {
        let Some(wanted) = identity else { continue };
        let step =
            || format!("checking that the engine shows the expected file or folder at {}", target.display());
        match fs::metadata(target) {
            Ok(found) if (FileIdentity { dev: found.dev(), ino: found.ino() }) == wanted => {}
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::ESTALE)).step_context(step()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).step_context(step()),
        }
    }
    Ok(())
}

/// Compares this process's namespaces with the caller's.
fn compare_namespaces(guest: &ContainerBoot) -> Result<Vec<LayerReport>, InitSetupError> {
    let own = own_namespaces();
    let mut layers = Vec::with_capacity(12);
    for (layer, outside) in &guest.outside {
        let inside = own.iter().find(|(l, _)| l == layer).map(|(_, inode)| *inode);
        layers.push(match (layer, inside == Some(*outside)) {
            (_, false) => LayerReport::enforced(*layer, "the engine's"),
            (IsolationLayer::NetNamespace, true) if guest.spec.network == NetworkAccess::Host => {
                LayerReport::degraded(*layer, "the host's network was asked for", None)
            }
            (IsolationLayer::UserNamespace, true) => {
                let why = format!("the host's ids; runs as {} without any right", sys::effective_ids().0);
                LayerReport::degraded(
                    *layer,
                    why,
                    Some("switch userns-remap on in the engine, or run it rootless"),
                )
            }
            (IsolationLayer::CgroupNamespace, true) => LayerReport::missing(
                *layer,
                "shared with the host",
                Some("an engine of version 20.10 or newer with cgroup namespaces".to_owned()),
            ),
            (other, true) => return Err(layer_error(*other, "the engine gave none of its own")),
        });
    }
    Ok(layers)
}

/// Checks that the engine started the container as requested: without capabilities, as an ordinary user, without new
/// privileges.
fn check_no_privileges(layers: &mut Vec<LayerReport>) -> Result<(), InitSetupError> {
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
        .layer_context(IsolationLayer::Capabilities, "forbidding new privileges")?;
    sys::clear_capabilities().layer_context(IsolationLayer::Capabilities, "giving up capabilities")?;
    let status = fs::read_to_string("/proc/self/status").step_context("reading /proc/self/status")?;
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    let held = |name: &&&str| {
        let line = status.lines().find_map(|line| line.strip_prefix(**name));
        line.is_none_or(|bits| bits.trim().chars().any(|c| c != '0'))
    };
    if let Some(name) = sets.iter().find(held) {
        let set = name.trim_end_matches(':');
        return Err(layer_error(
            IsolationLayer::Capabilities,
            &format!("the engine left some in the container ({set})"),
        ));
    }
    if sys::effective_ids().0 == 0 {
        return Err(layer_error(IsolationLayer::Capabilities, "the engine started the container as user 0"));
    }
    layers.push(LayerReport::enforced(IsolationLayer::Capabilities, "none left, no new privileges"));
    Ok(())
}
