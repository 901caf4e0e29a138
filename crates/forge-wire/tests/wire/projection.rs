//! What the outside sees of a journal.

use crate::journal::{Writer, facts, part_call, run, steps, write};
use forge_types::{
    CommandId, ErrorInfo, ErrorKind, Event, EventKind, FinishReason, LimitKind, MessagePart, Outcome,
    RunCommand, RunStatus, SandboxReport, SandboxState, ToolAccess, ToolCallVerdict, ToolOutput, WaitingFor,
};
use forge_wire::{Projector, WireData, WireEvent, WireKind};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn project(events: &[Event]) -> Vec<WireEvent> {
    Projector::new(run(), Some(facts())).project_all(events)
}

/// Kinds in order, one per line of text.
fn kinds(events: &[Event]) -> String {
    let all: Vec<_> = project(events).iter().map(|event| event.kind().name()).collect();
    all.join(" ")
}

fn data(events: &[Event], kind: WireKind) -> Vec<serde_json::Value> {
    let wanted = project(events).into_iter().filter(|event| event.kind() == kind);
    wanted.map(|event| serde_json::to_value(event.data).expect("plain data")["data"].take()).collect()
}

proptest! {
    #[test]
    fn a_longer_journal_only_adds(steps in steps(), cut in any::<prop::sample::Index>(), stray in any::<bool>()) {
        let events = write(&steps, stray).events;
        let (whole, part) = (project(&events), project(&events[..cut.index(events.len())]));
        prop_assert_eq!(&whole[..part.len()], &part[..]);
    }

    #[test]
    fn positions_have_no_gap_and_ids_are_unique(steps in steps()) {
        let wire = project(&write(&steps, true).events);
        for (event, seq) in wire.iter().zip(1_u64..) {
            prop_assert_eq!(event.seq, seq);
            prop_assert_eq!(&event.id, &format!("{}-{seq}", run()));
        }
    }

    #[test]
    fn wire_events_survive_the_way_to_a_reader(steps in steps()) {
        for event in project(&write(&steps, false).events) {
            let text = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<WireEvent>(&text).unwrap(), event);
        }
    }

    #[test]
    fn every_tool_call_that_is_completed_was_called_before(steps in steps()) {
        let mut open: BTreeMap<String, i32> = BTreeMap::new();
        for event in project(&write(&steps, false).events) {
            match event.data {
                WireData::ToolCalled(call) => *open.entry(call.call_id).or_default() += 1,
                WireData::ToolCompleted(done) => {
                    let count = open.entry(done.call_id).or_default();
                    *count -= 1;
                    prop_assert_eq!(*count, 0);
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_run_finishes_at_most_once_and_that_is_the_last_word(steps in steps()) {
        let wire = project(&write(&steps, false).events);
        let at = wire.iter().position(|event| event.kind() == WireKind::RunFinished);
        prop_assert!(at.is_none_or(|at| at + 1 == wire.len()));
    }
}

#[test]
fn the_vocabulary_has_32_names_that_read_back() {
    assert_eq!(WireKind::ALL.len(), 32);
    for kind in WireKind::ALL {
        assert_eq!(kind.name().parse::<WireKind>().unwrap(), *kind);
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}

#[test]
fn a_small_run_reads_like_this() {
    let mut writer = Writer::new();
    writer.start();
    let report = SandboxReport { backend: "native".into(), id: "b1".into(), ..Default::default() };
    writer.add(EventKind::SandboxChanged { state: SandboxState::Running, report: Some(report) });
    let effect = writer.ask();
    let call = part_call("c1", "run_shell", r#"{"command":"make test"}"#);
    writer.reply(effect, vec![MessagePart::text("Testing."), call], FinishReason::ToolCalls);
    let effect = writer.call("c1", "run_shell", ToolAccess::Exec, 1);
    writer.done(effect, ToolOutput { exit_code: Some(0), duration_ms: 7, ..ToolOutput::ok("passed") });
    let effect = writer.ask();
    writer.reply(effect, vec![MessagePart::text("Done.")], FinishReason::Stop);
    writer.finish(RunStatus::Completed, None);
    assert_eq!(
        kinds(&writer.events),
        "run.created run.started run.changed sandbox.changed iteration.started model.requested \
         model.completed tool.called exec.started exec.completed tool.completed iteration.completed \
         iteration.started model.requested model.completed iteration.completed run.changed run.finished"
    );
    assert_eq!(data(&writer.events, WireKind::ExecStarted)[0]["command"], "make test");
    assert_eq!(data(&writer.events, WireKind::IterationCompleted)[0]["tool_calls"], 1);
    assert_eq!(data(&writer.events, WireKind::ModelCompleted)[1]["text"], "Done.");
    let finished = &data(&writer.events, WireKind::RunFinished)[0];
    assert_eq!(finished["tokens"], serde_json::json!({"input": 180, "output": 20, "total": 200}));
    assert_eq!(finished["files_modified"], serde_json::json!(["src/lib.rs"]));
}

#[test]
fn a_refused_command_is_called_checked_and_completed() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    writer.reply(effect, vec![part_call("c", "run_shell", r#"{"command":"mkfs"}"#)], FinishReason::ToolCalls);
    let error = ErrorInfo::fatal(ErrorKind::Denied, "`mkfs` is never run");
    let (call_id, tool) = ("c".to_owned(), "run_shell".to_owned());
    writer.add(EventKind::ToolCallRejected { call_id, tool, verdict: ToolCallVerdict::Command, error });
    let tail = kinds(&writer.events);
    assert!(tail.ends_with("tool.called guard.checked tool.completed iteration.completed"), "{tail}");
    let guard = &data(&writer.events, WireKind::GuardChecked)[0];
    assert_eq!((&guard["guard"], &guard["verdict"]), (&"command".into(), &"deny".into()));
    assert_eq!(data(&writer.events, WireKind::ToolCompleted)[0]["detail"], "`mkfs` is never run");
}

#[test]
fn a_wait_is_asked_for_and_resolved() {
    let mut writer = Writer::new();
    writer.start();
    writer.status(RunStatus::Waiting, Some(WaitingFor::Paused));
    writer.status(RunStatus::Running, None);
    writer.status(RunStatus::Waiting, Some(WaitingFor::Budget));
    let command = RunCommand::Cancel { by: "cli".into() };
    writer.add(EventKind::Commanded { id: CommandId::from_u128(3), command });
    writer.finish(RunStatus::Cancelled, None);
    let resolved = data(&writer.events, WireKind::WaitResolved);
    assert_eq!((&resolved[0]["by"], &resolved[0]["decision"]), (&"user".into(), &"resume".into()));
    assert_eq!((&resolved[1]["by"], &resolved[1]["decision"]), (&"cli".into(), &"end".into()));
    assert!(kinds(&writer.events).ends_with("wait.resolved run.changed run.finished"));
}

#[test]
fn a_failed_attempt_says_why_and_the_next_one_that_it_is_another() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    let error =
        ErrorInfo::retryable(ErrorKind::RateLimit, "slow down", Some(std::time::Duration::from_secs(3)));
    writer.add(EventKind::Settled { effect, outcome: Outcome::ModelFailed { error }, snapshot: None });
    writer.ask();
    let failed = &data(&writer.events, WireKind::ModelFailed)[0];
    assert_eq!((&failed["reason"], &failed["retry_in_ms"]), (&"rate_limit".into(), &3_000.into()));
    assert_eq!(data(&writer.events, WireKind::ModelRequested)[1]["attempt"], 2);
    assert_eq!(data(&writer.events, WireKind::IterationStarted).len(), 1);
}

#[test]
fn budgets_are_announced_once_when_nearly_and_once_when_wholly_used() {
    let mut writer = Writer::new();
    writer.start();
    // Each reply counts 60 of 1,000 tokens: uncached prompt and reply.
    for _ in 0..20 {
        let effect = writer.ask();
        writer.reply(effect, vec![MessagePart::text("more")], FinishReason::Stop);
    }
    writer.finish(RunStatus::TimedOut, Some(LimitKind::Tokens));
    let said: Vec<_> = data(&writer.events, WireKind::BudgetChanged)
        .iter()
        .map(|budget| format!("{} {} {}", budget["budget"], budget["used"], budget["level"]))
        .collect();
    assert_eq!(said, [r#""tokens" 840.0 "alert""#, r#""tokens" 1020.0 "exceeded""#]);
}

#[test]
fn a_run_whose_plan_is_lost_is_still_shown() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    writer.reply(effect, vec![MessagePart::text("Done.")], FinishReason::Stop);
    let wire = Projector::new(run(), None).project_all(&writer.events);
    assert_eq!(wire.len(), project(&writer.events).len());
    let json = serde_json::to_value(&wire[4]).unwrap();
    assert_eq!(json["data"]["provider"], "unknown");
}

#[test]
fn a_box_that_died_is_said_to_be_restarted() {
    let mut writer = Writer::new();
    writer.start();
    let report = || Some(SandboxReport { backend: "native".into(), ..Default::default() });
    for (state, report) in
        [(SandboxState::Running, report()), (SandboxState::Died, None), (SandboxState::Running, report())]
    {
        writer.add(EventKind::SandboxChanged { state, report });
    }
    let boxes = data(&writer.events, WireKind::SandboxChanged);
    let said: Vec<_> = boxes.iter().map(|b| (b["state"].as_str().unwrap(), b["restarted"] == true)).collect();
    assert_eq!(said, [("running", false), ("stopped", false), ("running", true)]);
}
