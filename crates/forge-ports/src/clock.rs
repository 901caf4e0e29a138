//! Time as a port: nothing else asks the system for it.

use async_trait::async_trait;
use forge_types::Timestamp;

/// Tells the time and waits for it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> Timestamp;

    /// Returns at `time` or a little later; at once if it has passed.
    async fn sleep_until(&self, time: Timestamp);
}
