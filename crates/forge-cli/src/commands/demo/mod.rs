//! `forge demo`: the complete program on a small project, with a scripted model.

mod project;

use super::drive::{StartMode, drive_run};
use crate::args::{DemoArgs, OutputFormat};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::RunOutput;
use crate::session::{ConfigOverrides, Session};
use forge_config::{Environment, FlagSetting};
use forge_runtime::{NewRun, Project};
use forge_terminal::text::sanitize_text;
use forge_terminal::{StdoutFormat, Ui};
use forge_types::RunSource;
use std::path::Path;

const DEMO_TASK: &str = "An invoice with three chairs at 19.99 comes out too low. Find out why, fix it, and show that the tests pass.";

const SCRIPTED_NOTICE: &str = "The model of this demo is scripted: its replies come from a file, and no key or network is \
     needed. Everything else is real: the sandbox, the tools, the test runs, the journal, the changed files.";

/// Unpacks the project, lets the scripted model fix it, and shows the changes.
pub(crate) async fn demo(session: &Session, args: DemoArgs) -> Result<CliExit, CliError> {
    let ui = &session.ui;
    let path = session.env.get("PATH").unwrap_or_default();
    if !path.split(':').any(|folder| Path::new(folder).join("python3").is_file()) {
        return Err(CliError::failed("the demo needs python3, which was not found")
            .with_hint("install python3, then try again"));
    }
    let folder = tempfile::Builder::new()
        .prefix("forge-demo-")
        .tempdir()
        .map(|made| forge_files::TemporaryTree::new(made.keep()))
        .map_err(|error| CliError::failed(format!("cannot create a temporary directory: {error}")))?;
    let repo = folder.path().join("invoice");
    let script = folder.path().join("script.json");
    project::unpack_project(&repo)
        .map_err(|error| CliError::file_error("cannot write the demo to", &repo, &error))?;
    std::fs::write(&script, project::MODEL_SCRIPT)
        .map_err(|error| CliError::file_error("cannot write the script to", &script, &error))?;
    ui.print_note(SCRIPTED_NOTICE);
    ui.print_note(&format!("Task: {DEMO_TASK}\n"));

    let own = isolated_session(session, folder.path());
    let exit = run_demo(&own, &repo, &script).await;
    if exit.is_ok() {
        show_changes(ui, &repo);
    }
    if args.keep {
        let kept = folder.keep();
        ui.print_note(&format!(
            "\nKept: project in {}, journal in {}",
            repo.display(),
            kept.join("data").display()
        ));
    }
    if matches!(exit, Ok(CliExit::Done)) {
        next_steps(ui);
    }
    exit
}

/// Creates a session with its own directories, so that the demo reads no user settings and leaves no runs behind.
fn isolated_session(session: &Session, folder: &Path) -> Session {
    let own = [("XDG_DATA_HOME", "data"), ("XDG_CONFIG_HOME", "config")];
    let own = own.map(|(name, below)| (name.to_owned(), folder.join(below).display().to_string()));
    let kept = ["PATH", "HOME", "XDG_RUNTIME_DIR", "TERM", "NO_COLOR"];
    let kept = kept.iter().filter_map(|name| Some(((*name).to_owned(), session.env.get(name)?.to_owned())));
    let env: Environment = kept.chain(own).collect();
    Session { env, config: None, ..session.clone() }
}

async fn run_demo(session: &Session, repo: &Path, script: &Path) -> Result<CliExit, CliError> {
    let flag =
        |key: &str, value: String| FlagSetting { key: key.to_owned(), value, name: "forge demo".to_owned() };
    let flags = vec![
        flag("model.provider", "scripted".to_owned()),
        flag("providers.scripted.script", script.display().to_string()),
    ];
    let loaded = session.load_config(repo, &ConfigOverrides { flags, env_file: None })?;
    let log = crate::logging::init_logging(session, &loaded);
    let project = Project::open(loaded)?;
    let plan = project.plan(repo, &[]).await?;
    let new = NewRun {
        task: DEMO_TASK.to_owned(),
        repo: repo.to_owned(),
        source: RunSource::Demo,
        history: Vec::new(),
    };
    let run = project.create(new, &plan).await?;
    let format =
        if session.ui.format == StdoutFormat::Json { OutputFormat::Json } else { OutputFormat::Text };
    drive_run(session, &project, run, StartMode::New, &RunOutput { format, report: None, log }).await
}

fn show_changes(ui: &Ui, repo: &Path) {
    if ui.format == StdoutFormat::Json {
        return;
    }
    for (name, before) in project::FILES {
        let after = forge_files::read_text(&repo.join(name), 1 << 20).unwrap_or_default();
        if after == *before {
            continue;
        }
        let diff = similar::TextDiff::from_lines(*before, after.as_str());
        let text = diff
            .unified_diff()
            .context_radius(3)
            .header(&format!("a/{name}"), &format!("b/{name}"))
            .to_string();
        ui.print_line("");
        for line in sanitize_text(&text).lines() {
            let painted = match line.as_bytes().first() {
                Some(b'+') => ui.out.green(line),
                Some(b'-') => ui.out.red(line),
                Some(b'@') => ui.out.cyan(line),
                _ => line.to_owned(),
            };
            ui.print_line(&painted);
        }
    }
}

fn next_steps(ui: &Ui) {
    ui.print_note(
        "\nThat model was scripted. To use a real one, set OPENAI_API_KEY, ANTHROPIC_API_KEY, GEMINI_API_KEY or\n\
         OPENROUTER_API_KEY, or start Ollama or llama.cpp; then, in one of your projects:\n\n  \
         forge run \"Fix the failing test\"\n\n\
         Run `forge doctor` to see what is missing on this machine.",
    );
}
