//! `forge completions`: prints a shell completion script, generated from the definition of the arguments.

use crate::args::{Cli, CompletionShell, CompletionsArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use clap::CommandFactory as _;

/// Prints the script.
pub(crate) fn completions(session: &Session, args: CompletionsArgs) -> Result<CliExit, CliError> {
    super::reject_json(session, "a completion script")?;
    let shell = match args.shell {
        CompletionShell::Bash => clap_complete::Shell::Bash,
        CompletionShell::Zsh => clap_complete::Shell::Zsh,
        CompletionShell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "forge", &mut script);
    session.ui.print_line(String::from_utf8_lossy(&script).trim_end());
    Ok(CliExit::Done)
}
