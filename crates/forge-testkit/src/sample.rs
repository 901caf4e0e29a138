//! Small made-up runs, events and batches.

use forge_ports::journal::{Batch, RunRow};
use forge_types::{CommandId, Event, EventKind, Money, RunCommand, RunId, RunStatus, Seq, Timestamp};

/// A time of day: so many seconds after 2026-01-01T00:00:00Z.
pub const fn time(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000 + seconds * 1_000_000)
}

/// An event that holds a text.
pub fn text_event(run: RunId, seq: u64, text: &str) -> Event {
    let command = RunCommand::Steer { text: text.to_owned() };
    let kind = EventKind::Commanded { id: CommandId::from_u128(u128::from(seq)), command };
    Event { run, seq: Seq(seq), at: time(i64::try_from(seq).unwrap_or(0)), kind }
}

/// What a list shows of a run that has just begun.
pub fn new_run_row(run: RunId) -> RunRow {
    RunRow {
        run,
        task: "Fix the failing test".to_owned(),
        repo: "/home/ada/project".to_owned(),
        pipeline: "solo".to_owned(),
        status: RunStatus::Running,
        waiting_for: None,
        phase: "coding".to_owned(),
        provider: "scripted".to_owned(),
        model: "scripted-1".to_owned(),
        iterations: 0,
        tokens_in: 0,
        tokens_out: 0,
        cost: Money::ZERO,
        duration_ms: 0,
        limit: None,
        error_kind: None,
        error_message: None,
        created_at: time(0),
        updated_at: time(0),
        completed_at: None,
    }
}

/// A batch of `count` events after `expected`.
pub fn event_batch(run: RunId, expected: u64, count: u64) -> Batch {
    let events = (expected + 1..=expected + count).map(|seq| text_event(run, seq, &format!("event {seq}")));
    Batch {
        fence: None,
        run,
        expected: Seq(expected),
        events: events.collect(),
        blobs: Vec::new(),
        taken: Vec::new(),
        postings: Vec::new(),
        row: new_run_row(run),
        checkpoint: None,
        enqueue: None,
        children: Vec::new(),
        sends: Vec::new(),
        after: Vec::new(),
    }
}
