//! `forge validate`: says everything that is wrong with a project's configuration.

use crate::args::Validate;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::text::plural;
use std::path::Path;

/// Checks the configuration of the project at the given path.
pub(crate) fn validate(session: &Session, args: Validate) -> Result<Exit, CliError> {
    check(session, &args.path)
}

/// Loads the settings of `repo` and says what came of it. Faults are the error's message, all at once.
pub(crate) fn check(session: &Session, repo: &Path) -> Result<Exit, CliError> {
    let folder = session.cwd.join(repo);
    if !folder.is_dir() {
        return Err(CliError::usage(format!("{} is not a folder", folder.display()))
            .hint("name the project's folder: forge validate PATH"));
    }
    let loaded = session.load(repo, &Overlay::default())?;
    if session.ui.format == Format::Json {
        session.ui.json(&serde_json::json!({
            "valid": true,
            "files": loaded.files,
            "notices": loaded.notices,
        }));
        return Ok(Exit::Done);
    }
    match loaded.files.as_slice() {
        [] => session.ui.line("valid: there is no configuration file, so the defaults are in force"),
        files => {
            session.ui.line(&format!("valid: {} read", plural(files.len(), "file", "files")));
            files.iter().for_each(|file| session.ui.line(&format!("  {}", file.display())));
        }
    }
    Ok(Exit::Done)
}
