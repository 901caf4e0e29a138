//! `forge sandbox build`: images for boxes.

use crate::args::{Build, ImageKind};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::text::one_line;
use forge_runtime::{BuildImage, Kind};
use serde_json::json;
use std::path::Path;

/// Builds it, saying what it does, and names what was made.
pub(crate) async fn build(session: &Session, args: Build) -> Result<Exit, CliError> {
    let loaded = session.load(Path::new("."), &Overlay::default())?;
    let kind = match args.kind {
        ImageKind::Python => Kind::Python,
        ImageKind::Node => Kind::Node,
        ImageKind::Full => Kind::Full,
    };
    let ui = session.ui.clone();
    let say = move |line: &str| ui.note(&one_line(line));
    let made =
        forge_runtime::build_image(&loaded, BuildImage { kind, from: args.from, name: args.name }, &say)
            .await?;
    match session.ui.format {
        Format::Json => session.ui.json(&json!({ "made": made })),
        Format::Text => made.iter().for_each(|line| session.ui.line(&one_line(line))),
    }
    Ok(Exit::Done)
}
