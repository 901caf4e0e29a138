//! Journals of older versions must load for ever: the golden files are added to, never edited.

use crate::journal::{facts, run};
use forge_types::{Event, RunState, RunStatus};
use forge_wire::{Projector, WireEvent};

const JOURNAL: &str = include_str!("../golden/v1.jsonl");
const VIEWS: &str = include_str!("../golden/v1.views.jsonl");
const FALLBACK: &str = include_str!("../golden/v1.fallback.jsonl");
const COMPACTED: &str = include_str!("../golden/v1.compacted.jsonl");
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
fn a_run_whose_model_could_not_be_had_loads_and_tells_who_took_its_place() {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let events: Vec<Event> = FALLBACK.lines().map(line).collect();
    let state = RunState::replay(run(), &events).unwrap();
    assert_eq!((state.status, state.target, state.tried.len()), (RunStatus::Completed, 1, 0));
    let route = |text: &str| {
        let (provider, model) = text.split_once('/').unwrap();
        forge_types::ModelRoute { provider: provider.into(), model: model.into() }
    };
    let routing = forge_types::RoutingChoice {
        task_type: forge_types::TaskKind::Code,
        tier: forge_types::Tier::Simple,
        chosen: route("scripted/tiny"),
        stage: forge_types::RouteStage::Pin,
        reason: "set by --model".into(),
        stages: Vec::new(),
        rejected: Vec::new(),
    };
    let facts = forge_wire::PlanFacts {
        fallbacks: vec![route("other/model")],
        routing: Some(Box::new(routing)),
        ..facts()
    };
    let wire = Projector::new(run(), Some(facts)).project_all(&events);
    let told: Vec<_> = wire
        .iter()
        .map(|event| serde_json::to_value(&event.data).unwrap())
        .filter(|json| json["kind"].as_str().is_some_and(|kind| kind.starts_with("model.")))
        .map(|json| {
            let data = &json["data"];
            let (kind, provider) = (json["kind"].as_str().unwrap(), data["provider"].as_str().unwrap());
            match kind {
                "model.failed" => format!("{kind} {provider} {} {}", data["retry_in_ms"], data["next"]),
                "model.routed" => format!("{kind} {provider} {}", data["stage"]),
                _ => format!("{kind} {provider}"),
            }
        })
        .collect();
    assert_eq!(
        told,
        [
            "model.routed scripted \"pin\"",
            "model.requested scripted",
            "model.failed scripted 2001 null",
            "model.requested scripted",
            "model.failed scripted null \"other/model\"",
            "model.routed other \"availability\"",
            "model.requested other",
            "model.completed other",
        ]
    );
}

#[test]
fn the_first_version_loads() {
    let events = events();
    let state = RunState::replay(run(), &events).unwrap();
    assert_eq!(state.status, RunStatus::Completed);
    assert!(state.is_consistent());
    assert_eq!(
        state.answer.iter().filter_map(|text| text.inline_text()).collect::<String>(),
        "All tests pass now."
    );
}

#[test]
fn the_golden_files_hold_every_kind() {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"));
    let compacted: Vec<Event> = COMPACTED.lines().map(line).collect();
    let kinds: std::collections::BTreeSet<_> =
        events().iter().chain(&views()).chain(&compacted).map(|event| event.kind.name()).collect();
    assert_eq!(kinds.len(), 13, "{kinds:?}");
    for event in events().iter().chain(&views()).chain(&compacted) {
        assert_eq!(serde_json::to_value(&event.kind).unwrap()["kind"], event.kind.name());
    }
}

#[test]
fn the_first_version_is_shown_as_it_was() {
    let wire = Projector::new(run(), Some(facts())).project_all(&events());
    let golden: Vec<WireEvent> = WIRE.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(wire, golden);
}
