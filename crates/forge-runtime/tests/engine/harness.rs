//! A forge of test parts.

use crate::model::Brain;
use forge_config::{ConfigSources, ResolvedConfig};
use forge_ports::{Journal as _, Model};
use forge_runtime::{CooldownCache, DecideFn, EngineParts, Forge, LiveSink, NewRun, Project, Redactor};
use forge_testkit::clock::TestClock;
use forge_testkit::memory::MemoryStore;
use forge_types::*;
use forge_wire::{LiveFrame, WireEvent};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A repository, a store and a clock that outlive the processes of a test.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: MemoryStore,
    pub(crate) clock: TestClock,
    pub(crate) cooling: Arc<CooldownCache>,
    pub(crate) decide: DecideFn,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(MemoryStore::new())
    }

    pub(crate) fn on(store: MemoryStore) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("repo")).expect("a repository");
        let start = Timestamp::from_micros(1_700_000_000_000_000);
        let clock = TestClock::skipping(start, Duration::from_secs(60));
        let store = store.with_clock(Arc::new(clock.clone()));
        let cooling = Arc::new(CooldownCache::process_local());
        Self { folder, store, clock, cooling, decide: Arc::new(forge_policy::decide) }
    }

    pub(crate) fn repo(&self) -> std::path::PathBuf {
        self.folder.path().join("repo").canonicalize().expect("it is there")
    }

    pub(crate) fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.repo().join(name)).unwrap_or_default()
    }

    /// A process on this world.
    pub(crate) fn project(&self, store: &MemoryStore, model: Arc<dyn Model>) -> Project {
        self.project_with(store, model, Redactor::default())
    }

    pub(crate) fn project_with(
        &self,
        store: &MemoryStore,
        model: Arc<dyn Model>,
        redactor: Redactor,
    ) -> Project {
        let store = Arc::new(store.clone());
        let data = self.folder.path().join("data");
        let boxes =
            Arc::new(forge_sandbox::Backends::new(forge_sandbox::BackendOptions::under_directory(&data)));
        let parts = EngineParts {
            open_memory: Arc::new(|_: &AgentPlan| None),
            journal: store.clone(),
            ledger: store.clone(),
            count_tokens: Arc::new(|_: &forge_types::ModelRequest| None),
            queue: store,
            model,
            tools: Arc::new(forge_tools::builtin_tools()),
            sandbox: boxes.clone(),
            workspaces: Arc::new(boxes.workspaces()),
            clock: Arc::new(self.clock.clone()),
            redactor: Arc::new(redactor),
            decide: Arc::clone(&self.decide),
            cooldowns: self.cooling.clone(),
        };
        let process = Forge::from_parts(&parts, data, "test:1".to_owned());
        Project::assemble(process, default_config(self.folder.path()), parts, boxes)
    }

    pub(crate) async fn create(&self, project: &Project, plan: &Plan) -> RunId {
        let new = NewRun {
            task: "do the steps".into(),
            repo: self.repo(),
            source: RunSource::Cli,
            history: Vec::new(),
        };
        project.create(new, plan).await.expect("a run")
    }

    /// One run by one undisturbed process.
    pub(crate) async fn run(
        &self,
        brain: Brain,
        change: impl FnOnce(&mut Plan),
    ) -> forge_runtime::RunDetails {
        let mut plan = plan(&self.repo());
        change(&mut plan);
        let project = self.project(&self.store, Arc::new(brain));
        let run = self.create(&project, &plan).await;
        project.drive(run, Arc::new(())).await.expect("it ends")
    }

    pub(crate) async fn events(&self, run: RunId) -> Vec<Event> {
        let pages = self.store.reopen().read_events(run, Seq(0), 0).await.expect("a journal");
        assert_eq!(pages.damage, None);
        pages.events
    }
}

/// The settings of a user with an empty home below `root`, for the repository there.
pub(crate) fn default_config(root: &Path) -> ResolvedConfig {
    let sources = ConfigSources {
        env: [("HOME", root.display().to_string())].into_iter().collect(),
        cwd: root.join("repo"),
        repo: root.join("repo"),
        config_path: None,
        env_file: None,
        flags: Vec::new(),
    };
    forge_config::load(&sources).expect("the defaults")
}

/// A plan whose box is the folder itself.
pub(crate) fn plan(repo: &Path) -> Plan {
    let agent = AgentPlan {
        first: ModelTarget {
            route: ModelRoute { provider: "p".into(), model: "m".into() },
            facts: ModelFacts {
                price: Some(Price { input: 1_000, output: 2_000, cached_input: 0, cache_write: 0 }),
                window: 100_000,
                max_output: None,
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
        settings: ModelSettings {
            max_tokens: Some(1_000),
            temperature: None,
            top_p: None,
            timeout_ms: 1_000,
        },
        system: "be good".into(),
        tools: forge_tools::builtin_tools().list_specs().cloned().collect(),
        disabled: vec![],
        retry: RetryRule::default(),
        context: ContextRule::default(),
        commands: CommandRules::default(),
    };
    let shared = SharedPlan {
        pull_requests: forge_types::PullRequestRules::default(),
        limits: RunLimits { max_duration_ms: 100_000_000, ..RunLimits::default() },
        cost_rule: CostRule::Default,
        alert_percent: 80,
        day_ceiling: None,
        ceilings: Vec::new(),
        command_ms: 60_000,
        sandbox: SandboxSpec { allow_unisolated: true, ..SandboxSpec::new("process", repo) },
        config: serde_json::Value::Null,
    };
    Plan::for_agent(shared, agent)
}

/// Keeps what was shown live.
#[derive(Default)]
pub(crate) struct Watched {
    pub(crate) events: Mutex<Vec<WireEvent>>,
    pub(crate) text: Mutex<String>,
}

impl LiveSink for Watched {
    fn on_event(&self, event: &WireEvent) {
        self.events.lock().expect("no panic").push(event.clone());
    }

    fn on_frame(&self, frame: LiveFrame) {
        if let LiveFrame::ModelDelta { text } = frame {
            self.text.lock().expect("no panic").push_str(&text);
        }
    }
}

/// Every intent has exactly one outcome, and every outcome an intent.
pub(crate) fn assert_one_outcome_per_intent(events: &[Event]) {
    let mut open = std::collections::BTreeSet::new();
    let mut seen = std::collections::BTreeSet::new();
    for event in events {
        match &event.kind {
            EventKind::Intended { effect, .. } => {
                assert!(seen.insert(*effect), "effect {effect} is intended twice");
                open.insert(*effect);
            }
            EventKind::Settled { effect, .. } => {
                assert!(open.remove(effect), "effect {effect} is settled twice")
            }
            _ => {}
        }
    }
    assert!(open.is_empty(), "without outcome: {open:?}");
}
