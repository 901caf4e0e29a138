//! The fold: what a journal means.

use crate::journal::{Writer, part_call, run, steps, write};
use forge_types::{
    Digest, Effect, EffectId, ErrorKind, Event, EventKind, FinishReason, HistoryDirection, Message,
    MessagePart, Outcome, PartKind, RunId, RunState, RunStatus, Seq, SnapshotId, Timestamp, ToolAccess,
    ToolCall, ToolOutput, ToolResultPart, ToolRun, ToolStep, WaitingFor, WorkspaceHistory,
};
use proptest::prelude::*;
use std::sync::Arc;

proptest! {
    #[test]
    fn replaying_a_journal_equals_living_through_it(steps in steps(), stray in any::<bool>()) {
        let writer = write(&steps, stray);
        prop_assert_eq!(RunState::replay(run(), &writer.events).unwrap(), writer.state);
    }

    #[test]
    fn a_fold_goes_on_from_a_stored_one(steps in steps(), cut in any::<prop::sample::Index>()) {
        let writer = write(&steps, false);
        let cut = cut.index(writer.events.len());
        let first = RunState::replay(run(), &writer.events[..cut]).unwrap();
        let mut stored: RunState = serde_json::from_str(&serde_json::to_string(&first).unwrap()).unwrap();
        for event in &writer.events[cut..] {
            stored.apply(event).unwrap();
        }
        prop_assert_eq!(stored, writer.state);
    }

    #[test]
    fn events_survive_the_way_to_the_disk_and_back(steps in steps()) {
        for event in write(&steps, true).events {
            let text = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event);
        }
    }

    #[test]
    fn a_second_outcome_of_an_effect_changes_nothing(steps in steps(), pick in any::<prop::sample::Index>()) {
        let mut writer = write(&steps, false);
        let settled: Vec<_> = writer
            .events
            .iter()
            .filter(|event| matches!(event.kind, EventKind::Settled { .. }))
            .map(|event| event.kind.clone())
            .collect();
        prop_assume!(!settled.is_empty());
        let before = writer.state.clone();
        writer.add(pick.get(&settled).clone());
        prop_assert_eq!(without_position(writer.state), without_position(before));
    }

    #[test]
    fn only_the_table_changes_the_status(steps in steps(), to in 0_usize..7) {
        let mut writer = write(&steps, true);
        let (before, to) = (writer.state.status, RunStatus::ALL[to]);
        writer.status(to, None);
        let expected = before.to(to).unwrap_or(before);
        prop_assert_eq!(writer.state.status, expected);
    }

    #[test]
    fn between_turns_every_call_has_exactly_one_result_in_order(steps in steps()) {
        let mut writer = Writer::new();
        writer.start();
        for event in write(&steps, false).events.into_iter().skip(3) {
            writer.add(event.kind);
            if writer.state.calls.is_empty() {
                prop_assert!(writer.state.is_consistent(), "{:#?}", writer.state.messages);
            }
        }
    }

    #[test]
    fn a_conversation_is_only_ever_extended(steps in steps()) {
        let mut writer = Writer::new();
        for event in write(&steps, false).events.into_iter().skip(1) {
            let before = writer.state.messages.clone();
            writer.add(event.kind);
            prop_assert_eq!(&writer.state.messages[..before.len()], &before[..]);
        }
    }
}

/// What an event that means nothing may still move.
fn without_position(state: RunState) -> RunState {
    RunState { seq: Seq(0), at: Timestamp::default(), ..state }
}

#[test]
fn an_event_out_of_order_is_refused_and_changes_nothing() {
    let mut writer = Writer::new();
    writer.start();
    let before = writer.state.clone();
    let gap = Event { seq: Seq(9), ..writer.events[1].clone() };
    let fault = writer.state.apply(&gap).unwrap_err();
    assert_eq!(fault.to_string(), "event 9 follows event 3: the journal has a gap or belongs to another run");
    assert_eq!(writer.state, before);
}

#[test]
fn a_change_of_status_that_is_not_allowed_changes_nothing() {
    let finished = |status| EventKind::Finished {
        status,
        limit: None,
        error: None,
        files_modified: vec![],
        files_omitted: 0,
        snapshot: None,
        answer: None,
    };
    let mut writer = Writer::new();
    writer.start();
    writer.add(finished(RunStatus::Completed));
    let before = without_position(writer.state.clone());
    writer.status(RunStatus::Waiting, Some(WaitingFor::Budget));
    assert_eq!(without_position(writer.state.clone()), before);
    writer.add(finished(RunStatus::Failed));
    assert_eq!(without_position(writer.state.clone()), before);
}

#[test]
fn time_spent_waiting_is_not_time_worked() {
    let mut writer = Writer::new();
    writer.start();
    writer.status(RunStatus::Waiting, Some(WaitingFor::Paused));
    assert_eq!(writer.state.waiting_for, Some(WaitingFor::Paused));
    let parked = writer.state.at;
    let later = parked.after(std::time::Duration::from_secs(3_600));
    assert_eq!(writer.state.worked_ms(later), writer.state.worked_ms(parked));
    writer.status(RunStatus::Running, None);
    assert_eq!(writer.state.waited_ms, 1);
}

#[test]
fn an_id_that_came_before_is_renamed_and_one_used_twice_in_a_reply_is_marked() {
    let mut writer = Writer::new();
    writer.start();
    for _ in 0..2 {
        let effect = writer.ask();
        writer.reply(effect, vec![part_call("0", "read_file", "{}")], FinishReason::ToolCalls);
        let id = writer.state.calls[0].call.id.clone();
        let effect = writer.call(&id, "read_file", ToolAccess::Read, 1);
        writer.done(effect, ToolOutput::ok("text"));
    }
    let effect = writer.ask();
    let twice = vec![part_call("x", "read_file", "{}"), part_call("x", "read_file", "{}")];
    writer.reply(effect, twice, FinishReason::ToolCalls);
    let ids: Vec<_> = writer.state.call_ids.iter().map(|id| &**id).collect();
    assert_eq!(ids, ["0", "0_2_1", "x", "x_3_1"]);
    let marked: Vec<_> = writer.state.calls.iter().map(|pending| pending.duplicate).collect();
    assert_eq!(marked, [false, true]);
}

#[test]
fn a_read_that_was_interrupted_is_repeated_and_a_write_is_reported() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    let calls = vec![part_call("r", "read_file", "{}"), part_call("w", "write_file", "{}")];
    writer.reply(effect, calls, FinishReason::ToolCalls);
    let read = writer.call("r", "read_file", ToolAccess::Read, 1);
    let wrote = writer.call("w", "write_file", ToolAccess::Write, 1);
    writer.add(EventKind::Settled { effect: read, outcome: Outcome::Interrupted, snapshot: None });
    writer.add(EventKind::Settled { effect: wrote, outcome: Outcome::Interrupted, snapshot: None });
    assert!(!writer.state.calls[0].is_done());
    assert!(writer.state.calls[1].is_done());
    let read = writer.call("r", "read_file", ToolAccess::Read, 2);
    writer.done(read, ToolOutput::ok("text"));
    assert!(writer.state.is_consistent());
    let last = serde_json::to_string(writer.state.messages.last().unwrap()).unwrap();
    assert!(last.contains("Whether it took effect"), "{last}");
    assert_eq!(writer.state.tools.calls, 2, "a repeated read is one call");
}

#[test]
fn a_write_whose_workspace_is_put_back_is_repeated() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    writer.reply(effect, vec![part_call("w", "write_file", "{}")], FinishReason::ToolCalls);
    let (before, after) = (SnapshotId(Digest::of_bytes(b"before")), SnapshotId(Digest::of_bytes(b"after")));
    let write = |attempt| {
        let call = ToolCall { id: "w".into(), name: "write_file".into(), arguments: "{}".into() };
        Effect::RunTool(ToolRun { call, access: ToolAccess::Write, attempt, not_before: None })
    };
    for attempt in 1..=3 {
        let effect = writer.state.next_effect;
        let what = write(attempt);
        writer.add(EventKind::Intended { effect, what, reserved: None, key: None, snapshot: Some(before) });
        assert_eq!(writer.state.open[&effect].snapshot, Some(before));
        if attempt < 3 {
            writer.add(EventKind::Settled { effect, outcome: Outcome::Interrupted, snapshot: None });
            assert!(!writer.state.calls[0].is_done(), "attempt {attempt}");
            assert_eq!(writer.state.history.current, Some(before));
            assert!(writer.state.history.steps.is_empty());
        } else {
            let outcome = Outcome::ToolDone { output: ToolOutput::ok("written") };
            writer.add(EventKind::Settled { effect, outcome, snapshot: Some(after) });
        }
    }
    assert!(writer.state.is_consistent());
    assert_eq!(writer.state.tools.calls, 1);
    let history = &writer.state.history;
    assert_eq!((history.beginning, history.current), (Some(before), Some(after)));
    assert_eq!(
        (history.current_step(), history.at_step(0), history.at_step(1)),
        (Some(1), Some(before), Some(after))
    );
    assert_eq!(history.at_step(2), None);
}

#[test]
fn an_undo_and_a_redo_travel_along_the_steps() {
    let mut history = WorkspaceHistory::default();
    let mut writer = Writer::new();
    writer.start();
    let id = |n: u8| SnapshotId(Digest::of_bytes(&[n]));
    history.beginning = Some(id(0));
    history.current = Some(id(3));
    for n in 1..=3 {
        let (tool, about) = ("run_shell".to_owned(), String::new());
        history.steps.push(ToolStep {
            effect: EffectId(n.into()),
            tool,
            about,
            snapshot: id(n),
            at: Timestamp::default(),
        });
    }
    writer.state.history = history;
    assert_eq!(writer.state.history.current_step(), Some(3));
    assert!(writer.state.history.is_pending());
    let mut go = |to, travel, applied| {
        writer.add(EventKind::Restored { to: id(to), direction: travel, applied });
        writer.state.history.clone()
    };
    assert_eq!(go(1, HistoryDirection::Undo, false).current_step(), Some(1));
    assert_eq!(go(0, HistoryDirection::Undo, false).undone, [id(3), id(1)]);
    assert!(!go(1, HistoryDirection::Redo, true).is_pending());
    let last = go(3, HistoryDirection::Redo, false);
    assert_eq!((last.current_step(), last.undone.len(), last.applied), (Some(3), 0, Some(id(1))));
    assert!(last.is_pending());
}

#[test]
fn steering_stands_before_the_next_request() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    let command = forge_types::RunCommand::Steer { text: "use tabs".into() };
    let id = forge_types::CommandId::from_u128(1);
    writer.add(EventKind::Commanded { id, command });
    writer.reply(effect, vec![MessagePart::text("Working on it.")], FinishReason::Stop);
    assert_eq!(writer.state.messages.len(), 2);
    writer.ask();
    assert_eq!(writer.state.messages.last().map(AsRef::as_ref), Some(&Message::user("use tabs")));
}

#[test]
fn what_is_not_whole_is_told_apart() {
    let result = |id: &str| {
        Message::tool(ToolResultPart { call_id: id.into(), name: "t".into(), content: "c".into(), ok: true })
    };
    let asks = |ids: &[&str]| Message {
        role: forge_types::Role::Assistant,
        parts: ids.iter().map(|id| part_call(id, "t", "{}")).collect(),
    };
    let whole = |messages: Vec<Message>| {
        RunState { messages: messages.into_iter().map(Arc::new).collect(), ..RunState::new(run()) }
            .is_consistent()
    };
    assert!(whole(vec![Message::user("go"), asks(&["a", "b"]), result("a"), result("b")]));
    assert!(!whole(vec![asks(&["a", "b"]), result("b"), result("a")]), "order of calls");
    assert!(!whole(vec![asks(&["a"]), Message::user("x"), result("a")]), "nothing in between");
    assert!(!whole(vec![asks(&["a"])]), "a result is missing");
    assert!(!whole(vec![asks(&["a"]), result("a"), result("a")]), "two results");
}

#[test]
fn a_failed_tool_is_a_result_and_not_the_end() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    writer.reply(
        effect,
        vec![part_call("c", "run_shell", r#"{"command":"false"}"#)],
        FinishReason::ToolCalls,
    );
    let effect = writer.call("c", "run_shell", ToolAccess::Exec, 1);
    writer.done(effect, ToolOutput::failed(ErrorKind::Execution, "exit code 1"));
    assert_eq!(writer.state.status, RunStatus::Running);
    assert_eq!(writer.state.tools.shell_commands, 1);
    assert!(writer.state.is_consistent());
}

#[test]
fn a_call_to_the_outside_that_died_has_an_unknown_outcome_and_is_not_repeated() {
    let mut writer = Writer::new();
    writer.start();
    let effect = writer.ask();
    writer.reply(effect, vec![part_call("p", "create_pr", "{}")], FinishReason::ToolCalls);
    let call = |attempt| {
        let call = ToolCall { id: "p".into(), name: "create_pr".into(), arguments: "{}".into() };
        Effect::RunTool(ToolRun { call, access: ToolAccess::Network, attempt, not_before: None })
    };
    let run = writer.state.run;
    let key = call(1).idempotency_key(run).expect("it acts outside");
    assert_eq!(Some(&key), call(2).idempotency_key(run).as_ref(), "each attempt has the same key");
    assert_ne!(Some(&key), call(1).idempotency_key(RunId::from_u128(9)).as_ref(), "another run");
    let effect = writer.state.next_effect;
    writer.add(EventKind::Intended { effect, what: call(1), reserved: None, key: Some(key), snapshot: None });
    let why = "the process that made this call died".to_owned();
    writer.add(EventKind::Settled { effect, outcome: Outcome::Unknown { why }, snapshot: None });
    let last = writer.state.messages.last().expect("the result");
    let PartKind::Result(result) = &last.parts[0].kind else { panic!("{last:?}") };
    expect_test::expect![[r#"
        outcome unknown: the process that made this call died. Check on the server whether the call took effect before you repeat it."#]]
    .assert_eq(result.content.inline_text().expect("in place"));
}
