//! Snapshots of a workspace, and its restoration to one.
//!
//! A workspace is a directory that started as a repository, and a snapshot holds its differences from that baseline.
//! It is stored as a tree of directory objects (`tree`), so that unchanged parts cost nothing. Two layouts are
//! supported: the upper layer of an overlay (read by `overlay`), and a full copy or the repository itself (read by
//! `full_scan`). `restore_plan` determines the files on disk for a snapshot, `rebuild` creates them.
//!
//! A snapshot includes a file that differs only in its time or its hard links, so that a restore is exact; a
//! [`TreeDelta`] for display omits it, because [`TreeNode::is_equivalent`](crate::TreeNode::is_equivalent) holds.

mod digest_cache;
mod disk_entry;
mod full_scan;
mod overlay;
mod rebuild;
mod replica;
mod restore_plan;
mod scan;
mod tree;

use crate::TreeRoot;
use crate::base::BaseManifest;
use crate::bounds::WorkBounds;
use crate::error::{Error, IoContext};
use crate::node::{DeltaEntry, RelPath, TreeDelta};
use crate::objects::ObjectStore;
use digest_cache::DigestCache;
use forge_types::Digest;
use parking_lot::Mutex;
use scan::{ContentPolicy, WorkspaceScan};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

pub use replica::{CopyKind, CopyStats, copy_tree};

/// A delta with everything that a restore needs, including differences only in time or hard links.
type FullDelta = BTreeMap<RelPath, DeltaEntry>;

/// The namespace of the overlay's own attributes, which depends on how it was mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayXattrs {
    /// `user.overlay.*`: mounted with `userxattr`, in a user namespace.
    User,
    /// `trusted.overlay.*`: mounted by root.
    Trusted,
}

/// The layout of a workspace on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Only the differences from the repository, as the upper layer of an overlay.
    Overlay {
        /// The upper layer's directory. Must not be mounted while [`Tracker::restore`] runs.
        upper: PathBuf,
        /// The namespace of the overlay's attributes.
        attributes: OverlayXattrs,
    },
    /// All files: a private copy made by [`copy_tree`], or the repository itself.
    Directory {
        /// The directory.
        root: PathBuf,
    },
}

/// Options of a [`Tracker`].
#[derive(Clone, Debug)]
pub struct TrackerOptions {
    /// The baseline of the repository.
    pub base: Arc<BaseManifest>,
    /// The repository.
    pub lower: TreeRoot,
    /// The workspace. A directory with the path of the repository is the repository.
    pub layout: Layout,
    /// The store for snapshots and contents.
    pub objects: Arc<ObjectStore>,
    /// Paths that are never read, changed or included in a snapshot, with everything below them: masked credentials.
    pub ignored: Vec<RelPath>,
    /// Owner and group of files that root creates; `None`: those of the process.
    pub owner: Option<(u32, u32)>,
}

/// A tracker that takes snapshots of a workspace and restores it to one.
#[derive(Debug)]
pub struct Tracker {
    options: TrackerOptions,
    ignored: HashSet<RelPath>,
    /// The manifest of the complete, unmodified workspace; for a copy, the stamps of the copied files.
    seen: Arc<BaseManifest>,
    root: TreeRoot,
    digest_cache: Arc<Mutex<DigestCache>>,
    /// Hard links of the baseline by inode number, computed on demand.
    links: OnceLock<HashMap<u64, Vec<usize>>>,
    seen_links: OnceLock<HashMap<u64, Vec<usize>>>,
    /// The bounds of the current work.
    bounds: WorkBounds,
}

impl Tracker {
    /// Opens a tracker of an existing workspace.
    ///
    /// # Errors
    /// Returns the host's error if a directory is missing or unreadable.
    pub fn open(options: TrackerOptions) -> Result<Self, Error> {
        let root = match &options.layout {
            Layout::Directory { root } if root == options.lower.path() => options.lower.clone(),
            Layout::Overlay { upper: root, .. } | Layout::Directory { root } => {
                TreeRoot::open(root).io_context("open", root)?
            }
        };
        let copy = is_copy(&options);
        let stamps = options.objects.directory().join(replica::COPY_STAMPS_FILE);
        let seen = match BaseManifest::load(&stamps) {
            Ok(stamps) if copy => Arc::new(stamps),
            // Without the stamps, every file of a copy is compared by its content.
            _ => options.base.clone(),
        };
        let mut known = DigestCache::default();
        known.load_base_digests(options.objects.directory(), &options.base);
        Ok(Self {
            root,
            seen,
            ignored: options.ignored.iter().cloned().collect(),
            digest_cache: Arc::new(Mutex::new(known)),
            links: OnceLock::new(),
            seen_links: OnceLock::new(),
            bounds: WorkBounds::unbounded().clone(),
            options,
        })
    }

    /// Sets the bounds of all further work; unbounded by default.
    pub fn set_bounds(&mut self, bounds: &WorkBounds) {
        self.bounds = bounds.clone();
    }

    /// Returns the digest of the snapshot of an unchanged workspace, which is always the same.
    pub fn baseline_digest() -> Digest {
        tree::empty_tree_digest()
    }

    /// Records that [`copy_tree`] has just created this workspace, so that unmodified files need not be read.
    /// Persisted next to the objects.
    ///
    /// # Errors
    /// Returns the host's error.
    pub fn adopt_copy(&mut self, copy: CopyStats) -> Result<(), Error> {
        self.adopt_stamps(copy.stamps)
    }

    /// Records that the unmodified copy was given to another owner, which updates all of its change times. Otherwise
    /// unmodified files could only be recognized by their contents, and not at all after a change in the repository.
    /// Does nothing if there is no copy.
    ///
    /// # Errors
    /// Returns the host's error.
    pub fn adopt_owner(&mut self) -> Result<(), Error> {
        if !is_copy(&self.options) {
            return Ok(());
        }
        replica::wait_clock_tick();
        let stamps = BaseManifest::scan_owned_tree(&self.root, &self.bounds);
        self.adopt_stamps(stamps.io_context("inspect", self.root.path())?)
    }

    fn adopt_stamps(&mut self, stamps: BaseManifest) -> Result<(), Error> {
        let path = self.options.objects.directory().join(replica::COPY_STAMPS_FILE);
        stamps.save(&path).io_context("write", &path)?;
        self.seen = Arc::new(stamps);
        self.links = OnceLock::new();
        self.seen_links = OnceLock::new();
        Ok(())
    }

    /// Stores the contents of all baseline files, durably. Required before any change if the workspace is the
    /// repository itself.
    ///
    /// # Errors
    /// Returns [`Error::Full`] or the host's error.
    pub fn save_base(&self) -> Result<(), Error> {
        self.base_saver().save()
    }

    /// Returns the work of [`Tracker::save_base`] for another thread.
    pub fn base_saver(&self) -> BaseSaver {
        let bounds = self.bounds.clone();
        BaseSaver { options: self.options.clone(), digest_cache: self.digest_cache.clone(), bounds }
    }

    /// Takes a snapshot and makes it durable. Equal states have equal digests. Works while the workspace is in use;
    /// a file that is written to continuously is stored in a state that a reader could have seen.
    ///
    /// # Errors
    /// Returns [`Error::Full`], [`Error::Ceiling`] or [`Error::Stopped`], after which earlier snapshots are
    /// preserved, or the host's error.
    pub fn snapshot(&mut self) -> Result<Digest, Error> {
        let id = self.snapshot_unflushed()?;
        self.options.objects.flush()?;
        Ok(id)
    }

    /// Takes a snapshot like [`Tracker::snapshot`] without making it durable, which [`ObjectStore::flush`] does.
    ///
    /// # Errors
    /// Returns the errors of [`Tracker::snapshot`].
    pub fn snapshot_unflushed(&mut self) -> Result<Digest, Error> {
        self.scan_and_store()
            .map_err(|error| error.in_repository(self.root.path(), self.options.lower.path()))
    }

    fn scan_and_store(&mut self) -> Result<Digest, Error> {
        self.lock_digest_cache().begin_scan();
        let scan = self.scan_workspace(ContentPolicy::Store)?;
        let found = scan.into_entries()?;
        let id = tree::store_delta(&self.options.objects, found)?;
        self.lock_digest_cache().end_scan();
        Ok(id)
    }

    /// Returns the store of the snapshots' contents.
    #[must_use]
    pub fn objects(&self) -> Arc<ObjectStore> {
        Arc::clone(&self.options.objects)
    }

    /// Returns the differences of a snapshot from the baseline.
    ///
    /// # Errors
    /// Returns [`Error::Missing`], [`Error::Damaged`] or the host's error.
    pub fn snapshot_delta(&self, id: Digest) -> Result<TreeDelta, Error> {
        load_delta(&self.options.objects, id, &self.bounds)
    }

    /// Restores the workspace to the exact state of a snapshot, changing only differences. No sandbox may use it and
    /// no overlay may be mounted. If interrupted, the next call completes the work.
    ///
    /// # Errors
    /// Returns [`Error::Missing`] or [`Error::Damaged`] before any change; [`Error::Lost`], [`Error::Full`] or the
    /// host's error.
    pub fn restore(&mut self, id: Digest) -> Result<(), Error> {
        let full = tree::load_full_delta(&self.options.objects, id, &self.bounds)?;
        self.lock_digest_cache().learn_from_snapshot(&full, &self.options.base);
        let plan = restore_plan::plan_restore(self, full)?;
        rebuild::rebuild_workspace(self, plan)
    }

    fn lock_digest_cache(&self) -> parking_lot::MutexGuard<'_, DigestCache> {
        self.digest_cache.lock()
    }

    /// Returns the path of the workspace, for messages.
    fn workspace_path(&self) -> &Path {
        self.root.path()
    }

    /// Returns whether a path is masked.
    fn is_ignored(&self, path: &RelPath) -> bool {
        is_ignored(&self.ignored, path)
    }

    fn scan_workspace(&self, contents: ContentPolicy) -> Result<WorkspaceScan<'_>, Error> {
        let scan = WorkspaceScan::new(self, contents);
        match &self.options.layout {
            Layout::Overlay { attributes, .. } => overlay::scan_overlay(&scan, *attributes)?,
            Layout::Directory { .. } => full_scan::scan_directory(&scan)?,
        }
        Ok(scan)
    }
}

/// Returns whether the workspace is a private copy.
fn is_copy(options: &TrackerOptions) -> bool {
    matches!(&options.layout, Layout::Directory { root } if root != options.lower.path())
}

fn is_ignored(ignored: &HashSet<RelPath>, path: &RelPath) -> bool {
    !ignored.is_empty() && ignored.iter().any(|masked| path.is_below(masked))
}

/// The work of [`Tracker::base_saver`].
#[derive(Debug)]
pub struct BaseSaver {
    options: TrackerOptions,
    digest_cache: Arc<Mutex<DigestCache>>,
    bounds: WorkBounds,
}

impl BaseSaver {
    /// Ignores additional paths, with everything below them.
    pub fn ignore_paths(&mut self, paths: Vec<RelPath>) {
        self.options.ignored.extend(paths);
    }

    /// Returns the same work with other bounds.
    #[must_use]
    pub fn with_bounds(self, bounds: &WorkBounds) -> Self {
        Self { bounds: bounds.clone(), ..self }
    }

    /// Runs the work; see [`Tracker::save_base`].
    ///
    /// # Errors
    /// Returns [`Error::Full`] or the host's error.
    pub fn save(&self) -> Result<(), Error> {
        digest_cache::save_base_contents(&self.options, &self.digest_cache, &self.bounds)
    }
}

/// Returns the differences of a snapshot from the baseline. Differences only in time are omitted.
///
/// # Errors
/// Returns [`Error::Missing`], [`Error::Damaged`], [`Error::Ceiling`], [`Error::Stopped`] or the host's error.
pub fn load_delta(objects: &ObjectStore, id: Digest, bounds: &WorkBounds) -> Result<TreeDelta, Error> {
    let mut full: FullDelta = tree::load_full_delta(objects, id, bounds)?;
    full.retain(|_, entry| match (&entry.before, &entry.after) {
        (Some(was), Some(now)) => !was.is_equivalent(now),
        _ => true,
    });
    Ok(full)
}
