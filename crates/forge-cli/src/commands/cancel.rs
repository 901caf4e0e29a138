//! `forge cancel`: ends a run, whichever process works on it.

use crate::args::RunId;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use forge_runtime::{Delivery, Forge};
use forge_types::Command;
use std::time::Duration;

/// How long the end of the run is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

/// Tells the run to end, and waits until it has.
pub(crate) async fn cancel(session: &Session, args: RunId) -> Result<Exit, CliError> {
    let loaded = session.load_to_read()?;
    let forge = Forge::open(&loaded)?;
    let run = forge.find(&args.id).await?;
    let delivery = forge.send(run, Command::Cancel { by: "cli".to_owned() }).await?;
    if let Delivery::Sent { .. } = &delivery {
        let mut follow = forge.follow(run, 0);
        let end = async { while let Ok(Some(_)) = follow.next().await {} };
        // Whether it ended in time is told by its status.
        let _ = tokio::time::timeout(PATIENCE, end).await;
    }
    let status = forge.show(run).await?.state.status;
    match session.ui.format {
        Format::Json => session.ui.json(&serde_json::json!({"run_id": run, "status": status})),
        Format::Text if status.is_terminal() => session.ui.line(&format!("run {run} is {status}")),
        Format::Text => {
            let whom = match delivery {
                Delivery::Sent { holder } => format!("process {holder}"),
                Delivery::Kept | Delivery::Applied { .. } => "the next process that takes it".to_owned(),
            };
            session.ui.line(&format!("run {run} is {status}; {whom} was told to end it"));
        }
    }
    Ok(if status.is_terminal() { Exit::Done } else { Exit::Failed })
}
