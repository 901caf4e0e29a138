//! `forge resume`: goes on with a run.

use super::drive::{StartMode, drive_run};
use crate::args::ResumeArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::request::{RunOutput, override_limits};
use crate::session::{ConfigOverrides, Session};
use forge_config::FlagSetting;
use forge_runtime::Forge;
use forge_types::{Plan, RunId};

/// Takes a run up where it was.
pub(crate) async fn resume(session: &Session, args: ResumeArgs) -> Result<CliExit, CliError> {
    let forge = Forge::open(&session.load_read_only()?)?;
    let run = forge.find_run(&args.id).await?;
    let shown = forge.run_details(run).await?;
    let (Some(plan), Some(created)) = (&shown.plan, &shown.state.created) else {
        let damage = shown.damage.unwrap_or_else(|| "its plan is missing".to_owned());
        return Err(CliError::failed(format!("run {run} can't be resumed: {damage}"))
            .with_hint(format!("forge status {run} shows what is left")));
    };
    let limits = override_limits(&args.limits, shown.state.limits.unwrap_or(plan.limits))?;
    let output = RunOutput::new(session, args.output_format, args.report_file)?;
    // Keys and addresses are those of the run's own repository, whatever folder this is.
    let overlay = ConfigOverrides { flags: plan_flags(plan, run), env_file: args.env };
    let loaded = session.load_with_keys(&created.repo, &overlay)?;
    let output = output.with_log(crate::logging::init_logging(&loaded, session.verbose));
    drop(forge);
    let forge = Forge::open(&loaded)?;
    session.ui.print_note(&format!("run {run} · {}", plan.route));
    drive_run(session, &forge, run, StartMode::Again(limits), &output).await
}

/// Settings that a run was started with by flags, and that its plan does not hold in another form.
const RESUMED_FLAGS: [&str; 1] = ["model.base_url"];

/// The flags that the run was started with, as far as asking its model needs them again.
fn plan_flags(plan: &Plan, run: RunId) -> Vec<FlagSetting> {
    let name = format!("run {run}");
    let flag = |key: &str, value: &str| FlagSetting {
        key: key.to_owned(),
        value: value.to_owned(),
        name: name.clone(),
    };
    let given = RESUMED_FLAGS.into_iter().filter_map(|key| {
        let entry = &plan.config[key];
        let typed = entry["origin"].as_str().is_some_and(|origin| origin.starts_with("--"));
        typed.then(|| entry["value"].as_str().map(|value| flag(key, value))).flatten()
    });
    std::iter::once(flag("model.provider", &plan.route.provider)).chain(given).collect()
}
