//! Several processes on one data folder.

use crate::{again, events, open, role};
use forge_ports::Journal;
use forge_ports::feed::{Feed, Position};
use forge_ports::journal::{Error, WatchScope};
use forge_store::SqliteStore;
use forge_testkit::sample::event_batch;
use forge_testkit::scale;
use forge_types::{RunId, Seq};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout};
use std::time::Instant;

const RUN: RunId = RunId::from_u128(77);

/// Not a test of its own: what the other processes of these tests do.
#[tokio::test]
async fn other() {
    let Some((role, dir)) = role() else { return };
    let store = open(&dir);
    match role.as_str() {
        "follow" => follow(&store).await,
        "stream" => stream(&store).await,
        "share" => share(&store).await,
        "own" => own(&store).await,
        other => panic!("no role {other}"),
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n@{line}").and_then(|()| out.flush()).unwrap();
}

/// Waits for changes until the run has an event, without ever looking in between.
async fn follow(store: &SqliteStore) {
    let mut changes = store.watch(WatchScope::All);
    changes.borrow_and_update();
    say("ready");
    while events(store, RUN).await.is_empty() {
        changes.changed().await.unwrap();
    }
    say("seen");
}

/// Appends for ever and says what is done.
async fn stream(store: &SqliteStore) {
    for turn in 0.. {
        store.append(event_batch(RUN, turn * 3, 3)).await.unwrap();
        say(&(turn * 3 + 3).to_string());
    }
}

const SHARE: usize = 40;

/// Appends a number of events to a run that others append to as well.
async fn share(store: &SqliteStore) {
    let mut done = 0;
    let mut end = 0;
    while done < SHARE {
        match store.append(event_batch(RUN, end, 1)).await {
            Ok(()) => {
                done += 1;
                end += 1;
            }
            Err(Error::Conflict { actual, .. }) => end = actual.0,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Appends to a run of its own.
async fn own(store: &SqliteStore) {
    let run = RunId::generate();
    for turn in 0..SHARE as u64 {
        store.append(event_batch(run, turn, 1)).await.unwrap();
    }
    assert_eq!(events(store, run).await.len(), SHARE);
}

/// A process that is ended with its test.
struct Other {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Other {
    fn start(role: &str, dir: &Path) -> Self {
        let mut child = again(&[], "processes::other", role, dir).unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next thing that it says; `None` when it has ended.
    fn next(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some(said) = line.trim_end().strip_prefix('@') {
                return Some(said.to_owned());
            }
        }
    }

    fn ends_well(mut self) {
        while self.next().is_some() {}
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_change_is_noticed_in_another_process() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut other = Other::start("follow", dir.path());
    assert_eq!(other.next().as_deref(), Some("ready"));
    store.append(event_batch(RUN, 0, 1)).await.unwrap();
    assert_eq!(other.next().as_deref(), Some("seen"));
    other.ends_well();
    let left = fs::read_dir(dir.path().join("wake")).unwrap().count();
    assert_eq!(left, 0, "a process takes its socket away");
}

#[tokio::test]
async fn a_change_is_noticed_without_a_socket_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut other = Other::start("follow", dir.path());
    assert_eq!(other.next().as_deref(), Some("ready"));
    fs::remove_dir_all(dir.path().join("wake")).unwrap();
    store.append(event_batch(RUN, 0, 1)).await.unwrap();
    assert_eq!(other.next().as_deref(), Some("seen"));
    other.ends_well();
}

/// A socket that somebody listens on, and its file and that of one whose process died.
fn sockets(dir: &Path) -> (UnixDatagram, PathBuf, PathBuf) {
    let wake = dir.join("wake");
    fs::create_dir(&wake).unwrap();
    let (alive, dead) = (wake.join("1-a.sock"), wake.join("2-b.sock"));
    drop(UnixDatagram::bind(&dead).unwrap());
    (UnixDatagram::bind(&alive).unwrap(), alive, dead)
}

#[tokio::test]
async fn every_commit_names_its_run_to_each_socket_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, alive, dead) = sockets(dir.path());
    let store = open(dir.path());
    store.append(event_batch(RUN, 0, 1)).await.unwrap();
    drop(store);
    let mut message = [0; 64];
    let length = socket.recv(&mut message).unwrap();
    assert_eq!(message[..length], [&[1, 0][..], &RUN.as_u128().to_be_bytes()].concat());
    assert!(!dead.exists(), "what nobody listens on is removed");
    assert!(alive.exists());
}

#[tokio::test]
async fn a_store_that_closes_takes_the_sockets_of_the_dead_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, alive, dead) = sockets(dir.path());
    drop(open(dir.path()));
    assert!(alive.exists() && !dead.exists());
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0_u8; 1]).is_err(), "nothing was written, so nobody is told");
}

#[tokio::test]
async fn a_data_folder_with_a_very_long_name_has_sockets_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let deep = dir.path().join("d".repeat(90)).join("e".repeat(90));
    let (one, other) = (open(&deep), open(&deep));
    let mut changes = other.watch(WatchScope::All);
    changes.borrow_and_update();
    assert_eq!(fs::read_dir(deep.join("wake")).unwrap().count(), 1);
    one.append(event_batch(RUN, 0, 1)).await.unwrap();
    changes.changed().await.unwrap();
}

#[tokio::test]
async fn another_process_wakes_only_the_watchers_of_the_changed_run() {
    let dir = tempfile::tempdir().unwrap();
    // Another store of the same data is notified as another process is.
    let (one, other) = (open(dir.path()), open(dir.path()));
    let unchanged = RunId::from_u128(9);
    one.append(event_batch(unchanged, 0, 1)).await.unwrap();
    let (mut changes, quiet) = (other.watch(WatchScope::Run(RUN)), other.watch(WatchScope::Run(unchanged)));
    let (began, before) = (Instant::now(), *quiet.borrow());
    for expected in 0..50 {
        changes.borrow_and_update();
        one.append(event_batch(RUN, expected, 1)).await.unwrap();
        changes.changed().await.unwrap();
    }
    // A second without messages is followed by a look at the database, which does not tell which run changed.
    let polls = began.elapsed().as_secs() + 1;
    assert!(*quiet.borrow() - before <= polls, "{} of {polls}", *quiet.borrow() - before);
}

#[tokio::test]
async fn processes_append_to_one_run_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let others = [Other::start("share", dir.path()), Other::start("share", dir.path())];
    let store = open(dir.path());
    share(&store).await;
    others.into_iter().for_each(Other::ends_well);
    assert_eq!(events(&store, RUN).await, event_batch(RUN, 0, 3 * SHARE as u64).events);
}

#[tokio::test]
async fn processes_append_to_their_own_runs_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let others = [Other::start("own", dir.path()), Other::start("own", dir.path())];
    let store = open(dir.path());
    own(&store).await;
    others.into_iter().for_each(Other::ends_well);
}

#[tokio::test]
async fn a_reader_of_the_feed_sees_all_that_processes_append_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut changes = store.watch_feed();
    let others = [0; 3].map(|_| Other::start("own", dir.path()));
    let (mut seen, mut end) = (Vec::new(), Position::START);
    while seen.len() < 3 * SHARE {
        changes.borrow_and_update();
        let page = store.read_feed(end, 5).await.unwrap();
        if page.events.is_empty() {
            changes.changed().await.unwrap();
        }
        end = page.end;
        seen.extend(page.events);
    }
    others.into_iter().for_each(Other::ends_well);
    assert_eq!(store.read_feed(Position::START, 0).await.unwrap().events, seen);
    seen.sort_by_key(|entry| entry.event.run);
    for events in seen.chunks(SHARE) {
        let of = events[0].event.run;
        let events = events.iter().map(|entry| entry.event.clone());
        assert!(events.eq(event_batch(of, 0, SHARE as u64).events));
    }
}

#[tokio::test]
async fn what_a_killed_process_was_told_is_written_stays_written() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=scale::sample_or_all(4, 200) {
        let mut other = Other::start("stream", dir.path());
        let mut told = 0;
        while told < round % 40 * 9 {
            told = other.next().expect("it appends for ever").parse().unwrap();
        }
        other.child.kill().unwrap();
        while let Some(line) = other.next() {
            told = line.parse().unwrap();
        }
        let store = open(dir.path());
        let kept = events(&store, RUN).await;
        assert!(kept.len() as u64 >= told, "{} of {told}", kept.len());
        assert_eq!(kept.len() % 3, 0, "a batch is there as a whole");
        assert_eq!(kept, event_batch(RUN, 0, kept.len() as u64).events);
        store.append(event_batch(RUN, kept.len() as u64, 1)).await.unwrap();
        drop(store);
        fs::remove_file(dir.path().join("forge.db")).unwrap();
        fs::remove_file(dir.path().join("forge.db-wal")).unwrap();
    }
    assert!(open(dir.path()).read_events(RUN, Seq(0), 0).await.unwrap().events.is_empty());
}
