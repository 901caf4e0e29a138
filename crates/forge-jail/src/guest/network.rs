//! The sandbox's own network: loopback, and a listener if requested.
//!
//! Creating a network namespace takes the kernel about half as long as the root directory. The first process does it
//! while the init builds, and hands the namespace over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{InitSetupError, SetupContext, identity};
use crate::protocol::wire;
use crate::sys;
use forge_jail_protocol::{DisabledProtection, IsolationLayer, JailSpec, LayerReport, NetworkAccess};

/// The connection from the first process to the init. Each side uses its end and drops the other.
pub(super) struct NetworkHandover {
    near: OwnedFd,
    far: OwnedFd,
    /// The caller's /proc, where the first process finds the namespace it created: the init, which shares the mounts,
    /// may already have detached it.
    proc: OwnedFd,
    own: OwnNetwork,
}

/// Whether the sandbox has a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OwnNetwork {
    Yes,
    No,
}

impl NetworkHandover {
    /// Prepares the handover, before the fork.
    pub(super) fn new(spec: &JailSpec) -> io::Result<Self> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
        let own = if spec.network == NetworkAccess::Off
            && !spec.lacks_protection(DisabledProtection::NetNamespace)
        {
            OwnNetwork::Yes
        } else {
            OwnNetwork::No
        };
        Ok(Self { near, far, proc, own })
    }

    /// Creates the network in the first process and sends it to the init.
    pub(super) fn create_and_send(self, spec: &JailSpec) -> Result<(), InitSetupError> {
        let mut passed: Vec<OwnedFd> = Vec::with_capacity(2);
        if self.own == OwnNetwork::Yes {
            let layer = IsolationLayer::NetNamespace;
            identity::unshare_namespaces(UnshareFlags::NEWNET)
                .layer_context(layer, "entering a new network namespace")?;
            sys::bring_loopback_up().layer_context(layer, "bringing the loopback interface up")?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::openat(&self.proc, c"self/ns/net", flags, Mode::empty());
            passed.push(namespace.layer_context(layer, "naming the new network namespace")?);
            if let Some(port) = spec.listen {
                let what = format!("listening on port {port} in the box's network");
                passed.push(listen_on_loopback(port).step_context(what)?);
            }
        }
        let passed: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
        // If the init is gone, it has reported the reason.
        let _ = wire::send_message(self.near.as_fd(), &(), &passed);
        Ok(())
    }

    /// Enters, in the init, the network that the first process created. By then the caller knows the init's process id,
    /// which is reported first. Returns `None` when the first process failed and reported that, else the listener, if
    /// there is one.
    pub(super) fn receive_and_enter(
        self,
        layers: &mut Vec<LayerReport>,
    ) -> Result<Option<Option<OwnedFd>>, InitSetupError> {
        let Self { near, far, own, .. } = self;
        drop(near);
        let received = wire::receive_message::<()>(far.as_fd(), &mut Vec::new());
        let Some(((), passed)) = received.step_context("waiting for the first process")? else {
            return Ok(None);
        };
        if own == OwnNetwork::No {
            return Ok(Some(None));
        }
        let mut passed = passed.into_iter();
        let layer = IsolationLayer::NetNamespace;
        let namespace = passed.next().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
        let namespace = namespace.layer_context(layer, "taking the new network namespace")?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .layer_context(layer, "entering the new network namespace")?;
        layers.push(LayerReport::enforced(layer, "loopback only"));
        Ok(Some(passed.next()))
    }
}

/// Creates a listener in the sandbox's own network. The holder of the descriptor accepts connections from any network
/// namespace.
pub(super) fn listen_on_loopback(port: u16) -> io::Result<OwnedFd> {
    use rustix::net::{bind, listen, socket_with};
    const LISTEN_BACKLOG: i32 = 1024;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))?;
    listen(&socket, LISTEN_BACKLOG)?;
    Ok(socket)
}
