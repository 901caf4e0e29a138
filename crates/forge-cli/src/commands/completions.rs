//! `forge completions`: a script that completes what is typed, made from the same definition that reads it.

use crate::args::{Cli, Completions, Shell};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use clap::CommandFactory as _;

/// Prints the script.
pub(crate) fn completions(session: &Session, args: Completions) -> Result<Exit, CliError> {
    super::only_text(session, "a completion script")?;
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "forge", &mut script);
    session.ui.line(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}
