//! Making the baseline of a workspace durable in the background while a run starts.

use super::layout::{WorkspaceLayout, WorkspaceMeta};
use super::open::POLL_INTERVAL;
use super::secret_masks::{self, SecretMasks};
use super::{RunWorkspace, WorkspaceKind, workspace_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, BaseSaver, ObjectStore, Tracker, WorkBounds};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

/// The state of a baseline.
#[derive(Debug)]
pub(super) enum BaselineState {
    /// In memory. Writing would compete for the disk while a sandbox is being created.
    Pending(Box<BaselineWriter>),
    /// Being written by this thread.
    Saving(JoinHandle<Result<(), Error>>),
    /// Not written, for this reason.
    Failed(Error),
    /// Durable.
    Safe,
}

/// The data of a baseline. The metadata is written last: its presence means that the workspace exists.
#[derive(Debug)]
pub(super) struct BaselineWriter {
    layout: WorkspaceLayout,
    meta: WorkspaceMeta,
    bases: Vec<Arc<BaseManifest>>,
    contents: Vec<BaseSaver>,
    secret_masks: Arc<SecretMasks>,
    /// The object stores, open until everything is written: the workspace cannot be opened or created again before.
    _objects: Vec<Arc<ObjectStore>>,
}

impl BaselineWriter {
    pub(super) fn new(
        place: &WorkspaceLayout,
        meta: &WorkspaceMeta,
        bases: Vec<Arc<BaseManifest>>,
        trackers: &[Tracker],
        covers: &Arc<SecretMasks>,
        objects: &[Arc<ObjectStore>],
    ) -> Self {
        let direct = meta.kind == WorkspaceKind::Direct;
        let contents = trackers.iter().filter(|_| direct).map(Tracker::base_saver).collect();
        let (layout, meta, secret_masks) = (place.clone(), meta.clone(), Arc::clone(covers));
        Self { layout, meta, bases, contents, secret_masks, _objects: objects.to_vec() }
    }

    /// Returns the same writer with other bounds.
    pub(super) fn with_bounds(mut self, bounds: &WorkBounds) -> Self {
        self.contents = self.contents.into_iter().map(|contents| contents.with_bounds(bounds)).collect();
        self
    }

    fn save(mut self) -> Result<(), Error> {
        // Masked files are not saved.
        let more = self.secret_masks.pending_masks();
        for (index, contents) in self.contents.iter_mut().enumerate() {
            contents.ignore_paths(secret_masks::mask_paths(&more, index));
        }
        secret_masks::add_masks(&mut self.meta, more);
        for (index, base) in self.bases.iter().enumerate() {
            let saved = base.save(&self.layout.base_path(index));
            saved.map_err(|error| self.layout.layout_error("writing", &error))?;
        }
        for contents in std::mem::take(&mut self.contents) {
            contents.save().map_err(|error| workspace_error(&error))?;
        }
        self.layout.save_meta(&self.meta)
    }
}

impl BaselineState {
    fn start_saving(self) -> Self {
        let Self::Pending(saver) = self else { return self };
        let thread = std::thread::Builder::new().name("forge-view-save".to_owned());
        match thread.spawn(move || saver.save()) {
            Ok(thread) => Self::Saving(thread),
            Err(error) => Self::from_reason(format!("cannot start a thread: {error}")),
        }
    }

    /// Waits until writing has ended, or until the bounds stop the wait.
    fn wait_saved(self, bounds: &WorkBounds) -> (Self, Result<(), Error>) {
        let begun = self.start_saving();
        if let Self::Saving(thread) = &begun {
            while !thread.is_finished() {
                if let Err(error) = bounds.check_stopped() {
                    return (begun, Err(workspace_error(&error)));
                }
                std::thread::park_timeout(POLL_INTERVAL);
            }
        }
        let ended = match begun {
            Self::Saving(thread) => match thread.join() {
                Ok(Ok(())) => Self::Safe,
                Ok(Err(error)) => Self::Failed(error),
                Err(_) => Self::from_reason("the baseline of the run could not be saved".to_owned()),
            },
            other => other,
        };
        (ended, Ok(()))
    }

    fn from_reason(why: String) -> Self {
        Self::Failed(Error::View { why })
    }
}

/// Returns a copy of an error.
fn clone_error(error: &Error) -> Error {
    match error {
        Error::Ceiling { why } => Error::Ceiling { why: why.clone() },
        Error::Stopped => Error::Stopped,
        Error::View { why } => Error::View { why: why.clone() },
        other => Error::View { why: other.to_string() },
    }
}

impl RunWorkspace {
    /// Starts writing the baseline in the background. Called once the setup of the sandbox is over.
    pub fn start_saving_baseline(&self) {
        self.secret_masks.start_scanning();
        let mut beginning = self.baseline.lock();
        *beginning = std::mem::replace(&mut *beginning, BaselineState::Safe).start_saving();
    }

    /// Waits until the baseline is durable.
    pub fn wait_baseline_saved(&self, bounds: &WorkBounds) -> Result<(), Error> {
        if self.safe.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut beginning = self.baseline.lock();
        let (so_far, waited) = std::mem::replace(&mut *beginning, BaselineState::Safe).wait_saved(bounds);
        *beginning = so_far;
        waited?;
        match &*beginning {
            BaselineState::Failed(error) => Err(clone_error(error)),
            _ => {
                self.safe.store(true, Ordering::Release);
                Ok(())
            }
        }
    }
}
