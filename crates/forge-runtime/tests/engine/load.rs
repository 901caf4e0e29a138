//! Many runs at once against the ceiling of a day, on a real store: replies of any size, failures, processes that die.

use crate::harness::{default_config, plan};
use crate::model::failure;
use forge_ports::model::{DeltaSink, Error};
use forge_ports::{Ledger as _, Model, async_trait};
use forge_runtime::{CooldownCache, EngineParts, Forge, NewRun, Project, Redactor};
use forge_store::SqliteStore;
use forge_testkit::clock::TestClock;
use forge_testkit::scale;
use forge_types::*;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

/// A model that answers, fails or dies by lot. It never uses more than it is allowed: no more tokens of prompt than it
/// was sent bytes, no more of reply than was asked for.
struct Wild {
    calls: AtomicU64,
    seed: u64,
    /// For each run, told when its process is to die.
    deaths: Vec<Arc<Notify>>,
}

/// A number by lot (the finaliser of splitmix64).
fn lot(seed: u64, n: u64) -> u64 {
    let mixed = (seed ^ n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn bytes(request: &ModelRequest) -> u64 {
    let texts = request.messages.iter().flat_map(|message| &message.parts).map(|part| match &part.kind {
        PartKind::Text { text } | PartKind::Reasoning { text } => {
            text.inline_text().map_or(0, str::len) as u64
        }
        PartKind::Call(call) => (call.name.len() + call.arguments.len()) as u64,
        PartKind::Result(result) => result.content.inline_text().map_or(0, str::len) as u64,
    });
    request.system.len() as u64 + texts.sum::<u64>()
}

#[async_trait]
impl Model for Wild {
    async fn request_reply(&self, request: ModelRequest, _: &dyn DeltaSink) -> Result<ModelReply, Error> {
        let n = lot(self.seed, self.calls.fetch_add(1, Ordering::Relaxed));
        tokio::task::yield_now().await;
        let run: usize = request.system.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("its number");
        match n % 16 {
            0 => return Err(failure(ErrorKind::RateLimit, None)),
            1 => return Err(failure(ErrorKind::Overloaded, None)),
            2 => return Err(failure(ErrorKind::Auth, None)),
            3 => {
                self.deaths[run].notify_one();
                std::future::pending::<()>().await;
            }
            _ => {}
        }
        let allowed = request.settings.max_tokens.expect("a reply always has an allowance");
        let usage = Usage {
            input: (n >> 8) % (bytes(&request) + 1),
            output: (n >> 32) % (allowed + 1),
            known: !n.is_multiple_of(7),
            ..Usage::default()
        };
        let parts = match (n >> 5) % 4 {
            0 => vec![MessagePart::text("done")],
            _ => vec![MessagePart::call(ToolCall {
                id: format!("c{n}"),
                name: "nothing".into(),
                arguments: "{}".into(),
            })],
        };
        Ok(ModelReply { parts, usage, model: "m".into(), finish: FinishReason::Stop, latency_ms: 1 })
    }
}

fn project(folder: &Path, clock: &TestClock, model: Arc<dyn Model>) -> (Project, Arc<SqliteStore>) {
    let data = folder.join("data");
    let store =
        Arc::new(SqliteStore::open(&forge_store::Options { data_dir: data.clone() }).expect("a store"));
    let clock: Arc<dyn forge_ports::Clock> = Arc::new(clock.clone());
    let options = forge_store::QueueOptions::new(data.clone());
    let queue = Arc::new(forge_store::LocalQueue::new(options, store.as_ref().clone(), clock.clone()));
    let boxes = Arc::new(forge_sandbox::Backends::new(forge_sandbox::BackendOptions::under_directory(&data)));
    let parts = EngineParts {
        open_memory: Arc::new(|_: &AgentPlan| None),
        journal: store.clone(),
        ledger: store.clone(),
        count_tokens: Arc::new(|_: &ModelRequest| None),
        queue,
        model,
        tools: Arc::new(forge_tools::builtin_tools()),
        sandbox: boxes.clone(),
        workspaces: Arc::new(boxes.workspaces()),
        clock,
        redactor: Arc::new(Redactor::default()),
        cooldowns: Arc::new(CooldownCache::process_local()),
        decide: Arc::new(forge_policy::decide),
    };
    let process = Forge::from_parts(&parts, data, "test:1".to_owned());
    (Project::assemble(process, default_config(folder), parts, boxes), store)
}

/// The plan of run `n`: no tools, so no box.
fn plan_of(repo: &Path, n: usize, ceiling: Money) -> Plan {
    let mut plan = plan(repo);
    plan.agent_mut().expect("an agent").tools.clear();
    plan.agent_mut().expect("an agent").system = format!("you are run {n}");
    plan.shared.day_ceiling = Some(ceiling);
    plan
}

async fn create(project: &Project, repo: &Path, plan: &Plan) -> RunId {
    let new =
        NewRun { task: "go on".into(), repo: repo.to_owned(), source: RunSource::Cli, history: Vec::new() };
    project.create(new, plan).await.expect("a run")
}

/// Works on a run until it ends or its process dies; whoever died is followed by another process, or left dead.
async fn live(project: Project, run: RunId, death: Arc<Notify>, lives: u64) {
    for _ in 0..=lives {
        let (project, run) = (project.clone(), run);
        let mut work = tokio::spawn(async move { project.drive(run, Arc::new(())).await.map(drop) });
        tokio::select! {
            ended = &mut work => return ended.expect("no panic").expect("it ends"),
            () = death.notified() => {
                work.abort();
                // Only then is the lease free.
                let _ = work.await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_days_ceiling_is_never_passed_and_nothing_stays_reserved() {
    let count: usize = scale::sample_or_all(100, 1_000);
    let folder = tempfile::tempdir().expect("a folder");
    let repo = folder.path().join("repo");
    std::fs::create_dir(&repo).expect("a repository");
    let clock = TestClock::skipping(Timestamp::from_micros(1_700_000_000_000_000), Duration::from_secs(60));
    let ceiling = Money(i64::try_from(count).expect("few") * 2_000_000 + 7);
    let deaths: Vec<_> = (0..count).map(|_| Arc::new(Notify::new())).collect();
    let model = Arc::new(Wild { calls: AtomicU64::new(0), seed: 11, deaths: deaths.clone() });
    // Two processes on one data folder.
    let (one, store) = project(folder.path(), &clock, model.clone());
    let (two, _other) = project(folder.path(), &clock, model.clone());
    let over = Arc::new(Mutex::new(false));
    let watch = {
        let (store, over) = (store.clone(), over.clone());
        async move {
            while !*over.lock().expect("no panic") {
                for (day, balance) in store.accounts("day:").await.expect("a ledger") {
                    assert!(balance.spent.plus(balance.reserved) <= ceiling, "{day}: {balance:?}");
                }
                tokio::task::yield_now().await;
            }
        }
    };
    let watch = tokio::spawn(watch);
    let mut runs = Vec::new();
    let mut work = Vec::new();
    for (n, death) in deaths.iter().enumerate() {
        let project = if n % 2 == 0 { &one } else { &two };
        let run = create(project, &repo, &plan_of(&repo, n, ceiling)).await;
        runs.push(run);
        work.push(tokio::spawn(live(project.clone(), run, death.clone(), n as u64 % 4)));
    }
    for work in work {
        work.await.expect("no panic");
    }
    // The dead are buried.
    for run in &runs {
        if !one.forge().run_details(*run).await.expect("a run").state.status.is_terminal() {
            one.send_command(*run, RunCommand::Cancel { by: "test".into() }).await.expect("it is cancelled");
        }
    }
    *over.lock().expect("no panic") = true;
    watch.await.expect("never over the ceiling");
    let mut cost = Money::ZERO;
    let mut limited = 0;
    for run in &runs {
        let state = one.forge().run_details(*run).await.expect("a run").state;
        cost = cost.plus(state.cost);
        limited += usize::from(state.ending.is_some_and(|ending| ending.limit == Some(LimitKind::Cost)));
        assert_eq!(store.reservations(*run).await.expect("a ledger"), [], "nothing leaks");
        let balance = store.balance(&format!("run:{run}")).await.expect("a ledger");
        assert_eq!((balance.spent, balance.reserved), (state.cost, Money::ZERO));
    }
    let days = store.accounts("day:").await.expect("a ledger");
    let spent = days.iter().fold(Money::ZERO, |sum, (_, balance)| sum.plus(balance.spent));
    assert_eq!(spent, cost, "what runs say they cost is what the days paid");
    assert!(days.iter().all(|(_, balance)| balance.spent <= ceiling && balance.reserved == Money::ZERO));
    assert!(limited > 0, "the ceiling was met: {spent} of {ceiling}");
}

#[tokio::test]
async fn what_a_dead_run_holds_is_let_go_when_another_needs_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = folder.path().join("repo");
    std::fs::create_dir(&repo).expect("a repository");
    let clock = TestClock::skipping(Timestamp::from_micros(1_700_000_000_000_000), Duration::from_secs(60));
    // Room for one call.
    let ceiling = Money(3_600_000);
    let hangs = Arc::new(crate::model::Brain::new(|_, _| Ok(crate::model::say("done"))));
    let death = Arc::new(Notify::new());
    let dying = Arc::new(Dying(death.clone()));
    let (dead, store) = project(folder.path(), &clock, dying);
    let first = create(&dead, &repo, &plan_of(&repo, 0, ceiling)).await;
    let work = tokio::spawn({
        let dead = dead.clone();
        async move { dead.drive(first, Arc::new(())).await.map(drop) }
    });
    death.notified().await;
    let (alive, _) = project(folder.path(), &clock, hangs);
    let second = create(&alive, &repo, &plan_of(&repo, 1, ceiling)).await;
    let refused = alive.drive(second, Arc::new(())).await.expect("it ends");
    assert_eq!(refused.state.status, RunStatus::TimedOut, "who lives keeps what it holds");
    work.abort();
    let _ = work.await;
    assert!(!store.reservations(first).await.expect("a ledger").is_empty());
    let third = create(&alive, &repo, &plan_of(&repo, 2, ceiling)).await;
    let shown = alive.drive(third, Arc::new(())).await.expect("it ends");
    assert_eq!(shown.state.status, RunStatus::Completed, "{:?}", shown.state.ending);
    assert_eq!(store.reservations(first).await.expect("a ledger"), []);
}

/// Never answers, and says that it was asked.
struct Dying(Arc<Notify>);

#[async_trait]
impl Model for Dying {
    async fn request_reply(&self, _: ModelRequest, _: &dyn DeltaSink) -> Result<ModelReply, Error> {
        self.0.notify_one();
        std::future::pending().await
    }
}
