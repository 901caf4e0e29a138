//! Journals of older versions must load for ever: the golden files are added to, never edited.

use crate::journal::{facts, run};
use forge_types::wire::{Projector, WireEvent};
use forge_types::{Event, EventKind, RunState, RunStatus};

const JOURNAL: &str = include_str!("../golden/v1.jsonl");
const VIEWS: &str = include_str!("../golden/v1.views.jsonl");
const WIRE: &str = include_str!("../golden/v1.wire.jsonl");

fn events() -> Vec<Event> {
    JOURNAL.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// A run in a view of its own: snapshots, an undo, hosts that were reached, an apply.
fn views() -> Vec<Event> {
    VIEWS.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

#[test]
fn a_run_with_snapshots_loads() {
    let state = RunState::replay(run(), &views()).unwrap();
    assert_eq!(state.status, RunStatus::Completed);
    let history = &state.history;
    assert_eq!(history.steps.len(), 2);
    assert_eq!(history.current_step(), Some(1), "an undo went back to the first step");
    assert_eq!(history.undone.len(), 1);
    assert_eq!(history.applied, history.at_step(1));
    assert_eq!(history.egress.len(), 1);
}

#[test]
fn the_first_version_loads() {
    let events = events();
    let state = RunState::replay(run(), &events).unwrap();
    assert_eq!(state.status, RunStatus::Completed);
    assert!(state.is_whole());
    assert_eq!(
        state.answer.iter().filter_map(|text| text.inline()).collect::<String>(),
        "All tests pass now."
    );
}

#[test]
fn the_golden_files_hold_every_kind() {
    let name = |event: &Event| match event.kind {
        EventKind::Created(_) => "created",
        EventKind::Claimed { .. } => "claimed",
        EventKind::Commanded { .. } => "commanded",
        EventKind::Intended { .. } => "intended",
        EventKind::Settled { .. } => "settled",
        EventKind::Judged { .. } => "judged",
        EventKind::SandboxChanged { .. } => "sandbox_changed",
        EventKind::Surveyed { .. } => "surveyed",
        EventKind::Reached { .. } => "reached",
        EventKind::Restored { .. } => "restored",
        EventKind::Applied { .. } => "applied",
        EventKind::StatusChanged { .. } => "status_changed",
        EventKind::Finished { .. } => "finished",
    };
    let kinds: std::collections::BTreeSet<_> = events().iter().chain(&views()).map(name).collect();
    assert_eq!(kinds.len(), 13, "{kinds:?}");
}

#[test]
fn the_first_version_is_shown_as_it_was() {
    let wire = Projector::new(run(), Some(facts())).project_all(&events());
    let golden: Vec<WireEvent> = WIRE.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(wire, golden);
}
