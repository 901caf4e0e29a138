//! `forge resume`: goes on with a run.

use super::drive::{Take, drive};
use crate::args::Resume;
use crate::error::CliError;
use crate::exit::Exit;
use crate::request::{Output, raised};
use crate::session::{Overlay, Session};
use forge_config::Flag;
use forge_runtime::Forge;
use std::path::Path;

/// Takes a run up where it was.
pub(crate) async fn resume(session: &Session, args: Resume) -> Result<Exit, CliError> {
    let here = session.load_silently(Path::new("."), &Overlay::default())?;
    let forge = Forge::open(&here)?;
    let run = forge.find(&args.id).await?;
    let shown = forge.show(run).await?;
    let (Some(plan), Some(created)) = (&shown.plan, &shown.state.created) else {
        let damage = shown.damage.unwrap_or_else(|| "its plan is missing".to_owned());
        return Err(CliError::failed(format!("run {run} can't be resumed: {damage}"))
            .hint(format!("forge status {run} shows what is left")));
    };
    let limits = raised(&args.limits, shown.state.limits.unwrap_or(plan.limits))?;
    let output = Output::new(session, args.output_format, args.report_file);
    // Keys and addresses are those of the run's own repository, whatever folder this is.
    let flag = Flag {
        key: "model.provider".to_owned(),
        value: plan.route.provider.clone(),
        name: format!("run {run}"),
    };
    let overlay = Overlay { flags: vec![flag], env_file: args.env };
    let loaded = session.load(&created.repo, &overlay)?;
    crate::logging::start(&loaded, session.verbose);
    drop(forge);
    let forge = Forge::open(&loaded)?;
    session.ui.note(&format!("run {run} · {}", plan.route));
    drive(session, &forge, run, Take::Again(limits), &output).await
}
