//! `forge validate`: reports all errors in a project's configuration.

use crate::args::ValidateArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_terminal::StdoutFormat;
use forge_terminal::text::pluralize;
use std::path::Path;

/// Checks the configuration of the project at the given path.
pub(crate) fn validate(session: &Session, args: ValidateArgs) -> Result<CliExit, CliError> {
    check_config(session, &args.path)
}

/// Loads the settings of `repo` and prints the result. One error reports all faults.
pub(crate) fn check_config(session: &Session, repo: &Path) -> Result<CliExit, CliError> {
    let folder = session.cwd.join(repo);
    if !folder.is_dir() {
        return Err(CliError::usage(format!("{} is not a directory", folder.display()))
            .with_hint("name the project's directory: forge validate PATH"));
    }
    let loaded = session.load_config(repo, &ConfigOverrides::default())?;
    if session.ui.format == StdoutFormat::Json {
        session.ui.print_json(&serde_json::json!({
            "valid": true,
            "files": loaded.files,
            "notices": loaded.notices,
        }));
        return Ok(CliExit::Done);
    }
    match loaded.files.as_slice() {
        [] => session.ui.print_line("valid: no configuration file, using defaults"),
        files => {
            session.ui.print_line(&format!("valid: {} read", pluralize(files.len(), "file", "files")));
            files.iter().for_each(|file| session.ui.print_line(&format!("  {}", file.display())));
        }
    }
    Ok(CliExit::Done)
}
