//! Locks that give exclusive access to a repository that a run changes directly or is applied to.

use super::WorkspaceStorage;
use super::repos::OpenRepo;
use forge_ports::sandbox::Error;
use forge_snapshot::TreeRoot;
use forge_snapshot::apply::{self, LockWait, RepoLockGuard};
use forge_types::{RunId, SandboxSpec, WorkspaceMode};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Longest time that an apply waits for another one.
const APPLY_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest time that a thread may take to release a lock that is no longer needed.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval between attempts to take a lock.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Device and inode number of a directory.
type DirectoryId = (u64, u64);

/// Repositories that runs of this process change directly. A second sandbox of the same run shares the lock: the first
/// one may not have ended yet.
static DIRECT_LOCKS: Mutex<BTreeMap<DirectoryId, (RunId, Weak<RepoLockGuard>)>> = Mutex::new(BTreeMap::new());

/// Takes the locks of a run that changes its repositories directly; other runs have none.
pub(super) fn lock_direct_repos(
    store: &WorkspaceStorage,
    spec: &SandboxSpec,
    repos: &[OpenRepo],
    run: RunId,
) -> Result<Vec<Arc<RepoLockGuard>>, Error> {
    if spec.mode != WorkspaceMode::Inplace {
        return Ok(Vec::new());
    }
    let mut held = DIRECT_LOCKS.lock();
    let own: Vec<DirectoryId> =
        held.iter().filter(|(_, (owner, _))| *owner == run).map(|(id, _)| *id).collect();
    held.retain(|_, (_, guard)| guard.strong_count() > 0);
    let mut locks = Vec::new();
    for repo in repos {
        let id = directory_id(repo);
        if let Some((owner, guard)) = held.get(&id)
            && *owner == run
            && let Some(guard) = guard.upgrade()
        {
            locks.push(guard);
            continue;
        }
        // An earlier sandbox of the run may be releasing it on another thread at this moment.
        let patience = if own.contains(&id) { RELEASE_TIMEOUT } else { Duration::ZERO };
        let guard = Arc::new(lock_within(&repo.root, &store.locks, patience)?);
        held.insert(id, (run, Arc::downgrade(&guard)));
        locks.push(guard);
    }
    Ok(locks)
}

/// Takes the locks for an apply, waiting for others for a while. Blocks the thread.
pub(super) fn lock_for_apply<'a>(
    repos: impl Iterator<Item = &'a OpenRepo>,
    locks: &Path,
) -> Result<Vec<RepoLockGuard>, Error> {
    let mut repos: Vec<&OpenRepo> = repos.collect();
    // Always in the same order, so that two applies never deadlock.
    repos.sort_unstable_by_key(|repo| directory_id(repo));
    repos.into_iter().map(|repo| lock_within(&repo.root, locks, APPLY_LOCK_TIMEOUT)).collect()
}

fn directory_id(repo: &OpenRepo) -> DirectoryId {
    (repo.stamp.dev, repo.stamp.ino)
}

fn lock_within(repo: &TreeRoot, locks: &Path, patience: Duration) -> Result<RepoLockGuard, Error> {
    let begun = Instant::now();
    loop {
        match apply::lock_repository(repo, locks, LockWait::No) {
            Err(apply::Error::Busy { .. }) if begun.elapsed() < patience => {
                thread::park_timeout(POLL_INTERVAL)
            }
            Ok(guard) => return Ok(guard),
            Err(error) => return Err(in_use_error(error, repo.path())),
        }
    }
}

fn in_use_error(error: apply::Error, repo: &Path) -> Error {
    let why = match error {
        apply::Error::Busy { .. } => format!(
            "another run is working directly in {} (inplace) or is being applied to it; wait until it ends",
            repo.display()
        ),
        error => error.to_string(),
    };
    Error::View { why }
}
