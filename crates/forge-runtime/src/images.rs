//! Images for boxes.

use crate::Error;
use forge_config::ResolvedConfig;
use forge_sandbox::images::ImageFlavor;

/// An image to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildImage {
    /// What it holds.
    pub kind: ImageFlavor,
    /// An image of a container engine to take instead.
    pub from: Option<String>,
    /// Its name; that of the kind if it is left out.
    pub name: Option<String>,
}

/// Makes an image, and says on the way what it does. Gives what was made.
///
/// # Errors
/// If something that is needed is missing, or a step fails.
pub async fn build_image(
    loaded: &ResolvedConfig,
    image: BuildImage,
    say: &(dyn Fn(&str) + Send + Sync),
) -> Result<Vec<String>, Error> {
    let folder = loaded.dirs.data.join("images");
    let host = loaded.settings.sandbox.docker_host.as_deref();
    Ok(forge_sandbox::images::make_image(
        &folder,
        host,
        image.kind,
        image.from.as_deref(),
        image.name.as_deref(),
        say,
    )
    .await?)
}
