//! `forge run`: one task, one run.

use super::drive::{Take, drive};
use crate::args::Run;
use crate::error::CliError;
use crate::exit::Exit;
use crate::request::RunRequest;
use crate::session::Session;
use forge_runtime::{Forge, Job, NewRun, check_repo};
use forge_types::Source;

/// Creates a run and works on it.
pub(crate) async fn run(session: &Session, args: Run) -> Result<Exit, CliError> {
    let request = RunRequest::new(session, args)?;
    let mut repos =
        request.repos.iter().map(|repo| check_repo(repo)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let repo = repos.next().unwrap_or_else(|| session.cwd.clone());
    let more: Vec<_> = repos.collect();
    let loaded = session.load_with_keys(&repo, &request.overlay)?;
    let output = request.output.with_log(crate::logging::start(&loaded, session.verbose));
    let forge = Forge::open_to_run(&loaded, &repo)?;
    let plan = forge.plan_for(&loaded, &repo, &more, &Job::code(request.task.clone())).await?;
    let new = NewRun { task: request.task, repo, source: Source::Cli, history: Vec::new() };
    let run = forge.create(new, &plan).await?;
    let asked = plan.routing.as_ref().map_or(&plan.route, |routing| &routing.chosen);
    session.ui.note(&format!("run {run} · {asked}"));
    let ended = drive(session, &forge, run, Take::New, &output).await;
    // Afterwards, when nobody waits for a first answer any more.
    if let Err(error) = forge.tidy(&loaded).await {
        tracing::warn!(%error, "old snapshots are not cleared away; `forge gc` does it as well");
    }
    ended
}
