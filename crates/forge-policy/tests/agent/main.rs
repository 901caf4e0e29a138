//! The agent's decider by small stories: what arrives on the left, what is decided on the right.
//!
//! Each line of a story is something that happens; after it the decider is asked until it decides nothing new, and
//! each decision is written down. `model:` lines settle the open model call, `tool:` lines the first open tool call.

use expect_test::{Expect, expect};
use forge_policy::{DecisionInput, decide};
use forge_types::*;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

fn tool(name: &str, access: ToolAccess, param: &str) -> ToolSpec {
    ToolSpec {
        name: name.into(),
        aliases: vec![format!("{name}_alias")],
        description: "does it".into(),
        params: vec![ParamSpec::required(param, ParamType::String, "what")],
        access,
        category: ToolCategory::Builtin,
    }
}

fn plan() -> Plan {
    let agent = AgentPlan {
        first: ModelTarget {
            route: ModelRoute { provider: "p".into(), model: "m".into() },
            facts: ModelFacts {
                price: Some(Price { input: 1_000_000, output: 2_000_000, cached_input: 0, cache_write: 0 }),
                window: 100_000,
                max_output: Some(16_000),
            },
            organization: None,
        },
        fallbacks: Vec::new(),
        routing: None,
        reference: None,
        executor: forge_types::Executor::React,
        tool_layer: forge_types::ToolLayer::Real,
        memory: None,
        memory_guard: None,
        settings: ModelSettings { max_tokens: Some(1_000), temperature: None, top_p: None, timeout_ms: 1 },
        system: "be good".into(),
        tools: vec![
            tool("read", ToolAccess::Read, "path"),
            tool("write", ToolAccess::Write, "path"),
            tool("shell", ToolAccess::Exec, "command"),
        ],
        disabled: vec!["fly".into()],
        retry: RetryRule::default(),
        context: ContextRule::default(),
        commands: CommandRules::default(),
    };
    let shared = SharedPlan {
        pull_requests: forge_types::PullRequestRules::default(),
        limits: RunLimits { max_tool_calls_per_turn: 3, max_shell_commands: 2, ..RunLimits::default() },
        cost_rule: CostRule::Default,
        alert_percent: 80,
        day_ceiling: None,
        ceilings: Vec::new(),
        command_ms: 1_000,
        sandbox: SandboxSpec::new("native", "/r"),
        config: serde_json::Value::Null,
    };
    Plan::for_agent(shared, agent)
}

struct World {
    plan: Plan,
    state: RunState,
    now: Timestamp,
    /// Providers that are left alone.
    cooling: Vec<Cooldown>,
    log: String,
}

impl World {
    fn new(plan: Plan) -> Self {
        let run = RunId::from_u128(7);
        let state = RunState::new(run);
        let mut world =
            Self { plan, state, now: Timestamp::from_micros(0), cooling: Vec::new(), log: String::new() };
        world.push(EventKind::Created(Box::new(RunCreation {
            task: "do it".into(),
            repo: PathBuf::from("/r"),
            pipeline: "solo".into(),
            source: RunSource::Cli,
            history: Vec::new(),
            parent: None,
            root: run,
            plan: Digest::of_bytes(b""),
            correlation_id: String::new(),
        })));
        world.push(EventKind::Claimed { worker: "w".into(), attempt: 1 });
        world
    }

    fn push(&mut self, kind: EventKind) {
        let event = Event { run: self.state.run, seq: self.state.seq.next(), at: self.now, kind };
        self.state.apply(&event).expect("in order");
    }

    fn settle(&mut self, wanted: impl Fn(&Effect) -> bool, outcome: Outcome) {
        let effect =
            *self.state.open.iter().find(|(_, open)| wanted(&open.what)).expect("such an effect is open").0;
        self.push(EventKind::Settled { effect, outcome, snapshot: None });
    }

    fn model(&mut self, outcome: Outcome) {
        self.settle(|what| matches!(what, Effect::CallModel(_)), outcome);
    }

    fn tool(&mut self, outcome: Outcome) {
        self.settle(|what| matches!(what, Effect::RunTool(_)), outcome);
    }

    /// Decides until nothing new follows and writes it down.
    fn decide(&mut self) {
        for _ in 0..50 {
            let decision = decide(DecisionInput {
                state: &self.state,
                plan: &self.plan,
                cooldowns: &self.cooling,
                now: self.now,
            });
            self.note(&decision);
            if decision.is_quiet() {
                return;
            }
            for event in decision.record {
                self.push(event);
            }
            for start in decision.start {
                let (effect, what, reserved) = (start.effect, start.what, start.reserved);
                self.push(EventKind::Intended { effect, what, reserved, key: None, snapshot: None });
            }
            if let Some(finish) = decision.finish {
                let (status, limit, error, answer) =
                    (finish.status, finish.limit, finish.error, finish.answer);
                self.push(EventKind::Finished {
                    status,
                    limit,
                    error,
                    files_modified: vec![],
                    files_omitted: 0,
                    snapshot: None,
                    answer,
                });
            }
        }
        panic!("decides for ever:\n{}", self.log);
    }

    fn note(&mut self, decision: &Decision) {
        let log = &mut self.log;
        for event in &decision.record {
            let _ = match event {
                EventKind::ToolCallRejected { call_id, error, .. } => {
                    writeln!(log, "  refuse {call_id}: {} ({})", error.message, error.kind)
                }
                EventKind::StatusChanged { to, waiting_for: Some(what), until, reason, .. } => {
                    let until =
                        until.map_or_else(String::new, |t| format!(" until {}", t.as_micros() / 1000));
                    writeln!(log, "  {to} for {}{until}: {}", what.name(), reason.as_deref().unwrap_or(""))
                }
                EventKind::StatusChanged { to, .. } => writeln!(log, "  {to}"),
                other => writeln!(log, "  {other:?}"),
            };
        }
        for start in &decision.start {
            let after =
                start.what.not_before().map_or_else(String::new, |t| format!(" at {}", t.as_micros() / 1000));
            let _ = match &start.what {
                Effect::CallModel(call) => {
                    let whom = match call.target {
                        0 => String::new(),
                        _ => format!(
                            " {}",
                            self.plan.agent().expect("an agent").agent.target_at(call.target).route
                        ),
                    };
                    writeln!(
                        log,
                        "  ask{whom} #{} turn {}.{} max {}{after}",
                        start.effect, call.iteration, call.attempt, call.max_tokens
                    )
                }
                Effect::Compact(compaction) => {
                    let (by, gone) =
                        (if compaction.ask.is_some() { "model" } else { "extract" }, &compaction.gone);
                    let gone: Vec<_> =
                        gone.iter().map(|span| format!("{}-{}", span.from, span.until - 1)).collect();
                    let (effect, tries, gone) = (start.effect, compaction.attempt, gone.join(" "));
                    writeln!(
                        log,
                        "  summarise #{effect} {gone} by {by} try {tries} ({:?}){after}",
                        compaction.cause
                    )
                }
                Effect::StartRun(child) => writeln!(log, "  start #{} {}{after}", start.effect, child.node),
                Effect::RunTool(run) => {
                    writeln!(
                        log,
                        "  run #{} {} {}.{}{after}",
                        start.effect, run.call.name, run.call.id, run.attempt
                    )
                }
            };
        }
        if !decision.cancel.is_empty() {
            let _ = writeln!(log, "  cancel {:?}", decision.cancel.iter().map(|e| e.0).collect::<Vec<_>>());
        }
        if let Some(finish) = &decision.finish {
            let limit = finish.limit.map_or_else(String::new, |l| format!(" [{l}]"));
            let error = finish.error.as_ref().map_or_else(String::new, |e| format!(": {e}"));
            let _ = writeln!(log, "  => {}{limit}{error}", finish.status);
        }
    }

    fn happen(&mut self, line: &str) {
        let (head, rest) = line.split_once(": ").unwrap_or((line.trim_end_matches(':'), ""));
        match head {
            "begin" => {}
            "model" => self.model(reply(rest, FinishReason::Stop)),
            "model cut" => self.model(reply(rest, FinishReason::Length)),
            "model error" => self.model(reply(rest, FinishReason::Error)),
            "model fails" => self.model(failure(rest)),
            "tool" => self.tool(Outcome::ToolDone { output: ToolOutput::ok(rest) }),
            "tool cancelled" => self.tool(Outcome::Cancelled),
            "model cancelled" => self.model(Outcome::Cancelled),
            "tool lost" => {
                self.push(EventKind::SandboxChanged { state: SandboxState::Died, report: None });
                self.tool(Outcome::SandboxLost { why: rest.into() });
            }
            "crash" => {
                let open: Vec<_> = self.state.open.keys().copied().collect();
                for effect in open {
                    self.push(EventKind::Settled { effect, outcome: Outcome::Interrupted, snapshot: None });
                }
            }
            "cancel" => self.command(RunCommand::Cancel { by: "test".into() }),
            "steer" => self.command(RunCommand::Steer { text: rest.into() }),
            "pause" => self.command(RunCommand::Pause),
            "resume" => self.command(RunCommand::Resume { limits: None }),
            "raise" => {
                let limits = RunLimits { max_iterations: 99, ..self.plan.shared.limits };
                self.command(RunCommand::Resume { limits: Some(limits) });
            }
            "cool" => self.cool(rest),
            "warm" => self.cooling.clear(),
            "after" => {
                let ms: u64 = rest.parse().expect("milliseconds");
                self.now = self.now.after(Duration::from_millis(ms));
            }
            other => panic!("what is `{other}`?"),
        }
    }

    /// `p 60`: that provider is left alone for so many seconds.
    fn cool(&mut self, text: &str) {
        let (provider, seconds) = text.split_once(' ').expect("a provider and seconds");
        self.cooling.push(Cooldown {
            provider: provider.into(),
            failures: 1,
            reason: ErrorKind::RateLimit,
            message: "429".into(),
            since: self.now,
            until: self.now.after(Duration::from_secs(seconds.parse().expect("seconds"))),
            credential: String::new(),
        });
    }

    fn command(&mut self, command: RunCommand) {
        self.push(EventKind::Commanded { id: CommandId::from_u128(1), command });
    }
}

/// `some text !read a !shell true` is a text with two calls; `!read@x a` names the call's id.
fn reply(text: &str, finish: FinishReason) -> Outcome {
    let mut pieces = text.split('!');
    let words = pieces.next().unwrap_or_default().trim();
    let mut parts = Vec::new();
    if !words.is_empty() {
        parts.push(MessagePart::text(words));
    }
    for (n, piece) in pieces.enumerate() {
        let (head, argument) = piece.trim().split_once(' ').unwrap_or((piece.trim(), ""));
        let (name, id) = head.split_once('@').unwrap_or((head, ""));
        let id = if id.is_empty() { format!("c{}", n + 1) } else { id.to_owned() };
        let param = if name.starts_with("shell") { "command" } else { "path" };
        let arguments = match argument.strip_prefix('=') {
            Some(raw) => raw.to_owned(),
            None => serde_json::json!({ param: argument }).to_string(),
        };
        parts.push(MessagePart::call(ToolCall {
            id: id.replace("none", ""),
            name: name.into(),
            arguments: arguments.into(),
        }));
    }
    let usage = Usage { input: 100, output: 10, known: true, ..Usage::default() };
    let reply = ModelReply { parts, usage, model: "m".into(), finish, latency_ms: 1 };
    Outcome::Replied { reply, cost: Some(Money(120_000_000)) }
}

/// `overloaded`, `rate_limit 7000` (Retry-After in ms), `auth!` (not retryable).
fn failure(text: &str) -> Outcome {
    let (name, after) = text.split_once(' ').unwrap_or((text, ""));
    let kind = serde_json::from_str(&format!("\"{}\"", name.trim_end_matches('!'))).expect("a kind");
    let retry_after_ms = after.parse().ok();
    let error = ErrorInfo {
        kind,
        message: format!("it said {name}"),
        retryable: !name.ends_with('!'),
        retry_after_ms,
        next_steps: Vec::new(),
    };
    Outcome::ModelFailed { error }
}

fn tell(plan: Plan, story: &str) -> World {
    let mut world = World::new(plan);
    for line in story.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let _ = writeln!(world.log, "{line}");
        world.happen(line);
        world.decide();
    }
    world
}

#[allow(clippy::needless_pass_by_value)]
fn check(story: &str, expected: Expect) {
    expected.assert_eq(&tell(plan(), story).log);
}

#[allow(clippy::needless_pass_by_value)]
fn check_with(change: impl FnOnce(&mut Plan), story: &str, expected: Expect) {
    let mut plan = plan();
    change(&mut plan);
    expected.assert_eq(&tell(plan, story).log);
}

mod ceilings;
mod compaction;
mod dispatching;
mod fallback;
mod limits;
mod replies;
mod stories;
mod trouble;
