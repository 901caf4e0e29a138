//! The queue on file locks: its contract, and leases that die with their process.

use forge_ports::Queue;
use forge_queue::{LocalQueue, Options};
use forge_testkit::clock::TestClock;
use forge_testkit::memory::MemoryStore;
use std::sync::Arc;
use tempfile::TempDir;

fn make() -> (Arc<dyn Queue>, Arc<dyn Queue>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let table = Arc::new(MemoryStore::new());
    let clock = Arc::new(TestClock::default());
    let open = || {
        let options = Options::new(dir.path().to_owned());
        Arc::new(LocalQueue::new(options, Arc::clone(&table) as _, Arc::clone(&clock) as _))
    };
    (open(), open(), dir)
}

forge_testkit::queue_contract!(make);
