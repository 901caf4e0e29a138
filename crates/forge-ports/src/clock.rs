//! The clock port. No other code asks the system for the time.

use async_trait::async_trait;
use forge_types::Timestamp;

/// A clock that can be read and waited on.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Returns the current time.
    fn now(&self) -> Timestamp;

    /// Returns at `time` or a little later; at once if it has passed.
    async fn sleep_until(&self, time: Timestamp);
}
