//! `forge sandbox build`: builds images for sandboxes.

use crate::args::{ImageKind, SandboxBuildArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{BuildImage, ImageFlavor};
use forge_terminal::StdoutFormat;
use forge_terminal::text::one_line;
use serde_json::json;
use std::path::Path;

/// Builds the image, prints the progress, and names the result.
pub(crate) async fn build(session: &Session, args: SandboxBuildArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_config(Path::new("."), &ConfigOverrides::default())?;
    let kind = match args.kind {
        ImageKind::Python => ImageFlavor::Python,
        ImageKind::Node => ImageFlavor::Node,
        ImageKind::Full => ImageFlavor::Full,
    };
    let ui = session.ui.clone();
    let say = move |line: &str| ui.print_note(&one_line(line));
    let made =
        forge_runtime::build_image(&loaded, BuildImage { kind, from: args.from, name: args.name }, &say)
            .await?;
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(&json!({ "made": made })),
        StdoutFormat::Text => made.iter().for_each(|line| session.ui.print_line(&one_line(line))),
    }
    Ok(CliExit::Done)
}
