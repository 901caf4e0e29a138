//! Handles for writes that are still being flushed. Code that must not acknowledge a write before it is durable waits
//! on its handle.

use tokio::sync::watch;

type FlushResult = Result<(), String>;

/// A handle for a write that is durable, or soon will be.
#[derive(Clone, Debug, Default)]
pub struct FlushHandle(Option<watch::Receiver<Option<FlushResult>>>);

/// The sending half of a [`FlushHandle`], held by the writer. Dropping it without an outcome counts as a failure.
#[derive(Debug)]
pub struct FlushSender(watch::Sender<Option<FlushResult>>);

impl FlushHandle {
    /// Returns a handle for a write that is already durable.
    pub const fn done() -> Self {
        Self(None)
    }

    /// Returns a handle for a write in progress, and the sender that completes it.
    pub fn pending() -> (Self, FlushSender) {
        let (sender, receiver) = watch::channel(None);
        (Self(Some(receiver)), FlushSender(sender))
    }

    /// Waits until the write is durable.
    ///
    /// # Errors
    /// The reason why the write failed.
    pub async fn wait(&self) -> Result<(), String> {
        let Some(receiver) = &self.0 else { return Ok(()) };
        match receiver.clone().wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            Ok(None) | Err(_) => Err("the write was abandoned".to_owned()),
        }
    }
}

impl FlushSender {
    /// Completes the handle: the write is durable, or failed for this reason.
    pub fn complete(self, outcome: Result<(), String>) {
        self.0.send_replace(Some(outcome));
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
    }
}
