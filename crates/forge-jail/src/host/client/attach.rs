//! Taking over the init of a container: a container engine provides the isolation layers, the protocol is the same.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, atomic::AtomicU64};

use rustix::process::{Pid, PidfdFlags};

use super::{
    ConnectionState, InitParent, InitProcess, Jail, JailConnection, spawn_reader, talk_error,
    wait_for_startup,
};
use crate::host::cgroup::JailCgroups;
use crate::protocol::error::Error;
use crate::protocol::startup::{ContainerBoot, InitRequest, own_namespaces};
use crate::protocol::wire::{self, WireFrame};
use crate::sys;
use forge_jail_protocol::{HELPER_PATH, IsolationLayer, JailLayerState as LayerState, JailSpec, LayerReport};

/// The facts about a container with a connected init.
#[derive(Debug)]
pub struct ConnectedContainer<'a> {
    /// The connection, from a socket that only the container could reach.
    pub socket: OwnedFd,
    /// Environment and limits per process; other settings that the engine was given are not checked again.
    pub spec: &'a JailSpec,
    /// The host directory that the container must show as its workspace, if it is on this machine.
    pub workspace: Option<&'a Path>,
    /// The ceilings requested from the engine that it could enforce: memory, processes, CPU time. If memory is not
    /// among the enforced ones, the init adds up the usage and kills.
    pub ceilings: Vec<LayerReport>,
}

impl Jail {
    /// Takes over a container: sends its init the specification and waits until it serves. The resulting sandbox is
    /// used like one of [`Jail::spawn`]; dropping it ends the init, and with it every process of the container.
    /// Removing the container itself is the engine's job.
    ///
    /// # Errors
    /// [`Error::Refused`] when the container lacks a layer, [`Error::Foreign`] when the peer is not a process of this
    /// machine, [`Error::Build`] and [`Error::Init`] for other failures.
    pub fn attach_container(container: ConnectedContainer<'_>) -> Result<Self, Error> {
        let ConnectedContainer { socket, spec, workspace, ceilings } = container;
        let peer = sys::peer_pid(socket.as_fd()).map_err(|e| talk_error("asking who connected", e))?;
        // A process of another kernel, or of a process id namespace outside this one's, has no number here.
        let pid = Pid::from_raw(peer).ok_or(Error::Foreign)?;
        let handle = rustix::process::pidfd_open(pid, PidfdFlags::empty())
            .map_err(|e| talk_error("taking hold of the container's init", e))?;
        let init = InitProcess { pid, handle, parent: InitParent::ContainerEngine };
        let seen = workspace.map(std::fs::metadata).transpose();
        let seen = seen.map_err(|e| talk_error("looking at the workspace", e))?.map(|m| (m.dev(), m.ino()));
        let guest = ContainerBoot { spec: spec.clone(), outside: own_namespaces(), workspace: seen };
        wire::send_message(socket.as_fd(), &guest, &[]).map_err(|e| talk_error("describing the box", e))?;
        let stands = match wait_for_startup(&socket, Path::new(HELPER_PATH), &mut |_| Ok(())) {
            Ok(stands) => stands,
            Err(error) => {
                init.kill_and_wait();
                return Err(error);
            }
        };
        let counted = ceilings
            .iter()
            .any(|c| c.layer == IsolationLayer::Memory && matches!(c.state, LayerState::Enforced { .. }));
        if !counted {
            let body = InitRequest::Watch { watch_memory: spec.limits.memory_bytes };
            wire::send_message(socket.as_fd(), &WireFrame { id: 0, body }, &[])
                .map_err(|e| talk_error("asking for the memory limit", e))?;
        }
        let group = JailCgroups::of_process(pid.as_raw_nonzero().get());
        let state = ConnectionState {
            oom_seen: group.oom_kills(),
            layers: stands.layers.into_iter().chain(ceilings).collect(),
            group,
            ..ConnectionState::default()
        };
        let shared =
            Arc::new(JailConnection { control: socket, next: AtomicU64::new(1), state: Mutex::new(state) });
        let read = Arc::clone(&shared);
        let reader = spawn_reader("forge-jail-reader", move || read.read_replies())?;
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
