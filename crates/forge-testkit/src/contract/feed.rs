//! What every feed shows.

#![allow(clippy::unwrap_used, reason = "a contract suite is a test: what it finds is a panic")]

use crate::sample::event_batch;
use forge_ports::feed::{Feed, FeedEvent, FeedPage, Position};
use forge_ports::journal::{Error, Journal};
use forge_types::{RunId, Seq};

async fn read_part(store: &impl Feed, after: Position, limit: usize) -> FeedPage {
    let page = store.read_feed(after, limit).await.expect("a feed can be read");
    assert_eq!(page.damage, [] as [&str; 0]);
    assert_eq!(page.end, page.events.last().map_or(after, |last| last.position));
    assert!(page.events.is_sorted_by(|one, next| one.position < next.position), "{page:?}");
    page
}

fn names(events: &[FeedEvent]) -> Vec<(RunId, u64)> {
    events.iter().map(|entry| (entry.event.run, entry.event.seq.0)).collect()
}

/// The events of all runs come in the order of the commits, as they were appended, and are the same for everybody.
pub async fn the_feed_has_all_events_in_the_order_of_their_commits(
    one: &(impl Journal + Feed),
    other: &(impl Journal + Feed),
) {
    let empty = read_part(one, Position::START, 0).await;
    assert_eq!((empty.events, empty.end), (Vec::new(), Position::START));
    let (a, b) = (RunId::generate(), RunId::generate());
    let mut wanted = Vec::new();
    for (number, (run, expected, count)) in
        (0..).zip([(b, 0, 2), (a, 0, 1), (b, 2, 1), (b, 3, 0), (a, 1, 3), (b, 3, 1)])
    {
        let batch = event_batch(run, expected, count);
        wanted.extend(batch.events.clone());
        let appended = if number % 2 == 0 { one.append(batch).await } else { other.append(batch).await };
        appended.unwrap();
    }
    let all = read_part(one, Position::START, 0).await;
    assert_eq!(all.events.iter().map(|entry| entry.event.clone()).collect::<Vec<_>>(), wanted);
    assert_eq!(read_part(other, Position::START, 0).await, all);
    assert!(all.events[0].position > Position::START);
    assert_eq!(read_part(one, all.end, 0).await.events, []);
}

/// From each position and with each limit the same events follow in the same order.
pub async fn a_part_of_the_feed_ends_at_its_limit(one: &(impl Journal + Feed), _: &(impl Journal + Feed)) {
    let (a, b) = (RunId::generate(), RunId::generate());
    for (run, expected, count) in [(a, 0, 4), (b, 0, 1), (a, 4, 3)] {
        one.append(event_batch(run, expected, count)).await.unwrap();
    }
    let all = read_part(one, Position::START, 0).await.events;
    assert_eq!(all.len(), 8);
    for limit in 1..=9 {
        for skipped in 0..=all.len() {
            let after = skipped.checked_sub(1).map_or(Position::START, |last| all[last].position);
            let rest = &all[skipped..];
            assert_eq!(read_part(one, after, limit).await.events, rest[..limit.min(rest.len())]);
        }
    }
}

/// A batch that is refused leaves nothing in the feed, also if it is written together with others.
pub async fn what_is_refused_is_not_in_the_feed(
    one: &(impl Journal + Feed + Clone + 'static),
    other: &(impl Journal + Feed),
) {
    let runs = [RunId::generate(), RunId::generate()];
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let (store, run) = (one.clone(), runs[number % 2]);
            tokio::spawn(async move { store.append(event_batch(run, 0, 2)).await })
        })
        .collect();
    for task in tasks {
        assert!(matches!(task.await.unwrap(), Ok(()) | Err(Error::Conflict { .. })));
    }
    let mut seen = names(&read_part(other, Position::START, 0).await.events);
    seen.sort_unstable();
    let mut wanted: Vec<_> = runs.into_iter().flat_map(|run| [(run, 1), (run, 2)]).collect();
    wanted.sort_unstable();
    assert_eq!(seen, wanted);
}

/// While two processes append to many runs, a reader that continues from its last position sees each event once.
pub async fn who_continues_from_the_last_position_misses_and_repeats_nothing(
    one: &(impl Journal + Feed + Clone + 'static),
    other: &(impl Journal + Feed + Clone + 'static),
) {
    const RUNS: u64 = 12;
    const TURNS: u64 = 15;
    let mut writers = Vec::new();
    for number in 0..RUNS {
        let run = RunId::generate();
        let append = async move |store: &dyn Journal| {
            for turn in 0..TURNS {
                store.append(event_batch(run, turn * 2, 2)).await.unwrap();
            }
        };
        writers.push(if number % 2 == 0 {
            let store = one.clone();
            tokio::spawn(async move { append(&store).await })
        } else {
            let store = other.clone();
            tokio::spawn(async move { append(&store).await })
        });
    }
    let mut changes = other.watch_feed();
    let mut seen: Vec<FeedEvent> = Vec::new();
    while (seen.len() as u64) < RUNS * TURNS * 2 {
        changes.borrow_and_update();
        let after = seen.last().map_or(Position::START, |last| last.position);
        let page = read_part(other, after, 7).await;
        if page.events.is_empty() {
            changes.changed().await.unwrap();
        }
        seen.extend(page.events);
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(seen, read_part(one, Position::START, 0).await.events);
    let mut by_run = names(&seen);
    // A stable sort: within each run the events keep their order.
    by_run.sort_by_key(|(run, _)| *run);
    for events in by_run.chunks(usize::try_from(TURNS * 2).unwrap()) {
        assert!(events.iter().all(|(run, _)| *run == events[0].0));
        assert!(events.iter().map(|(_, seq)| *seq).eq(1..=TURNS * 2), "{events:?}");
    }
}

/// Nobody has to ask again and again for what another process appends.
pub async fn an_append_of_another_process_wakes_the_watcher_of_the_feed(
    one: &(impl Journal + Feed),
    other: &(impl Journal + Feed),
) {
    let run = RunId::generate();
    let mut end = Position::START;
    let mut changes = other.watch_feed();
    for expected in 0..3 {
        changes.borrow_and_update();
        assert_eq!(read_part(other, end, 0).await.events, []);
        one.append(event_batch(run, expected, 1)).await.unwrap();
        changes.changed().await.unwrap();
        let page = read_part(other, end, 0).await;
        assert_eq!(page.events[0].event.seq, Seq(expected + 1));
        end = page.end;
    }
}

/// A reader may stop, keep its position, and continue later.
pub async fn a_position_can_be_stored(one: &(impl Journal + Feed), other: &(impl Journal + Feed)) {
    let run = RunId::generate();
    one.append(event_batch(run, 0, 3)).await.unwrap();
    let stored = serde_json::to_string(&read_part(one, Position::START, 2).await.end).unwrap();
    one.append(event_batch(run, 3, 1)).await.unwrap();
    let end = serde_json::from_str(&stored).unwrap();
    assert_eq!(names(&read_part(other, end, 0).await.events), [(run, 3), (run, 4)]);
}
