//! Handles for writes that are still being flushed. Code that must not acknowledge a write before it is durable waits
//! on its handle.

use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;
use tokio::sync::oneshot;

/// The reason for a failure if the writer ended without an outcome.
const ABANDONED: &str = "the write was abandoned";

type FlushResult = Result<(), String>;
type CompletionCallback = Box<dyn FnOnce(FlushResult) + Send>;

/// A handle for a write that is durable, or soon will be.
#[derive(Clone, Debug, Default)]
pub struct FlushHandle(Option<Arc<Mutex<FlushState>>>);

/// The sending half of a [`FlushHandle`], held by the writer. Dropping it without an outcome counts as a failure.
#[derive(Debug)]
pub struct FlushSender(Arc<Mutex<FlushState>>);

enum FlushState {
    Pending(Vec<CompletionCallback>),
    Completed(FlushResult),
}

impl fmt::Debug for FlushState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending(callbacks) => write!(f, "Pending({} callbacks)", callbacks.len()),
            Self::Completed(outcome) => write!(f, "Completed({outcome:?})"),
        }
    }
}

impl FlushHandle {
    /// Returns a handle for a write that is already durable.
    pub const fn done() -> Self {
        Self(None)
    }

    /// Returns a handle for a write in progress, and the sender that completes it.
    pub fn pending() -> (Self, FlushSender) {
        let state = Arc::new(Mutex::new(FlushState::Pending(Vec::new())));
        (Self(Some(Arc::clone(&state))), FlushSender(state))
    }

    /// Waits until the write is durable.
    ///
    /// # Errors
    /// The reason why the write failed.
    pub async fn wait(&self) -> Result<(), String> {
        let (sender, outcome) = oneshot::channel();
        // The caller may have stopped waiting.
        self.on_complete(move |outcome| drop(sender.send(outcome)));
        outcome.await.unwrap_or_else(|_| Err(ABANDONED.to_owned()))
    }

    /// Calls `callback` with the outcome: at once if it is known, otherwise on the thread that completes the write.
    pub fn on_complete(&self, callback: impl FnOnce(Result<(), String>) + Send + 'static) {
        let Some(state) = &self.0 else { return callback(Ok(())) };
        let outcome = match &mut *state.lock() {
            FlushState::Pending(callbacks) => return callbacks.push(Box::new(callback)),
            FlushState::Completed(outcome) => outcome.clone(),
        };
        callback(outcome);
    }
}

impl FlushSender {
    /// Completes the handle: the write is durable, or failed for this reason.
    pub fn complete(self, outcome: Result<(), String>) {
        self.set_outcome(outcome);
    }

    fn set_outcome(&self, outcome: FlushResult) {
        let callbacks = {
            let mut state = self.0.lock();
            if matches!(*state, FlushState::Completed(_)) {
                return;
            }
            match std::mem::replace(&mut *state, FlushState::Completed(outcome.clone())) {
                FlushState::Pending(callbacks) => callbacks,
                FlushState::Completed(_) => Vec::new(),
            }
        };
        callbacks.into_iter().for_each(|callback| callback(outcome.clone()));
    }
}

impl Drop for FlushSender {
    fn drop(&mut self) {
        self.set_outcome(Err(ABANDONED.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_handle_is_waited_for_and_a_dropped_sender_is_a_failure() {
        assert_eq!(FlushHandle::done().wait().await, Ok(()));
        let (durable, sender) = FlushHandle::pending();
        let waiting = durable.clone();
        let waiter = tokio::spawn(async move { waiting.wait().await });
        sender.complete(Ok(()));
        assert_eq!((waiter.await.unwrap(), durable.wait().await), (Ok(()), Ok(())));
        let (durable, sender) = FlushHandle::pending();
        sender.complete(Err("no space".to_owned()));
        assert_eq!(durable.wait().await, Err("no space".to_owned()));
        let (durable, sender) = FlushHandle::pending();
        drop(sender);
        assert_eq!(durable.wait().await, Err("the write was abandoned".to_owned()));
        let (durable, sender) = FlushHandle::pending();
        let (send, receive) = std::sync::mpsc::channel();
        let later = send.clone();
        durable.on_complete(move |outcome| later.send(outcome).unwrap());
        assert!(receive.try_recv().is_err());
        sender.complete(Ok(()));
        durable.on_complete(move |outcome| send.send(outcome).unwrap());
        assert_eq!(receive.try_iter().collect::<Vec<_>>(), [Ok(()), Ok(())]);
    }
}
