//! Who changes a repository directly, or applies to it, has it alone.

use super::{WorkspaceStorage, resolve_repos};
use forge_ports::sandbox::Error;
use forge_snapshot::apply::{self, LockWait, RepoLockGuard};
use forge_types::{RunId, SandboxSpec, WorkspaceMode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How long an apply waits for another one.
const APPLY_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a thread may take to let go of a lock that nobody needs any more.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Repositories that runs of this process change directly. A second box of the same run has the lock as well: the first
/// one may not have ended yet.
static DIRECT_LOCKS: Mutex<BTreeMap<PathBuf, (RunId, Weak<RepoLockGuard>)>> = Mutex::new(BTreeMap::new());

/// The locks of a run that changes its repositories directly; of other runs there are none.
pub(super) fn lock_direct_repos(
    store: &WorkspaceStorage,
    spec: &SandboxSpec,
    run: RunId,
) -> Result<Vec<Arc<RepoLockGuard>>, Error> {
    if spec.mode != WorkspaceMode::Inplace {
        return Ok(Vec::new());
    }
    let mut held = DIRECT_LOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let own: Vec<PathBuf> =
        held.iter().filter(|(_, (owner, _))| *owner == run).map(|(path, _)| path.clone()).collect();
    held.retain(|_, (_, guard)| guard.strong_count() > 0);
    let mut locks = Vec::new();
    for repo in resolve_repos(spec)? {
        if let Some((owner, guard)) = held.get(&repo.path)
            && *owner == run
            && let Some(guard) = guard.upgrade()
        {
            locks.push(guard);
            continue;
        }
        // An earlier box of the run may be letting go of it on another thread at this moment.
        let patience = if own.contains(&repo.path) { RELEASE_TIMEOUT } else { Duration::ZERO };
        let guard = Arc::new(lock_within(&repo.path, &store.locks, patience)?);
        held.insert(repo.path, (run, Arc::downgrade(&guard)));
        locks.push(guard);
    }
    Ok(locks)
}

/// The lock for an apply; waits for others for a while. On a thread that may.
pub(super) fn lock_for_apply(repo: &Path, locks: &Path) -> Result<RepoLockGuard, Error> {
    lock_within(repo, locks, APPLY_LOCK_TIMEOUT)
}

fn lock_within(repo: &Path, locks: &Path, patience: Duration) -> Result<RepoLockGuard, Error> {
    let begun = Instant::now();
    loop {
        match apply::lock_repository(repo, locks, LockWait::No) {
            Err(apply::Error::Busy { .. }) if begun.elapsed() < patience => {
                thread::park_timeout(POLL_INTERVAL)
            }
            Ok(guard) => return Ok(guard),
            Err(error) => return Err(in_use_error(error, repo)),
        }
    }
}

fn in_use_error(error: apply::Error, repo: &Path) -> Error {
    let why = match error {
        apply::Error::Busy { .. } => format!(
            "another run works directly in {} (inplace), or is being applied to it; wait until it has ended",
            repo.display()
        ),
        error => error.to_string(),
    };
    Error::View { why }
}
