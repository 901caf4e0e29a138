//! `forge logs`: what happened in a run; with `-f` also what happens, whichever process works on it.

use crate::args::Logs;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use crate::ui::events::Story;
use forge_runtime::{FollowEnd, Forge};
use forge_types::RunId;
use forge_types::wire::WireEvent;

/// Prints a run's events.
pub(crate) async fn logs(session: &Session, args: Logs) -> Result<Exit, CliError> {
    let loaded = session.load_to_read()?;
    let forge = Forge::open(&loaded)?;
    let run = forge.find(&args.id).await?;
    let mut follow = forge.follow(run, 0);
    let mut printer = Printer { session, story: Story::default() };
    loop {
        let next = if args.follow {
            tokio::select! {
                next = follow.next() => next,
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Signal),
            }
        } else {
            follow.present().await
        };
        match next? {
            Some(event) if printer.print(&event) => {}
            // Whoever read our stdout has gone.
            Some(_) => return Ok(Exit::Done),
            None => break,
        }
    }
    said(session, run, follow.end(), args.follow);
    Ok(Exit::Done)
}

fn said(session: &Session, run: RunId, end: Option<&FollowEnd>, following: bool) {
    match end {
        Some(FollowEnd::Damaged(what)) => {
            session.ui.warn(&format!("the journal of run {run} can't be read further: {what}"));
        }
        Some(FollowEnd::Abandoned) if following => session.ui.note(&format!(
            "nobody works on run {run}: its process ended. Go on with it: forge resume {run}"
        )),
        Some(FollowEnd::Parked) if following => {
            session.ui.note(&format!("run {run} waits. Go on with it: forge resume {run}"));
        }
        _ => {}
    }
}

struct Printer<'a> {
    session: &'a Session,
    story: Story,
}

impl Printer<'_> {
    /// Prints an event; says whether somebody still reads.
    fn print(&mut self, event: &WireEvent) -> bool {
        let ui = &self.session.ui;
        if ui.format == Format::Json {
            return ui.json_line(event);
        }
        let event = &*crate::ui::mask::event(event);
        let time: String = event.ts.to_string().chars().skip(11).take(8).collect();
        self.story.tell(event).iter().all(|line| {
            let text = if ui.out_is_terminal { line.styled(ui.out) } else { line.plain() };
            ui.try_line(&format!("{} {text}", ui.out.dim(&time)))
        })
    }
}
