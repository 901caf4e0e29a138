//! Work on a run that the first Ctrl-C stops cleanly and the second one at once.

use crate::exit::CliExit;
use forge_runtime::Project;
use forge_terminal::Ui;
use forge_types::RunId;
use std::future::Future;
use std::pin::pin;

/// Runs `work` on a run. Ctrl-C stops the host's work and reverts it, unless it is past that point.
pub(crate) async fn stop_on_signal<T>(
    project: &Project,
    run: RunId,
    ui: &Ui,
    work: impl Future<Output = T>,
) -> T {
    let mut work = pin!(work);
    let mut told = false;
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            heard = tokio::signal::ctrl_c() => {
                if heard.is_err() {
                    // Without a handler, the signal keeps its default action.
                    return work.await;
                }
                if told {
                    std::process::exit(CliExit::Signal.code().into());
                }
                told = true;
                ui.print_note("stopping… (Ctrl-C again to exit at once)");
                project.stop_host_work(run);
            }
        }
    }
}
