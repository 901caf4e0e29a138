//! The feed of all runs: its contract, deleted runs, damage, and databases of earlier versions.

use crate::{database, open};
use forge_ports::Journal;
use forge_ports::feed::{Feed, FeedEvent, Position};
use forge_store::SqliteStore;
use forge_testkit::sample::event_batch;
use forge_types::RunId;
use std::path::Path;
use tempfile::TempDir;

fn make() -> (SqliteStore, SqliteStore, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (open(dir.path()), open(dir.path()), dir)
}

forge_testkit::feed_contract!(make);

const RUNS: [RunId; 4] = [RunId::from_u128(1), RunId::from_u128(2), RunId::from_u128(3), RunId::from_u128(4)];

fn names(events: &[FeedEvent]) -> Vec<(RunId, u64)> {
    events.iter().map(|entry| (entry.event.run, entry.event.seq.0)).collect()
}

/// Deletes a run as a future version may do it: with its rows of the feed or without.
fn delete_run(dir: &Path, run: RunId, with_feed: bool) {
    let database = database(dir);
    let id = run.to_string();
    let no: i64 = database.query_row("SELECT no FROM runs WHERE id = ?1", [&id], |row| row.get(0)).unwrap();
    if with_feed {
        database.execute("DELETE FROM feed WHERE first_event >> 32 = ?1", [no]).unwrap();
    }
    database.execute("DELETE FROM events WHERE id >> 32 = ?1", [no]).unwrap();
    database.execute("DELETE FROM runs WHERE no = ?1", [no]).unwrap();
}

#[tokio::test]
async fn a_deleted_run_leaves_the_feed_and_all_others_keep_their_positions() {
    for with_feed in [true, false] {
        let (store, _, dir) = make();
        for run in &RUNS[..3] {
            store.append(event_batch(*run, 0, 2)).await.unwrap();
        }
        let before = store.read_feed(Position::START, 0).await.unwrap();
        // The last run has the last positions and the highest number: nothing of it may be used again.
        delete_run(dir.path(), RUNS[2], with_feed);
        delete_run(dir.path(), RUNS[0], with_feed);
        let after = store.read_feed(Position::START, 0).await.unwrap();
        assert_eq!((&after.events[..], after.damage.len()), (&before.events[2..4], 0));
        store.append(event_batch(RUNS[3], 0, 1)).await.unwrap();
        store.append(event_batch(RUNS[1], 2, 1)).await.unwrap();
        let wanted = [(RUNS[3], 1), (RUNS[1], 3)];
        for from in [before.end, after.end] {
            assert_eq!(names(&store.read_feed(from, 0).await.unwrap().events), wanted, "{with_feed}");
        }
        let all = store.read_feed(Position::START, 0).await.unwrap();
        assert_eq!(names(&all.events), [&[(RUNS[1], 1), (RUNS[1], 2)][..], &wanted].concat());
    }
}

#[tokio::test]
async fn a_reader_gets_over_runs_that_are_all_deleted() {
    let (store, _, dir) = make();
    store.append(event_batch(RUNS[0], 0, 2)).await.unwrap();
    let end = store.read_feed(Position::START, 0).await.unwrap().end;
    delete_run(dir.path(), RUNS[0], false);
    let page = store.read_feed(Position::START, 1).await.unwrap();
    assert_eq!((page.events, page.end, page.damage.len()), (Vec::new(), end, 0));
}

#[tokio::test]
async fn what_can_not_be_read_is_described_and_the_rest_follows() {
    let (store, _, dir) = make();
    store.append(event_batch(RUNS[0], 0, 9)).await.unwrap();
    store.append(event_batch(RUNS[1], 0, 1)).await.unwrap();
    database(dir.path())
        .execute_batch(
            "UPDATE events SET data = '{' WHERE id & 255 = 2;
             DELETE FROM events WHERE id & 255 IN (4, 5, 9);",
        )
        .unwrap();
    let wanted = [1, 3, 6, 7, 8].map(|seq| (RUNS[0], seq));
    let page = store.read_feed(Position::START, 0).await.unwrap();
    assert_eq!(names(&page.events), [&wanted[..], &[(RUNS[1], 1)]].concat());
    let damaged: Vec<_> = [2, 4, 5, 9].map(|seq| format!("event {seq} of run {}", RUNS[0])).into();
    assert!(page.damage.iter().zip(&damaged).all(|(text, of)| text.starts_with(of)), "{:?}", page.damage);
    assert_eq!(page.damage.len(), damaged.len());
    // In portions, the damage counts as well.
    let (mut end, mut seen, mut damage) = (Position::START, Vec::new(), Vec::new());
    for _ in 0..5 {
        let part = store.read_feed(end, 2).await.unwrap();
        assert_eq!(part.events.len() + part.damage.len(), 2, "{part:?}");
        end = part.end;
        seen.extend(part.events);
        damage.extend(part.damage);
    }
    assert_eq!((seen, damage, end), (page.events, page.damage, page.end));
}

#[tokio::test]
async fn events_of_earlier_versions_are_in_the_feed_run_by_run() {
    let dir = tempfile::tempdir().unwrap();
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v2.sql");
    let old = database(dir.path());
    old.execute_batch(&std::fs::read_to_string(golden).unwrap()).unwrap();
    let first: String = old.query_row("SELECT id FROM runs", [], |row| row.get(0)).unwrap();
    // One more run, and one whose journal is empty.
    old.execute_batch(
        "CREATE TEMP TABLE copy AS SELECT * FROM runs;
         UPDATE copy SET no = 5, id = '00000000-0000-0000-0000-000000000001', last_seq = 2;
         INSERT INTO runs SELECT * FROM copy;
         UPDATE copy SET no = 4, id = '00000000-0000-0000-0000-000000000002', last_seq = 0;
         INSERT INTO runs SELECT * FROM copy;
         INSERT INTO events SELECT (5 << 32) | (id & 255), at, kind, data FROM events WHERE id & 255 <= 2;",
    )
    .unwrap();
    drop(old);
    let first = first.parse().unwrap();
    let store = open(dir.path());
    store.append(event_batch(RUNS[2], 0, 1)).await.unwrap();
    let page = store.read_feed(Position::START, 0).await.unwrap();
    assert_eq!(page.damage, [] as [&str; 0]);
    let wanted = [(first, 1), (first, 2), (first, 3), (RUNS[0], 1), (RUNS[0], 2), (RUNS[2], 1)];
    assert_eq!(names(&page.events), wanted);
    let positions: Vec<_> = page.events.iter().map(|entry| entry.position.as_u64()).collect();
    assert_eq!(positions, [1, 2, 3, 4, 5, 6]);
}
