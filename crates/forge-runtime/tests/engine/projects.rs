//! Several projects in one process.

use forge_config::{ConfigSources, FlagSetting, ResolvedConfig};
use forge_model_server::model_server::{Gate, MockReply, ModelServer, ReplyScript, VendorFormat};
use forge_ports::journal::RunQuery;
use forge_runtime::{Forge, NewRun, Project, RoutingJob};
use forge_types::{RunId, RunSource, RunStatus};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A repository with a server, a key and a model of its own.
struct Team {
    name: &'static str,
    server: ModelServer,
    format: VendorFormat,
    provider: &'static str,
    key_variable: &'static str,
}

impl Team {
    /// Loads the settings as a user of this repository has them.
    fn config(&self, root: &Path) -> ResolvedConfig {
        let repo = root.join(self.name);
        std::fs::create_dir_all(&repo).expect("a repository");
        let flag =
            |key: &str, value: String| FlagSetting { key: key.into(), value, name: format!("--{key}") };
        let sources = ConfigSources {
            env: [("HOME", root.display().to_string()), (self.key_variable, self.key())]
                .into_iter()
                .collect(),
            cwd: repo.clone(),
            repo,
            config_path: None,
            env_file: None,
            flags: vec![
                flag("model.provider", self.provider.to_owned()),
                flag("model.name", self.model()),
                flag("model.base_url", self.server.base_url(self.format)),
                flag("tools.mock", "true".to_owned()),
            ],
        };
        forge_config::load(&sources).expect("settings")
    }

    fn key(&self) -> String {
        format!("key-of-{}-0123456789", self.name)
    }

    fn model(&self) -> String {
        format!("model-of-{}", self.name)
    }
}

async fn create(project: &Project, repo: &Path) -> RunId {
    let plan = project.plan_for(repo, &[], &RoutingJob::code_task("work")).await.expect("a plan");
    let new = NewRun {
        task: "work".to_owned(),
        repo: repo.to_owned(),
        source: RunSource::Cli,
        history: Vec::new(),
    };
    project.create(new, &plan).await.expect("a run")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_works_on_projects_with_different_keys_and_models_at_the_same_time() {
    let root = tempfile::tempdir().expect("a directory");
    let gate = Gate::new();
    let team = |name, format, provider, key_variable| {
        let reply = MockReply::text(format!("answer for {name}")).with_gate(&gate);
        let server = ModelServer::start(ReplyScript::from_replies([reply]));
        Team { name, server, format, provider, key_variable }
    };
    let teams = [
        team("blue", VendorFormat::OpenAi, "openai", "OPENAI_API_KEY"),
        team("green", VendorFormat::Anthropic, "anthropic", "ANTHROPIC_API_KEY"),
        team("red", VendorFormat::OpenAi, "openai", "OPENAI_API_KEY"),
    ];
    let forge = Forge::open(&root.path().join("data")).expect("a data directory");
    let mut work = Vec::new();
    for team in &teams {
        let project = Project::open_in(&forge, team.config(root.path())).expect("a project");
        let run = create(&project, &root.path().join(team.name)).await;
        work.push((run, tokio::spawn(async move { project.drive(run, Arc::new(())).await })));
    }
    // No reply is sent before every server has its request: all runs are at work at the same time.
    for team in &teams {
        assert!(team.server.wait_for_requests(1, Duration::from_secs(60)), "{} was asked", team.name);
    }
    gate.open();
    for (team, (run, work)) in teams.iter().zip(work) {
        let details = work.await.expect("no panic").expect("it ends");
        assert_eq!(details.state.status, RunStatus::Completed, "{}", team.name);
        let calls = team.server.model_calls();
        assert_eq!(calls.len(), 1, "{}", team.name);
        assert_eq!(calls[0].model, team.model());
        let sent = format!("{:?}", calls[0].http.headers);
        assert!(sent.contains(&team.key()), "{} sends its own key", team.name);
        assert!(teams.iter().all(|other| other.name == team.name || !sent.contains(&other.key())));
        assert_eq!(details.summary.answer, format!("answer for {}", team.name));
        assert_eq!(forge.run_details(run).await.expect("details").state.status, RunStatus::Completed);
    }
    assert_eq!(forge.list_runs(RunQuery::default()).await.expect("runs").len(), teams.len());
}
