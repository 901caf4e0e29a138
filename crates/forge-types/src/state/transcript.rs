//! The complete conversation of a run, including summarised messages.

use super::OutOfOrder;
use crate::{Event, EventKind, Message, RunId, RunState};
use std::sync::Arc;

/// A message and its position in the complete conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct TranscriptEntry {
    /// The message's number, from 1.
    pub number: u32,
    /// The turn in which the message was added; 0 before the first.
    pub turn: u32,
    /// The message.
    pub message: Arc<Message>,
    /// Whether a summary replaced the message.
    pub gone: bool,
    /// Whether the message is a summary.
    pub summary: bool,
}

/// An excerpt of a message, as a lookup returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The message's number in the complete conversation.
    pub message: u32,
    /// The turn.
    pub turn: u32,
    /// The speaker.
    pub who: String,
    /// The text.
    pub text: String,
}

/// A fold that keeps summarised messages.
#[derive(Clone, Debug)]
pub struct Transcript {
    state: RunState,
    entries: Vec<TranscriptEntry>,
    /// The entries of the state's conversation, in its order.
    visible: Vec<usize>,
}

impl Transcript {
    /// Returns the complete conversation of a journal.
    ///
    /// # Errors
    /// Returns [`OutOfOrder`] at the first event that does not follow its predecessor.
    pub fn from_events<'a>(
        run: RunId,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Result<Vec<TranscriptEntry>, OutOfOrder> {
        let mut all = Self { state: RunState::new(run), entries: Vec::new(), visible: Vec::new() };
        for event in events {
            all.apply(event)?;
        }
        Ok(all.entries)
    }

    fn apply(&mut self, event: &Event) -> Result<(), OutOfOrder> {
        self.state.apply(event)?;
        if let EventKind::Compacted { gone, .. } = &event.kind {
            let old = std::mem::take(&mut self.visible);
            for (place, at) in (0_u32..).zip(old) {
                if gone.iter().any(|span| span.holds(place)) {
                    self.entries[at].gone = true;
                } else {
                    self.visible.push(at);
                }
            }
            if let Some(place) = self.state.compact.summary {
                let at = self.add_message(place as usize);
                self.entries[at].summary = true;
                self.visible.insert((place as usize).min(self.visible.len()), at);
            }
        }
        while self.visible.len() < self.state.messages.len() {
            let at = self.add_message(self.visible.len());
            self.visible.push(at);
        }
        Ok(())
    }

    fn add_message(&mut self, place: usize) -> usize {
        self.entries.push(TranscriptEntry {
            number: u32::try_from(self.entries.len() + 1).unwrap_or(u32::MAX),
            turn: self.state.iterations,
            message: self.state.messages[place].clone(),
            gone: false,
            summary: false,
        });
        self.entries.len() - 1
    }
}
