//! No secret is left in an event, whatever field somebody put it into and in however many pieces it came.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

use forge_redact::{REDACTED, Redactor};
use forge_types::{
    ApplyConflict, ApplyOutcome, ChangeKind, CommandId, CompactCause, Compaction, ConversationSummary,
    Digest, Effect, EffectId, EgressRecord, EgressVerdict, ErrorInfo, ErrorKind, EventKind, FinishReason,
    Message, MessagePart, ModelCall, ModelReply, Money, OpaqueState, Outcome, PartKind, Payload,
    RejectedCandidate, Role, RunCommand, RunCreation, RunId, RunSource, RunStatus, SandboxLayer,
    SandboxLayerState, SandboxReport, SandboxState, SnapshotId, SummaryBy, SummaryCost, Timestamp,
    ToolAccess, ToolCall, ToolCallVerdict, ToolOutput, ToolResultPart, ToolRun, Usage, WorkspaceChange,
};
use proptest::prelude::*;

const KEY: &str = "sk-secret+/1234=";

fn redactor() -> Redactor {
    Redactor::new([KEY])
}

fn marked() -> String {
    format!("<{KEY}>")
}

fn thought(text: &str, state: Option<&str>) -> MessagePart {
    let opaque = state.map(|data| OpaqueState {
        provider: "p".to_owned(),
        model: "m".to_owned(),
        data: data.to_owned(),
    });
    MessagePart { kind: PartKind::Reasoning { text: text.into() }, opaque }
}

fn called(id: &str) -> MessagePart {
    MessagePart::call(ToolCall { id: id.to_owned(), name: "read_file".to_owned(), arguments: "{}".into() })
}

fn reply(parts: Vec<MessagePart>, finish: FinishReason) -> ModelReply {
    ModelReply { parts, usage: Usage::default(), model: "m".to_owned(), finish, latency_ms: 1 }
}

fn settled(outcome: Outcome) -> EventKind {
    EventKind::Settled { effect: EffectId(1), outcome, snapshot: None }
}

/// A reply as it is journalled.
fn journalled(parts: Vec<MessagePart>) -> Vec<MessagePart> {
    let mut kind = settled(Outcome::Replied { reply: reply(parts, FinishReason::Stop), cost: None });
    redactor().redact_event(&mut kind);
    match kind {
        EventKind::Settled { outcome: Outcome::Replied { reply, .. }, .. } => reply.parts,
        _ => unreachable!("it was a reply"),
    }
}

/// The texts of one kind, joined as those who show them do.
fn joined(parts: &[MessagePart], thoughts: bool) -> String {
    let texts = parts.iter().filter_map(|part| match &part.kind {
        PartKind::Text { text } if !thoughts => text.inline_text(),
        PartKind::Reasoning { text } if thoughts => text.inline_text(),
        _ => None,
    });
    texts.collect()
}

fn error() -> ErrorInfo {
    ErrorInfo::fatal(ErrorKind::Unknown, marked())
        .with_next_steps([forge_types::NextStep::SetSecret { name: Some(marked()) }])
}

/// A call whose id is as it stands in a state.
fn marked_call(id: String) -> ToolCall {
    ToolCall { id, name: marked(), arguments: marked().into() }
}

/// Parts of every kind.
fn all_parts() -> Vec<MessagePart> {
    let result = ToolResultPart { call_id: marked(), name: marked(), content: marked().into(), ok: true };
    vec![
        MessagePart::text(marked()),
        thought(&marked(), Some("1")),
        thought("", Some(&format!("{{\"reasoning_content\":\"{KEY}\"}}"))),
        MessagePart::call(marked_call(marked())),
        MessagePart::result(result),
    ]
}

/// Events of what people and the run itself say.
fn told() -> Vec<EventKind> {
    let told = |command| EventKind::Commanded { id: CommandId::from_u128(1), command };
    vec![
        EventKind::Created(Box::new(RunCreation {
            task: marked().into(),
            repo: "/repo".into(),
            pipeline: "solo".to_owned(),
            source: RunSource::Cli,
            history: vec![Message { role: Role::Assistant, parts: all_parts() }],
            parent: None,
            root: RunId::from_u128(1),
            plan: Digest::of_bytes(b"x"),
            correlation_id: "1".to_owned(),
        })),
        told(RunCommand::Cancel { by: marked() }),
        told(RunCommand::Steer { text: marked() }),
        EventKind::ToolCallRejected {
            call_id: "1".to_owned(),
            tool: marked(),
            verdict: ToolCallVerdict::Malformed,
            error: error(),
        },
        EventKind::Compacted {
            gone: Vec::new(),
            cause: CompactCause::Grown,
            by: SummaryBy::Extract,
            text: marked().into(),
            recall: false,
            note: Some(marked()),
        },
        EventKind::StatusChanged {
            from: RunStatus::Running,
            to: RunStatus::Waiting,
            waiting_for: None,
            until: None,
            reason: Some(marked()),
        },
        EventKind::Finished {
            status: RunStatus::Failed,
            limit: None,
            error: Some(error()),
            files_modified: vec![marked()],
            files_omitted: 0,
            snapshot: None,
            answer: Some(marked().into()),
        },
    ]
}

/// Events of effects and what came of them.
fn done() -> Vec<EventKind> {
    let call = ModelCall {
        iteration: 1,
        attempt: 1,
        max_tokens: 1,
        not_before: None,
        input_estimate: 1,
        target: 0,
        passed: vec![RejectedCandidate { provider: marked(), model: marked(), reason: marked() }],
    };
    let call_id = marked_call("1".to_owned());
    let run = ToolRun { call: call_id, access: ToolAccess::Read, attempt: 1, not_before: None };
    let compaction = Compaction {
        gone: Vec::new(),
        cause: CompactCause::Grown,
        attempt: 1,
        ask: None,
        room: 1,
        most: 1,
        note: Some(marked()),
    };
    let (usage, finish) = (Usage::default(), FinishReason::Stop);
    let asked = SummaryCost { model: marked(), usage, latency_ms: 1, finish, cost: None };
    let summary = ConversationSummary {
        text: marked().into(),
        by: SummaryBy::Model,
        note: Some(marked()),
        asked: Some(asked),
    };
    let reply = ModelReply { model: marked(), ..reply(all_parts(), FinishReason::Stop) };
    let intended = |what| EventKind::Intended {
        effect: EffectId(1),
        what,
        reserved: Some(Money::ZERO),
        key: None,
        snapshot: None,
    };
    vec![
        intended(Effect::CallModel(call)),
        intended(Effect::RunTool(run)),
        intended(Effect::Compact(compaction)),
        settled(Outcome::Replied { reply, cost: None }),
        settled(Outcome::ModelFailed { error: error() }),
        settled(Outcome::ToolDone { output: ToolOutput::ok(marked()) }),
        settled(Outcome::Summarised { summary }),
        settled(Outcome::SandboxLost { why: marked() }),
    ]
}

/// Events of the sandbox, the network and the repository.
fn around() -> Vec<EventKind> {
    let layer = |state| SandboxLayer { name: marked(), state, remedy: Some(marked()) };
    let report = SandboxReport {
        backend: marked(),
        id: marked(),
        view: marked(),
        layers: vec![
            layer(SandboxLayerState::Absent(marked())),
            layer(SandboxLayerState::Degraded(marked())),
        ],
        masked: vec![marked()],
        warnings: vec![marked()],
    };
    let record = EgressRecord {
        at: Timestamp::default(),
        host: marked(),
        port: 1,
        verdict: EgressVerdict::Refused,
        why: marked(),
        count: 1,
        sent: 0,
        received: 0,
    };
    let change = WorkspaceChange { path: marked(), kind: ChangeKind::Added, added: None, removed: None };
    let conflict = ApplyConflict { path: marked(), why: marked(), merges: false };
    let applied = |outcome| EventKind::Applied { to: SnapshotId(Digest::of_bytes(b"x")), outcome };
    vec![
        EventKind::SandboxChanged { state: SandboxState::Running, report: Some(report) },
        EventKind::EgressRecorded { records: vec![record] },
        applied(ApplyOutcome::Done {
            changed: vec![change],
            omitted: 0,
            merged: vec![marked()],
            notes: vec![marked()],
        }),
        applied(ApplyOutcome::Published { branch: marked(), commit: marked() }),
        applied(ApplyOutcome::Conflicts { conflicts: vec![conflict], omitted: 0 }),
        applied(ApplyOutcome::Failed { why: marked() }),
    ]
}

#[test]
fn no_field_of_an_event_keeps_a_key() {
    for mut kind in told().into_iter().chain(done()).chain(around()) {
        let before = serde_json::to_string(&kind).unwrap();
        assert!(before.contains(KEY), "{before}");
        redactor().redact_event(&mut kind);
        let after = serde_json::to_string(&kind).unwrap();
        assert!(!after.contains(KEY) && after.contains("redacted_1") | after.contains(REDACTED), "{after}");
    }
}

#[test]
fn a_key_is_found_across_parts_of_one_kind_whatever_stands_between() {
    let (first, last) = KEY.split_at(9);
    for between in [thought("hm", None), called("1"), MessagePart::text(""), thought("", Some("\"signed\""))]
    {
        let text = |text: &str| MessagePart::text(text);
        let parts = journalled(vec![text(first), between.clone(), text(last), text(" is it")]);
        assert_eq!(joined(&parts, false), format!("{REDACTED}{REDACTED} is it"));
        assert_eq!(parts[1], between);
    }
    for between in [MessagePart::text("so"), called("1")] {
        let parts =
            journalled(vec![thought(first, None), between, thought(last, Some("1")), thought("", Some("2"))]);
        assert_eq!(joined(&parts, true), format!("{REDACTED}{REDACTED}"));
        assert!(parts.iter().all(|part| part.opaque.is_none()), "a state may stand for any of the thoughts");
    }
}

#[test]
fn a_state_that_holds_a_key_goes_and_another_stays_as_it_was() {
    let held = format!("{{\"thinking\":\"{KEY}\",\"signature\":\"abc\"}}");
    let parts = journalled(vec![thought("", Some(&held)), thought("", Some("\"kept\""))]);
    assert_eq!(parts[0].opaque, None);
    assert_eq!(parts[1].opaque.as_ref().unwrap().data, "\"kept\"");
}

#[test]
fn what_was_parsed_of_arguments_is_kept_unless_it_held_a_key() {
    for (text, kept) in [("no key", true), (KEY, false)] {
        let arguments = serde_json::json!({ "path": text }).to_string().into();
        let call = ToolCall { arguments, ..marked_call("c".into()) };
        let parsed = std::ptr::from_ref(call.arguments.parsed().unwrap());
        let before = call.clone();
        let parts = journalled(vec![MessagePart::call(call)]);
        let PartKind::Call(after) = &parts[0].kind else { panic!("it was a call") };
        let path = &after.arguments.parsed().unwrap()["path"];
        assert_eq!(path, if kept { text } else { REDACTED });
        assert_eq!(std::ptr::eq(after.arguments.parsed().unwrap(), parsed), kept);
        assert_eq!(after.arguments == before.arguments, kept);
    }
}

#[test]
fn ids_with_a_key_stay_apart_and_results_stay_with_their_calls() {
    let id = |n: u32| format!("call_{KEY}_{n}");
    let parts = journalled(vec![called(&id(1)), called(&id(2)), called("other"), called(&id(1))]);
    let ids: Vec<_> = parts
        .iter()
        .filter_map(|part| match &part.kind {
            PartKind::Call(call) => Some(call.id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(ids, ["call_redacted_1", "call_redacted_2", "other", "call_redacted_1"]);
    let result = ToolResultPart {
        call_id: id(2),
        name: "read_file".to_owned(),
        content: Payload::Inline("x".to_owned()),
        ok: true,
    };
    let said = Message { role: Role::Assistant, parts: vec![called(&id(1)), called(&id(2))] };
    let mut kind = told().remove(0);
    let EventKind::Created(created) = &mut kind else { unreachable!("the first of all") };
    created.history = vec![said, Message::tool(result)];
    redactor().redact_event(&mut kind);
    let EventKind::Created(created) = &kind else { unreachable!("the first of all") };
    let PartKind::Result(result) = &created.history[1].parts[0].kind else { unreachable!("a result") };
    assert_eq!(result.call_id, created.history[0].tool_calls().nth(1).unwrap().id);
}

/// The joined answer of replies that were cut off, each cleaned as it came.
fn cut_into(pieces: &[&str]) -> String {
    let redactor = redactor();
    let mut answer = String::new();
    for (number, piece) in pieces.iter().enumerate() {
        let finish = if number + 1 == pieces.len() { FinishReason::Stop } else { FinishReason::Length };
        let mut reply = reply(vec![MessagePart::text(*piece)], finish);
        redactor.redact_reply(&mut reply, &answer);
        let mut kind = settled(Outcome::Replied { reply, cost: None });
        redactor.redact_event(&mut kind);
        let EventKind::Settled { outcome: Outcome::Replied { reply, .. }, .. } = kind else {
            unreachable!("it was a reply")
        };
        answer.push_str(&joined(&reply.parts, false));
    }
    answer
}

#[test]
fn what_a_cut_reply_ends_with_stays_if_it_begins_no_key() {
    let text = ["The file has\n        ", "12345678", "4= lines, abcdef"];
    assert_eq!(cut_into(&text), text.concat());
}

proptest! {
    #[test]
    fn a_key_that_the_token_limit_cuts_is_not_in_the_answer(cuts in prop::collection::vec(0_usize..40, 1..4)) {
        let whole = format!("The key is {KEY}, so.");
        let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= whole.len()).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
        let answer = cut_into(&pieces);
        prop_assert!(answer.contains(REDACTED), "{:?}: {}", pieces, answer);
        for part in KEY.as_bytes().windows(8) {
            let part = std::str::from_utf8(part).unwrap();
            prop_assert!(!answer.contains(part), "{:?}: {}", pieces, answer);
        }
    }

    #[test]
    fn a_key_in_any_pieces_is_not_in_what_joins_them(cuts in prop::collection::vec(0_usize..40, 1..6)) {
        let whole = format!("The key is {KEY}, so.");
        let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut <= whole.len()).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let mut parts = Vec::new();
        for pair in cuts.windows(2) {
            parts.extend([MessagePart::text(&whole[pair[0]..pair[1]]), thought(&whole[pair[0]..pair[1]], None)]);
        }
        let parts = journalled(parts);
        for text in [joined(&parts, false), joined(&parts, true)] {
            let text = text.replace(REDACTED, "");
            prop_assert_eq!(text, "The key is , so.");
        }
    }
}
