//! Taking over the init of a container: the walls are an engine's, the conversation is the same.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, atomic::AtomicU64};

use rustix::process::{Pid, PidfdFlags};

use super::{Init, Jail, Kin, Shared, State, follow, talk, thread};
use crate::cgroup::Group;
use crate::error::Error;
use crate::init::{Guest, Order, own_namespaces};
use crate::layers::{Layer, LayerReport, State as LayerState};
use crate::spec::{HELPER, JailSpec};
use crate::sys;
use crate::wire::{self, Frame};

/// What is known of a container whose init has connected.
#[derive(Debug)]
pub struct Container<'a> {
    /// The connection, from a socket that only the container could reach.
    pub socket: OwnedFd,
    /// Environment and limits per process; what an engine was asked for otherwise is not looked at again.
    pub spec: &'a JailSpec,
    /// The host folder that the container must show as its workspace, if it is a folder of this machine.
    pub workspace: Option<&'a Path>,
    /// What the engine was asked for and could enforce: memory, processes, processor time. If memory is not among
    /// what is enforced, the init sums and kills.
    pub ceilings: Vec<LayerReport>,
}

impl Jail {
    /// Takes over a container: tells its init what it is and waits until it serves. The box that results is used
    /// like one of [`Jail::spawn`]; dropping it ends the init, and with it every process of the container. The
    /// container itself is the engine's to remove.
    ///
    /// # Errors
    /// [`Error::Refused`] when the container lacks a layer, [`Error::Build`] and [`Error::Init`] for what else goes
    /// wrong, [`Error::Foreign`] when the other end is no process of this machine.
    pub fn adopt(container: Container<'_>) -> Result<Self, Error> {
        let Container { socket, spec, workspace, ceilings } = container;
        let peer = sys::peer_pid(socket.as_fd()).map_err(|e| talk("asking who connected", e))?;
        // A process of another kernel or of a namespace beside this one has no number here.
        let pid = Pid::from_raw(peer).ok_or(Error::Foreign)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|e| talk("taking hold of the container's init", e))?;
        let init = Init { pid, handle, kin: Kin::Adopted };
        let seen = workspace.map(std::fs::metadata).transpose();
        let seen = seen.map_err(|e| talk("looking at the workspace", e))?.map(|m| (m.dev(), m.ino()));
        let guest = Guest { spec: spec.clone(), outside: own_namespaces(), workspace: seen };
        wire::send(socket.as_fd(), &guest, &[]).map_err(|e| talk("describing the box", e))?;
        let stands = match follow(&socket, Path::new(HELPER), &mut |_| Ok(())) {
            Ok(stands) => stands,
            Err(error) => {
                init.end();
                return Err(error);
            }
        };
        let counted = ceilings
            .iter()
            .any(|c| c.layer == Layer::Memory && matches!(c.state, LayerState::Enforced { .. }));
        if !counted {
            let body = Order::Watch { watch_memory: spec.limits.memory_bytes };
            wire::send(socket.as_fd(), &Frame { id: 0, body }, &[])
                .map_err(|e| talk("asking for the memory limit", e))?;
        }
        let group = Group::of(pid.as_raw_nonzero().get());
        let state = State {
            oom_seen: group.oom_kills(),
            layers: stands.layers.into_iter().chain(ceilings).collect(),
            group,
            ..State::default()
        };
        let shared = Arc::new(Shared { control: socket, next: AtomicU64::new(1), state: Mutex::new(state) });
        let read = Arc::clone(&shared);
        let reader = thread("forge-jail-reader", move || read.read_all())?;
        Ok(Self {
            shared,
            init,
            reader: Some(reader),
            overlay: None,
            listener: Mutex::new(stands.listener),
            _user: None,
            warnings: stands.warnings,
        })
    }
}
