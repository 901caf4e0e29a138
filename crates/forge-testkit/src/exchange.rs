//! Another user who exchanges two entries of a directory while something works with them.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

/// The time that an entry stays at a path.
const DWELL: Duration = Duration::from_micros(300);

/// A thread that exchanges two entries again and again until this is dropped. Then each is at its own path.
#[derive(Debug)]
pub struct ExchangeLoop(Option<(mpsc::Sender<()>, JoinHandle<()>)>);

impl ExchangeLoop {
    /// Starts the thread; `exchange` exchanges the entries once.
    pub fn start(mut exchange: impl FnMut() + Send + 'static) -> Self {
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut exchanged = false;
            while exchanged || stopped.recv_timeout(DWELL) == Err(mpsc::RecvTimeoutError::Timeout) {
                exchange();
                exchanged = !exchanged;
                if exchanged {
                    std::thread::park_timeout(DWELL);
                }
            }
        });
        Self(Some((stop, thread)))
    }
}

impl Drop for ExchangeLoop {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.0.take() {
            drop(stop);
            thread.join().expect("the exchanges end");
        }
    }
}
