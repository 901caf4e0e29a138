//! Making, opening, closing and opening again.

use crate::{database, events, open};
use forge_ports::feed::{Feed, Position};
use forge_ports::journal::{Batch, Blob, Checkpoint, Error, Posting, RunQuery, RunRow};
use forge_ports::queue::{NextClaim, QueueEntry, QueueScope};
use forge_ports::{Journal, Ledger, Queue};
use forge_store::{LocalQueue, Options, QueueOptions, SqliteStore};
use forge_testkit::clock::TestClock;
use forge_testkit::sample::{event_batch, new_run_row, time};
use forge_types::{CommandId, EffectId, Money, RunCommand, RunId, RunStatus, Seq};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

#[tokio::test]
async fn what_was_written_is_there_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunId::generate();
    let large = Blob::new(vec![1; 300_000]);
    let store = open(dir.path());
    store.append(Batch { blobs: vec![large.clone()], ..event_batch(run, 0, 3) }).await.unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(events(&store, run).await, event_batch(run, 0, 3).events);
    assert_eq!(store.read_blob(large.digest).await.unwrap(), large.bytes);
    store.append(event_batch(run, 3, 1)).await.unwrap();
}

#[tokio::test]
async fn nobody_else_may_look_into_the_data_folder() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("new/forge");
    let store = open(&data);
    let run = RunId::generate();
    let blob = Blob::new(vec![1; 300_000]);
    store.append(Batch { blobs: vec![blob], ..event_batch(run, 0, 1) }).await.unwrap();
    let _watch = store.watch(forge_ports::journal::WatchScope::All);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for name in ["forge.db", "forge.db-wal", "forge.db-shm"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    for name in ["blobs", "wake"] {
        assert_eq!(mode(&data.join(name)), 0o700, "{name}");
    }
}

#[tokio::test]
async fn many_processes_may_make_the_same_store_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let dir = dir.path().to_owned();
            tokio::task::spawn_blocking(move || open(&dir))
        })
        .collect();
    let run = RunId::generate();
    for (expected, task) in (0..).zip(tasks) {
        task.await.unwrap().append(event_batch(run, expected, 1)).await.unwrap();
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".forge.db")), "{left:?}");
}

#[tokio::test]
async fn data_of_a_newer_version_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let file = dir.path().join("forge.db");
    database(dir.path()).pragma_update(None, "user_version", 99).unwrap();
    let before = fs::read(&file).unwrap();
    let error = SqliteStore::open(&Options { data_dir: dir.path().to_owned() }).unwrap_err();
    match &error {
        Error::TooNew { path, found, known } => {
            assert_eq!((path.as_str(), *found, *known), (file.to_str().unwrap(), 99, 4));
        }
        other => panic!("too new was to come, not {other:?}"),
    }
    assert!(error.to_string().contains("newer version"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), before);
}

#[tokio::test]
async fn an_empty_file_becomes_a_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("forge.db"), "").unwrap();
    open(dir.path()).append(event_batch(RunId::generate(), 0, 1)).await.unwrap();
}

#[test]
fn what_can_not_be_a_data_folder_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let folder = dir.path().join("data");
    fs::create_dir_all(folder.join("forge.db")).unwrap();
    for (data_dir, named) in [(file.clone(), &file), (file.join("below"), &file), (folder.clone(), &folder)] {
        let error = SqliteStore::open(&Options { data_dir }).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert!(error.to_string().contains(named.to_str().unwrap()), "{error}");
    }
}

/// The database of each version, as it was written then, never edited: old journals must load.
#[tokio::test]
async fn the_databases_of_all_versions_load() {
    for golden in [GOLDEN_1, GOLDEN_2, GOLDEN_3, GOLDEN] {
        loads(golden).await;
    }
}

#[tokio::test]
async fn advice_of_later_versions_loads() {
    for golden in [GOLDEN_2, GOLDEN_3, GOLDEN] {
        let dir = tempfile::tempdir().unwrap();
        database(dir.path()).execute_batch(&fs::read_to_string(golden).unwrap()).unwrap();
        crate::advice::check_golden(&open(dir.path())).await;
    }
}

async fn loads(golden: &str) {
    let dir = tempfile::tempdir().unwrap();
    database(dir.path()).execute_batch(&fs::read_to_string(golden).unwrap()).unwrap();
    check_golden(&open(dir.path())).await;
    let mode: String = database(dir.path()).query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "wal", "a database that was read in from SQL gets its log back");
}

const GOLDEN_1: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v1.sql");
const GOLDEN_2: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v2.sql");
const GOLDEN_3: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v3.sql");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/v4.sql");
const GOLDEN_RUN: RunId = RunId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

fn golden_row() -> RunRow {
    RunRow { status: RunStatus::Running, cost: Money(25), updated_at: time(3), ..new_run_row(GOLDEN_RUN) }
}

fn golden_queue(store: &SqliteStore) -> LocalQueue {
    let dir = store.path().parent().unwrap().to_owned();
    LocalQueue::new(QueueOptions::new(dir), store.clone(), Arc::new(TestClock::at(time(1))))
}

async fn write_golden(store: &SqliteStore) {
    let postings = vec![
        Posting::Reserve { account: "day".into(), effect: EffectId(1), amount: Money(40), ceiling: None },
        Posting::Reserve { account: "day".into(), effect: EffectId(2), amount: Money(30), ceiling: None },
        Posting::Settle { effect: EffectId(1), actual: Money(25) },
    ];
    let checkpoint = Some(Checkpoint { seq: Seq(2), version: 1, state: b"{}".to_vec() });
    let blobs = vec![Blob::new(b"payload".to_vec())];
    let row = golden_row();
    store.append(Batch { postings, checkpoint, blobs, row, ..event_batch(GOLDEN_RUN, 0, 3) }).await.unwrap();
    store.send_command(GOLDEN_RUN, CommandId::from_u128(7), RunCommand::Pause).await.unwrap();
    let queue = golden_queue(store);
    queue.enqueue(QueueEntry { priority: 2, ..QueueEntry::new(GOLDEN_RUN) }).await.unwrap();
    drop(queue.claim(GOLDEN_RUN).await.unwrap());
    crate::advice::write_golden(store).await;
}

async fn check_golden(store: &SqliteStore) {
    assert_eq!(events(store, GOLDEN_RUN).await, event_batch(GOLDEN_RUN, 0, 3).events);
    let feed = store.read_feed(Position::START, 0).await.unwrap();
    assert!(feed.events.into_iter().map(|entry| entry.event).eq(event_batch(GOLDEN_RUN, 0, 3).events));
    assert_eq!(store.list_runs(RunQuery::default()).await.unwrap(), [golden_row()]);
    assert_eq!(store.latest_checkpoint(GOLDEN_RUN).await.unwrap().unwrap().state, b"{}");
    assert_eq!(store.read_blob(forge_types::Digest::of_bytes(b"payload")).await.unwrap(), b"payload");
    assert_eq!(store.inbox(GOLDEN_RUN).await.unwrap(), [(CommandId::from_u128(7), RunCommand::Pause)]);
    let balance = store.balance("day").await.unwrap();
    assert_eq!((balance.spent, balance.reserved), (Money(25), Money(30)));
    // It was being worked on once.
    let queue = golden_queue(store);
    assert_eq!(queue.queued_count().await.unwrap(), 0);
    let NextClaim::Claimed(lease) = queue.claim_next(QueueScope::Tree(GOLDEN_RUN)).await.unwrap() else {
        panic!("its process is gone");
    };
    assert_eq!((lease.run_id(), lease.attempt()), (GOLDEN_RUN, 2));
    store.append(event_batch(GOLDEN_RUN, 3, 1)).await.unwrap();
}

/// What this version writes is what its golden file holds. A change of the tables needs a new version, with a
/// migration and a golden file of its own: what this test shows of the new tables.
#[tokio::test]
async fn the_golden_database_is_what_this_version_writes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write_golden(&store).await;
    drop(store);
    let golden = tempfile::tempdir().unwrap();
    database(golden.path()).execute_batch(&fs::read_to_string(GOLDEN).unwrap()).unwrap();
    assert_eq!(dump(dir.path()), dump(golden.path()));
}

/// A database as SQL: its version, its tables and their rows.
fn dump(dir: &Path) -> String {
    let database = database(dir);
    let text = |sql: &str| -> Vec<String> {
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let mut sql = format!(
        "PRAGMA user_version={};\n",
        text("SELECT cast(user_version AS TEXT) FROM pragma_user_version")[0]
    );
    for table in text("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid") {
        sql += &format!("{table};\n");
    }
    for table in text("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name") {
        let columns = text(&format!("SELECT 'quote(' || name || ')' FROM pragma_table_info('{table}')"));
        let columns = columns.join(" || ',' || ");
        for values in text(&format!("SELECT {columns} FROM {table} ORDER BY 1")) {
            sql += &format!("INSERT INTO {table} VALUES ({values});\n");
        }
    }
    sql
}
