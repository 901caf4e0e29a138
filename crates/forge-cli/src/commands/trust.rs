//! `forge trust`: a repository's own configuration counts once its user has seen it.

use crate::args::Trust;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::text::plural;
use crate::ui::{Format, Ui};
use forge_config::trust::{self, Review, Standing, TrustError};
use forge_types::Class;

/// Shows what a repository's files would set, and trusts them if the user says so.
pub(crate) fn trust(session: &Session, args: Trust) -> Result<Exit, CliError> {
    let (ui, dirs) = (&session.ui, session.dirs()?);
    let repo = session.cwd.join(&args.path);
    if args.revoke {
        let was = trust::revoke(&dirs, &repo)?;
        match (ui.format, was) {
            (Format::Json, was) => ui.json(&serde_json::json!({"repo": repo, "revoked": was})),
            (Format::Text, true) => ui.line(&format!("{} is no longer trusted", repo.display())),
            (Format::Text, false) => ui.line(&format!("{} was not trusted", repo.display())),
        }
        return Ok(Exit::Done);
    }
    let mut extra: Vec<_> = session.config.iter().map(|path| session.cwd.join(path)).collect();
    // A memory that the user's own settings put into the repository.
    if let Ok(loaded) = session.load_silently(&repo, &Overlay::default()) {
        extra.extend(loaded.settings.memory.file.filter(|file| file.is_file()));
    }
    let review = trust::review(&dirs, &repo, &extra)?;
    if ui.format == Format::Text {
        show(ui, &review);
    }
    let asked = !args.show && !review.files.is_empty() && review.standing != Standing::Trusted;
    if !asked {
        if ui.format == Format::Json {
            ui.json(&review);
        }
        return Ok(Exit::Done);
    }
    let question = format!("Trust the configuration of {}?", review.repo.display());
    if !args.yes && !ui.interactive() {
        return Err(CliError::usage("nobody can be asked here whether to trust this")
            .hint("look at it with `forge trust --show`, then say `forge trust --yes`"));
    }
    if !args.yes && !ui.confirm(&question) {
        ui.line("not trusted: its configuration may only tighten");
        return Ok(Exit::Failed);
    }
    trust::grant(&dirs, &review)?;
    granted(session, &review, &repo)
}

fn granted(session: &Session, review: &Review, repo: &std::path::Path) -> Result<Exit, CliError> {
    match session.ui.format {
        Format::Json => {
            let mut now = review.clone();
            now.standing = Standing::Trusted;
            session.ui.json(&now);
        }
        Format::Text => {
            session
                .ui
                .line(&format!("trusted: {}. A change of these files asks again", review.repo.display()));
        }
    }
    // What is wrong with it is better known now than at the first run.
    if let Err(error) = session.load_silently(repo, &Overlay::default()) {
        session.ui.warn(&error.message);
    }
    Ok(Exit::Done)
}

fn show(ui: &Ui, review: &Review) {
    let standing = match review.standing {
        Standing::Nothing => "has no configuration of its own: there is nothing to trust",
        Standing::Trusted => "is trusted",
        Standing::Untrusted => {
            "is not trusted: its configuration may only tighten, and its memory is ignored"
        }
        Standing::Changed => {
            "has changed since it was trusted: until you accept that, its configuration may only tighten, and a changed memory \
             is ignored"
        }
    };
    ui.line(&format!("{} {standing}", review.repo.display()));
    for file in &review.files {
        ui.line("");
        ui.line(&ui.out.bold(&format!(
            "{} ({})",
            file.path,
            plural(file.text.lines().count(), "line", "lines")
        )));
        file.text.lines().for_each(|line| ui.line(&format!("  {}", crate::ui::text::clean(line))));
    }
    let claims: Vec<_> = review.settings.iter().filter(|claim| claim.needs_trust).collect();
    if !claims.is_empty() {
        ui.line("");
        ui.line("Settings that count only when trusted, unless they tighten:");
        for claim in claims {
            let line = format!("  {} = {}  ({})", claim.key, claim.value, claim.place);
            ui.line(&ui.out.yellow(&crate::ui::text::clean(&line)));
        }
    }
}

impl From<TrustError> for CliError {
    fn from(error: TrustError) -> Self {
        match error.class() {
            Class::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        }
    }
}
