//! A conversation that outgrows its window: its summary may be cut off by a kill anywhere, refused or garbage, and nothing
//! is lost.

use crate::harness::{World, assert_one_outcome_per_intent, plan};
use crate::model::{Brain, call, failure, say};
use forge_ports::model::Error;
use forge_testkit::memory::{AppendFault, AppendMoment, AppendPoint, MemoryStore};
use forge_testkit::scale;
use forge_types::*;
use std::sync::Arc;

/// Files that are read one after the other.
const FILES: usize = 8;
/// Stands in the first file only.
const NEEDLE: &str = "the password of the attic is heliotrope";

/// What becomes of requests for summaries.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Summaries {
    Good,
    Busy,
    Garbage,
}

fn asks_for_summary(request: &ModelRequest) -> bool {
    request.system.starts_with("You summarise")
}

fn said(request: &ModelRequest) -> String {
    request
        .messages
        .iter()
        .flat_map(|message| message.text_parts())
        .filter_map(Payload::inline_text)
        .collect()
}

/// Reads the files in order, as far as the conversation and its summary say that it has, then looks up the needle.
fn reader(summaries: Summaries) -> Brain {
    Brain::new(move |request, n| {
        // It counts the tokens of its prompts as real ones do.
        let input = request.messages.iter().map(|message| message.approx_bytes()).sum::<u64>().div_ceil(3);
        reads(summaries, request, n)
            .map(|reply| ModelReply { usage: Usage { input, ..reply.usage }, ..reply })
    })
}

fn reads(summaries: Summaries, request: &ModelRequest, n: usize) -> Result<ModelReply, Error> {
    {
        if asks_for_summary(request) {
            return match summaries {
                Summaries::Good => {
                    Ok(say(&format!("These files were read: {}", read_in(&said(request)).join(" "))))
                }
                Summaries::Busy => Err(failure(ErrorKind::RateLimit, None)),
                Summaries::Garbage => Ok(say("")),
            };
        }
        let mut known = read_in(&said(request));
        let results = request.messages.iter().flat_map(|message| &message.parts);
        let results = results.filter_map(|part| match &part.kind {
            PartKind::Result(result) => Some(result),
            _ => None,
        });
        let mut looked_up = None;
        for result in results {
            let text = result.content.inline_text().expect("texts are in place");
            if result.name == "recall" {
                looked_up = Some(text.to_owned());
            }
            known.extend(read_in(text));
        }
        let last = known.iter().filter_map(|name| name[4..].parse::<usize>().ok()).max();
        Ok(match (last.map_or(0, |last| last + 1), looked_up) {
            (_, Some(text)) => say(if text.contains(NEEDLE) { "heliotrope" } else { "I do not know" }),
            (next, None) if next < FILES => {
                call("c", "read_file", &serde_json::json!({"path": format!("file{next}.txt")}).to_string())
            }
            _ if request.tools.iter().any(|tool| tool.name == "recall") => {
                call("r", "recall", r#"{"query": "the password of the attic"}"#)
            }
            _ => say(&format!("nothing was compacted in {n} requests")),
        })
    }
}

/// Names of files in a text: `file3` where it says that this file was read.
fn read_in(text: &str) -> Vec<String> {
    (0..FILES).map(|n| format!("file{n}")).filter(|name| text.contains(name.as_str())).collect()
}

fn prepare(world: &World) -> Plan {
    for n in 0..FILES {
        let needle = if n == 0 { NEEDLE } else { "" };
        let text = format!("file{n}\n{needle}\n{}", "nothing of interest stands here\n".repeat(90));
        std::fs::write(world.repo().join(format!("file{n}.txt")), text).expect("a file");
    }
    let mut plan = plan(&world.repo());
    plan.shared.limits.max_iterations = 100;
    let agent = plan.agent_mut().expect("an agent");
    agent.first.facts.window = 8_000;
    agent.context.recall = agent.tools.iter().find(|tool| tool.name == "recall").cloned();
    // Few words of tools, so that the window is filled by what is said.
    agent.tools.retain(|tool| tool.name == "read_file");
    plan
}

fn compactions(events: &[Event]) -> Vec<SummaryBy> {
    let by = |event: &Event| match &event.kind {
        EventKind::Compacted { by, .. } => Some(*by),
        _ => None,
    };
    events.iter().filter_map(by).collect()
}

/// Runs with processes that die at these points, until one brings it to an end.
async fn run(summaries: Summaries, points: &[AppendPoint]) -> (World, Vec<Event>, u64) {
    let world = World::on(MemoryStore::new());
    let project = world.project(&world.store, Arc::new(reader(summaries)));
    let plan = prepare(&world);
    let run = world.create(&project, &plan).await;
    let mut appends = 0;
    for wanted in points.iter().copied().map(Some).chain([None]) {
        let hook =
            move |at: AppendPoint| if Some(at) == wanted { AppendFault::Crash } else { AppendFault::None };
        let process = world.store.reopen_with_hook(hook);
        let result = world.project(&process, Arc::new(reader(summaries))).drive(run, Arc::new(())).await;
        appends = process.append_count();
        assert_eq!(result.is_err(), process.has_crashed(), "{summaries:?} {points:?}: {result:?}");
        if let Ok(shown) = result {
            let answer: String = shown.state.answer.iter().filter_map(Payload::inline_text).collect();
            assert_eq!(answer, "heliotrope", "{summaries:?} {points:?}: {:?}", shown.state.ending);
            assert_eq!(shown.state.status, RunStatus::Completed);
            break;
        }
    }
    let events = world.events(run).await;
    assert_one_outcome_per_intent(&events);
    let state = RunState::replay(run, &events).expect("whole");
    assert!(state.is_consistent());
    let first: String = state.messages[0].text_parts().filter_map(Payload::inline_text).collect();
    assert_eq!(first, "do the steps");
    // Every file was read once, whatever happened to the process: no result is lost.
    let entries = Transcript::from_events(run, &events).expect("whole");
    let results = entries.iter().filter(|entry| entry.message.role == Role::Tool).count();
    assert_eq!(results, FILES + 1, "{summaries:?} {points:?}");
    (world, events, appends)
}

#[tokio::test]
async fn a_run_goes_on_with_a_summary_and_finds_what_it_stands_for() {
    let (world, events, _) = run(Summaries::Good, &[]).await;
    let made = compactions(&events);
    assert!(made.len() >= 2 && made.iter().all(|by| *by == SummaryBy::Model), "{made:?}");
    // What the calls for summaries cost is part of what the run cost, and nothing stays reserved.
    let asked = events.iter().filter(|event| {
        matches!(&event.kind, EventKind::Settled { outcome: Outcome::Summarised { summary }, .. } if summary.asked.is_some())
    });
    assert_eq!(asked.count(), made.len());
    use forge_ports::Ledger as _;
    let id = events[0].run;
    let balance = world.store.reopen().balance(&format!("run:{id}")).await.expect("a balance");
    let state = RunState::replay(id, &events).expect("whole");
    assert_eq!((balance.spent, balance.reserved), (state.cost, Money::ZERO));
}

#[tokio::test]
async fn a_busy_model_and_garbage_lead_to_an_extract() {
    for summaries in [Summaries::Busy, Summaries::Garbage] {
        let (_, events, _) = run(summaries, &[]).await;
        let made = compactions(&events);
        assert!(
            !made.is_empty() && made.iter().all(|by| *by == SummaryBy::Extract),
            "{summaries:?}: {made:?}"
        );
    }
}

#[tokio::test]
async fn a_kill_anywhere_during_a_compaction_loses_nothing() {
    let (_, _, appends) = run(Summaries::Good, &[]).await;
    for index in (0..appends).step_by(scale::sample_or_all(2, 1)) {
        for moment in [AppendMoment::Before, AppendMoment::After] {
            for summaries in scale::sample_or_all(
                vec![Summaries::Good],
                vec![Summaries::Good, Summaries::Busy, Summaries::Garbage],
            ) {
                run(summaries, &[AppendPoint { index, moment }]).await;
            }
        }
    }
}

#[tokio::test]
async fn a_summary_that_is_interrupted_twice_is_made_without_a_model() {
    // The process dies each time that the summary's outcome is to be written.
    let (_, events, _) = run(Summaries::Good, &[]).await;
    let compact = |event: &Event| matches!(&event.kind, EventKind::Intended { what: Effect::Compact(_), .. });
    let intents = events[..events.iter().position(compact).expect("a compaction")]
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Intended { .. }))
        .count() as u64;
    // The claim is the first append; each intent of this run but the first one follows in one of its own.
    let first = AppendPoint { index: intents + 1, moment: AppendMoment::Before };
    let (_, events, _) =
        run(Summaries::Good, &[first, AppendPoint { index: 1, moment: AppendMoment::Before }]).await;
    let tries: Vec<_> = events
        .iter()
        .filter_map(|event| match &event.kind {
            EventKind::Intended { what: Effect::Compact(compaction), .. } => Some(compaction.ask.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(tries[..3], [true, true, false], "{tries:?}");
    assert_eq!(compactions(&events)[0], SummaryBy::Extract);
}

#[tokio::test]
async fn an_answer_that_the_request_is_too_long_leads_to_a_compaction_and_one_retry() {
    let refusing = |times: usize| {
        let refused = std::sync::atomic::AtomicUsize::new(0);
        Brain::new(move |request, _| {
            use std::sync::atomic::Ordering::SeqCst;
            if asks_for_summary(request) {
                return Ok(say("Two of the files were read, and nothing of interest was found in them."));
            }
            let results = request.messages.iter().filter(|message| message.role == Role::Tool).count();
            if refused.load(SeqCst) == 0 && results < 3 {
                return Ok(call("c", "read_file", &format!(r#"{{"path":"file{results}.txt"}}"#)));
            }
            if refused.fetch_add(1, SeqCst) < times {
                return Err(failure(ErrorKind::ContextOverflow, None));
            }
            Ok(say("done"))
        })
    };
    for (times, status) in [(1, RunStatus::Completed), (2, RunStatus::Failed)] {
        let world = World::new();
        let mut plan = prepare(&world);
        plan.agent_mut().expect("an agent").first.facts.window = 100_000;
        let project = world.project(&world.store, Arc::new(refusing(times)));
        let run = world.create(&project, &plan).await;
        let shown = project.drive(run, Arc::new(())).await.expect("it ends");
        assert_eq!(shown.state.status, status, "{:?}", shown.state.ending);
        let events = world.events(run).await;
        assert_eq!(compactions(&events), [SummaryBy::Model]);
        let error = shown.state.ending.and_then(|ending| ending.error);
        assert_eq!(
            error.as_ref().map(|error| error.kind),
            (times == 2).then_some(ErrorKind::ContextOverflow)
        );
        assert!(
            error.is_none_or(|error| error.message.contains("summarised once, and it is still too long"))
        );
    }
}
