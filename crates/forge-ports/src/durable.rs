//! What is on its way to the disk while work goes on: whoever must not say that it is there waits for it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

type Outcome = Result<(), String>;

/// Something that is on disk, or will be soon.
#[derive(Clone, Debug, Default)]
pub struct Durable(Option<Arc<Latch>>);

#[derive(Debug, Default)]
struct Latch {
    outcome: Mutex<Option<Outcome>>,
    told: Condvar,
}

/// Held by whoever brings it there. Dropped before that it counts as failed.
#[derive(Debug)]
pub struct Promise(Arc<Latch>);

impl Durable {
    /// It is on disk.
    pub const fn already() -> Self {
        Self(None)
    }

    /// It will be, or fail, when the promise says so.
    pub fn soon() -> (Self, Promise) {
        let latch = Arc::<Latch>::default();
        (Self(Some(Arc::clone(&latch))), Promise(latch))
    }

    /// Blocks this thread until it is on disk.
    ///
    /// # Errors
    /// Why it will never be.
    pub fn wait(&self) -> Result<(), String> {
        let Some(latch) = &self.0 else { return Ok(()) };
        let mut outcome = latch.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*outcome {
                Some(outcome) => return outcome.clone(),
                None => outcome = latch.told.wait(outcome).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Promise {
    /// It is on disk, or why it is not.
    pub fn keep(self, outcome: Result<(), String>) {
        self.tell(outcome);
    }

    fn tell(&self, outcome: Outcome) {
        let mut told = self.0.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        told.get_or_insert(outcome);
        self.0.told.notify_all();
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.tell(Err("it was given up".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_waited_for_and_a_dropped_one_is_a_failure() {
        assert_eq!(Durable::already().wait(), Ok(()));
        let (durable, promise) = Durable::soon();
        let waiting = durable.clone();
        let waiter = std::thread::spawn(move || waiting.wait());
        promise.keep(Ok(()));
        assert_eq!((waiter.join().unwrap(), durable.wait()), (Ok(()), Ok(())));
        let (durable, promise) = Durable::soon();
        drop(promise);
        assert!(durable.wait().is_err());
    }
}
