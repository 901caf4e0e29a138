//! What of a workspace is covered: what a first look tells, what reading adds, and what comes to be while a box is open.
//!
//! Hardly anything is read before a box opens. The rest is read on a thread beside what follows, and a watch is put on the
//! repositories; before the first request is served that has ended. What it finds is covered by opening the box once more.

use super::place::{Kind, Mask, Meta, Place, Repo};
use super::{Store, View};
use crate::masks;
use forge_covers::{Covered, Revealed, Unread, Watch, Watched};
use forge_ports::sandbox::Error;
use forge_snapshot::{Base, Node, RelPath};
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
const READ_AT_ONCE: usize = 32;
/// An index of git of more bytes is looked at beside the box only.
const MAX_QUICK_INDEX_BYTES: u64 = 256 << 10;

/// Covers of one open box.
#[derive(Debug)]
pub(crate) struct Covers {
    state: Mutex<State>,
    ready: Condvar,
    stop: AtomicBool,
    /// Whether the box works in the repositories themselves: what changes there is a person's or the run's own.
    direct: bool,
    /// Something that writes is running, or was and nobody looked since.
    writing: AtomicBool,
}

#[derive(Debug)]
struct State {
    stage: Stage,
    watches: Vec<(usize, Watch)>,
    /// What has to be covered and is not, by the number of its repository.
    found: Vec<(usize, PathBuf)>,
    repos: Vec<Repo>,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Stage {
    Waiting(Vec<Job>),
    Working,
    Ready,
}

/// What has to be done for one repository.
#[derive(Debug)]
pub(super) struct Job {
    index: usize,
    root: PathBuf,
    unread: Option<Unread>,
    watch: Option<Begin>,
    /// Whether git's index is still to be looked at.
    history: bool,
    /// The upper layer of an overlay in which earlier boxes of the run may have renamed folders.
    renamed: Option<PathBuf>,
    covered: Vec<PathBuf>,
}

/// A watch that is to begin.
#[derive(Debug)]
struct Begin {
    base: Arc<Base>,
    revealed: Revealed,
    covered: Vec<Covered>,
    upper: Option<PathBuf>,
    /// In a repository that earlier boxes of the run worked in, what is new is the run's own, unless it holds this.
    known: Option<HashSet<Digest>>,
}

/// What a first look found.
#[derive(Debug, Default)]
pub(super) struct Look {
    unread: Vec<Option<Unread>>,
    history: Vec<bool>,
}

/// Looks through the repositories of a new view, and takes note of what is to be covered. `all`: whatever has to be read for
/// it is read now.
pub(super) fn look(store: &Store, meta: &mut Meta, bases: &[Arc<Base>], reveal: &[String]) -> Look {
    let mut look = Look::default();
    // A copy is made without what is covered, so everything must be known before.
    let all = matches!(meta.kind, Kind::Copy | Kind::Reflink);
    for (index, (repo, base)) in meta.repos.clone().iter().zip(bases).enumerate() {
        let revealed = Revealed::new(&reveal_in(repo, reveal));
        let mut found = forge_covers::among(&repo.path, base, revealed, store.known(repo));
        meta.warnings.append(&mut found.warnings);
        let unread = if all || found.unread.len() <= READ_AT_ONCE {
            found.paths.extend(found.unread.read(&AtomicBool::new(false)));
            None
        } else {
            Some(found.unread)
        };
        let paths: Vec<PathBuf> = found.paths.into_iter().collect();
        let quick = index_bytes(&repo.path) <= MAX_QUICK_INDEX_BYTES;
        if quick {
            meta.warnings.extend(history(&repo.path, &paths));
        }
        look.history.push(!quick);
        meta.masks.extend(paths.iter().map(|path| mask(repo, index, path)));
        look.unread.push(unread);
    }
    look
}

/// What of the paths that the user reveals is meant in one of several repositories.
fn reveal_in(repo: &Repo, reveal: &[String]) -> Vec<String> {
    let inside = |path: &String| {
        let named = path.trim_start_matches("./").trim_start_matches("/workspace/");
        let below = named.strip_prefix(&repo.name).and_then(|rest| rest.strip_prefix('/'));
        below.filter(|_| !repo.name.is_empty()).unwrap_or(named).to_owned()
    };
    reveal.iter().map(inside).collect()
}

fn mask(repo: &Repo, index: usize, path: &Path) -> Mask {
    Mask {
        repo: index,
        content: masks::content(&repo.path, path),
        path: path.as_os_str().as_bytes().to_vec(),
    }
}

fn index_bytes(repo: &Path) -> u64 {
    std::fs::symlink_metadata(repo.join(".git/index")).map_or(0, |meta| meta.len())
}

/// What the user should know of the history of a repository.
fn history(repo: &Path, covered: &[PathBuf]) -> Option<String> {
    let tracked = forge_covers::tracked(repo, covered);
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
fn moved(upper: &Path, covered: &[PathBuf]) -> Vec<PathBuf> {
    let paths: Vec<RelPath> =
        covered.iter().filter_map(|path| RelPath::new(path.as_os_str().as_bytes())).collect();
    if paths.is_empty() {
        return Vec::new();
    }
    let seen = forge_covers::seen_renamed(upper, &paths).into_iter().filter(|path| !paths.contains(path));
    seen.map(|path| path.as_path().to_owned()).collect()
}

impl Store {
    /// Where is remembered what of a repository was read.
    fn known(&self, repo: &Repo) -> Option<PathBuf> {
        let device = std::fs::metadata(&repo.path).ok()?.dev();
        let name = [device.to_le_bytes().as_slice(), repo.path.as_os_str().as_bytes()].concat();
        self.views.parent().map(|data| data.join("covers").join(Digest::of(&name).to_string()))
    }
}

impl Covers {
    /// The covers of a view; `look` is that of a new one.
    pub(super) fn new(
        place: &Place,
        meta: &Meta,
        bases: &[Arc<Base>],
        reveal: &[String],
        look: Option<Look>,
    ) -> Arc<Self> {
        let is_new = look.is_some();
        let Look { mut unread, history } = look.unwrap_or_default();
        let mut jobs = Vec::new();
        for (index, repo) in meta.repos.iter().enumerate() {
            let covered: Vec<PathBuf> = meta
                .masks
                .iter()
                .filter(|mask| mask.repo == index)
                .map(|mask| PathBuf::from(OsStr::from_bytes(&mask.path)))
                .collect();
            let upper = match meta.kind {
                Kind::Overlay => Some(place.upper(index)),
                Kind::Direct | Kind::Reflink | Kind::Copy => None,
            };
            let number =
                |path: &PathBuf| std::fs::symlink_metadata(repo.path.join(path)).ok().map(|meta| meta.ino());
            let watch = matches!(meta.kind, Kind::Overlay | Kind::Direct).then(|| Begin {
                base: Arc::clone(&bases[index]),
                revealed: Revealed::new(&reveal_in(repo, reveal)),
                covered: covered
                    .iter()
                    .map(|path| Covered { path: path.clone(), number: number(path) })
                    .collect(),
                upper,
                known: (meta.kind == Kind::Direct && !is_new)
                    .then(|| meta.masks.iter().filter_map(|mask| mask.content).collect()),
            });
            jobs.push(Job {
                index,
                root: repo.path.clone(),
                unread: unread.get_mut(index).and_then(Option::take),
                watch,
                history: history.get(index).copied().unwrap_or(false),
                renamed: (meta.kind == Kind::Overlay && !is_new).then(|| place.upper(index)),
                covered,
            });
        }
        let state = State {
            stage: Stage::Waiting(jobs),
            watches: Vec::new(),
            found: Vec::new(),
            repos: meta.repos.clone(),
            warnings: Vec::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            ready: Condvar::new(),
            stop: AtomicBool::new(false),
            direct: meta.kind == Kind::Direct,
            writing: AtomicBool::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to read what is unread, on a thread of its own.
    pub(super) fn begin(self: &Arc<Self>) {
        let own = Arc::clone(self);
        // Without a thread it is done when it is waited for.
        let _ = std::thread::Builder::new().name("forge-covers".to_owned()).spawn(move || own.work());
    }

    /// Nobody needs it any more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Does what is waiting, if anything is.
    fn work(&self) {
        let jobs = {
            let mut state = self.lock();
            match std::mem::replace(&mut state.stage, Stage::Working) {
                Stage::Waiting(jobs) => jobs,
                stage => {
                    state.stage = stage;
                    return;
                }
            }
        };
        let (mut found, mut watches, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for job in jobs {
            let Job { index, root, unread, watch, history: look_at_history, renamed, mut covered } = job;
            if let Some(upper) = renamed {
                found.extend(moved(&upper, &covered).into_iter().map(|path| (index, path)));
            }
            if let Some(unread) = unread {
                let keys = unread.read(&self.stop);
                covered.extend(keys.iter().cloned());
                found.extend(keys.into_iter().map(|path| (index, path)));
            }
            if look_at_history {
                warnings.extend(history(&root, &covered));
            }
            let Some(begin) = watch.filter(|_| !self.stop.load(Ordering::Relaxed)) else { continue };
            let watched = Watched {
                root: &root,
                base: &begin.base,
                revealed: begin.revealed,
                covered: begin.covered,
                upper: begin.upper,
            };
            if let Some(mut watch) = Watch::new(watched) {
                let mut first = watch.first_news();
                if let Some(known) = &begin.known {
                    first.retain(|path| {
                        masks::content(&root, path).is_some_and(|content| known.contains(&content))
                    });
                }
                found.extend(first.into_iter().map(|path| (index, path)));
                watches.push((index, watch));
            }
        }
        let mut state = self.lock();
        state.stage = Stage::Ready;
        state.found = found;
        state.watches = watches;
        state.warnings = warnings;
        drop(state);
        self.ready.notify_all();
    }

    /// Waits until everything is read.
    fn wait(&self) -> MutexGuard<'_, State> {
        self.work();
        let mut state = self.lock();
        while !matches!(state.stage, Stage::Ready) {
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    /// Whether a request can be served at once: all is read and nothing happened since.
    pub(crate) fn is_quiet(&self) -> bool {
        let Ok(state) = self.state.try_lock() else { return false };
        matches!(state.stage, Stage::Ready)
            && state.found.is_empty()
            && state.watches.iter().all(|(_, watch)| watch.is_quiet())
    }

    /// Whether something has to be covered that is not. May wait.
    pub(crate) fn has_news(&self) -> bool {
        let passed = self.direct && self.writing.swap(false, Ordering::SeqCst);
        let mut state = self.wait();
        let State { watches, found, .. } = &mut *state;
        for (index, watch) in watches {
            if passed {
                // A command that was given up wrote.
                watch.pass_over();
            } else {
                found.extend(watch.news().into_iter().map(|path| (*index, path)));
            }
        }
        !found.is_empty()
    }

    /// Something begins that writes.
    pub(crate) fn begin_writing(&self) {
        if self.direct {
            self.writing.store(true, Ordering::SeqCst);
        }
    }

    /// Something ended that wrote: whether what happened meanwhile has to be [passed over](Self::pass_over).
    pub(crate) fn must_pass_over(&self) -> bool {
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
    pub(crate) fn pass_over(&self) {
        let mut state = self.wait();
        state.watches.iter_mut().for_each(|(_, watch)| watch.pass_over());
        self.writing.store(false, Ordering::SeqCst);
    }

    /// What has to be covered beside what is. Waits until everything is read.
    pub(super) fn more(&self) -> Vec<Mask> {
        let state = self.wait();
        let repo = |index: usize| state.repos.get(index);
        state.found.iter().filter_map(|(index, path)| Some(mask(repo(*index)?, *index, path))).collect()
    }

    /// What the user should know that was found beside the box.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.state.try_lock().map(|state| state.warnings.clone()).unwrap_or_default()
    }
}

impl View {
    /// What is covered.
    pub(crate) fn covers(&self) -> Arc<Covers> {
        Arc::clone(&self.covers)
    }

    /// Writes down what has to be covered beside what is, for the next box of the run.
    pub(crate) fn keep_covers(&self) -> Result<(), Error> {
        self.make_safe(&self.own)?;
        let Some(mut meta) = self.place.load()? else { return Ok(()) };
        if add(&mut meta, self.covers.more()) {
            self.place.save(&meta)?;
        }
        Ok(())
    }
}

/// Adds masks that are not there; whether there was one.
pub(super) fn add(meta: &mut Meta, more: Vec<Mask>) -> bool {
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
    pub(super) fn new(meta: &'a Meta, repo: usize) -> Self {
        let (mut paths, mut contents) = (HashSet::new(), HashMap::new());
        for mask in meta.masks.iter().filter(|mask| mask.repo == repo) {
            paths.insert(mask.path.as_slice());
            if let Some(content) = mask.content {
                *contents.entry(content).or_default() |= mask.is_told_by_content();
            }
        }
        Self { paths, contents }
    }

    /// Whether a path is masked, or holds what a masked file held: such a file can be moved with its directory.
    pub(super) fn covers(&self, path: &RelPath, now: Option<&Node>) -> bool {
        let content = match now {
            Some(Node::File { content, .. }) => {
                content.as_ref().and_then(|content| self.contents.get(content))
            }
            _ => None,
        };
        self.paths.contains(path.as_bytes())
            || content.is_some_and(|always| *always || masks::can_be_credential(path.as_path()))
    }
}

/// The paths among masks that are in one repository.
pub(super) fn paths(masks: &[Mask], index: usize) -> Vec<RelPath> {
    masks.iter().filter(|mask| mask.repo == index).filter_map(Mask::rel).collect()
}
