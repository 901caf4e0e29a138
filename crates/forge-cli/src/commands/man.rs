//! `forge man`: prints the manual page, generated from the definition of the arguments.

use crate::args::Cli;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use clap::{Command, CommandFactory as _};

/// Prints the page as troff, with a section for each command.
pub(crate) fn man(session: &Session) -> Result<CliExit, CliError> {
    super::reject_json(session, "the manual page")?;
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    write_command_section(&command, "forge", &mut page)?;
    session.ui.print_line(String::from_utf8_lossy(&page).trim_end());
    Ok(CliExit::Done)
}

/// Writes a section for each subcommand of `command`, recursively.
fn write_command_section(command: &Command, above: &str, page: &mut Vec<u8>) -> Result<(), CliError> {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{above} {}", sub.get_name());
        let man = clap_mangen::Man::new(sub.clone().display_name(name.clone()).bin_name(name.clone()));
        page.extend(format!(".SH {}\n", name.to_uppercase()).bytes());
        man.render_description_section(page)?;
        man.render_synopsis_section(page)?;
        man.render_options_section(page)?;
        write_command_section(sub, &name, page)?;
    }
    Ok(())
}
