//! `forge resume`: resumes a run.

use super::drive::{StartMode, drive_run, start_line};
use crate::args::ResumeArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::{RunOutput, override_limits};
use crate::session::{ConfigOverrides, Session};
use forge_config::FlagSetting;
use forge_runtime::{Forge, Project};
use forge_types::{Plan, RunId};

/// Resumes a run where it stopped.
pub(crate) async fn resume(session: &Session, args: ResumeArgs) -> Result<CliExit, CliError> {
    let forge = Forge::open(&session.load_read_only()?.dirs.data)?;
    let run = forge.find_run(&args.id).await?;
    let shown = forge.run_details(run).await?;
    let (Some(plan), Some(created)) = (&shown.plan, &shown.state.created) else {
        let damage = shown.damage.unwrap_or_else(|| "the plan is missing".to_owned());
        return Err(CliError::failed(format!("cannot resume run {run}: {damage}"))
            .with_hint(format!("see what remains: forge status {run}")));
    };
    let limits = override_limits(&args.limits, shown.state.limits.unwrap_or(plan.shared.limits))?;
    let repos: Vec<_> =
        std::iter::once(&plan.shared.sandbox.repo).chain(&plan.shared.sandbox.more_repos).cloned().collect();
    let output = RunOutput::new(session, &repos, args.output_format, args.report_file)?;
    // Use the keys and addresses of the run's repository, not of the current directory.
    let overlay = ConfigOverrides { flags: plan_flags(plan, run), env_file: args.env };
    let loaded = session.load_with_keys(&created.repo, &overlay)?;
    let output = output.with_log(crate::logging::init_logging(session, &loaded));
    let project = Project::open_in(&forge, loaded)?;
    session.ui.print_note(&start_line(run, plan.route_at(0)));
    drive_run(session, &project, run, StartMode::Again(limits), &output).await
}

/// Settings from flags of the run's start that its plan does not hold in another form.
const RESUMED_FLAGS: [&str; 1] = ["model.base_url"];

/// Returns the flags of the run's start that are needed to call its model again.
fn plan_flags(plan: &Plan, run: RunId) -> Vec<FlagSetting> {
    let name = format!("run {run}");
    let flag = |key: &str, value: &str| FlagSetting {
        key: key.to_owned(),
        value: value.to_owned(),
        name: name.clone(),
    };
    let given = RESUMED_FLAGS.into_iter().filter_map(|key| {
        let entry = &plan.shared.config[key];
        let typed = entry["origin"].as_str().is_some_and(|origin| origin.starts_with("--"));
        typed.then(|| entry["value"].as_str().map(|value| flag(key, value))).flatten()
    });
    let provider = plan.route_at(0).map(|route| flag("model.provider", &route.provider));
    provider.into_iter().chain(given).collect()
}
