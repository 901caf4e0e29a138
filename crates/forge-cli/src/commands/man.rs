//! `forge man`: the manual page, made from the same definition that reads the arguments.

use crate::args::Cli;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use clap::CommandFactory as _;

/// Prints the page, with a section for every command, as troff.
pub(crate) fn man(session: &Session) -> Result<Exit, CliError> {
    let mut command = Cli::command();
    command.build();
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("forge {}", sub.get_name());
        let man = clap_mangen::Man::new(sub.clone().display_name(name.clone()).bin_name(name.clone()));
        page.extend(format!(".SH {}\n", name.to_uppercase()).bytes());
        man.render_description_section(&mut page)?;
        man.render_synopsis_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    session.ui.line(String::from_utf8_lossy(&page).trim_end());
    Ok(Exit::Done)
}
