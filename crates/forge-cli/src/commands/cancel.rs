//! `forge cancel`: cancels a run in any process.

use crate::args::RunIdArg;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::{Delivery, Project};
use forge_terminal::StdoutFormat;
use forge_types::RunCommand;
use std::time::Duration;

/// Maximum time to wait for the end of the run.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(15);

/// Asks the run to end, and waits until it has ended.
pub(crate) async fn cancel(session: &Session, args: RunIdArg) -> Result<CliExit, CliError> {
    let loaded = session.load_read_only()?;
    let project = Project::open(loaded)?;
    let run = project.forge().find_run(&args.id).await?;
    let delivery = project.send_command(run, RunCommand::Cancel { by: "cli".to_owned() }).await?;
    if let Delivery::Sent { .. } = &delivery {
        let mut follow = project.forge().follow(run, 0);
        let end = async { while let Ok(Some(_)) = follow.next().await {} };
        // The status shows whether the run ended in time.
        let _ = tokio::time::timeout(CANCEL_TIMEOUT, end).await;
    }
    let status = project.forge().run_details(run).await?.state.status;
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(&serde_json::json!({"run_id": run, "status": status})),
        StdoutFormat::Text if status.is_terminal() => {
            session.ui.print_line(&format!("run {run} is {status}"))
        }
        StdoutFormat::Text => {
            let then = match delivery {
                Delivery::Sent { holder } => format!("process {holder} has been asked to cancel it"),
                Delivery::Kept | Delivery::Applied { .. } => "it will be cancelled when resumed".to_owned(),
            };
            session.ui.print_line(&format!("run {run} is {status}; {then}"));
        }
    }
    Ok(if status.is_terminal() { CliExit::Done } else { CliExit::Failed })
}
