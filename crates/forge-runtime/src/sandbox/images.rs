//! Images for sandboxes.

use crate::Error;
use forge_config::ResolvedConfig;
use forge_sandbox::images::ImageFlavor;

/// An image to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildImage {
    /// The flavor of the image.
    pub kind: ImageFlavor,
    /// An image of a container engine to use instead.
    pub from: Option<String>,
    /// The name; defaults to that of the flavor.
    pub name: Option<String>,
}

/// Builds an image and reports progress through `say`. Returns what was built.
///
/// # Errors
/// If a prerequisite is missing, or a step fails.
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
