//! The box's own network: loopback, and a listener if one is asked for.
//!
//! Making a network namespace takes the kernel about as long as half of the root folder. The first process does it
//! while the init builds, and hands the namespace over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{During, Fault, identity};
use crate::layers::{Layer, LayerReport};
use crate::spec::{JailSpec, Network, Weakness};
use crate::sys;
use crate::wire;

/// The way from the first process to the init. Each side uses its end and drops the other.
pub(super) struct Handover {
    near: OwnedFd,
    far: OwnedFd,
    /// The caller's /proc, where the namespace is found by the process that made it: the init, which shares the
    /// mounts, may have left it behind by then.
    proc: OwnedFd,
    own: Own,
}

/// Whether the box has a network of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Own {
    Yes,
    No,
}

impl Handover {
    /// Before the fork.
    pub(super) fn new(spec: &JailSpec) -> io::Result<Self> {
        let (near, far) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty())?;
        let own = if spec.network == Network::Off && !spec.lacks(Weakness::NetNamespace) {
            Own::Yes
        } else {
            Own::No
        };
        Ok(Self { near, far, proc, own })
    }

    /// The first process: makes the network and gives it away.
    pub(super) fn give(self, spec: &JailSpec) -> Result<(), Fault> {
        let mut passed: Vec<OwnedFd> = Vec::with_capacity(2);
        if self.own == Own::Yes {
            let layer = Layer::NetNamespace;
            identity::unshare(UnshareFlags::NEWNET).layer(layer, "entering a new network namespace")?;
            sys::loopback_up().layer(layer, "bringing the loopback interface up")?;
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let namespace = rustix::fs::openat(&self.proc, c"self/ns/net", flags, Mode::empty());
            passed.push(namespace.layer(layer, "naming the new network namespace")?);
            if let Some(port) = spec.listen {
                let what = format!("listening on port {port} in the box's network");
                passed.push(listen(port).step(what)?);
            }
        }
        let passed: Vec<BorrowedFd<'_>> = passed.iter().map(AsFd::as_fd).collect();
        // If the init is gone, it has said why.
        let _ = wire::send(self.near.as_fd(), &(), &passed);
        Ok(())
    }

    /// The init: enters what the first process made. The caller then knows the process by name, since that was said
    /// first. `None` when the first process failed, which it says itself; else the listener, if there is one.
    pub(super) fn take(self, layers: &mut Vec<LayerReport>) -> Result<Option<Option<OwnedFd>>, Fault> {
        let Self { near, far, own, .. } = self;
        drop(near);
        let received = wire::receive::<()>(far.as_fd(), &mut Vec::new());
        let Some(((), passed)) = received.step("waiting for the first process")? else { return Ok(None) };
        if own == Own::No {
            return Ok(Some(None));
        }
        let mut passed = passed.into_iter();
        let layer = Layer::NetNamespace;
        let namespace = passed.next().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF));
        let namespace = namespace.layer(layer, "taking the new network namespace")?;
        rustix::thread::move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .layer(layer, "entering the new network namespace")?;
        layers.push(LayerReport::enforced(layer, "loopback only"));
        Ok(Some(passed.next()))
    }
}

/// A listener in the box's own network. Who holds it accepts, wherever they are.
pub(super) fn listen(port: u16) -> io::Result<OwnedFd> {
    use rustix::net::{bind, listen, socket_with};
    const WAITING: i32 = 1024;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
    bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port))?;
    listen(&socket, WAITING)?;
    Ok(socket)
}
