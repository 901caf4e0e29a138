//! The feed: the events of all runs in the order in which they were committed.

use crate::journal::Error;
use async_trait::async_trait;
use forge_types::Event;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// A place in the feed. Only its order has a meaning: later events have greater positions, not necessarily
/// consecutive ones, and no position is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(u64);

impl Position {
    /// The place before the first event.
    pub const START: Self = Self(0);

    /// Creates the position that an adapter stores as this number.
    pub const fn from_u64(number: u64) -> Self {
        Self(number)
    }

    /// Returns the number by which an adapter stores the position.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// An event and its place in the feed.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedEvent {
    /// The place of the event.
    pub position: Position,
    /// The event.
    pub event: Event,
}

/// A part of the feed.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedPage {
    /// The readable events in order.
    pub events: Vec<FeedEvent>,
    /// The place to continue from. It may be after the last of `events`, because unreadable events and those of
    /// deleted runs are passed over.
    pub end: Position,
    /// A description of each unreadable event.
    pub damage: Vec<String>,
}

/// The feed: one order of the events of all runs, which every reader sees.
///
/// A reader that continues from the last position it has seen misses no event and sees none twice, however many
/// processes append meanwhile. An adapter must therefore never show an event before one that may still be committed
/// with a smaller position. Each run's events are in the order of its journal; the events of a batch are next to each
/// other. Events of a deleted run are no longer in the feed, and all others keep their positions.
///
/// Every adapter passes the contract suite in `forge-testkit`.
#[async_trait]
pub trait Feed: Send + Sync {
    /// Returns the events after `after`, at most `limit` of them (0: all). Unreadable events count as well.
    async fn read_feed(&self, after: Position, limit: usize) -> Result<FeedPage, Error>;

    /// Returns a counter that changes after each append, by this process or another one on the same data. The counter
    /// may change without cause, but never misses an append.
    fn watch_feed(&self) -> watch::Receiver<u64>;
}
