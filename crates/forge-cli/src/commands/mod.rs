//! Commands, one module each.

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
mod stop_on_signal;
mod tool;
mod trust;
mod undo;
mod validate;

use crate::args::{Cli, CliCommand};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_terminal::StdoutFormat;
use std::future::Future;

/// Runs a command and prints its error, if any.
pub(crate) fn run_cli(cli: Cli) -> CliExit {
    let session = match Session::new(&cli.global) {
        Ok(session) => session,
        Err(error) => {
            let ui = forge_terminal::Ui::new(
                StdoutFormat::Text,
                forge_terminal::Verbosity::Normal,
                forge_terminal::ColorPreference::default(),
                crate::hints::hint_text,
            );
            error.print_on(&ui);
            return error.cli_exit();
        }
    };
    match run_command(&session, cli.command) {
        Ok(exit) => exit,
        Err(error) => {
            error.print_on(&session.ui);
            error.cli_exit()
        }
    }
}

fn run_command(session: &Session, command: CliCommand) -> Result<CliExit, CliError> {
    match command {
        CliCommand::Run(run) => block_on_command(run::run(session, run)),
        CliCommand::Chat(chat) => block_on_command(chat::chat(session, chat)),
        CliCommand::Status(status) => block_on_command(status::status(session, status)),
        CliCommand::List(list) => block_on_command(list::list(session, list)),
        CliCommand::Logs(logs) => block_on_command(logs::logs(session, logs)),
        CliCommand::Resume(resume) => block_on_command(resume::resume(session, resume)),
        CliCommand::Cancel(run) => block_on_command(cancel::cancel(session, run)),
        CliCommand::Diff(diff) => block_on_command(diff::diff(session, diff)),
        CliCommand::Undo(undo) => block_on_command(undo::undo(session, undo)),
        CliCommand::Redo(run) => block_on_command(undo::redo(session, run)),
        CliCommand::Apply(apply) => block_on_command(apply::apply(session, apply)),
        CliCommand::Gc(gc) => block_on_command(gc::gc(session, gc)),
        CliCommand::Config(config) => config::config(session, config),
        CliCommand::Doctor => block_on_command(doctor::doctor(session)),
        CliCommand::Models(models) => block_on_command(models::models(session, models)),
        CliCommand::Route(route) => block_on_command(route::route(session, route)),
        CliCommand::Routing(routing) => block_on_command(route::routing(session, routing)),
        CliCommand::Prices(prices) => block_on_command(prices::prices(session, prices)),
        CliCommand::Budget(budget) => block_on_command(budget::budget(session, budget)),
        CliCommand::Init(init) => init::init(session, init),
        CliCommand::Validate(validate) => validate::validate(session, validate),
        CliCommand::Trust(trust) => trust::trust(session, trust),
        CliCommand::Secret(secret) => secret::secret(session, secret),
        CliCommand::Login(login) => block_on_command(login::login(session, login)),
        CliCommand::Logout(logout) => login::logout(session, &logout),
        CliCommand::Tool(tool) => tool::tool(session, tool),
        CliCommand::Sandbox(sandbox) => block_on_command(sandbox::sandbox(session, sandbox)),
        CliCommand::Demo(demo) => block_on_command(demo::demo(session, demo)),
        CliCommand::Completions(completions) => completions::completions(session, completions),
        CliCommand::Man => man::man(session),
    }
}

/// Rejects `--json` for output that can't be JSON.
fn reject_json(session: &Session, what: &str) -> Result<(), CliError> {
    match session.ui.format {
        StdoutFormat::Text => Ok(()),
        StdoutFormat::Json => {
            Err(CliError::usage(format!("{what} has no JSON form")).with_hint("remove --json"))
        }
    }
}

/// Runs a future on this thread: passing work between threads costs more than the work.
fn block_on_command(work: impl Future<Output = Result<CliExit, CliError>>) -> Result<CliExit, CliError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start the async runtime: {error}")))?
        .block_on(work)
}
