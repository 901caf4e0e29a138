//! What every journal shows.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use crate::sample::{event_batch, new_run_row, text_event, time};
use forge_ports::journal::{Batch, Blob, Checkpoint, Error, RunQuery, RunRow, WatchScope};
use forge_ports::{FlushHandle, Journal};
use forge_types::{
    CommandId, Digest, LimitKind, Money, RunCommand, RunId, RunStatus, Seq, Timestamp, WaitingFor,
};

fn steer_command(text: &str) -> RunCommand {
    RunCommand::Steer { text: text.to_owned() }
}

async fn read_seqs(store: &impl Journal, run: RunId, after: u64, limit: usize) -> Vec<u64> {
    let pages = store.read_events(run, Seq(after), limit).await.expect("a journal can be read");
    assert_eq!(pages.damage, None);
    pages.events.iter().map(|event| event.seq.0).collect()
}

/// Events come back as they were, in order, from any position and up to any number.
pub async fn events_are_read_in_the_order_in_which_they_were_appended(store: &impl Journal) {
    let run = RunId::generate();
    let (first, second) = (event_batch(run, 0, 3), event_batch(run, 3, 2));
    let wanted = [first.events.clone(), second.events.clone()].concat();
    store.append(first).await.unwrap();
    store.append(second).await.unwrap();
    assert_eq!(store.read_events(run, Seq(0), 0).await.unwrap().events, wanted);
    assert_eq!(read_seqs(store, run, 2, 2).await, [3, 4]);
    assert_eq!(read_seqs(store, run, 4, 100).await, [5]);
    assert_eq!(read_seqs(store, run, 5, 0).await, [] as [u64; 0]);
    assert_eq!(read_seqs(store, run, 99, 0).await, [] as [u64; 0]);
}

/// A run that does not exist is an empty journal.
pub async fn a_run_that_nobody_wrote_has_no_events(store: &impl Journal) {
    let run = RunId::generate();
    assert_eq!(read_seqs(store, run, 0, 0).await, [] as [u64; 0]);
    assert_eq!(store.latest_checkpoint(run).await.unwrap(), None);
    assert_eq!(store.inbox(run).await.unwrap(), []);
    assert_eq!(store.list_runs(RunQuery::default()).await.unwrap(), []);
}

/// A writer whose view is old writes nothing at all and is told where the journal ends.
pub async fn a_batch_after_another_end_is_a_conflict_and_writes_nothing(store: &impl Journal) {
    let run = RunId::generate();
    store.append(event_batch(run, 0, 2)).await.unwrap();
    for expected in [0, 1, 3] {
        let blob = Blob::new(format!("late {expected}").into_bytes());
        let digest = blob.digest;
        let late = Batch {
            blobs: vec![blob],
            row: RunRow { task: "another".into(), ..new_run_row(run) },
            checkpoint: Some(Checkpoint { seq: Seq(9), version: 1, state: vec![9] }),
            ..event_batch(run, expected, 1)
        };
        match store.append(late).await {
            Err(Error::Conflict { run: of, expected: given, actual }) => {
                assert_eq!((of, given, actual), (run, Seq(expected), Seq(2)));
            }
            other => panic!("a conflict was to come, not {other:?}"),
        }
        assert!(matches!(store.read_blob(digest).await, Err(Error::NotFound { .. })));
    }
    assert_eq!(read_seqs(store, run, 0, 0).await, [1, 2]);
    assert_eq!(store.latest_checkpoint(run).await.unwrap(), None);
    assert_eq!(store.list_runs(RunQuery::default()).await.unwrap(), [new_run_row(run)]);
}

/// A batch whose events do not follow its `expected`, or belong to another run, is never written.
pub async fn a_batch_with_wrong_numbers_is_refused(store: &impl Journal) {
    let run = RunId::generate();
    let gap =
        Batch { events: vec![text_event(run, 1, "a"), text_event(run, 3, "b")], ..event_batch(run, 0, 0) };
    let foreign = Batch { events: vec![text_event(RunId::generate(), 1, "a")], ..event_batch(run, 0, 0) };
    for wrong in [gap, foreign] {
        assert!(matches!(store.append(wrong).await, Err(Error::Unavailable { .. })));
    }
    assert_eq!(read_seqs(store, run, 0, 0).await, [] as [u64; 0]);
}

/// Two loops on one run can't both go on.
pub async fn of_many_writers_of_one_position_one_wins(store: &(impl Journal + Clone + 'static)) {
    let run = RunId::generate();
    for position in 0..5 {
        let tries: Vec<_> = (0..8)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.append(event_batch(run, position, 1)).await })
            })
            .collect();
        let mut won = 0;
        for one in tries {
            match one.await.unwrap() {
                Ok(()) => won += 1,
                Err(Error::Conflict { actual, .. }) => assert_eq!(actual, Seq(position + 1)),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(won, 1);
    }
    assert_eq!(read_seqs(store, run, 0, 0).await, [1, 2, 3, 4, 5]);
}

/// 64 runs at once, with a conflict now and then that concerns nobody else.
pub async fn runs_are_appended_to_concurrently(store: &(impl Journal + Clone + 'static)) {
    let runs: Vec<_> = (0..64).map(|_| RunId::generate()).collect();
    let tasks: Vec<_> = runs
        .iter()
        .map(|&run| {
            let store = store.clone();
            tokio::spawn(async move {
                for turn in 0..5 {
                    store.append(event_batch(run, turn * 3, 3)).await.unwrap();
                    let again = store.append(event_batch(run, turn * 3, 1)).await;
                    assert!(matches!(again, Err(Error::Conflict { .. })));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for run in runs {
        assert_eq!(read_seqs(store, run, 0, 0).await, (1..=15).collect::<Vec<_>>());
    }
}

/// A batch waits for the data that it refers to, and holds up no other run; if that data is lost, nothing is stored.
pub async fn a_batch_waits_for_its_flush_and_no_other_does(store: &(impl Journal + Clone + 'static)) {
    let (slow, other) = (RunId::from_u128(1), RunId::from_u128(2));
    let (durable, sender) = FlushHandle::pending();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.append(Batch { after: vec![durable], ..event_batch(slow, 0, 2) }).await }
    });
    for expected in 0..20 {
        store.append(event_batch(other, expected, 1)).await.unwrap();
    }
    assert!(!waiting.is_finished());
    assert!(store.read_events(slow, Seq(0), 0).await.unwrap().events.is_empty());
    sender.complete(Ok(()));
    waiting.await.unwrap().unwrap();
    assert_eq!(store.read_events(slow, Seq(0), 0).await.unwrap().events.len(), 2);
    let (durable, sender) = FlushHandle::pending();
    sender.complete(Err("the disk is gone".to_owned()));
    let lost = store.append(Batch { after: vec![durable], ..event_batch(slow, 2, 1) }).await;
    assert!(matches!(&lost, Err(Error::Unavailable { why, .. }) if why == "the disk is gone"), "{lost:?}");
    assert_eq!(store.read_events(slow, Seq(0), 0).await.unwrap().events.len(), 2);
}

/// Payloads of all sizes, the same one twice, and one that is not there.
pub async fn payloads_come_back_by_their_hash(store: &impl Journal) {
    let run = RunId::generate();
    let large: Vec<u8> = (0..700_000_u32).map(|n| n.to_le_bytes()[(n % 4) as usize]).collect();
    let contents = [Vec::new(), b"small".to_vec(), vec![7; 256 * 1024], vec![7; 256 * 1024 + 1], large];
    let blobs: Vec<_> = contents.iter().cloned().map(Blob::new).collect();
    let digests: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    store.append(Batch { blobs: blobs.clone(), ..event_batch(run, 0, 1) }).await.unwrap();
    store.append(Batch { blobs, ..event_batch(RunId::generate(), 0, 1) }).await.unwrap();
    for (digest, content) in digests.into_iter().zip(contents) {
        assert_eq!(store.read_blob(digest).await.unwrap(), content);
    }
    assert!(matches!(store.read_blob(Digest::of_bytes(b"absent")).await, Err(Error::NotFound { .. })));
}

/// A turn may change only what lists show, or the checkpoint.
pub async fn a_batch_without_events_still_writes_the_rest(store: &impl Journal) {
    let run = RunId::generate();
    store.append(event_batch(run, 0, 1)).await.unwrap();
    let changed = RunRow { phase: "executing".into(), ..new_run_row(run) };
    store.append(Batch { row: changed.clone(), ..event_batch(run, 1, 0) }).await.unwrap();
    assert_eq!(store.list_runs(RunQuery::default()).await.unwrap(), [changed]);
    store.append(event_batch(run, 1, 1)).await.unwrap();
}

/// The inbox keeps the order of sending, and each run sees its own.
pub async fn commands_wait_in_order_until_they_are_taken(store: &impl Journal) {
    let (run, other) = (RunId::generate(), RunId::generate());
    store.append(event_batch(run, 0, 1)).await.unwrap();
    store.append(event_batch(other, 0, 1)).await.unwrap();
    // Ids that sort against the order of sending.
    let [a, b, c] = [30, 20, 10].map(CommandId::from_u128);
    for (id, text) in [(a, "a"), (b, "b"), (c, "c")] {
        store.send_command(run, id, steer_command(text)).await.unwrap();
    }
    store.send_command(other, CommandId::from_u128(40), RunCommand::Pause).await.unwrap();
    assert_eq!(
        store.inbox(run).await.unwrap(),
        [(a, steer_command("a")), (b, steer_command("b")), (c, steer_command("c"))]
    );
    store.append(Batch { taken: vec![a, c], ..event_batch(run, 1, 2) }).await.unwrap();
    assert_eq!(store.inbox(run).await.unwrap(), [(b, steer_command("b"))]);
    assert_eq!(store.inbox(other).await.unwrap().len(), 1);
    let unknown = store.send_command(RunId::generate(), CommandId::generate(), RunCommand::Pause).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
}

/// Neither two takers nor a second sending make a command act twice.
pub async fn a_command_is_taken_once(store: &impl Journal) {
    let run = RunId::generate();
    store.append(event_batch(run, 0, 1)).await.unwrap();
    let id = CommandId::generate();
    store.send_command(run, id, steer_command("once")).await.unwrap();
    store.send_command(run, id, steer_command("once")).await.unwrap();
    assert_eq!(store.inbox(run).await.unwrap().len(), 1);
    store.append(Batch { taken: vec![id], ..event_batch(run, 1, 1) }).await.unwrap();
    let again = store.append(Batch { taken: vec![id], ..event_batch(run, 2, 1) }).await;
    assert!(matches!(again, Err(Error::Conflict { .. })));
    store.send_command(run, id, steer_command("once")).await.unwrap();
    assert_eq!(store.inbox(run).await.unwrap(), []);
    assert_eq!(read_seqs(store, run, 0, 0).await, [1, 2]);
}

/// Only the newest checkpoint is kept; a batch without one leaves it.
pub async fn the_newest_checkpoint_replaces_the_one_before(store: &impl Journal) {
    let run = RunId::generate();
    let point = |seq, fill| Checkpoint { seq: Seq(seq), version: 3, state: vec![fill; 100_000] };
    store.append(Batch { checkpoint: Some(point(1, 1)), ..event_batch(run, 0, 1) }).await.unwrap();
    store.append(Batch { checkpoint: Some(point(2, 2)), ..event_batch(run, 1, 1) }).await.unwrap();
    store.append(event_batch(run, 2, 1)).await.unwrap();
    assert_eq!(store.latest_checkpoint(run).await.unwrap(), Some(point(2, 2)));
}

/// Filters by status, repository and the beginning of the id.
pub async fn lists_are_filtered_and_newest_first(store: &impl Journal) {
    let ids = [0xaaaa_0000_u128, 0xaaaa_1111, 0xbbbb_0000].map(|high| RunId::from_u128(high << 96));
    for (age, run) in (0..).zip(ids) {
        let status = if age == 1 { RunStatus::Completed } else { RunStatus::Running };
        let repo = if age == 2 { "/b" } else { "/a" };
        let row = RunRow { status, repo: repo.into(), created_at: time(age), ..new_run_row(run) };
        store.append(Batch { row, ..event_batch(run, 0, 1) }).await.unwrap();
    }
    let [oldest, middle, newest] = ids;
    let ask = async |query: RunQuery| -> Vec<RunId> {
        store.list_runs(query).await.unwrap().iter().map(|row| row.run).collect()
    };
    let all = RunQuery::default;
    assert_eq!(ask(all()).await, [newest, middle, oldest]);
    assert_eq!(ask(RunQuery { limit: 2, ..all() }).await, [newest, middle]);
    assert_eq!(ask(RunQuery { status: Some(RunStatus::Running), ..all() }).await, [newest, oldest]);
    assert_eq!(ask(RunQuery { repo: Some("/a".into()), ..all() }).await, [middle, oldest]);
    assert_eq!(ask(RunQuery { prefix: Some("aaaa".into()), ..all() }).await, [middle, oldest]);
    assert_eq!(ask(RunQuery { prefix: Some("AAAA1111-0".into()), ..all() }).await, [middle]);
    assert_eq!(ask(RunQuery { prefix: Some(newest.to_string()), ..all() }).await, [newest]);
    assert_eq!(ask(RunQuery { prefix: Some("%".into()), ..all() }).await, []);
    assert_eq!(ask(RunQuery { prefix: Some("cc".into()), ..all() }).await, []);
}

/// Pages of a list hold each run once, whatever is created or changed in between.
pub async fn a_list_can_be_read_in_pages(store: &impl Journal) {
    // Some of them were created at the same time.
    let runs: Vec<RunId> = (1..=7).map(RunId::from_u128).collect();
    let row = |run: RunId, at: i64| RunRow { created_at: time(at), ..new_run_row(run) };
    for (at, run) in [1, 1, 1, 2, 3, 3, 4].into_iter().zip(&runs) {
        store.append(Batch { row: row(*run, at), ..event_batch(*run, 0, 1) }).await.unwrap();
    }
    let mut seen = Vec::new();
    let mut after = None;
    for page_number in 1.. {
        let page = store.list_runs(RunQuery { after, limit: 2, ..RunQuery::default() }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.cursor());
        seen.extend(page.iter().map(|row| row.run));
        let newer = RunId::from_u128(100 + seen.len() as u128);
        store.append(Batch { row: row(newer, 9), ..event_batch(newer, 0, 1) }).await.unwrap();
        store.append(Batch { row: row(runs[0], 1), ..event_batch(runs[0], page_number, 1) }).await.unwrap();
    }
    assert_eq!(seen, runs.into_iter().rev().collect::<Vec<_>>());
}

/// Every field of a row is kept; the time of creation stays what it was.
pub async fn a_row_comes_back_as_it_was_written(store: &impl Journal) {
    let run = RunId::generate();
    let full = RunRow {
        run,
        task: "Ünïcode 'quotes' \"and\"\nlines".into(),
        repo: "/r".into(),
        pipeline: "p".into(),
        status: RunStatus::TimedOut,
        waiting_for: Some(WaitingFor::Budget),
        phase: "done".into(),
        provider: "x".into(),
        model: "y".into(),
        iterations: 7,
        tokens_in: 123_456_789_012,
        tokens_out: 3,
        cost: Money(-5),
        duration_ms: 99,
        limit: Some(LimitKind::WallClock),
        error_kind: Some("timeout".into()),
        error_message: Some("too long".into()),
        created_at: time(1),
        updated_at: time(2),
        completed_at: Some(Timestamp::from_micros(-1)),
    };
    store.append(Batch { row: full.clone(), ..event_batch(run, 0, 1) }).await.unwrap();
    assert_eq!(store.list_runs(RunQuery::default()).await.unwrap(), std::slice::from_ref(&full));
    store.append(Batch { row: new_run_row(run), ..event_batch(run, 1, 1) }).await.unwrap();
    let changed = RunRow { created_at: full.created_at, ..new_run_row(run) };
    assert_eq!(store.list_runs(RunQuery::default()).await.unwrap(), [changed]);
}

/// Whoever watches learns of appends and commands.
pub async fn every_change_moves_the_counter(store: &(impl Journal + Clone + 'static)) {
    let run = RunId::generate();
    let (mut one, mut two) = (store.watch(WatchScope::All), store.watch(WatchScope::All));
    let waiting = tokio::spawn(async move { one.changed().await });
    store.append(event_batch(run, 0, 1)).await.unwrap();
    waiting.await.unwrap().unwrap();
    two.changed().await.unwrap();
    let (mut three, mut four) = (store.watch(WatchScope::All), store.watch(WatchScope::Commands(run)));
    store.send_command(run, CommandId::generate(), RunCommand::Pause).await.unwrap();
    three.changed().await.unwrap();
    four.changed().await.unwrap();
}

/// A watcher of one run is not woken by the changes of others, nor one of commands by events.
pub async fn a_watcher_of_a_run_sees_the_changes_of_that_run(store: &(impl Journal + Clone + 'static)) {
    let (run, other) = (RunId::from_u128(1), RunId::from_u128(2));
    for run in [run, other] {
        store.append(event_batch(run, 0, 1)).await.unwrap();
    }
    let (mut changes, mut commands) =
        (store.watch(WatchScope::Run(run)), store.watch(WatchScope::Commands(run)));
    let mut all = store.watch(WatchScope::All);
    store.append(event_batch(other, 1, 1)).await.unwrap();
    store.send_command(other, CommandId::generate(), RunCommand::Pause).await.unwrap();
    all.changed().await.unwrap();
    assert!(!changes.has_changed().unwrap() && !commands.has_changed().unwrap());
    store.append(event_batch(run, 1, 1)).await.unwrap();
    changes.changed().await.unwrap();
    assert!(!commands.has_changed().unwrap());
    store.send_command(run, CommandId::generate(), RunCommand::Pause).await.unwrap();
    changes.changed().await.unwrap();
    commands.changed().await.unwrap();
}
