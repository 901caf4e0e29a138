//! One file per command.

mod apply;
mod budget;
mod cancel;
mod chat;
mod completions;
mod config;
mod demo;
mod diff;
mod doctor;
mod drive;
mod gc;
mod init;
mod list;
mod login;
mod logs;
mod man;
mod models;
mod prices;
mod resume;
mod route;
mod run;
mod sandbox;
mod secret;
mod status;
mod stoppable;
mod tool;
mod trust;
mod undo;
mod validate;

use crate::args::{Cli, Command};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use std::future::Future;

/// Does what was typed.
pub(crate) fn dispatch(cli: Cli) -> Exit {
    let session = match Session::new(&cli.global) {
        Ok(session) => session,
        Err(error) => {
            let ui =
                crate::ui::Ui::new(Format::Text, crate::ui::Volume::Normal, crate::ui::ColorWish::default());
            ui.error(&error);
            return error.exit();
        }
    };
    match perform(&session, cli.command) {
        Ok(exit) => exit,
        Err(error) => {
            session.ui.error(&error);
            error.exit()
        }
    }
}

fn perform(session: &Session, command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Run(run) => wait(run::run(session, run)),
        Command::Chat(chat) => wait(chat::chat(session, chat)),
        Command::Status(status) => wait(status::status(session, status)),
        Command::List(list) => wait(list::list(session, list)),
        Command::Logs(logs) => wait(logs::logs(session, logs)),
        Command::Resume(resume) => wait(resume::resume(session, resume)),
        Command::Cancel(run) => wait(cancel::cancel(session, run)),
        Command::Diff(diff) => wait(diff::diff(session, diff)),
        Command::Undo(undo) => wait(undo::undo(session, undo)),
        Command::Redo(run) => wait(undo::redo(session, run)),
        Command::Apply(apply) => wait(apply::apply(session, apply)),
        Command::Gc(gc) => wait(gc::gc(session, gc)),
        Command::Config(config) => config::config(session, config),
        Command::Doctor => wait(doctor::doctor(session)),
        Command::Models(models) => wait(models::models(session, models)),
        Command::Route(route) => wait(route::route(session, route)),
        Command::Routing(routing) => wait(route::routing(session, routing)),
        Command::Prices(prices) => wait(prices::prices(session, prices)),
        Command::Budget(budget) => wait(budget::budget(session, budget)),
        Command::Init(init) => init::init(session, init),
        Command::Validate(validate) => validate::validate(session, validate),
        Command::Trust(trust) => trust::trust(session, trust),
        Command::Secret(secret) => secret::secret(session, secret),
        Command::Login(login) => wait(login::login(session, login)),
        Command::Logout(logout) => login::logout(session, &logout),
        Command::Tool(tool) => tool::tool(session, tool),
        Command::Sandbox(sandbox) => wait(sandbox::sandbox(session, sandbox)),
        Command::Demo(demo) => wait(demo::demo(session, demo)),
        Command::Completions(completions) => completions::completions(session, completions),
        Command::Man => man::man(session),
    }
}

/// Refuses `--json` where stdout can't be JSON.
fn only_text(session: &Session, what: &str) -> Result<(), CliError> {
    match session.ui.format {
        Format::Text => Ok(()),
        Format::Json => Err(CliError::usage(format!("{what} has no JSON form")).hint("leave --json out")),
    }
}

/// Runs what waits for other things, on this thread: handing work between threads costs more than the work.
fn wait(work: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("no threads can be started: {error}")))?
        .block_on(work)
}
