//! `forge resume`: goes on with a run.

use super::drive::{Take, drive};
use crate::args::Resume;
use crate::error::CliError;
use crate::exit::Exit;
use crate::request::{Output, raised};
use crate::session::{Overlay, Session};
use forge_config::Flag;
use forge_runtime::Forge;
use forge_types::{Plan, RunId};

/// Takes a run up where it was.
pub(crate) async fn resume(session: &Session, args: Resume) -> Result<Exit, CliError> {
    let forge = Forge::open(&session.load_to_read()?)?;
    let run = forge.find(&args.id).await?;
    let shown = forge.show(run).await?;
    let (Some(plan), Some(created)) = (&shown.plan, &shown.state.created) else {
        let damage = shown.damage.unwrap_or_else(|| "its plan is missing".to_owned());
        return Err(CliError::failed(format!("run {run} can't be resumed: {damage}"))
            .hint(format!("forge status {run} shows what is left")));
    };
    let limits = raised(&args.limits, shown.state.limits.unwrap_or(plan.limits))?;
    let output = Output::new(session, args.output_format, args.report_file)?;
    // Keys and addresses are those of the run's own repository, whatever folder this is.
    let overlay = Overlay { flags: flags(plan, run), env_file: args.env };
    let loaded = session.load_with_keys(&created.repo, &overlay)?;
    let output = output.with_log(crate::logging::start(&loaded, session.verbose));
    drop(forge);
    let forge = Forge::open(&loaded)?;
    session.ui.note(&format!("run {run} · {}", plan.route));
    drive(session, &forge, run, Take::Again(limits), &output).await
}

/// Settings that a run was started with by flags, and that its plan does not hold in another form.
const BY_FLAG: [&str; 1] = ["model.base_url"];

/// The flags that the run was started with, as far as asking its model needs them again.
fn flags(plan: &Plan, run: RunId) -> Vec<Flag> {
    let name = format!("run {run}");
    let flag =
        |key: &str, value: &str| Flag { key: key.to_owned(), value: value.to_owned(), name: name.clone() };
    let given = BY_FLAG.into_iter().filter_map(|key| {
        let entry = &plan.config[key];
        let typed = entry["origin"].as_str().is_some_and(|origin| origin.starts_with("--"));
        typed.then(|| entry["value"].as_str().map(|value| flag(key, value))).flatten()
    });
    std::iter::once(flag("model.provider", &plan.route.provider)).chain(given).collect()
}
