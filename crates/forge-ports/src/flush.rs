//! Handles for writes that are still being flushed. Code that must not acknowledge a write before it is durable waits
//! on its handle.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

type FlushResult = Result<(), String>;

/// A handle for a write that is durable, or soon will be.
#[derive(Clone, Debug, Default)]
pub struct FlushHandle(Option<Arc<Latch>>);

#[derive(Debug, Default)]
struct Latch {
    outcome: Mutex<Option<FlushResult>>,
    changed: Condvar,
}

/// The sending half of a [`FlushHandle`], held by the writer. Dropping it without an outcome counts as a failure.
#[derive(Debug)]
pub struct FlushSender(Arc<Latch>);

impl FlushHandle {
    /// Returns a handle for a write that is already durable.
    pub const fn done() -> Self {
        Self(None)
    }

    /// Returns a handle for a write in progress, and the sender that completes it.
    pub fn pending() -> (Self, FlushSender) {
        let latch = Arc::<Latch>::default();
        (Self(Some(Arc::clone(&latch))), FlushSender(latch))
    }

    /// Blocks this thread until the write is durable.
    ///
    /// # Errors
    /// The reason why the write failed.
    pub fn wait(&self) -> Result<(), String> {
        let Some(latch) = &self.0 else { return Ok(()) };
        let mut outcome = latch.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => outcome = latch.changed.wait(outcome).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl FlushSender {
    /// Completes the handle: the write is durable, or failed for this reason.
    pub fn complete(self, outcome: Result<(), String>) {
        self.set_outcome(outcome);
    }

    fn set_outcome(&self, outcome: FlushResult) {
        let mut told = self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert(outcome);
        self.0.changed.notify_all();
    }
}

impl Drop for FlushSender {
    fn drop(&mut self) {
        self.set_outcome(Err("the write was abandoned".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_waited_for_and_a_dropped_one_is_a_failure() {
        assert_eq!(FlushHandle::done().wait(), Ok(()));
        let (durable, promise) = FlushHandle::pending();
        let waiting = durable.clone();
        let waiter = std::thread::spawn(move || waiting.wait());
        promise.complete(Ok(()));
        assert_eq!((waiter.join().unwrap(), durable.wait()), (Ok(()), Ok(())));
        let (durable, promise) = FlushHandle::pending();
        drop(promise);
        assert!(durable.wait().is_err());
    }
}
