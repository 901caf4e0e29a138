//! The queue on file locks: its contract, and leases that die with their process.

use crate::open as open_store;
use forge_ports::Queue;
use forge_ports::queue::{ClaimError, ItemStatus};
use forge_store::{LocalQueue, QueueOptions, SqliteStore};
use forge_testkit::clock::TestClock;
use forge_testkit::contract::scheduling::Scheduler;
use forge_types::RunId;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

fn make() -> (Arc<dyn Queue>, Arc<dyn Queue>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::default());
    let open = || {
        let options = QueueOptions::new(dir.path().to_owned());
        Arc::new(LocalQueue::new(options, open_store(dir.path()), Arc::clone(&clock) as _))
    };
    (open(), open(), dir)
}

forge_testkit::queue_contract!(make);

fn make_fenced() -> (SqliteStore, Arc<dyn Queue>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (open_store(dir.path()), Arc::new(open(dir.path())), dir)
}

forge_testkit::fence_contract!(make_fenced);
fn scheduler() -> (Scheduler<SqliteStore, LocalQueue>, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::default();
    let journal = open_store(dir.path());
    let options = QueueOptions::new(dir.path().to_owned());
    let queue = LocalQueue::new(options, journal.clone(), Arc::new(clock.clone()));
    (Scheduler { journal, queue, clock }, dir)
}

forge_testkit::scheduling_contract!(scheduler);

/// What tells a copy of this test program that it is to hold a lease, and in which folder.
const DIR: &str = "FORGE_QUEUE_TEST_DIR";
const RUN: RunId = RunId::from_u128(5);

fn open(dir: &Path) -> LocalQueue {
    LocalQueue::new(QueueOptions::new(dir.to_owned()), open_store(dir), Arc::new(TestClock::default()))
}

/// Not a test of its own: the process that holds a lease until it is killed.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "the way in which a test tells its own copy what to do")]
async fn holder() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let _lease = open(Path::new(&dir)).claim(RUN).await.unwrap();
    // A child that outlives its parent, as a command of a sandbox may: its input ends with the test.
    let mut child = Command::new("cat").spawn().unwrap();
    println!("\n@{}", child.id());
    child.wait().unwrap();
}

/// A process that is killed with its test, should it still live.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "a second process is what this test is about")]
async fn a_killed_process_frees_its_run_at_once_though_its_child_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut other = Killed(
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "queue::holder", "--nocapture"])
            .env(DIR, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let input = other.0.stdin.take();
    let out = BufReader::new(other.0.stdout.take().unwrap());
    let said = out.lines().map_while(Result::ok).find(|line| line.starts_with('@'));
    let grandchild = PathBuf::from("/proc").join(&said.expect("it holds the lease")[1..]);
    // Only when it has become the program has it closed what it got from its parent; the kernel names it last.
    while std::fs::read_to_string(grandchild.join("comm")).unwrap().trim() != "cat" {
        std::thread::yield_now();
    }
    let queue = open(dir.path());
    let pid = other.0.id();
    let who = queue.holder(RUN).await.unwrap().expect("it holds the lease");
    assert!(who.ends_with(&format!(":{pid}")), "{who}");
    let refused = queue.claim(RUN).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.to_string(), format!("run {RUN} is active in {who}"));
    other.0.kill().unwrap();
    other.0.wait().unwrap();
    assert!(grandchild.exists());
    assert_eq!(queue.holder(RUN).await.unwrap(), None);
    drop(queue.claim(RUN).await.unwrap());
    drop(input);
}

#[tokio::test]
async fn a_lock_file_goes_with_its_lease() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path());
    let locks = || {
        let entries = std::fs::read_dir(dir.path().join("locks")).unwrap().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|end| end == "lock")).count()
    };
    for round in 0..50 {
        let lease = queue.claim(RUN).await.unwrap();
        assert_eq!(locks(), 1);
        if round % 2 == 0 {
            drop(lease);
        } else {
            queue.finish(lease, ItemStatus::Completed).await.unwrap();
        }
        assert_eq!(locks(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_at_a_lock_never_makes_a_claim_fail() {
    let dir = tempfile::tempdir().unwrap();
    let (queue, looker) = (open(dir.path()), open(dir.path()));
    let stop = Arc::new(AtomicBool::new(false));
    let looks = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            while !stop.load(Ordering::Relaxed) {
                looker.holder(RUN).await.unwrap();
            }
        }
    });
    for _ in 0..300 {
        drop(queue.claim(RUN).await.unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    looks.await.unwrap();
}

#[tokio::test]
async fn a_lock_folder_that_can_not_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("locks"), "").unwrap();
    let error = open(dir.path()).claim(RUN).await.map(|_| ()).unwrap_err();
    assert!(matches!(error, ClaimError::Lock { .. }), "{error:?}");
    assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error}");
}
