//! What of a workspace is covered: what a first look tells, what reading adds, and what comes to be while a box is open.
//!
//! Hardly anything is read before a box opens. The rest is read on a thread beside what follows, and a watch is put on the
//! repositories; before the first request is served that has ended. What it finds is covered by opening the box once more.

use super::layout::{FileMask, RunRepo, WorkspaceKind, WorkspaceLayout, WorkspaceMeta};
use super::{RunWorkspace, WorkspaceStorage};
use crate::masks;
use forge_covers::{CoveredPath, CredentialWatch, RevealedPaths, UnreadFiles, WatchTarget};
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, RelPath, TreeNode};
use forge_types::Digest;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// So many files are read before a box opens: less than a thread costs.
const MAX_READ_AT_OPEN: usize = 32;
/// An index of git of more bytes is looked at beside the box only.
const MAX_QUICK_INDEX_BYTES: u64 = 256 << 10;

/// Covers of one open box.
#[derive(Debug)]
pub struct SecretMasks {
    state: Mutex<MaskState>,
    ready: Condvar,
    stop: AtomicBool,
    /// Whether the box works in the repositories themselves: what changes there is a person's or the run's own.
    direct: bool,
    /// Something that writes is running, or was and nobody looked since.
    writing: AtomicBool,
}

#[derive(Debug)]
struct MaskState {
    stage: MaskStage,
    watches: Vec<(usize, CredentialWatch)>,
    /// What has to be covered and is not, by the number of its repository.
    found: Vec<(usize, PathBuf)>,
    repos: Vec<RunRepo>,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum MaskStage {
    Waiting(Vec<MaskJob>),
    Working,
    Ready,
}

/// What has to be done for one repository.
#[derive(Debug)]
pub(super) struct MaskJob {
    index: usize,
    root: PathBuf,
    unread: Option<UnreadFiles>,
    watch: Option<PendingWatch>,
    /// Whether git's index is still to be looked at.
    history: bool,
    /// The upper layer of an overlay in which earlier boxes of the run may have renamed folders.
    renamed: Option<PathBuf>,
    covered: Vec<PathBuf>,
}

/// A watch that is to begin.
#[derive(Debug)]
struct PendingWatch {
    base: Arc<BaseManifest>,
    revealed: RevealedPaths,
    covered: Vec<CoveredPath>,
    upper: Option<PathBuf>,
    /// In a repository that earlier boxes of the run worked in, what is new is the run's own, unless it holds this.
    known: Option<HashSet<Digest>>,
}

/// What a first look found.
#[derive(Debug, Default)]
pub(super) struct InitialScan {
    unread: Vec<Option<UnreadFiles>>,
    history: Vec<bool>,
}

/// Looks through the repositories of a new view, and takes note of what is to be covered. `all`: whatever has to be read for
/// it is read now.
pub(super) fn scan_repos(
    store: &WorkspaceStorage,
    meta: &mut WorkspaceMeta,
    bases: &[Arc<BaseManifest>],
    reveal: &[String],
) -> InitialScan {
    let mut look = InitialScan::default();
    // A copy is made without what is covered, so everything must be known before.
    let all = matches!(meta.kind, WorkspaceKind::Copy | WorkspaceKind::Reflink);
    for (index, (repo, base)) in meta.repos.clone().iter().zip(bases).enumerate() {
        let revealed = RevealedPaths::new(&revealed_in_repo(repo, reveal));
        let mut found = forge_covers::scan_manifest(&repo.path, base, revealed, store.scan_cache_path(repo));
        meta.warnings.append(&mut found.warnings);
        let unread = if all || found.unread.len() <= MAX_READ_AT_OPEN {
            found.paths.extend(found.unread.find_private_keys(&AtomicBool::new(false)));
            None
        } else {
            Some(found.unread)
        };
        let paths: Vec<PathBuf> = found.paths.into_iter().collect();
        let quick = git_index_bytes(&repo.path) <= MAX_QUICK_INDEX_BYTES;
        if quick {
            meta.warnings.extend(history_warning(&repo.path, &paths));
        }
        look.history.push(!quick);
        meta.masks.extend(paths.iter().map(|path| new_mask(repo, index, path)));
        look.unread.push(unread);
    }
    look
}

/// What of the paths that the user reveals is meant in one of several repositories.
fn revealed_in_repo(repo: &RunRepo, reveal: &[String]) -> Vec<String> {
    let inside = |path: &String| {
        let named = path.trim_start_matches("./").trim_start_matches("/workspace/");
        let below = named.strip_prefix(&repo.name).and_then(|rest| rest.strip_prefix('/'));
        below.filter(|_| !repo.name.is_empty()).unwrap_or(named).to_owned()
    };
    reveal.iter().map(inside).collect()
}

fn new_mask(repo: &RunRepo, index: usize, path: &Path) -> FileMask {
    FileMask {
        repo: index,
        content: masks::masked_content_digest(&repo.path, path),
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

fn git_index_bytes(repo: &Path) -> u64 {
    std::fs::symlink_metadata(repo.join(".git/index")).map_or(0, |meta| meta.len())
}

/// What the user should know of the history of a repository.
fn history_warning(repo: &Path, covered: &[PathBuf]) -> Option<String> {
    let tracked = forge_covers::tracked_credentials(repo, covered);
    let names: Vec<String> = tracked.iter().map(|path| path.display().to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "git's history holds files that look like secrets, and commands can read them there (git show): {}; take them \
             out of the history, and change what stands in them",
            names.join(", ")
        )
    })
}

/// Where covered files are seen that were moved with their folders, and are not covered there.
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
    /// Where is remembered what of a repository was read.
    fn scan_cache_path(&self, repo: &RunRepo) -> Option<PathBuf> {
        let device = std::fs::metadata(&repo.path).ok()?.dev();
        let name = [device.to_le_bytes().as_slice(), repo.path.as_os_str().as_bytes()].concat();
        self.workspaces.parent().map(|data| data.join("covers").join(Digest::of_bytes(&name).to_string()))
    }
}

impl SecretMasks {
    /// The covers of a view; `look` is that of a new one.
    pub(super) fn new(
        place: &WorkspaceLayout,
        meta: &WorkspaceMeta,
        bases: &[Arc<BaseManifest>],
        reveal: &[String],
        look: Option<InitialScan>,
    ) -> Arc<Self> {
        let is_new = look.is_some();
        let InitialScan { mut unread, history } = look.unwrap_or_default();
        let mut jobs = Vec::new();
        for (index, repo) in meta.repos.iter().enumerate() {
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
            let number =
                |path: &PathBuf| std::fs::symlink_metadata(repo.path.join(path)).ok().map(|meta| meta.ino());
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
                root: repo.path.clone(),
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
            repos: meta.repos.clone(),
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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read what is unread, on a thread of its own.
    pub(super) fn start_scanning(self: &Arc<Self>) {
        let own = Arc::clone(self);
        // Without a thread it is done when it is waited for.
        let _ = std::thread::Builder::new().name("forge-covers".to_owned()).spawn(move || own.run_jobs());
    }

    /// Nobody needs it any more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Does what is waiting, if anything is.
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
                warnings.extend(history_warning(&root, &covered));
            }
            let Some(begin) = watch.filter(|_| !self.stop.load(Ordering::Relaxed)) else { continue };
            let watched = WatchTarget {
                root: &root,
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

    /// Waits until everything is read.
    fn wait_ready(&self) -> MutexGuard<'_, MaskState> {
        self.run_jobs();
        let mut state = self.lock_state();
        while !matches!(state.stage, MaskStage::Ready) {
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Whether a request can be served at once: all is read and nothing happened since.
    pub fn is_quiet(&self) -> bool {
        let Ok(state) = self.state.try_lock() else { return false };
        matches!(state.stage, MaskStage::Ready)
            && state.found.is_empty()
            && state.watches.iter().all(|(_, watch)| watch.is_quiet())
    }

    /// Whether something has to be covered that is not. May wait.
    pub fn has_new_secrets(&self) -> bool {
        let passed = self.direct && self.writing.swap(false, Ordering::SeqCst);
        let mut state = self.wait_ready();
        let MaskState { watches, found, .. } = &mut *state;
        for (index, watch) in watches {
            if passed {
                // A command that was given up wrote.
                watch.ignore_own_changes();
            } else {
                found.extend(watch.new_credentials().into_iter().map(|path| (*index, path)));
            }
        }
        !found.is_empty()
    }

    /// Something begins that writes.
    pub fn begin_writing(&self) {
        if self.direct {
            self.writing.store(true, Ordering::SeqCst);
        }
    }

    /// Something ended that wrote: whether what happened meanwhile has to be [passed over](Self::pass_over).
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

    /// What happened meanwhile is the run's own.
    pub fn accept_changes(&self) {
        let mut state = self.wait_ready();
        state.watches.iter_mut().for_each(|(_, watch)| watch.ignore_own_changes());
        self.writing.store(false, Ordering::SeqCst);
    }

    /// What has to be covered beside what is. Waits until everything is read.
    pub(super) fn pending_masks(&self) -> Vec<FileMask> {
        let state = self.wait_ready();
        let repo = |index: usize| state.repos.get(index);
        state.found.iter().filter_map(|(index, path)| Some(new_mask(repo(*index)?, *index, path))).collect()
    }

    /// What the user should know that was found beside the box.
    pub fn warnings(&self) -> Vec<String> {
        self.state.try_lock().map(|state| state.warnings.clone()).unwrap_or_default()
    }
}

impl RunWorkspace {
    /// What is covered.
    pub fn secret_masks(&self) -> Arc<SecretMasks> {
        Arc::clone(&self.secret_masks)
    }

    /// Writes down what has to be covered beside what is, for the next box of the run.
    pub fn save_masks(&self) -> Result<(), Error> {
        self.wait_baseline_saved(&self.own)?;
        let Some(mut meta) = self.layout.load_meta()? else { return Ok(()) };
        if add_masks(&mut meta, self.secret_masks.pending_masks()) {
            self.layout.save_meta(&meta)?;
        }
        Ok(())
    }
}

/// Adds masks that are not there; whether there was one.
pub(super) fn add_masks(meta: &mut WorkspaceMeta, more: Vec<FileMask>) -> bool {
    if more.is_empty() {
        return false;
    }
    let mut added = false;
    let mut at: HashMap<(usize, Vec<u8>), usize> =
        meta.masks.iter().zip(0..).map(|(mask, at)| ((mask.repo, mask.path.clone()), at)).collect();
    for mask in more {
        match at.entry((mask.repo, mask.path.clone())) {
            // Another file may stand there now.
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

/// The masks of one repository, to be asked about many paths.
pub(super) struct MaskIndex<'a> {
    paths: HashSet<&'a [u8]>,
    /// What masked files held, and whether a file with that is masked under every name.
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

    /// Whether a path is masked, or holds what a masked file held: such a file can be moved with its directory.
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

/// The paths among masks that are in one repository.
pub(super) fn mask_paths(masks: &[FileMask], index: usize) -> Vec<RelPath> {
    masks.iter().filter(|mask| mask.repo == index).filter_map(FileMask::rel_path).collect()
}
