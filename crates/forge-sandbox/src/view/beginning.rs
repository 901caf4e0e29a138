//! Making the beginning of a view durable, beside everything else that is done for a run.

use super::covers::{self, Covers};
use super::open::LOOK;
use super::place::{Meta, Place};
use super::{Kind, View, view_error};
use forge_ports::sandbox::Error;
use forge_snapshot::{Base, BaseSaver, Bounds, Tracker};
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
    Failed(Error),
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

    /// The same work within other bounds.
    pub(super) fn within(mut self, bounds: &Bounds) -> Self {
        self.contents = self.contents.into_iter().map(|contents| contents.within(bounds)).collect();
        self
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
            Err(error) => Self::failed(format!("no thread could be started: {error}")),
        }
    }

    /// Waits for its end, as long as that is wanted.
    fn ended(self, bounds: &Bounds) -> (Self, Result<(), Error>) {
        let begun = self.begun();
        if let Self::Saving(thread) = &begun {
            while !thread.is_finished() {
                if let Err(error) = bounds.check() {
                    return (begun, Err(view_error(&error)));
                }
                std::thread::park_timeout(LOOK);
            }
        }
        let ended = match begun {
            Self::Saving(thread) => match thread.join() {
                Ok(Ok(())) => Self::Safe,
                Ok(Err(error)) => Self::Failed(error),
                Err(_) => Self::failed("the beginning of the run could not be kept".to_owned()),
            },
            other => other,
        };
        (ended, Ok(()))
    }

    fn failed(why: String) -> Self {
        Self::Failed(Error::View { why })
    }
}

/// The same error once more.
fn again(error: &Error) -> Error {
    match error {
        Error::Ceiling { why } => Error::Ceiling { why: why.clone() },
        Error::Stopped => Error::Stopped,
        Error::View { why } => Error::View { why: why.clone() },
        other => Error::View { why: other.to_string() },
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
    pub(crate) fn make_safe(&self, bounds: &Bounds) -> Result<(), Error> {
        if self.safe.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        let (so_far, waited) = std::mem::replace(&mut *beginning, Beginning::Safe).ended(bounds);
        *beginning = so_far;
        waited?;
        match &*beginning {
            Beginning::Failed(error) => Err(again(error)),
            _ => {
                self.safe.store(true, Ordering::Release);
                Ok(())
            }
        }
    }
}
