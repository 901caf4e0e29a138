//! Conversations that outgrow their window: what gives way to a summary, what stays, and what every request holds.

use super::*;
use forge_policy::compact::text;
use forge_policy::context;
use forge_testkit::scale;
use proptest::prelude::*;
use std::sync::Arc;

const TASK: &str = "do it";

/// What happens next in a random conversation. Numbers choose sizes.
#[derive(Clone, Debug)]
enum Happens {
    Works { results: Vec<(u16, bool)>, same: bool },
    Steers(u8),
    SaysTooLong,
    IsBusy,
    Crashes,
    Cuts(u16),
}

/// What comes of asking for a summary.
#[derive(Clone, Debug)]
enum Summarised {
    Well(u16),
    Empty,
    Garbage,
    Busy,
    Refused,
    Crash,
}

fn happens() -> impl Strategy<Value = Vec<Happens>> {
    let results = proptest::collection::vec((0_u16..6_000, proptest::bool::weighted(0.8)), 1..4);
    let one = prop_oneof![
        12 => (results, any::<bool>()).prop_map(|(results, same)| Happens::Works { results, same }),
        1 => (1_u8..60).prop_map(Happens::Steers),
        1 => Just(Happens::SaysTooLong),
        1 => Just(Happens::IsBusy),
        1 => Just(Happens::Crashes),
        1 => (1_u16..2_000).prop_map(Happens::Cuts),
    ];
    proptest::collection::vec(one, 1..60)
}

fn summaries() -> impl Strategy<Value = Vec<Summarised>> {
    let one = prop_oneof![
        6 => (20_u16..12_000).prop_map(Summarised::Well),
        1 => Just(Summarised::Empty),
        1 => Just(Summarised::Garbage),
        1 => Just(Summarised::Busy),
        1 => Just(Summarised::Refused),
        1 => Just(Summarised::Crash),
    ];
    proptest::collection::vec(one, 1..12)
}

struct Long {
    world: World,
    steered: Vec<String>,
    summaries: Vec<Summarised>,
    asked: usize,
    /// The request before, and how often was compacted then.
    last: Option<(ModelRequest, u32)>,
    compactions: u32,
    calls: u32,
}

impl Long {
    fn new(window: u64, history: &[u16], summaries: Vec<Summarised>) -> Self {
        let mut plan = plan();
        plan.agent_mut().expect("an agent").first.facts.window = window;
        plan.shared.limits = RunLimits {
            max_iterations: 10_000,
            max_tokens: u64::MAX / 4,
            max_cost: Money(i64::MAX / 4),
            max_shell_commands: 10_000,
            ..plan.shared.limits
        };
        plan.agent_mut().expect("an agent").context.recall =
            Some(tool("recall", ToolAccess::Nothing, "query"));
        let mut world = World::new(plan);
        if !history.is_empty() {
            let run = world.state.run;
            world.state = RunState::new(run);
            let said = |(n, length): (usize, &u16)| {
                let text = words(*length);
                if n % 2 == 0 { Message::user(text) } else { Message::assistant(text) }
            };
            world.push(EventKind::Created(Box::new(RunCreation {
                task: TASK.into(),
                repo: PathBuf::from("/r"),
                pipeline: "solo".into(),
                source: RunSource::Chat,
                history: history.iter().enumerate().map(said).collect(),
                parent: None,
                root: run,
                plan: Digest::of_bytes(b""),
                correlation_id: String::new(),
            })));
            world.push(EventKind::Claimed { worker: "w".into(), attempt: 1 });
        }
        Self { world, steered: Vec::new(), summaries, asked: 0, last: None, compactions: 0, calls: 0 }
    }

    /// Decides and answers requests for summaries until something else is awaited.
    fn go_on(&mut self) {
        for _ in 0..200 {
            self.world.log.clear();
            self.world.decide();
            let open = self.world.state.open.values().next().map(|open| open.what.clone());
            match open {
                Some(Effect::Compact(compaction)) => self.summarise(&compaction),
                Some(Effect::CallModel(call)) => return self.look_at(&call),
                Some(Effect::RunTool(_) | Effect::StartRun(_)) => return,
                None if self.world.state.status == RunStatus::Waiting => {
                    self.world.command(RunCommand::Resume { limits: None });
                }
                None => return,
            }
        }
        panic!("compacts for ever");
    }

    fn summarise(&mut self, compaction: &Compaction) {
        let state = &self.world.state;
        let messages: Vec<Arc<Message>> = state.messages_at(&compaction.gone).cloned().collect();
        assert!(!messages.is_empty());
        let outcome = match &compaction.ask {
            None => Outcome::Summarised { summary: text::extract(compaction, &messages) },
            Some(call) => {
                let request = text::summary_request(
                    self.world.plan.agent().expect("an agent"),
                    call,
                    compaction,
                    &messages,
                );
                let sent = request.system.len() as u64 + request.messages[0].approx_bytes();
                let window = self.world.plan.agent().expect("an agent").agent.first.facts.window;
                assert!(sent.div_ceil(3) + call.max_tokens <= window, "{sent} bytes for {window}");
                assert!(
                    sent.div_ceil(3) <= call.input_estimate,
                    "{sent} bytes were taken for {}",
                    call.input_estimate
                );
                assert_eq!(request.settings.temperature, Some(0.3));
                self.asked += 1;
                let how = self.summaries[self.asked % self.summaries.len()].clone();
                answer(&how, compaction, &messages)
            }
        };
        self.world.settle(|what| matches!(what, Effect::Compact(_)), outcome);
    }

    /// What every request must hold.
    fn look_at(&mut self, call: &ModelCall) {
        let (state, plan) = (&self.world.state, &self.world.plan);
        self.calls += 1;
        self.compactions = state.compact.times;
        assert!(state.is_consistent(), "a call without its result");
        assert!(
            call.input_estimate + call.max_tokens <= plan.agent().expect("an agent").agent.first.facts.window,
            "over the window"
        );
        let request = context::model_request(state, plan.agent().expect("an agent"), call);
        assert_eq!(request.system, plan.agent().expect("an agent").agent.system);
        let texts: Vec<String> = request
            .messages
            .iter()
            .filter(|message| message.role == Role::User)
            .map(|message| message.text_parts().filter_map(Payload::inline_text).collect())
            .collect();
        assert_eq!(texts.iter().filter(|text| *text == TASK).count(), 1, "the task");
        for steered in &self.steered {
            assert!(texts.contains(steered), "what the user said: {steered}");
        }
        let summaries = texts.iter().filter(|text| text.starts_with("[Summary of the earlier part")).count();
        assert_eq!(summaries, usize::from(state.compact.times > 0), "one summary stands for all before it");
        assert_eq!(request.tools.iter().any(|tool| tool.name == "recall"), state.compact.times > 0);
        if let Some((before, times)) = &self.last
            && *times == state.compact.times
        {
            assert!(
                request.messages.starts_with(&before.messages),
                "the prefix changed without a compaction"
            );
        }
        self.last = Some((request, state.compact.times));
    }

    fn happen(&mut self, what: &Happens) {
        let asked = self.world.state.open.values().any(|open| matches!(open.what, Effect::CallModel(_)));
        if self.world.state.status.is_terminal() || !asked {
            return;
        }
        match what {
            Happens::Works { results, same } => {
                let story: String = (0..results.len())
                    .map(|n| {
                        format!(
                            " !read {}",
                            if *same { "a".to_owned() } else { format!("f{}-{n}", self.calls) }
                        )
                    })
                    .collect();
                self.world.model(unmeasured(reply(&story, FinishReason::ToolCalls)));
                self.go_on();
                for (length, ok) in results {
                    let open =
                        self.world.state.open.values().any(|open| matches!(open.what, Effect::RunTool(_)));
                    if !open {
                        break;
                    }
                    let text = words(*length);
                    let output = if *ok {
                        ToolOutput::ok(text)
                    } else {
                        ToolOutput::failed(ErrorKind::Execution, text)
                    };
                    self.world.tool(Outcome::ToolDone { output });
                    self.go_on();
                }
            }
            Happens::Steers(length) => {
                let text = format!("constraint {} {}", self.steered.len(), "x".repeat((*length).into()));
                self.world.command(RunCommand::Steer { text: text.clone() });
                self.go_on();
                self.world.model(unmeasured(reply("Very well.", FinishReason::Stop)));
                self.steered.push(text);
                self.go_on();
            }
            Happens::SaysTooLong => {
                self.world.model(failure("context_overflow!"));
                self.go_on();
            }
            Happens::IsBusy => {
                self.world.model(failure("overloaded"));
                self.go_on();
            }
            Happens::Crashes => {
                self.world.happen("crash");
                self.go_on();
            }
            Happens::Cuts(length) => {
                self.world.model(unmeasured(reply(&words(*length), FinishReason::Length)));
                self.go_on();
            }
        }
    }
}

/// Without a count of the provider's own: sizes are told by bytes.
fn unmeasured(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Replied { mut reply, cost } => {
            reply.usage = Usage::default();
            Outcome::Replied { reply, cost }
        }
        other => other,
    }
}

fn answer(how: &Summarised, compaction: &Compaction, messages: &[Arc<Message>]) -> Outcome {
    let said = |text: String| {
        let asked = SummaryCost {
            model: "m".into(),
            usage: Usage { input: 100, output: 10, known: true, ..Usage::default() },
            latency_ms: 1,
            finish: FinishReason::Stop,
            cost: None,
        };
        let reply = ModelReply {
            parts: vec![MessagePart::text(text)],
            usage: asked.usage,
            model: "m".into(),
            finish: FinishReason::Stop,
            latency_ms: 1,
        };
        Outcome::Summarised { summary: text::summary_from_reply(&reply, asked, compaction, messages) }
    };
    match how {
        Summarised::Well(length) => said(words(*length)),
        Summarised::Empty => said("<think>hm</think> ".into()),
        Summarised::Garbage => said("na ".repeat(200)),
        Summarised::Busy => failure("rate_limit 100"),
        Summarised::Refused => failure("auth!"),
        Summarised::Crash => Outcome::Interrupted,
    }
}

fn words(length: u16) -> String {
    let words = ["alpha", "the file", "holds", "ünï", "a test", "which fails", "in line 7\n", "so far"];
    let mut text = String::new();
    for n in 0.. {
        if text.len() >= length.into() {
            break;
        }
        text.push_str(words[n % words.len()]);
        text.push(' ');
    }
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scale::sample_or_all(200, 2_000), ..ProptestConfig::default() })]

    #[test]
    fn no_conversation_outgrows_its_window(
        window in 4_000_u64..40_000,
        history in proptest::collection::vec(0_u16..2_000, 0..12),
        summaries in summaries(),
        all in happens(),
    ) {
        let mut long = Long::new(window, &history, summaries);
        long.go_on();
        for what in &all {
            long.happen(what);
        }
        let state = &long.world.state;
        // What ends such a run is a provider that can't be had, or a prompt that nothing can make shorter.
        if let Some(error) = state.ending.as_ref().and_then(|ending| ending.error.as_ref()) {
            let expected = [ErrorKind::ContextOverflow, ErrorKind::MalformedResponse, ErrorKind::Overloaded];
            prop_assert!(expected.contains(&error.kind), "{error}");
        }
    }
}

#[test]
fn a_long_conversation_is_compacted_again_and_again_and_never_ends_for_its_length() {
    let mut long = Long::new(8_000, &[], vec![Summarised::Well(900)]);
    long.go_on();
    for _ in 0..200 {
        long.happen(&Happens::Works { results: vec![(1_500, true), (900, true)], same: false });
    }
    assert_eq!(long.world.state.status, RunStatus::Running);
    assert_eq!(long.calls, 201);
    assert!((15..=80).contains(&long.compactions), "{} compactions", long.compactions);
}

/// A world with two finished turns of so many bytes each.
fn grown(change: impl FnOnce(&mut Plan), bytes: u16) -> World {
    let mut plan = plan();
    plan.agent_mut().expect("an agent").first.facts.window = 4_000;
    change(&mut plan);
    let mut world = World::new(plan);
    world.decide();
    for _ in 0..2 {
        world.model(unmeasured(reply("!read a", FinishReason::ToolCalls)));
        world.decide();
        world.tool(Outcome::ToolDone { output: ToolOutput::ok(words(bytes)) });
        world.log.clear();
        world.decide();
    }
    world
}

fn compact(world: &mut World, outcome: Outcome) {
    world.settle(|what| matches!(what, Effect::Compact(_)), outcome);
    world.log.clear();
    world.decide();
}

#[test]
fn a_summary_is_asked_for_twice_at_most_and_then_an_extract_is_made() {
    for failing in ["overloaded", "interrupted"] {
        let fail = || if failing == "interrupted" { Outcome::Interrupted } else { failure(failing) };
        let mut world = grown(|_| {}, 3_900);
        assert!(world.log.contains("summarise #5 1-2 by model try 1 (Grown)"), "{}", world.log);
        compact(&mut world, fail());
        assert!(world.log.contains("summarise #6 1-2 by model try 2 (Grown)"), "{}", world.log);
        compact(&mut world, fail());
        assert!(world.log.contains("summarise #7 1-2 by extract try 3 (Grown)"), "{}", world.log);
        let summary = ConversationSummary {
            text: "an extract".into(),
            by: SummaryBy::Extract,
            note: None,
            asked: None,
        };
        compact(&mut world, Outcome::Summarised { summary });
        assert!(world.log.contains("ask #8 turn 3.1"), "{}", world.log);
        assert_eq!((world.state.messages.len(), world.state.compact.times), (4, 1));
    }
    let mut world = grown(|_| {}, 3_900);
    compact(&mut world, failure("auth!"));
    assert!(world.log.contains("summarise #6 1-2 by extract try 2 (Grown)"), "{}", world.log);
}

#[test]
fn where_money_is_short_nobody_is_asked_for_a_summary() {
    let world = grown(|plan| plan.shared.limits.max_cost = Money(15_000_000_000), 3_900);
    assert!(world.log.contains("by extract try 1 (Grown)"), "{}", world.log);
    let world = grown(
        |plan| {
            plan.agent_mut().expect("an agent").first.facts.price = None;
            plan.shared.cost_rule = CostRule::AllowUnknown;
        },
        3_900,
    );
    assert!(world.log.contains("by model try 1 (Grown)"), "{}", world.log);
}

#[test]
fn a_request_that_is_too_long_is_shortened_once() {
    let mut world = grown(|plan| plan.agent_mut().expect("an agent").first.facts.window = 100_000, 3_900);
    assert!(world.log.contains("ask #5 turn 3.1"), "{}", world.log);
    world.model(failure("context_overflow!"));
    world.log.clear();
    world.decide();
    assert!(world.log.contains("summarise #6 1-2 by model try 1 (Overflow)"), "{}", world.log);
    let summary =
        ConversationSummary { text: "a summary".into(), by: SummaryBy::Model, note: None, asked: None };
    compact(&mut world, Outcome::Summarised { summary });
    assert!(world.log.contains("ask #7 turn 3.2"), "{}", world.log);
    world.model(failure("context_overflow!"));
    world.log.clear();
    world.decide();
    assert!(
        world.log.contains(
            "=> failed: it said context_overflow!. The oldest part of the conversation was summarised once"
        ),
        "{}",
        world.log
    );
    // A turn that begins later may be shortened again.
    let mut world = World::new(plan());
    world.decide();
    world.model(failure("context_overflow!"));
    world.log.clear();
    world.decide();
    assert!(world.log.contains("Nothing of the conversation can be summarised"), "{}", world.log);
}

#[test]
fn a_failure_that_was_kept_before_the_summary_goes_with_it() {
    let mut plan = plan();
    plan.agent_mut().expect("an agent").first.facts.window = 4_000;
    let mut world = World::new(plan);
    world.decide();
    let mut failed = 0;
    for n in 0..12 {
        // Failures of different files: only the last two are kept, so older ones give way later.
        let ok = n % 2 == 1;
        world.model(unmeasured(reply(&format!("!read f{n}"), FinishReason::ToolCalls)));
        world.decide();
        let text = words(1_100);
        failed += usize::from(!ok);
        let output = if ok { ToolOutput::ok(text) } else { ToolOutput::failed(ErrorKind::Execution, text) };
        world.tool(Outcome::ToolDone { output });
        world.decide();
        while world.state.open.values().any(|open| matches!(open.what, Effect::Compact(_))) {
            let summary = ConversationSummary {
                text: "so far so good".into(),
                by: SummaryBy::Model,
                note: None,
                asked: None,
            };
            compact(&mut world, Outcome::Summarised { summary });
        }
        let heads = world.state.messages.iter().filter(|message| {
            message
                .text_parts()
                .filter_map(Payload::inline_text)
                .any(|text| text.starts_with("[Summary of the earlier"))
        });
        assert!(heads.count() <= 1, "after {failed} failures");
    }
    assert!(world.state.compact.times > 1);
}

#[test]
fn a_failure_that_nothing_mended_stays() {
    let mut plan = plan();
    plan.agent_mut().expect("an agent").first.facts.window = 4_000;
    let mut world = World::new(plan);
    world.decide();
    let mut turn = |call: &str, text: &str, ok: bool| {
        world.model(unmeasured(reply(call, FinishReason::ToolCalls)));
        world.decide();
        let output = if ok { ToolOutput::ok(text) } else { ToolOutput::failed(ErrorKind::Execution, text) };
        world.tool(Outcome::ToolDone { output });
        world.log.clear();
        world.decide();
    };
    turn("!read mended", "no such file", false);
    turn("!read mended", "here it is", true);
    turn("!read open", "permission denied", false);
    turn("!read a", &words(4_500), true);
    turn("!read b", &words(4_500), true);
    // Task, two calls and results that are mended, the open failure (5, 6), the rest.
    assert!(world.log.contains("summarise #11 1-4 7-8 by model try 1 (Grown)"), "{}", world.log);
}
