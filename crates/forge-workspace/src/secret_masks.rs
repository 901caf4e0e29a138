//! Masked files of a workspace: found by a first scan, by reading contents, and by a watch while a sandbox is open.
//!
//! Hardly anything is read before a sandbox opens. A background thread reads the rest and sets a watch on the
//! repositories; the first request waits for it. Files that it finds are masked by reopening the sandbox.

use super::layout::{FileMask, WorkspaceKind, WorkspaceLayout, WorkspaceMeta};
use super::repos::OpenRepo;
use super::{RunWorkspace, WorkspaceStorage};
use crate::masks;
use forge_covers::{CoveredPath, CredentialWatch, RevealedPaths, UnreadFiles, WatchTarget};
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, FileStamp, RelPath, TreeNode, TreeRoot};
use forge_types::Digest;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Maximum number of files read before a sandbox opens: reading these costs less than a thread.
const MAX_READ_AT_OPEN: usize = 32;
/// Maximum size in bytes of a git index that is examined before a sandbox opens.
const MAX_QUICK_INDEX_BYTES: u64 = 256 << 10;

/// The masked files of one open sandbox.
#[derive(Debug)]
pub struct SecretMasks {
    state: Mutex<MaskState>,
    ready: Condvar,
    stop: AtomicBool,
    /// Whether the sandbox works in the repositories themselves: changes there are made by the user or by the run
    /// itself.
    direct: bool,
    /// Whether a writing operation is running, or ran without a check since.
    writing: AtomicBool,
}

#[derive(Debug)]
struct MaskState {
    stage: MaskStage,
    watches: Vec<(usize, CredentialWatch)>,
    /// Paths that must be masked and are not yet, with the index of their repository.
    found: Vec<(usize, PathBuf)>,
    repos: Vec<OpenRepo>,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum MaskStage {
    Waiting(Vec<MaskJob>),
    Working,
    Ready,
}

/// Pending work for one repository.
#[derive(Debug)]
pub(super) struct MaskJob {
    index: usize,
    root: TreeRoot,
    unread: Option<UnreadFiles>,
    watch: Option<PendingWatch>,
    /// Whether git's index has yet to be examined.
    history: bool,
    /// Upper layer of an overlay in which earlier sandboxes of the run may have renamed directories.
    renamed: Option<PathBuf>,
    covered: Vec<PathBuf>,
}

/// A watch that has yet to start.
#[derive(Debug)]
struct PendingWatch {
    base: Arc<BaseManifest>,
    revealed: RevealedPaths,
    covered: Vec<CoveredPath>,
    upper: Option<PathBuf>,
    /// Contents of masked files. In a repository that earlier sandboxes of the run worked in, new files are the run's
    /// own, unless they have such a content.
    known: Option<HashSet<Digest>>,
}

/// The result of a first scan.
#[derive(Debug, Default)]
pub(super) struct InitialScan {
    unread: Vec<Option<UnreadFiles>>,
    history: Vec<bool>,
}

/// Scans the repositories of a new workspace and records the files to mask. For a copy, all of them are read now.
pub(super) fn scan_repos(
    store: &WorkspaceStorage,
    meta: &mut WorkspaceMeta,
    repos: &[OpenRepo],
    bases: &[Arc<BaseManifest>],
    reveal: &[String],
) -> InitialScan {
    let mut look = InitialScan::default();
    // A copy is made without the masked files, so all of them must be known before.
    let all = matches!(meta.kind, WorkspaceKind::Copy | WorkspaceKind::Reflink);
    for (index, (repo, base)) in repos.iter().zip(bases).enumerate() {
        let root = repo.root.descriptor_path();
        let revealed = RevealedPaths::new(&revealed_in_repo(repo, reveal));
        let mut found = forge_covers::scan_manifest(&root, base, revealed, store.scan_cache_path(repo));
        meta.warnings.append(&mut found.warnings);
        let unread = if all || found.unread.len() <= MAX_READ_AT_OPEN {
            found.paths.extend(found.unread.find_private_keys(&AtomicBool::new(false)));
            None
        } else {
            Some(found.unread)
        };
        let paths: Vec<PathBuf> = found.paths.into_iter().collect();
        let quick = git_index_bytes(&root) <= MAX_QUICK_INDEX_BYTES;
        if quick {
            meta.warnings.extend(history_warning(&root, &paths));
        }
        look.history.push(!quick);
        meta.masks.extend(paths.iter().map(|path| new_mask(repo, index, path)));
        look.unread.push(unread);
    }
    look
}

/// Returns the paths that the user reveals, as they apply to one of several repositories.
fn revealed_in_repo(repo: &OpenRepo, reveal: &[String]) -> Vec<String> {
    let name = &repo.record.name;
    let inside = |path: &String| {
        let named = path.trim_start_matches("./").trim_start_matches("/workspace/");
        let below = named.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
        below.filter(|_| !name.is_empty()).unwrap_or(named).to_owned()
    };
    reveal.iter().map(inside).collect()
}

fn new_mask(repo: &OpenRepo, index: usize, path: &Path) -> FileMask {
    FileMask {
        repo: index,
        content: masks::masked_content_digest(&repo.root, path),
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

fn git_index_bytes(repo: &Path) -> u64 {
    std::fs::symlink_metadata(repo.join(".git/index")).map_or(0, |meta| meta.len())
}

/// Returns a warning about credentials in the history of a repository.
fn history_warning(repo: &Path, covered: &[PathBuf]) -> Option<String> {
    let tracked = forge_covers::tracked_credentials(repo, covered);
    let names: Vec<String> = tracked.iter().map(|path| path.display().to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "git's history contains files that look like secrets, and commands can read them there (git show): {}; remove \
             them from the history, and change the secrets",
            names.join(", ")
        )
    })
}

/// Returns paths at which masked files appear unmasked because their directories were renamed.
fn renamed_secrets(upper: &Path, covered: &[PathBuf]) -> Vec<PathBuf> {
    let paths: Vec<RelPath> =
        covered.iter().filter_map(|path| RelPath::new(path.as_os_str().as_bytes())).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let seen =
        forge_covers::find_redirected_paths(upper, &paths).into_iter().filter(|path| !paths.contains(path));
    seen.map(|path| path.as_path().to_owned()).collect()
}

impl WorkspaceStorage {
    /// Returns the path of the file that caches the scan of a repository.
    fn scan_cache_path(&self, repo: &OpenRepo) -> Option<PathBuf> {
        let path = repo.record.path.as_os_str().as_bytes();
        let name = [repo.stamp.dev.to_le_bytes().as_slice(), path].concat();
        self.workspaces.parent().map(|data| data.join("covers").join(Digest::of_bytes(&name).to_string()))
    }
}

impl SecretMasks {
    /// Creates the masks of a workspace; `look` is the first scan of a new one.
    pub(super) fn new(
        place: &WorkspaceLayout,
        meta: &WorkspaceMeta,
        repos: &[OpenRepo],
        bases: &[Arc<BaseManifest>],
        reveal: &[String],
        look: Option<InitialScan>,
    ) -> Arc<Self> {
        let is_new = look.is_some();
        let InitialScan { mut unread, history } = look.unwrap_or_default();
        let mut jobs = Vec::new();
        for (index, repo) in repos.iter().enumerate() {
            let covered: Vec<PathBuf> = meta
                .masks
                .iter()
                .filter(|mask| mask.repo == index)
                .map(|mask| PathBuf::from(OsStr::from_bytes(&mask.path)))
                .collect();
            let upper = match meta.kind {
                WorkspaceKind::Overlay => Some(place.upper_dir(index)),
                WorkspaceKind::Direct | WorkspaceKind::Reflink | WorkspaceKind::Copy => None,
            };
            let number = |path: &PathBuf| {
                let path = RelPath::new(path.as_os_str().as_bytes())?;
                Some(FileStamp::stat_below(&repo.root, &path).ok()??.ino)
            };
            let watch =
                matches!(meta.kind, WorkspaceKind::Overlay | WorkspaceKind::Direct).then(|| PendingWatch {
                    base: Arc::clone(&bases[index]),
                    revealed: RevealedPaths::new(&revealed_in_repo(repo, reveal)),
                    covered: covered
                        .iter()
                        .map(|path| CoveredPath { path: path.clone(), number: number(path) })
                        .collect(),
                    upper,
                    known: (meta.kind == WorkspaceKind::Direct && !is_new)
                        .then(|| meta.masks.iter().filter_map(|mask| mask.content).collect()),
                });
            jobs.push(MaskJob {
                index,
                root: repo.root.clone(),
                unread: unread.get_mut(index).and_then(Option::take),
                watch,
                history: history.get(index).copied().unwrap_or(false),
                renamed: (meta.kind == WorkspaceKind::Overlay && !is_new).then(|| place.upper_dir(index)),
                covered,
            });
        }
        let state = MaskState {
            stage: MaskStage::Waiting(jobs),
            watches: Vec::new(),
            found: Vec::new(),
            repos: repos.to_vec(),
            warnings: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
            stop: AtomicBool::new(false),
            direct: meta.kind == WorkspaceKind::Direct,
            writing: AtomicBool::new(false),
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, MaskState> {
        self.state.lock()
    }

    /// Starts reading unread files on a separate thread.
    pub(super) fn start_scanning(self: &Arc<Self>) {
        let own = Arc::clone(self);
        // Without a thread, the first caller that waits does the work.
        let _ = std::thread::Builder::new().name("forge-covers".to_owned()).spawn(move || own.run_jobs());
    }

    /// Stops scanning and watching: the results are no longer needed.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(mut state) = self.state.try_lock() else { return };
        let watches = std::mem::take(&mut state.watches);
        if !watches.is_empty() {
            // The kernel takes about 10 ms to close a watch, which the end of a run must not wait for.
            let _ = std::thread::Builder::new().name("forge-covers".to_owned()).spawn(move || drop(watches));
        }
    }

    /// Runs the pending jobs, if there are any.
    fn run_jobs(&self) {
        let jobs = {
            let mut state = self.lock_state();
            match std::mem::replace(&mut state.stage, MaskStage::Working) {
                MaskStage::Waiting(jobs) => jobs,
                stage => {
                    state.stage = stage;
                    return;
                }
            }
        };
        let (mut found, mut watches, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            let MaskJob { index, root, unread, watch, history: look_at_history, renamed, mut covered } = job;
            if let Some(upper) = renamed {
                found.extend(renamed_secrets(&upper, &covered).into_iter().map(|path| (index, path)));
            }
            if let Some(unread) = unread {
                let keys = unread.find_private_keys(&self.stop);
                covered.extend(keys.iter().cloned());
                found.extend(keys.into_iter().map(|path| (index, path)));
            }
            if look_at_history {
                warnings.extend(history_warning(&root.descriptor_path(), &covered));
            }
            let Some(begin) = watch.filter(|_| !self.stop.load(Ordering::Relaxed)) else { continue };
            let watched = WatchTarget {
                root: &root.descriptor_path(),
                base: &begin.base,
                revealed: begin.revealed,
                covered: begin.covered,
                upper: begin.upper,
            };
            if let Some(mut watch) = CredentialWatch::new(watched) {
                let mut first = watch.initial_credentials();
                if let Some(known) = &begin.known {
                    first.retain(|path| {
                        masks::masked_content_digest(&root, path)
                            .is_some_and(|content| known.contains(&content))
                    });
                }
                found.extend(first.into_iter().map(|path| (index, path)));
                watches.push((index, watch));
            }
        }
        let mut state = self.lock_state();
        state.stage = MaskStage::Ready;
        state.found = found;
        state.watches = watches;
        state.warnings = warnings;
        drop(state);
        self.ready.notify_all();
    }

    /// Waits until all files are read.
    fn wait_ready(&self) -> MutexGuard<'_, MaskState> {
        self.run_jobs();
        let mut state = self.lock_state();
        while !matches!(state.stage, MaskStage::Ready) {
            self.ready.wait(&mut state);
        }
        state
    }

    /// Returns whether a request can be served at once: all files are read and nothing has changed since.
    pub fn is_quiet(&self) -> bool {
        let Some(state) = self.state.try_lock() else { return false };
        matches!(state.stage, MaskStage::Ready)
            && state.found.is_empty()
            && state.watches.iter().all(|(_, watch)| watch.is_quiet())
    }

    /// Returns whether there are files that must be masked and are not yet. May block.
    pub fn has_new_secrets(&self) -> bool {
        let passed = self.direct && self.writing.swap(false, Ordering::SeqCst);
        let mut state = self.wait_ready();
        let MaskState { watches, found, .. } = &mut *state;
        for (index, watch) in watches {
            if passed {
                // The changes are those of an abandoned command.
                watch.ignore_own_changes();
            } else {
                found.extend(watch.new_credentials().into_iter().map(|path| (*index, path)));
            }
        }
        !found.is_empty()
    }

    /// Notes that a writing operation begins.
    pub fn begin_writing(&self) {
        if self.direct {
            self.writing.store(true, Ordering::SeqCst);
        }
    }

    /// Notes that a writing operation has ended. Returns whether its changes must be [accepted](Self::accept_changes).
    pub fn finish_writing(&self) -> bool {
        if !self.direct {
            return false;
        }
        let quiet = self.is_quiet();
        if quiet {
            self.writing.store(false, Ordering::SeqCst);
        }
        !quiet
    }

    /// Accepts the changes made meanwhile as the run's own.
    pub fn accept_changes(&self) {
        let mut state = self.wait_ready();
        state.watches.iter_mut().for_each(|(_, watch)| watch.ignore_own_changes());
        self.writing.store(false, Ordering::SeqCst);
    }

    /// Returns the masks that must be added. Waits until all files are read.
    pub(super) fn pending_masks(&self) -> Vec<FileMask> {
        let state = self.wait_ready();
        let repo = |index: usize| state.repos.get(index);
        state.found.iter().filter_map(|(index, path)| Some(new_mask(repo(*index)?, *index, path))).collect()
    }

    /// Returns the background scan's warnings for the user.
    pub fn warnings(&self) -> Vec<String> {
        self.state.try_lock().map(|state| state.warnings.clone()).unwrap_or_default()
    }
}

impl RunWorkspace {
    /// Returns the masks of the workspace.
    pub fn secret_masks(&self) -> Arc<SecretMasks> {
        Arc::clone(&self.secret_masks)
    }

    /// Saves the masks that must be added, for the next sandbox of the run.
    pub fn save_masks(&self) -> Result<(), Error> {
        self.wait_baseline_saved(&self.own)?;
        let Some(mut meta) = self.layout.load_meta()? else { return Ok(()) };
        if add_masks(&mut meta, self.secret_masks.pending_masks()) {
            self.layout.save_meta(&meta)?;
        }
        Ok(())
    }
}

/// Adds masks that are new or have changed; returns whether there were any.
pub(super) fn add_masks(meta: &mut WorkspaceMeta, more: Vec<FileMask>) -> bool {
    if more.is_empty() {
        return false;
    }
    let mut added = false;
    let mut at: HashMap<(usize, Vec<u8>), usize> =
        meta.masks.iter().zip(0..).map(|(mask, at)| ((mask.repo, mask.path.clone()), at)).collect();
    for mask in more {
        match at.entry((mask.repo, mask.path.clone())) {
            // The path may name another file now.
            Entry::Occupied(known) => {
                let known = &mut meta.masks[*known.get()];
                added |= known.content != mask.content;
                known.content = mask.content;
            }
            Entry::Vacant(free) => {
                free.insert(meta.masks.len());
                meta.masks.push(mask);
                added = true;
            }
        }
    }
    added
}

/// The masks of one repository, indexed for many lookups.
pub(super) struct MaskIndex<'a> {
    paths: HashSet<&'a [u8]>,
    /// Contents of masked files, and whether files with that content are masked under every name.
    contents: HashMap<Digest, bool>,
}

impl<'a> MaskIndex<'a> {
    pub(super) fn new(meta: &'a WorkspaceMeta, repo: usize) -> Self {
        let (mut paths, mut contents) = (HashSet::new(), HashMap::new());
        for mask in meta.masks.iter().filter(|mask| mask.repo == repo) {
            paths.insert(mask.path.as_slice());
            if let Some(content) = mask.content {
                *contents.entry(content).or_default() |= mask.matches_by_content();
            }
        }
        Self { paths, contents }
    }

    /// Returns whether a path is masked or has the content of a masked file: such a file can be moved with its
    /// directory.
    pub(super) fn is_masked(&self, path: &RelPath, now: Option<&TreeNode>) -> bool {
        let content = match now {
            Some(TreeNode::File { content, .. }) => {
                content.as_ref().and_then(|content| self.contents.get(content))
            }
            _ => None,
        };
        self.paths.contains(path.as_bytes())
            || content.is_some_and(|always| *always || masks::can_be_credential(path.as_path()))
    }
}

/// Returns the masked paths of one repository.
pub(super) fn mask_paths(masks: &[FileMask], index: usize) -> Vec<RelPath> {
    masks.iter().filter(|mask| mask.repo == index).filter_map(FileMask::rel_path).collect()
}
