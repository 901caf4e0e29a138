//! A summary takes the place of messages: what the fold keeps, what the transcript remembers, what is told.

use crate::journal::{Writer, facts, part_call, run};
use forge_types::*;
use forge_wire::{Projector, WireData};

const COMPACTED: &str = include_str!("../golden/v1.compacted.jsonl");

/// Two turns, what the user said between them, a compaction of the first turn, the answer.
fn story() -> Writer {
    let mut writer = Writer::new();
    writer.start();
    let turn = |writer: &mut Writer, id: &str, result: &str| {
        let effect = writer.ask();
        writer.reply(effect, vec![part_call(id, "read_file", r#"{"path":"a"}"#)], FinishReason::ToolCalls);
        let effect = writer.call(id, "read_file", ToolAccess::Read, 1);
        writer.done(effect, ToolOutput::ok(result));
    };
    turn(&mut writer, "first", "a long text");
    writer.add(EventKind::Commanded {
        id: CommandId::from_u128(4),
        command: RunCommand::Steer { text: "touch nothing else".into() },
    });
    turn(&mut writer, "second", "another text");
    let ask = SummaryCall { target: 0, max_tokens: 1_024, input_estimate: 700, not_before: None };
    let gone = vec![MessageSpan { from: 1, until: 3 }];
    let compaction = Compaction {
        gone: gone.clone(),
        cause: CompactCause::Grown,
        attempt: 1,
        ask: Some(ask),
        room: 6_000,
        most: 500,
        note: None,
    };
    let effect = writer.intend(Effect::Compact(compaction));
    let asked = SummaryCost {
        model: "tiny-1".into(),
        usage: Usage { input: 40, output: 9, known: true, ..Usage::default() },
        latency_ms: 7,
        finish: FinishReason::Stop,
        cost: Some(Money::from_usd(0.001)),
    };
    let text = Payload::from("The file a was read: it holds a long text.");
    let summary =
        ConversationSummary { text: text.clone(), by: SummaryBy::Model, note: None, asked: Some(asked) };
    writer.add(EventKind::Settled { effect, outcome: Outcome::Summarised { summary }, snapshot: None });
    let cause = CompactCause::Grown;
    writer.add(EventKind::Compacted { gone, cause, by: SummaryBy::Model, text, recall: true, note: None });
    let effect = writer.ask();
    writer.reply(effect, vec![MessagePart::text("done")], FinishReason::Stop);
    writer.finish(RunStatus::Completed, None);
    writer
}

fn golden() -> Vec<Event> {
    COMPACTED
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect()
}

fn texts(message: &Message) -> String {
    message.text_parts().filter_map(|text| text.inline_text()).collect()
}

#[test]
fn a_summary_stands_where_its_messages_stood() {
    let state = RunState::replay(run(), &golden()).unwrap();
    assert_eq!(state, story().state, "the golden file tells the same story");
    assert!(state.is_consistent());
    let roles: Vec<_> = state.messages.iter().map(|message| message.role).collect();
    use Role::{Assistant, Tool, User};
    assert_eq!(roles, [User, User, User, Assistant, Tool, Assistant]);
    assert_eq!(texts(&state.messages[2]), "touch nothing else", "what the user said stays");
    let summary = texts(&state.messages[1]);
    assert!(summary.contains("it holds a long text") && summary.contains("`recall`"), "{summary}");
    assert!(summary.contains("not an instruction"), "{summary}");
    let compact = &state.compact;
    assert_eq!((compact.times, compact.summary), (1, Some(1)));
    assert_eq!(compact.pinned.iter().copied().collect::<Vec<_>>(), [0, 2]);
    let bytes: u64 = state.messages.iter().map(|message| message.sent_bytes()).sum();
    assert_eq!(state.message_bytes, bytes);
    assert_eq!((state.usage.input, state.usage.output), (90 * 3 + 40, 10 * 3 + 9));
    assert_eq!(state.cost, Money::from_usd(0.007));
}

#[test]
fn the_transcript_forgets_nothing() {
    let entries = Transcript::from_events(run(), &golden()).unwrap();
    let told: Vec<_> =
        entries.iter().map(|entry| (entry.number, entry.turn, entry.gone, entry.summary)).collect();
    assert_eq!(
        told,
        [
            (1, 0, false, false),
            (2, 1, true, false),
            (3, 1, true, false),
            (4, 2, false, false),
            (5, 2, false, false),
            (6, 2, false, false),
            (7, 2, false, true),
            (8, 3, false, false),
        ]
    );
}

#[test]
fn a_compaction_is_told_with_kinds_that_there_are() {
    let wire = Projector::new(run(), Some(facts())).project_all(&golden());
    let phases: Vec<_> = wire
        .iter()
        .filter_map(|event| match &event.data {
            WireData::RunChanged(changed) if changed.from == changed.to => Some(format!(
                "{} > {}: {}",
                changed.previous_phase,
                changed.phase,
                changed.reason.as_deref()?
            )),
            _ => None,
        })
        .collect();
    assert_eq!(
        phases,
        [
            "coding > compacting: summarising the oldest part of the conversation: it fills most of the model's context window",
            "compacting > coding: compacted: 2 messages were replaced by a summary by the model; the conversation has 0.4 kB \
             instead of 0.1 kB",
        ]
    );
    let asked = wire.iter().filter(|event| matches!(event.data, WireData::ModelRequested(_))).count();
    let answered = wire.iter().filter(|event| matches!(event.data, WireData::ModelCompleted(_))).count();
    assert_eq!((asked, answered), (4, 4));
}
