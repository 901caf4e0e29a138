//! A full disk: a small file system of its own, in a mount namespace that ends with its process.

use crate::{again, events, open, role};
use forge_ports::Journal;
use forge_ports::journal::{Batch, Blob, Error};
use forge_store::SqliteStore;
use forge_testkit::sample::{event_batch, time};
use forge_types::{Event, EventKind, RunId, RunStatus, Seq};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

const SIZE: &str = "6m";

/// What the process on the small disk does; not a test of its own.
#[tokio::test]
#[allow(clippy::disallowed_methods, reason = "only `mount` can make a disk that is small enough to fill")]
async fn on_a_small_disk() {
    let Some((_, dir)) = role() else { return };
    let size = format!("size={SIZE}");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", size.as_str(), "none"])
        .arg(&dir)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("\n@no mount");
        return;
    }
    the_end_is_recorded(&dir.join("a")).await;
    fs::remove_dir_all(dir.join("a")).unwrap();
    large_payloads_leave_nothing_behind(&dir.join("b")).await;
    println!("\n@done");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "CI must not skip what it can't do")]
fn the_end_of_a_run_is_recorded_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let child = again(&["unshare", "-rm"], "disk::on_a_small_disk", "disk", dir.path());
    let said = child.and_then(std::process::Child::wait_with_output).map(|output| {
        assert!(output.status.success() || output.stdout.is_empty(), "the process on the small disk failed");
        String::from_utf8_lossy(&output.stdout).into_owned()
    });
    match said {
        Ok(said) if said.contains("@done") => {}
        other => {
            let missing = "no small disk could be mounted (it needs user namespaces or root)";
            assert!(std::env::var_os("CI").is_none(), "{missing}: {other:?}");
            eprintln!("SKIPPED: the tests of a full disk, because {missing}: {other:?}");
        }
    }
}

/// Uses up all that is left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 * 1024, 4096, 1] {
        while file.write_all(&vec![1; size]).is_ok() {}
    }
}

fn finished(run: RunId, expected: u64) -> Batch {
    let kind = EventKind::Finished {
        status: RunStatus::Failed,
        limit: None,
        error: None,
        files_modified: vec![],
        files_omitted: 0,
        snapshot: None,
        answer: None,
    };
    let event = Event { run, seq: Seq(expected + 1), at: time(0), kind };
    Batch { events: vec![event], ..event_batch(run, expected, 0) }
}

fn is_full(outcome: Result<(), Error>) -> bool {
    match outcome {
        Err(Error::DiskFull { path }) => !path.is_empty(),
        Ok(()) => false,
        Err(other) => panic!("a full disk was to come, not {other}"),
    }
}

/// Appends until the disk is full; returns how many events there are.
async fn append_until_full(store: &SqliteStore, run: RunId, mut end: u64) -> u64 {
    // What is too little for many may do for one, in the room that the log has taken.
    for count in [40, 1] {
        while !is_full(store.append(event_batch(run, end, count)).await.map(|()| end += count)) {}
    }
    end
}

async fn the_end_is_recorded(dir: &Path) {
    let (run, other) = (RunId::generate(), RunId::generate());
    let store = open(dir);
    store.append(event_batch(run, 0, 2)).await.unwrap();
    // The reserve is made after the first commit, before the second.
    store.append(event_batch(other, 0, 2)).await.unwrap();
    assert!(dir.join("reserve").exists());
    fill(&dir.join("filler"));
    let end = append_until_full(&store, run, 2).await;
    assert!(dir.join("reserve").exists(), "it is not for everything");
    assert_eq!(events(&store, run).await.len() as u64, end, "what is journalled stays readable");
    store.append(finished(run, end)).await.unwrap();
    assert!(!dir.join("reserve").exists());
    store.append(finished(other, 2)).await.unwrap();
    drop(store);

    let store = open(dir);
    assert!(matches!(events(&store, run).await.last().unwrap().kind, EventKind::Finished { .. }));
    assert!(matches!(events(&store, other).await.last().unwrap().kind, EventKind::Finished { .. }));
    fs::remove_file(dir.join("filler")).unwrap();
    store.append(event_batch(RunId::generate(), 0, 1)).await.unwrap();
    drop(store);
    assert!(dir.join("reserve").exists(), "it is there again when there is space");
}

async fn large_payloads_leave_nothing_behind(dir: &Path) {
    let run = RunId::generate();
    let store = open(dir);
    store.append(event_batch(run, 0, 1)).await.unwrap();
    let blob = Blob::new(vec![5; 8 * 1024 * 1024]);
    assert!(is_full(store.append(Batch { blobs: vec![blob.clone()], ..event_batch(run, 1, 1) }).await));
    let folder = dir.join("blobs").join(&blob.digest.to_string()[..2]);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);
    assert_eq!(events(&store, run).await.len(), 1);
    store.append(event_batch(run, 1, 1)).await.unwrap();
}
