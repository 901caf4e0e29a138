//! `forge logs`: prints the events of a run; with `-f`, follows the run in any process.

use crate::args::LogsArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_runtime::{FollowEnd, Forge};
use forge_terminal::StdoutFormat;
use forge_terminal::events::EventFormatter;
use forge_types::RunId;
use forge_wire::WireEvent;

/// Prints a run's events.
pub(crate) async fn logs(session: &Session, args: LogsArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_read_only()?;
    let forge = Forge::open(&loaded.dirs.data)?;
    let run = forge.find_run(&args.id).await?;
    let mut follow = forge.follow(run, 0);
    let mut printer = EventPrinter { session, story: EventFormatter::new(session.ui.hint_text) };
    loop {
        let next = if args.follow {
            tokio::select! {
                next = follow.next() => next,
                _ = tokio::signal::ctrl_c() => return Ok(CliExit::Signal),
            }
        } else {
            follow.next_ready().await
        };
        match next.map_err(forge_runtime::Error::from)? {
            Some(event) if printer.print_event(&event) => {}
            // Stdout is closed.
            Some(_) => return Ok(CliExit::Done),
            None => break,
        }
    }
    print_follow_end(session, run, follow.end_reason(), args.follow);
    Ok(CliExit::Done)
}

fn print_follow_end(session: &Session, run: RunId, end: Option<&FollowEnd>, following: bool) {
    match end {
        Some(FollowEnd::Damaged(what)) => {
            session.ui.print_warning(&format!("cannot read the rest of the journal of run {run}: {what}"));
        }
        Some(FollowEnd::Abandoned) if following => session
            .ui
            .print_note(&format!("run {run} is not active: its process ended. Continue: forge resume {run}")),
        Some(FollowEnd::Parked) if following => {
            session.ui.print_note(&format!("run {run} is waiting. Continue: forge resume {run}"));
        }
        _ => {}
    }
}

struct EventPrinter<'a> {
    session: &'a Session,
    story: EventFormatter,
}

impl EventPrinter<'_> {
    /// Prints an event; returns whether stdout is still open.
    fn print_event(&mut self, event: &WireEvent) -> bool {
        let ui = &self.session.ui;
        if ui.format == StdoutFormat::Json {
            return ui.print_json_line(event);
        }
        let event = &*forge_terminal::redact::redact_event(event);
        let time: String = event.ts.to_string().chars().skip(11).take(8).collect();
        self.story.format(event).iter().all(|line| {
            let text = if ui.out_is_terminal { line.to_styled(ui.out) } else { line.to_unstyled() };
            ui.try_print_line(&format!("{} {text}", ui.out.dim(&time)))
        })
    }
}
