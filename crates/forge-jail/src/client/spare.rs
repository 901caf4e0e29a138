//! A box begun before it is known what for: namespaces, network, root folder and control groups stand, the workspace is
//! missing. Finishing it takes a fraction of the time that a box takes from nothing.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, atomic::AtomicU64, mpsc};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{Init, Jail, Shared, follow, start_init, started, talk, thread};
use crate::cgroup::{self, Made};
use crate::error::Error;
use crate::image;
use crate::init::{Ahead, Reserved, owner_is_box, run_user};
use crate::loader::Helper;
use crate::spec::{JailSpec, Show};
use crate::sys;
use crate::wire;

/// A box that waits to be told what it is for. Dropping it ends it.
#[derive(Debug)]
pub struct Spare {
    /// What it was begun with.
    ground: JailSpec,
    /// Whose folders it can show as its own.
    owners: Vec<(u32, u32)>,
    exe: PathBuf,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    control: OwnedFd,
    init: Init,
    made: Made,
    user: Option<Reserved>,
}

impl Spare {
    /// Begins a box. Of `ground`, what boxes have in common counts: network, limits, host name, caches, and whose the
    /// folders to work in are. Its masks, binds and environment are left for later. Blocks for some milliseconds.
    ///
    /// # Errors
    /// As [`Jail::spawn`].
    pub fn begin(ground: &JailSpec, exe: &Path) -> Result<Self, Error> {
        if let Some(fault) = ground.fault() {
            return Err(Error::Spec(fault));
        }
        let helper = match &ground.image {
            None => None,
            Some(root) => {
                image::check(root)?;
                let found = Helper::of(exe);
                Some(found.map_err(|e| Error::Init { exe: exe.to_owned(), why: e.to_string() })?)
            }
        };
        let owners = owners(ground);
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| talk("making the control socket", e))?;
        let step = || "taking an unused user id".to_owned();
        let user = run_user(ground).map_err(|source| Error::Build { step: step(), source })?;
        let mut first = start_init(ground, helper, exe, theirs, user.as_ref())?;
        // Beside the work of the init.
        let mut made = cgroup::create(&ground.label, &ground.limits, &ground.without);
        let init = started(&control, &mut first, exe)?;
        if !joined(&control, &made, exe) && made.group.attach(init.pid.as_raw_nonzero().get()).is_err() {
            made = Made::default();
        }
        Ok(Self {
            ground: ground.clone(),
            owners,
            exe: exe.to_owned(),
            begun: Some(Begun { control, init, made, user }),
        })
    }

    /// Whether it can become this box.
    #[must_use]
    pub fn fits(&self, spec: &JailSpec) -> bool {
        let ground = &self.ground;
        let same = spec.image == ground.image
            && (spec.network, spec.listen, spec.caches) == (ground.network, ground.listen, ground.caches)
            && spec.limits == ground.limits
            && spec.hostname == ground.hostname
            && spec.programs == ground.programs
            && spec.without == ground.without;
        // What an earlier box of the run left belongs to that one's id, which the init would have to take.
        let kept = spec.roots.iter().any(|root| match &root.show {
            Show::Overlay { upper, .. } => owner(upper).is_some_and(owner_is_box),
            Show::Owned => owner(&root.source).is_some_and(owner_is_box),
            Show::Direct => false,
        });
        same && !kept
            && (sys::effective_ids().0 != 0 || owners(spec).iter().all(|one| self.owners.contains(one)))
    }

    /// Finishes the box, which must [fit](Self::fits).
    ///
    /// # Errors
    /// As [`Jail::spawn`].
    pub fn finish(mut self, spec: &JailSpec) -> Result<Jail, Error> {
        if let Some(fault) = spec.fault() {
            return Err(Error::Spec(fault));
        }
        let Some(Begun { control, init, made, user }) = self.begun.take() else {
            return Err(Error::Died("it was finished before".to_owned()));
        };
        let shared = Arc::new(Shared { control, next: AtomicU64::new(1), state: Mutex::default() });
        let told = wire::send(shared.control.as_fd(), &Ahead::Furnish(Box::new(spec.clone())), &[]);
        // Started while the init works.
        let (stand, wait) = mpsc::channel::<()>();
        let read = Arc::clone(&shared);
        let reader = thread("forge-jail-reader", move || {
            if wait.recv().is_ok() {
                read.read_all();
            }
        });
        let stands = told
            .map_err(|e| talk("describing the box", e))
            .and_then(|()| follow(&shared.control, &self.exe, &mut |_| Ok(())));
        let (stands, reader) = match (stands, reader) {
            (Ok(stands), Ok(reader)) => (stands, reader),
            (Err(error), _) | (_, Err(error)) => {
                init.end();
                return Err(error);
            }
        };
        shared.lock().layers = stands.layers;
        shared.enforce(made, &spec.limits, &spec.without);
        // It waits for this.
        let _ = stand.send(());
        Ok(Jail {
            shared,
            init,
            reader: Some(reader),
            overlay: stands.overlay,
            warnings: stands.warnings,
            listener: Mutex::new(stands.listener),
            _user: user,
        })
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        if let Some(begun) = self.begun.take() {
            begun.init.end();
        }
    }
}

/// Has the init go into its groups by itself; whether it did.
fn joined(control: &OwnedFd, made: &Made, exe: &Path) -> bool {
    let Some(lists) = made.group.lists() else { return false };
    let fds: Vec<BorrowedFd<'_>> = lists.iter().map(AsFd::as_fd).collect();
    wire::send(control.as_fd(), &Ahead::Join, &fds).is_ok()
        && follow(control, exe, &mut |_| Ok(())).is_ok_and(|stands| stands.joined)
}

/// Whose folders a box of root must show as its own.
fn owners(spec: &JailSpec) -> Vec<(u32, u32)> {
    let roots = spec.roots.iter().filter(|root| root.show != Show::Owned).map(|root| &root.source);
    let writable = spec.writable.iter().map(|bind| &bind.source);
    let meta = roots.chain(writable).filter_map(|path| std::fs::metadata(path).ok());
    meta.map(|meta| (meta.uid(), meta.gid())).collect()
}

fn owner(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|meta| meta.uid())
}
