//! A sandbox started before its purpose is known: namespaces, network, root directory and control groups are ready, the
//! workspace is missing. Finishing it takes a fraction of the time of a full start.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, atomic::AtomicU64, mpsc};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::{
    InitProcess, Jail, JailConnection, spawn_reader, start_init, talk_error, wait_for_init, wait_for_startup,
};
use crate::host::cgroup::{self, CgroupSetup};
use crate::host::run_user::{ReservedUid, reserve_run_user};
use crate::image;
use crate::protocol::error::Error;
use crate::protocol::helper_binary::HelperBinary;
use crate::protocol::startup::SetupCommand;
use crate::protocol::wire;
use crate::sys;
use crate::user_ids::is_run_user_id;
use forge_jail_protocol::{JailSpec, RootMode};

/// A sandbox that waits for its specification. Dropping it ends it.
#[derive(Debug)]
pub struct PrewarmedJail {
    /// The specification it was started with.
    template: JailSpec,
    /// Owners (user and group) of directories that it can show as its own.
    owners: Vec<(u32, u32)>,
    exe: PathBuf,
    pending: Option<PrewarmedInit>,
}

#[derive(Debug)]
struct PrewarmedInit {
    control: OwnedFd,
    init: InitProcess,
    made: CgroupSetup,
    user: Option<ReservedUid>,
}

impl PrewarmedJail {
    /// Starts a sandbox. Only the common parts of `ground` are used: network, limits, host name, caches, and the owners
    /// of the root directories. Its masks, binds and environment are ignored. Blocks for some milliseconds.
    ///
    /// # Errors
    /// As [`Jail::spawn`].
    pub fn start(ground: &JailSpec, exe: &Path) -> Result<Self, Error> {
        if let Some(fault) = ground.validation_error() {
            return Err(Error::Spec(fault));
        }
        let helper = match &ground.image {
            None => None,
            Some(root) => {
                image::check_image(root)?;
                let found = HelperBinary::of_binary(exe);
                Some(found.map_err(|e| Error::Init { exe: exe.to_owned(), why: e.to_string() })?)
            }
        };
        let owners = root_owners(ground);
        let (control, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|e| talk_error("making the control socket", e))?;
        let step = || "taking an unused user id".to_owned();
        let user = reserve_run_user(ground).map_err(|source| Error::Build { step: step(), source })?;
        let mut first = start_init(ground, helper, exe, theirs, user.as_ref())?;
        // Runs in parallel with the init.
        let mut made = cgroup::create_groups(&ground.label, &ground.limits, &ground.without);
        let init = wait_for_init(&control, &mut first, exe)?;
        if !join_groups(&control, &made, exe)
            && made.group.add_process(init.pid.as_raw_nonzero().get()).is_err()
        {
            made = CgroupSetup::default();
        }
        Ok(Self {
            template: ground.clone(),
            owners,
            exe: exe.to_owned(),
            pending: Some(PrewarmedInit { control, init, made, user }),
        })
    }

    /// Returns whether this sandbox can be finished with `spec`.
    #[must_use]
    pub fn can_become(&self, spec: &JailSpec) -> bool {
        let ground = &self.template;
        let same = spec.image == ground.image
            && (spec.network, spec.listen, spec.caches) == (ground.network, ground.listen, ground.caches)
            && spec.limits == ground.limits
            && spec.hostname == ground.hostname
            && spec.programs == ground.programs
            && spec.without == ground.without;
        // The files of an earlier sandbox of the run belong to its user id, which the init would have to take.
        let kept = spec.roots.iter().any(|root| match &root.mode {
            RootMode::Overlay { upper, .. } => path_owner(upper).is_some_and(is_run_user_id),
            RootMode::Owned => path_owner(&root.source).is_some_and(is_run_user_id),
            RootMode::Bind => false,
        });
        same && !kept
            && (sys::effective_ids().0 != 0 || root_owners(spec).iter().all(|one| self.owners.contains(one)))
    }

    /// Finishes the sandbox, which must [be able to become](Self::can_become) `spec`.
    ///
    /// # Errors
    /// As [`Jail::spawn`].
    pub fn finish(mut self, spec: &JailSpec) -> Result<Jail, Error> {
        if let Some(fault) = spec.validation_error() {
            return Err(Error::Spec(fault));
        }
        let Some(PrewarmedInit { control, init, made, user }) = self.pending.take() else {
            return Err(Error::Died("it was finished before".to_owned()));
        };
        let shared = Arc::new(JailConnection { control, next: AtomicU64::new(1), state: Mutex::default() });
        let told =
            wire::send_message(shared.control.as_fd(), &SetupCommand::ApplySpec(Box::new(spec.clone())), &[]);
        // Started while the init works.
        let (stand, wait) = mpsc::channel::<()>();
        let read = Arc::clone(&shared);
        let reader = spawn_reader("forge-jail-reader", move || {
            if wait.recv().is_ok() {
                read.read_replies();
            }
        });
        let stands = told
            .map_err(|e| talk_error("describing the box", e))
            .and_then(|()| wait_for_startup(&shared.control, &self.exe, &mut |_| Ok(())));
        let (stands, reader) = match (stands, reader) {
            (Ok(stands), Ok(reader)) => (stands, reader),
            (Err(error), _) | (_, Err(error)) => {
                init.kill_and_wait();
                return Err(error);
            }
        };
        shared.lock().layers = stands.layers;
        shared.activate_groups(made, &spec.limits, &spec.without);
        // The reader waits for this.
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

impl Drop for PrewarmedJail {
    fn drop(&mut self) {
        if let Some(begun) = self.pending.take() {
            begun.init.kill_and_wait();
        }
    }
}

/// Has the init join its groups by itself; returns whether it did.
fn join_groups(control: &OwnedFd, made: &CgroupSetup, exe: &Path) -> bool {
    let Some(lists) = made.group.open_task_lists() else { return false };
    let fds: Vec<BorrowedFd<'_>> = lists.iter().map(AsFd::as_fd).collect();
    wire::send_message(control.as_fd(), &SetupCommand::Join, &fds).is_ok()
        && wait_for_startup(control, exe, &mut |_| Ok(())).is_ok_and(|stands| stands.joined)
}

/// Returns the owners of the directories that a sandbox started by root must show as its own.
fn root_owners(spec: &JailSpec) -> Vec<(u32, u32)> {
    let roots = spec.roots.iter().filter(|root| root.mode != RootMode::Owned).map(|root| &root.source);
    let writable = spec.writable.iter().map(|bind| &bind.source);
    let meta = roots.chain(writable).filter_map(|path| std::fs::metadata(path).ok());
    meta.map(|meta| (meta.uid(), meta.gid())).collect()
}

fn path_owner(path: &Path) -> Option<u32> {
    std::fs::metadata(path).ok().map(|meta| meta.uid())
}
