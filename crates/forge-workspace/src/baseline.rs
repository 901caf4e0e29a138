//! Making the beginning of a view durable, beside everything else that is done for a run.

use super::layout::{WorkspaceLayout, WorkspaceMeta};
use super::open::POLL_INTERVAL;
use super::secret_masks::{self, SecretMasks};
use super::{RunWorkspace, WorkspaceKind, workspace_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{BaseManifest, BaseSaver, Tracker, WorkBounds};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

/// Where that stands.
#[derive(Debug)]
pub(super) enum BaselineState {
    /// In memory: not while a box is being made, which would wait for the same disk.
    Pending(Box<BaselineWriter>),
    /// On its way.
    Saving(JoinHandle<Result<(), Error>>),
    /// It went wrong, for this reason.
    Failed(Error),
    /// Durable.
    Safe,
}

/// What is written; last what says that there is a view.
#[derive(Debug)]
pub(super) struct BaselineWriter {
    layout: WorkspaceLayout,
    meta: WorkspaceMeta,
    bases: Vec<Arc<BaseManifest>>,
    contents: Vec<BaseSaver>,
    secret_masks: Arc<SecretMasks>,
}

impl BaselineWriter {
    pub(super) fn new(
        place: &WorkspaceLayout,
        meta: &WorkspaceMeta,
        bases: Vec<Arc<BaseManifest>>,
        trackers: &[Tracker],
        covers: &Arc<SecretMasks>,
    ) -> Self {
        let direct = meta.kind == WorkspaceKind::Direct;
        let contents = trackers.iter().filter(|_| direct).map(Tracker::base_saver).collect();
        Self { layout: place.clone(), meta: meta.clone(), bases, contents, secret_masks: Arc::clone(covers) }
    }

    /// The same work within other bounds.
    pub(super) fn with_bounds(mut self, bounds: &WorkBounds) -> Self {
        self.contents = self.contents.into_iter().map(|contents| contents.with_bounds(bounds)).collect();
        self
    }

    fn save(mut self) -> Result<(), Error> {
        // What is covered is not kept.
        let more = self.secret_masks.pending_masks();
        for (index, contents) in self.contents.iter_mut().enumerate() {
            contents.ignore_paths(secret_masks::mask_paths(&more, index));
        }
        secret_masks::add_masks(&mut self.meta, more);
        for (index, base) in self.bases.iter().enumerate() {
            let saved = base.save(&self.layout.base_path(index));
            saved.map_err(|error| self.layout.layout_error("writing", &error))?;
        }
        for contents in self.contents {
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
            Err(error) => Self::from_reason(format!("no thread could be started: {error}")),
        }
    }

    /// Waits for its end, as long as that is wanted.
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
                Err(_) => Self::from_reason("the beginning of the run could not be kept".to_owned()),
            },
            other => other,
        };
        (ended, Ok(()))
    }

    fn from_reason(why: String) -> Self {
        Self::Failed(Error::View { why })
    }
}

/// The same error once more.
fn clone_error(error: &Error) -> Error {
    match error {
        Error::Ceiling { why } => Error::Ceiling { why: why.clone() },
        Error::Stopped => Error::Stopped,
        Error::View { why } => Error::View { why: why.clone() },
        other => Error::View { why: other.to_string() },
    }
}

impl RunWorkspace {
    /// The box stands, or nothing more is done for it: makes the beginning durable, beside what follows.
    pub fn start_saving_baseline(&self) {
        self.secret_masks.start_scanning();
        let mut beginning = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
        *beginning = std::mem::replace(&mut *beginning, BaselineState::Safe).start_saving();
    }

    /// Waits until the beginning is durable.
    pub fn wait_baseline_saved(&self, bounds: &WorkBounds) -> Result<(), Error> {
        if self.safe.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut beginning = self.baseline.lock().unwrap_or_else(PoisonError::into_inner);
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
