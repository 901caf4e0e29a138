//! Making the beginning of a view durable, beside everything else that is done for a run.

use super::covers::{self, Covers};
use super::place::{Meta, Place};
use super::{Kind, View, view_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{Base, BaseSaver, Tracker};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;

/// Where that stands.
#[derive(Debug)]
pub(super) enum Beginning {
    /// In memory: not while a box is being made, which would wait for the same disk.
    Kept(Box<Saver>),
    /// On its way.
    Saving(JoinHandle<Result<(), Error>>),
    /// It went wrong, for this reason.
    Failed(String),
    /// Durable.
    Safe,
}

/// What is written; last what says that there is a view.
#[derive(Debug)]
pub(super) struct Saver {
    place: Place,
    meta: Meta,
    bases: Vec<Arc<Base>>,
    contents: Vec<BaseSaver>,
    covers: Arc<Covers>,
}

impl Saver {
    pub(super) fn new(
        place: &Place,
        meta: &Meta,
        bases: Vec<Arc<Base>>,
        trackers: &[Tracker],
        covers: &Arc<Covers>,
    ) -> Self {
        let direct = meta.kind == Kind::Direct;
        let contents = trackers.iter().filter(|_| direct).map(Tracker::base_saver).collect();
        Self { place: place.clone(), meta: meta.clone(), bases, contents, covers: Arc::clone(covers) }
    }

    fn save(mut self) -> Result<(), Error> {
        // What is covered is not kept.
        let more = self.covers.more();
        for (index, contents) in self.contents.iter_mut().enumerate() {
            contents.ignore(covers::paths(&more, index));
        }
        covers::add(&mut self.meta, more);
        for (index, base) in self.bases.iter().enumerate() {
            let saved = base.save(&self.place.base(index));
            saved.map_err(|error| self.place.failed("writing", &error))?;
        }
        for contents in self.contents {
            contents.save().map_err(|error| view_error(&error))?;
        }
        self.place.save(&self.meta)
    }
}

impl Beginning {
    fn begun(self) -> Self {
        let Self::Kept(saver) = self else { return self };
        let thread = std::thread::Builder::new().name("forge-view-save".to_owned());
        match thread.spawn(move || saver.save()) {
            Ok(thread) => Self::Saving(thread),
            Err(error) => Self::Failed(format!("no thread could be started: {error}")),
        }
    }

    fn ended(self) -> Self {
        match self.begun() {
            Self::Saving(thread) => match thread.join() {
                Ok(Ok(())) => Self::Safe,
                Ok(Err(error)) => Self::Failed(error.to_string()),
                Err(_) => Self::Failed("the beginning of the run could not be kept".to_owned()),
            },
            other => other,
        }
    }
}

impl View {
    /// The box stands, or nothing more is done for it: makes the beginning durable, beside what follows.
    pub(crate) fn begin_saving(&self) {
        self.covers.begin();
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        *beginning = std::mem::replace(&mut *beginning, Beginning::Safe).begun();
    }

    /// Waits until the beginning is durable.
    pub(crate) fn make_safe(&self) -> Result<(), Error> {
        if self.safe.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        *beginning = std::mem::replace(&mut *beginning, Beginning::Safe).ended();
        match &*beginning {
            Beginning::Failed(why) => {
                Err(Error::View { why: why.strip_prefix("the workspace: ").unwrap_or(why).to_owned() })
            }
            _ => {
                self.safe.store(true, Ordering::Release);
                Ok(())
            }
        }
    }
}
