//! Every message of a run's conversation, those that a summary took the place of included.

use super::OutOfOrder;
use crate::{Event, EventKind, Message, RunId, RunState};
use std::sync::Arc;

/// A message with its place in the whole conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its number, from 1.
    pub number: u32,
    /// The turn in which it joined; 0 before the first.
    pub turn: u32,
    /// The message.
    pub message: Arc<Message>,
    /// Whether a summary took its place.
    pub gone: bool,
    /// Whether it is a summary itself.
    pub summary: bool,
}

/// A piece of what was said, as it is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The number of its message in the whole conversation.
    pub message: u32,
    /// The turn.
    pub turn: u32,
    /// Who said it.
    pub who: String,
    /// The text.
    pub text: String,
}

/// The fold that forgets nothing.
#[derive(Clone, Debug)]
pub struct Transcript {
    state: RunState,
    entries: Vec<Entry>,
    /// The entries that stand in the state's conversation, in its order.
    shown: Vec<usize>,
}

impl Transcript {
    /// The whole conversation of a journal.
    ///
    /// # Errors
    /// [`OutOfOrder`] at the first event that does not follow the one before.
    pub fn of<'a>(run: RunId, events: impl IntoIterator<Item = &'a Event>) -> Result<Vec<Entry>, OutOfOrder> {
        let mut all = Self { state: RunState::new(run), entries: Vec::new(), shown: Vec::new() };
        for event in events {
            all.apply(event)?;
        }
        Ok(all.entries)
    }

    fn apply(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        self.state.apply(event)?;
        if let EventKind::Compacted { gone, .. } = &event.kind {
            let old = std::mem::take(&mut self.shown);
            for (place, at) in (0_u32..).zip(old) {
                if gone.iter().any(|span| span.holds(place)) {
                    self.entries[at].gone = true;
                } else {
                    self.shown.push(at);
                }
            }
            if let Some(place) = self.state.compact.summary {
                let at = self.add(place as usize);
                self.entries[at].summary = true;
                self.shown.insert((place as usize).min(self.shown.len()), at);
            }
        }
        while self.shown.len() < self.state.messages.len() {
            let at = self.add(self.shown.len());
            self.shown.push(at);
        }
        Ok(())
    }

    fn add(&mut self, place: usize) -> usize {
        self.entries.push(Entry {
            number: u32::try_from(self.entries.len() + 1).unwrap_or(u32::MAX),
            turn: self.state.iterations,
            message: self.state.messages[place].clone(),
            gone: false,
            summary: false,
        });
        self.entries.len() - 1
    }
}
