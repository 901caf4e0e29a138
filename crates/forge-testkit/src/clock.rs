//! A clock that stands still until a test moves it.

use forge_ports::{Clock, async_trait};
use forge_types::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often a sleeper lets all others go on before it moves the clock by itself.
const MAX_YIELDS: usize = 64;

/// A clock that stands still. It moves by hand, or to the end of short sleeps by itself. Clones share the time.
#[derive(Clone, Debug)]
pub struct TestClock {
    state: Arc<ClockState>,
}

#[derive(Debug)]
struct ClockState {
    now: watch::Sender<Timestamp>,
    /// The ends of the sleeps under way.
    sleepers: watch::Sender<Vec<Timestamp>>,
    /// Sleeps up to this long end by themselves.
    skip: Duration,
}

impl TestClock {
    /// A clock at `now` that moves only by hand.
    pub fn at(now: Timestamp) -> Self {
        Self::skipping(now, Duration::ZERO)
    }

    /// A clock at `now` that ends sleeps of up to `most` by itself, by moving to their end once everybody else
    /// had a chance to go on; longer sleeps (deadlines, usually) end by hand.
    pub fn skipping(now: Timestamp, most: Duration) -> Self {
        let state =
            ClockState { now: watch::Sender::new(now), sleepers: watch::Sender::new(Vec::new()), skip: most };
        Self { state: Arc::new(state) }
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        self.state.now.send_modify(|now| *now = now.after(by));
    }

    /// Moves the clock to the end of the sleep that ends first; `false` if nobody sleeps.
    pub fn advance_to_next(&self) -> bool {
        let Some(next) = self.state.sleepers.borrow().iter().min().copied() else { return false };
        self.move_to(next);
        true
    }

    /// Returns once somebody sleeps.
    pub async fn until_somebody_sleeps(&self) {
        let mut sleepers = self.state.sleepers.subscribe();
        let _ = sleepers.wait_for(|sleepers| !sleepers.is_empty()).await;
    }

    fn move_to(&self, time: Timestamp) {
        self.state.now.send_modify(|now| *now = (*now).max(time));
    }
}

impl Default for TestClock {
    /// A clock at 2026-01-01T00:00:00Z that moves only by hand.
    fn default() -> Self {
        Self::at(Timestamp::from_micros(1_767_225_600_000_000))
    }
}

/// A sleep in the list of sleeps; it leaves with its future.
struct SleepEntry<'a> {
    state: &'a ClockState,
    until: Timestamp,
}

impl<'a> SleepEntry<'a> {
    fn new(state: &'a ClockState, until: Timestamp) -> Self {
        state.sleepers.send_modify(|sleepers| sleepers.push(until));
        Self { state, until }
    }
}

impl Drop for SleepEntry<'_> {
    fn drop(&mut self) {
        self.state.sleepers.send_modify(|sleepers| {
            if let Some(at) = sleepers.iter().position(|until| *until == self.until) {
                sleepers.swap_remove(at);
            }
        });
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        *self.state.now.borrow()
    }

    async fn sleep_until(&self, time: Timestamp) {
        if self.now() >= time {
            return;
        }
        let _listed = SleepEntry::new(&self.state, time);
        if time.since(self.now()) <= self.state.skip {
            for _ in 0..MAX_YIELDS {
                tokio::task::yield_now().await;
            }
            self.move_to(time);
        }
        let mut now = self.state.now.subscribe();
        let _ = now.wait_for(|now| *now >= time).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_stands_still_until_it_is_moved() {
        let clock = TestClock::default();
        let end = clock.now().after(Duration::from_secs(5));
        let sleeper = tokio::spawn({
            let clock = clock.clone();
            async move { clock.sleep_until(end).await }
        });
        clock.until_somebody_sleeps().await;
        clock.advance(Duration::from_secs(4));
        tokio::task::yield_now().await;
        assert!(!sleeper.is_finished());
        assert!(clock.advance_to_next());
        sleeper.await.unwrap();
        assert_eq!(clock.now(), end);
        assert!(!clock.advance_to_next());
    }

    #[tokio::test]
    async fn short_sleeps_end_by_themselves_where_that_is_wanted() {
        let clock = TestClock::skipping(Timestamp::from_micros(0), Duration::from_secs(60));
        clock.sleep_until(Timestamp::from_micros(30_000_000)).await;
        assert_eq!(clock.now(), Timestamp::from_micros(30_000_000));
        let long = clock.sleep_until(clock.now().after(Duration::from_secs(61)));
        let moved = tokio::select! { () = long => true, () = async { for _ in 0..1_000 { tokio::task::yield_now().await; } } => false };
        assert!(!moved);
    }
}
