//! `forge trust`: makes a repository's configuration effective after its user has reviewed it.

use crate::args::TrustArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_config::trust::{self, TrustError, TrustReview, TrustState};
use forge_terminal::text::pluralize;
use forge_terminal::{StdoutFormat, Ui};
use forge_types::ErrorClass;

/// Shows the settings in a repository's files, and trusts them if the user confirms.
pub(crate) fn trust(session: &Session, args: TrustArgs) -> Result<CliExit, CliError> {
    let (ui, dirs) = (&session.ui, session.user_dirs()?);
    let repo = session.cwd.join(&args.path);
    if args.revoke {
        let was = trust::revoke_trust(&dirs, &repo)?;
        match (ui.format, was) {
            (StdoutFormat::Json, was) => ui.print_json(&serde_json::json!({"repo": repo, "revoked": was})),
            (StdoutFormat::Text, true) => ui.print_line(&format!("{} is no longer trusted", repo.display())),
            (StdoutFormat::Text, false) => ui.print_line(&format!("{} was not trusted", repo.display())),
        }
        return Ok(CliExit::Done);
    }
    let mut extra: Vec<_> = session.config.iter().map(|path| session.cwd.join(path)).collect();
    // Include a memory file that the user's own settings place in the repository.
    if let Ok(loaded) = session.load_silently(&repo, &ConfigOverrides::default()) {
        extra.extend(loaded.settings.memory.file.filter(|file| file.is_file()));
    }
    let review = trust::review_repository(&dirs, &repo, &extra)?;
    if ui.format == StdoutFormat::Text {
        print_review(ui, &review);
    }
    let asked = !args.show && !review.files.is_empty() && review.standing != TrustState::Trusted;
    if !asked {
        if ui.format == StdoutFormat::Json {
            ui.print_json(&review);
        }
        return Ok(CliExit::Done);
    }
    let question = format!("Trust the configuration of {}?", review.repo.display());
    if !args.yes && !ui.is_interactive() {
        return Err(CliError::usage("cannot ask for confirmation without a terminal")
            .with_hint("review it with `forge trust --show`, then use `forge trust --yes`"));
    }
    if !args.yes && !ui.confirm(&question) {
        ui.print_line("not trusted: its configuration can only tighten yours");
        return Ok(CliExit::Failed);
    }
    trust::grant_trust(&dirs, &review)?;
    print_granted(session, &review, &repo)
}

fn print_granted(
    session: &Session,
    review: &TrustReview,
    repo: &std::path::Path,
) -> Result<CliExit, CliError> {
    match session.ui.format {
        StdoutFormat::Json => {
            let mut now = review.clone();
            now.standing = TrustState::Trusted;
            session.ui.print_json(&now);
        }
        StdoutFormat::Text => {
            session.ui.print_line(&format!(
                "trusted: {}. Changes to these files need a new confirmation",
                review.repo.display()
            ));
        }
    }
    // Report problems now instead of at the first run.
    if let Err(error) = session.load_silently(repo, &ConfigOverrides::default()) {
        session.ui.print_warning(&error.message);
    }
    Ok(CliExit::Done)
}

fn print_review(ui: &Ui, review: &TrustReview) {
    let standing = match review.standing {
        TrustState::Nothing => "has no configuration of its own: nothing to trust",
        TrustState::Trusted => "is trusted",
        TrustState::Untrusted => {
            "is not trusted: its configuration can only tighten yours, and its memory is ignored"
        }
        TrustState::Changed => {
            "has changed since it was trusted: until you trust it again, its configuration can only tighten yours, \
             and a changed memory is ignored"
        }
    };
    ui.print_line(&format!("{} {standing}", review.repo.display()));
    for file in &review.files {
        ui.print_line("");
        ui.print_line(&ui.out.bold(&format!(
            "{} ({})",
            file.path,
            pluralize(file.text.lines().count(), "line", "lines")
        )));
        file.text
            .lines()
            .for_each(|line| ui.print_line(&format!("  {}", forge_terminal::text::sanitize_text(line))));
    }
    let claims: Vec<_> = review.settings.iter().filter(|claim| claim.needs_trust).collect();
    if !claims.is_empty() {
        ui.print_line("");
        ui.print_line("Settings that take effect only when trusted, unless they tighten:");
        for claim in claims {
            let line = format!("  {} = {}  ({})", claim.key, claim.value, claim.place);
            ui.print_line(&ui.out.yellow(&forge_terminal::text::sanitize_text(&line)));
        }
    }
}

impl From<TrustError> for CliError {
    fn from(error: TrustError) -> Self {
        match error.class() {
            ErrorClass::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
