//! The init of a box whose walls somebody else built: process 1 of a container.
//!
//! A container engine starts the caller's binary under [`CONTAINED_ARGV0`]. It connects to a socket that is bound at
//! [`SOCKET`], is told what it is, takes away what can still be taken away from inside (limits, Landlock, its own call
//! filter), checks what the engine promised (namespaces, capabilities, no new privileges), and then serves requests
//! exactly as the init of a native box does. It ends when its socket closes, and the container with it, so a
//! container never outlives the process that started it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::programs::Walls;
use super::{About, During, Fault, Ready, harden, serve};
use crate::layers::{Layer, LayerReport};
use crate::spec::{HOME, JailSpec, Network, WORKSPACE};
use crate::sys;
use crate::wire::{self, Startup};
use forge_processes::sockets::Sockets;

/// The `argv[0]` under which a binary must call [`contained_main`] before it does anything else.
pub const CONTAINED_ARGV0: &str = "forge-jail-contained";
/// Where the socket of the caller stands inside a container.
pub const SOCKET: &str = "/run/forge/box.sock";
/// Exit code of an init that found nobody behind its socket.
pub const NOBODY: i32 = 121;

/// What the init of a container is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Guest {
    /// The description of the box. Of it count the environment and the limits per process.
    pub(crate) spec: JailSpec,
    /// The namespaces of the caller: a container that shares one of them does not have that layer.
    pub(crate) outside: Vec<(Layer, u64)>,
    /// Device and inode of the folder that must stand at the workspace's place, if the caller knows it.
    pub(crate) workspace: Option<(u64, u64)>,
}

/// The namespaces that are compared, by their names in `/proc/PID/ns`.
const NAMESPACES: &[(&str, Layer)] = &[
    ("user", Layer::UserNamespace),
    ("mnt", Layer::MountNamespace),
    ("pid", Layer::PidNamespace),
    ("net", Layer::NetNamespace),
    ("ipc", Layer::IpcNamespace),
    ("uts", Layer::UtsNamespace),
    ("cgroup", Layer::CgroupNamespace),
];

/// The namespaces of this process.
pub(crate) fn own_namespaces() -> Vec<(Layer, u64)> {
    let inode = |name: &str| fs::metadata(format!("/proc/self/ns/{name}")).map(|m| m.ino());
    NAMESPACES.iter().filter_map(|(name, layer)| Some((*layer, inode(name).ok()?))).collect()
}

/// Plays the init of a container. Called by the binary's `main`, before any thread exists, when `argv[0]` is
/// [`CONTAINED_ARGV0`].
pub fn contained_main() -> ! {
    let code = match connect() {
        Err(_) => NOBODY,
        Ok(control) => match stages(&control) {
            Ok(()) => 0,
            Err(fault) => {
                let said = Startup::Failed { about: fault.about, step: fault.step, errno: fault.errno };
                // Without a listener there is nobody to tell.
                let _ = wire::send(control.as_fd(), &said, &[]);
                125
            }
        },
    };
    sys::exit_now(code)
}

fn connect() -> std::io::Result<OwnedFd> {
    sys::close_from(3)?;
    // What the engine gave leads to its log; commands get their own 0, 1 and 2.
    for standard in 0..3 {
        drop(sys::adopt(standard)?);
    }
    let null = rustix::fs::open(c"/dev/null", rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())?;
    let copies = [rustix::io::dup(&null)?, rustix::io::dup(&null)?];
    std::mem::forget((null, copies));
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(SOCKET)?)?;
    // Out of the way of the descriptors that commands get.
    Ok(rustix::io::fcntl_dupfd_cloexec(&socket, 10)?)
}

fn stages(control: &OwnedFd) -> Result<(), Fault> {
    harden::default_signals();
    let told = wire::receive::<Guest>(control.as_fd(), &mut Vec::new()).step("being told what to be")?;
    let Some((guest, _)) = told else { return Ok(()) };
    if std::process::id() != 1 {
        return Err(refuse(Layer::PidNamespace, "being process 1 (the engine put another init before it)"));
    }
    crate::owner::name_init(&guest.spec.label);
    same_folder(guest.workspace)?;
    let mut layers = namespaces(&guest)?;
    no_rights(&mut layers)?;
    let listener = guest.spec.listen.filter(|_| guest.spec.network == Network::Off).map(|port| {
        super::network::listen(port).step(format!("listening on port {port} in the container's network"))
    });
    let listener = listener.transpose()?;
    // On the private /tmp; a command that needs a home folder says so itself.
    let _ = rustix::fs::mkdir(HOME, rustix::fs::Mode::from_raw_mode(0o700));
    harden::limits_per_process(&guest.spec).step("setting resource limits")?;
    // What the engine mounted to be written; where it did not, the root folder is read-only.
    let asked = guest.spec.writable.iter().map(|bind| bind.target.as_path());
    let writable: Vec<&Path> = ["/cache", "/var/tmp"].iter().map(Path::new).chain(asked).collect();
    layers.push(harden::landlock(&writable).step("applying Landlock")?);
    sys::prctl(libc::PR_SET_DUMPABLE, 0, 0).step("closing the init to its children")?;
    // An engine's own filter may not let it be opened; sockets are then not counted.
    let sockets = Sockets::open(super::socket_network(&guest.spec));
    let key = harden::key().step("taking a random number")?;
    sys::seccomp_install(&forge_seccomp::compile_marking(forge_seccomp::RULES, key))
        .layer(Layer::Seccomp, "installing the call filter")?;
    layers.push(LayerReport::enforced(Layer::Seccomp, "allow-list, beside the engine's filter"));
    let (programs, warnings) = super::listed(&guest.spec, Walls::Engine, &mut layers)?;
    let ready = Ready { layers, overlay: None, listener, helper: None, sockets, key, programs, warnings };
    serve::run(control, &guest.spec, ready).step("serving requests")
}

fn refuse(layer: Layer, step: &str) -> Fault {
    Fault { about: About::Layer(layer), step: step.to_owned(), errno: libc::EPERM }
}

/// An engine on another machine, or in a virtual one, shows a folder of its own under the same name.
fn same_folder(wanted: Option<(u64, u64)>) -> Result<(), Fault> {
    let Some(wanted) = wanted else { return Ok(()) };
    let found = fs::metadata(WORKSPACE).step("looking at the workspace")?;
    if (found.dev(), found.ino()) == wanted {
        return Ok(());
    }
    let step = "finding the workspace: the engine shows another folder (does it run on another machine?)";
    Err(Fault { about: About::Step, step: step.to_owned(), errno: libc::EXDEV })
}

/// Compares the own namespaces with the caller's.
fn namespaces(guest: &Guest) -> Result<Vec<LayerReport>, Fault> {
    let own = own_namespaces();
    let mut layers = Vec::with_capacity(12);
    for (layer, outside) in &guest.outside {
        let inside = own.iter().find(|(l, _)| l == layer).map(|(_, inode)| *inode);
        layers.push(match (layer, inside == Some(*outside)) {
            (_, false) => LayerReport::enforced(*layer, "the engine's"),
            (Layer::NetNamespace, true) if guest.spec.network == Network::Host => {
                LayerReport::degraded(*layer, "the host's network was asked for", None)
            }
            (Layer::UserNamespace, true) => {
                let why = format!("the host's ids; runs as {} without any right", sys::effective_ids().0);
                LayerReport::degraded(
                    *layer,
                    why,
                    Some("switch userns-remap on in the engine, or run it rootless"),
                )
            }
            (Layer::CgroupNamespace, true) => LayerReport::missing(
                *layer,
                "shared with the host",
                Some("an engine of version 20.10 or newer with cgroup namespaces".to_owned()),
            ),
            (other, true) => return Err(refuse(*other, "the engine gave none of its own")),
        });
    }
    Ok(layers)
}

/// The engine was asked to start the container without capabilities, as an ordinary user, without new privileges.
fn no_rights(layers: &mut Vec<LayerReport>) -> Result<(), Fault> {
    sys::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).layer(Layer::Capabilities, "forbidding new privileges")?;
    sys::clear_capabilities().layer(Layer::Capabilities, "giving up capabilities")?;
    let status = fs::read_to_string("/proc/self/status").step("reading /proc/self/status")?;
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    let held = |name: &&&str| {
        let line = status.lines().find_map(|line| line.strip_prefix(**name));
        line.is_none_or(|bits| bits.trim().chars().any(|c| c != '0'))
    };
    if let Some(name) = sets.iter().find(held) {
        let set = name.trim_end_matches(':');
        return Err(refuse(Layer::Capabilities, &format!("the engine left some in the container ({set})")));
    }
    if sys::effective_ids().0 == 0 {
        return Err(refuse(Layer::Capabilities, "the engine started the container as user 0"));
    }
    layers.push(LayerReport::enforced(Layer::Capabilities, "none left, no new privileges"));
    Ok(())
}
