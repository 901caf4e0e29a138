//! Several projects in one process.

use forge_config::{ConfigSources, FlagSetting, ResolvedConfig};
use forge_model_server::model_server::{Gate, MockReply, ModelServer, ReplyScript, VendorFormat};
use forge_ports::journal::RunQuery;
use forge_runtime::{Error, Forge, NewRun, Project, RoutingJob};
use forge_types::{RunId, RunSource, RunStatus};
use std::path::{Path, PathBuf};
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

/// Loads the settings of a user who works on `repo`.
fn user_config(home: &Path, repo: &Path, flags: &[(&str, &str)]) -> ResolvedConfig {
    let flag = |key: &str, value: &str| FlagSetting {
        key: key.into(),
        value: value.into(),
        name: format!("--{key}"),
    };
    let mut all = vec![flag("model.provider", "openai"), flag("tools.mock", "true")];
    all.extend(flags.iter().map(|(key, value)| flag(key, value)));
    let sources = ConfigSources {
        env: [("HOME", home.display().to_string()), ("OPENAI_API_KEY", "key-0123456789".to_owned())]
            .into_iter()
            .collect(),
        cwd: repo.to_owned(),
        repo: repo.to_owned(),
        config_path: None,
        env_file: None,
        flags: all,
    };
    forge_config::load(&sources).expect("settings")
}

/// Plans and creates a run, and returns the reason if it is refused.
async fn refusal(home: &Path, repo: &Path, more: &[PathBuf], flags: &[(&str, &str)]) -> Option<String> {
    let project = Project::open_for_run(user_config(home, repo, flags), repo).expect("a project");
    let made = async {
        let plan = project.plan_for(repo, more, &RoutingJob::code_task("work")).await?;
        let (task, repo) = ("work".to_owned(), repo.to_owned());
        project.create(NewRun { task, repo, source: RunSource::Cli, history: Vec::new() }, &plan).await
    };
    match made.await {
        Ok(_) => None,
        Err(Error::Repository { what }) => Some(what),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_repository_with_forge_s_own_files_is_refused_however_it_is_named() {
    let root = tempfile::tempdir().expect("a directory");
    let at = |path: &str| root.path().join(path);
    for path in ["home/project", "home/.config", "disk/runs", "other"] {
        std::fs::create_dir_all(at(path)).expect("a directory");
    }
    std::os::unix::fs::symlink(at("home"), at("link")).expect("a link");
    let (home, project) = (at("home"), at("home/project"));
    let memory = [("store.durable", "false")];
    for (repo, more, flags, named) in [
        (home.clone(), vec![], &[][..], "home/.local/share/forge"),
        (home.clone(), vec![], &memory, "home/.local/share/forge"),
        (at("other"), vec![home.clone()], &[], "home/.local/share/forge"),
        (at("link"), vec![], &[], "home/.local/share/forge"),
        (at("home/.config"), vec![], &[], "home/.config/forge"),
        (project.clone(), vec![at("home/.config")], &memory, "home/.config/forge"),
    ] {
        let what = refusal(&home, &repo, &more, flags).await;
        let what = what.unwrap_or_else(|| panic!("{repo:?} {more:?} {flags:?} was accepted"));
        assert!(what.contains(named) && what.contains("XDG_DATA_HOME"), "{what}");
    }
    assert_eq!(refusal(&home, &project, &[at("other"), at("disk")], &[]).await, None);
    let data = home.join(".local/share/forge");
    std::fs::remove_dir_all(data.join("runs")).ok();
    std::os::unix::fs::symlink(at("disk/runs"), data.join("runs")).expect("a link");
    for (repo, more) in [(at("disk"), vec![]), (project.clone(), vec![at("disk")])] {
        let what = refusal(&home, &repo, &more, &[]).await.expect("it is refused");
        assert!(what.contains("forge/runs"), "{what}");
    }
    assert_eq!(refusal(&home, &project, &[at("other")], &[]).await, None);
}
