//! Whatever is appended, in whatever portions, comes back as it was.

use crate::open;
use forge_ports::Journal;
use forge_ports::journal::Batch;
use forge_testkit::sample::{event_batch, new_run_row};
use forge_testkit::scale;
use forge_types::{
    CommandId, Effect, EffectId, ErrorInfo, ErrorKind, Event, EventKind, ModelCall, Money, Outcome,
    RunCommand, RunId, RunStatus, Seq, Timestamp, ToolCallVerdict,
};
use proptest::prelude::*;

/// Any text: the whole of Unicode, zero included.
fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(any::<char>(), 0..40).prop_map(String::from_iter)
}

fn kind() -> impl Strategy<Value = EventKind> {
    prop_oneof![
        (any::<u128>(), text()).prop_map(|(id, text)| EventKind::Commanded {
            id: CommandId::from_u128(id),
            command: RunCommand::Steer { text },
        }),
        (any::<u64>(), any::<u32>(), proptest::option::of(any::<i64>())).prop_map(
            |(effect, number, reserved)| EventKind::Intended {
                effect: EffectId(effect),
                what: Effect::CallModel(ModelCall {
                    iteration: number,
                    attempt: 1,
                    max_tokens: effect,
                    not_before: None,
                    input_estimate: 5,
                    target: 0,
                    passed: Vec::new(),
                }),
                reserved: reserved.map(Money),
                key: None,
                snapshot: None,
            }
        ),
        (any::<u64>(), text()).prop_map(|(effect, why)| EventKind::Settled {
            effect: EffectId(effect),
            outcome: Outcome::SandboxLost { why },
            snapshot: None,
        }),
        (text(), text()).prop_map(|(call_id, message)| EventKind::ToolCallRejected {
            call_id,
            tool: "t".into(),
            verdict: ToolCallVerdict::Limit,
            error: ErrorInfo::fatal(ErrorKind::Denied, message),
        }),
        proptest::collection::vec(text(), 0..3).prop_map(|files_modified| EventKind::Finished {
            status: RunStatus::Completed,
            limit: None,
            error: None,
            files_modified,
            files_omitted: 0,
            snapshot: None,
            answer: None,
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scale::sample_or_all(24, 10_000),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn events_come_back_as_they_were(
        portions in proptest::collection::vec(proptest::collection::vec((kind(), any::<i32>()), 0..5), 1..5),
        task in text(),
        after in 0_u64..10,
        limit in 0_usize..6,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let dir = tempfile::tempdir().expect("a folder");
            let store = open(dir.path());
            let run = RunId::generate();
            let mut all: Vec<Event> = Vec::new();
            for portion in portions {
                let expected = all.len() as u64;
                let events: Vec<_> = (expected + 1..)
                    .zip(portion)
                    .map(|(seq, (kind, at))| Event { run, seq: Seq(seq), at: Timestamp::from_micros(at.into()), kind })
                    .collect();
                all.extend(events.iter().cloned());
                let mut row = new_run_row(run);
                row.task.clone_from(&task);
                store.append(Batch { events, row, ..event_batch(run, expected, 0) }).await.expect("an append");
            }
            let pages = store.read_events(run, Seq(after), limit).await.expect("a read");
            let limit = if limit == 0 { usize::MAX } else { limit };
            let wanted: Vec<_> =
                all.into_iter().filter(|event| event.seq.0 > after).take(limit).collect();
            prop_assert_eq!(pages.damage, None);
            prop_assert_eq!(pages.events, wanted);
            let rows = store.list_runs(forge_ports::journal::RunQuery::default()).await.expect("a list");
            prop_assert_eq!(&rows[0].task, &task);
            Ok(())
        })?;
    }
}
