//! `forge run`: runs one task as one run.

use super::drive::{StartMode, drive_run, start_line};
use crate::args::RunArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::RunRequest;
use crate::session::Session;
use forge_runtime::{NewRun, Project, RoutingJob, check_repo};
use forge_types::RunSource;

/// Creates a run and drives it.
pub(crate) async fn run(session: &Session, args: RunArgs) -> Result<CliExit, CliError> {
    let request = RunRequest::new(session, args)?;
    let mut repos =
        request.repos.iter().map(|repo| check_repo(repo)).collect::<Result<Vec<_>, _>>()?.into_iter();
    let repo = repos.next().unwrap_or_else(|| session.cwd.clone());
    let more: Vec<_> = repos.collect();
    let loaded = session.load_with_keys(&repo, &request.overlay)?;
    let output = request.output.with_log(crate::logging::init_logging(session, &loaded));
    let project = Project::open_for_run(loaded, &repo)?;
    let plan = project.plan_for(&repo, &more, &RoutingJob::code_task(request.task.clone())).await?;
    let new = NewRun { task: request.task, repo, source: RunSource::Cli, history: Vec::new() };
    let run = project.create(new, &plan).await?;
    let agent = plan.agent().map(|plan| plan.agent);
    let chosen = agent.and_then(|agent| agent.routing.as_ref()).map(|routing| &routing.chosen);
    session.ui.print_note(&start_line(run, chosen.or(plan.route_at(0))));
    let ended = drive_run(session, &project, run, StartMode::New, &output).await;
    // Clean up last, so that it does not delay the first answer.
    if let Err(error) = project.run_cleanup().await {
        tracing::warn!(%error, "cannot remove old snapshots; try `forge gc`");
    }
    ended
}
