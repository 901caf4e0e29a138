//! Damage: what can be read is shown, the rest is named, and nothing panics.

use crate::{database, events, open};
use forge_ports::Journal;
use forge_ports::feed::{Feed, Position};
use forge_ports::journal::{Batch, Blob, Error, RunQuery, RunRow};
use forge_store::{Options, SqliteStore};
use forge_testkit::sample::{event_batch, new_run_row};
use forge_types::{RunId, RunStatus, Seq};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A closed store with one run of `count` events, everything in the one file.
async fn stored(run: RunId, count: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(event_batch(run, 0, count)).await.unwrap();
    drop(store);
    settle(dir.path());
    dir
}

fn settle(dir: &Path) {
    database(dir).query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[tokio::test]
async fn an_event_that_can_not_be_understood_ends_the_reading() {
    let run = RunId::generate();
    let dir = stored(run, 9).await;
    database(dir.path()).execute("UPDATE events SET data = '{\"kind\":' WHERE (id & 255) = 6", []).unwrap();
    let store = open(dir.path());
    let pages = store.read_events(run, Seq(0), 0).await.unwrap();
    assert_eq!(pages.events, event_batch(run, 0, 5).events);
    let damage = pages.damage.unwrap();
    assert!(damage.contains(&format!("event 6 of run {run}")), "{damage}");
    let before = store.read_events(run, Seq(0), 5).await.unwrap();
    assert_eq!((before.events.len(), before.damage), (5, None));
    let behind = store.read_events(run, Seq(6), 0).await.unwrap();
    assert_eq!((behind.events.len(), behind.damage), (3, None));
}

#[tokio::test]
async fn a_hole_ends_the_reading() {
    let run = RunId::generate();
    for (hole, readable) in [(1, 0), (4, 3), (9, 8)] {
        let dir = stored(run, 9).await;
        database(dir.path()).execute("DELETE FROM events WHERE (id & 255) = ?1", [hole]).unwrap();
        let pages = open(dir.path()).read_events(run, Seq(0), 0).await.unwrap();
        assert_eq!(pages.events, event_batch(run, 0, readable).events);
        let damage = pages.damage.unwrap();
        assert!(damage.contains(&format!("event {hole} of run {run}")), "{damage}");
    }
}

#[tokio::test]
async fn a_damaged_row_is_listed_with_what_is_left() {
    let (good, bad) = (RunId::from_u128(1), RunId::from_u128(2));
    let dir = stored(good, 1).await;
    let store = open(dir.path());
    store.append(event_batch(bad, 0, 1)).await.unwrap();
    let name = bad.to_string();
    database(dir.path())
        .execute("UPDATE runs SET status = 'odd', cost_pico_usd = 'x' WHERE id = ?1", [name])
        .unwrap();
    let rows = store.list_runs(RunQuery::default()).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[1], new_run_row(good));
    let RunRow { run, status, error_kind, error_message, task, .. } = rows[0].clone();
    assert_eq!((run, status, error_kind.as_deref()), (bad, RunStatus::Failed, Some("damaged")));
    assert_eq!(task, new_run_row(bad).task);
    assert!(error_message.unwrap().contains("damaged"));
}

#[tokio::test]
async fn a_payload_that_has_changed_is_not_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (small, large) = (Blob::new(vec![1; 100]), Blob::new(vec![2; 300_000]));
    let blobs = vec![small.clone(), large.clone()];
    store.append(Batch { blobs, ..event_batch(RunId::generate(), 0, 1) }).await.unwrap();
    database(dir.path()).execute("UPDATE blobs SET bytes = x'00'", []).unwrap();
    let name = large.digest.to_string();
    let file = dir.path().join("blobs").join(&name[..2]).join(&name[2..]);
    fs::write(&file, vec![3; 300_000]).unwrap();
    for (digest, place) in [(small.digest, dir.path().join("forge.db")), (large.digest, file.clone())] {
        let error = store.read_blob(digest).await.unwrap_err();
        assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
        assert!(error.to_string().contains(place.to_str().unwrap()), "{error}");
    }
    fs::remove_file(file).unwrap();
    assert!(matches!(store.read_blob(large.digest).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_payload_that_has_changed_is_made_whole_by_whoever_stores_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let blobs = vec![Blob::new(vec![1; 100]), Blob::new(vec![2; 300_000])];
    let again = |run| Batch { blobs: blobs.clone(), ..event_batch(run, 0, 1) };
    store.append(again(RunId::generate())).await.unwrap();
    database(dir.path()).execute("UPDATE blobs SET bytes = x'00'", []).unwrap();
    let name = blobs[1].digest.to_string();
    fs::write(dir.path().join("blobs").join(&name[..2]).join(&name[2..]), vec![3; 300_000]).unwrap();
    store.append(again(RunId::generate())).await.unwrap();
    for blob in &blobs {
        assert_eq!(store.read_blob(blob.digest).await.unwrap(), blob.bytes);
    }
}

#[tokio::test]
async fn an_emptied_database_is_not_taken_for_a_new_one_while_its_log_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.append(event_batch(RunId::generate(), 0, 9)).await.unwrap();
    drop(store);
    let (file, log) = (dir.path().join("forge.db"), dir.path().join("forge.db-wal"));
    let before = fs::read(&log).unwrap();
    fs::write(&file, "").unwrap();
    let error = SqliteStore::open(&Options { data_dir: dir.path().to_owned() }).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }) && error.to_string().contains("empty"), "{error:?}");
    assert_eq!(fs::read(&log).unwrap(), before, "what is in the log may still be saved");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_named_with_a_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("forge.db");
    fs::write(&file, "this is not a database, whatever its name says\n".repeat(100)).unwrap();
    let before = fs::read(&file).unwrap();
    let error = SqliteStore::open(&Options { data_dir: dir.path().to_owned() }).unwrap_err();
    assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(file.to_str().unwrap()) && text.contains("move"), "{text}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

/// Every page of the file in turn is overwritten. Whatever is still read is right, and all else is an error.
#[tokio::test]
async fn no_broken_page_gives_wrong_events_or_a_panic() {
    const PAGE: usize = 4096;
    let run = RunId::generate();
    let dir = stored(run, 120).await;
    let whole = fs::read(dir.path().join("forge.db")).unwrap();
    let wanted = event_batch(run, 0, 120).events;
    let mut intact = 0;
    for page in 0..whole.len() / PAGE {
        let mut broken = whole.clone();
        broken[page * PAGE..(page + 1) * PAGE].fill(0xA5);
        let copy = tempfile::tempdir().unwrap();
        fs::write(copy.path().join("forge.db"), broken).unwrap();
        let Ok(store) = SqliteStore::open(&Options { data_dir: copy.path().to_owned() }) else { continue };
        let _ = store.list_runs(RunQuery::default()).await;
        for entry in store.read_feed(Position::START, 0).await.map_or(Vec::new(), |page| page.events) {
            assert_eq!(Some(&entry.event), wanted.get(entry.event.seq.0 as usize - 1), "page {page}");
        }
        match store.read_events(run, Seq(0), 0).await {
            Ok(pages) => {
                assert_eq!(pages.events, wanted[..pages.events.len()], "page {page}");
                let whole = pages.events.len() == wanted.len();
                assert!(whole || pages.damage.is_some() || pages.events.is_empty(), "page {page}");
                intact += usize::from(whole);
            }
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. } | Error::Unavailable { .. }), "{error:?}")
            }
        }
    }
    assert!(intact > 0, "some pages have nothing to do with this run");
}

#[tokio::test]
async fn a_log_cut_short_leaves_what_was_committed_before() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunId::generate();
    let store = open(dir.path());
    for turn in 0..20 {
        store.append(event_batch(run, turn, 1)).await.unwrap();
    }
    drop(store);
    let log = dir.path().join("forge.db-wal");
    // What is used of it: behind that is room.
    let length = fs::read(&log).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64;
    fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(length / 2).unwrap();
    let store = open(dir.path());
    let kept = events(&store, run).await;
    assert!((1..20).contains(&kept.len()), "{}", kept.len());
    assert_eq!(kept, event_batch(run, 0, kept.len() as u64).events);
    store.append(event_batch(run, kept.len() as u64, 1)).await.unwrap();
}
