//! Root directories for native sandboxes and images for container engines.
//!
//! An image is built once by the user (`forge sandbox build`), from Debian packages or from an image of an engine, and
//! only read afterwards. It is a directory with its own name below the data directory; `latest` links to the one that
//! was built last. An image built from packages is also imported into each running engine.

mod build;
mod engine;

use crate::docker::EngineKind as Engine;
use forge_ports::sandbox::{Error, MissingPart};
use forge_types::NextStep;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// The contents of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFlavor {
    /// Python with pytest, ruff and mypy, and build tools.
    Python,
    /// Node and npm.
    Node,
    /// Python and Node.
    Full,
}

impl ImageFlavor {
    /// Returns the name of the image.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Full => "full",
        }
    }

    /// Returns the Debian packages in the image.
    fn debian_packages(self) -> Vec<&'static str> {
        const COMMON_PACKAGES: &[&str] = &["ca-certificates", "curl", "git", "jq", "ripgrep", "tree"];
        const PYTHON_DEB_PACKAGES: &[&str] = &["build-essential", "python3", "python3-pip", "python3-venv"];
        const NODE_DEB_PACKAGES: &[&str] = &["nodejs", "npm"];
        match self {
            Self::Python => [COMMON_PACKAGES, PYTHON_DEB_PACKAGES].concat(),
            Self::Node => [COMMON_PACKAGES, NODE_DEB_PACKAGES].concat(),
            Self::Full => [COMMON_PACKAGES, PYTHON_DEB_PACKAGES, NODE_DEB_PACKAGES].concat(),
        }
    }

    /// Returns the Python packages that Debian lacks or has only in old versions.
    const fn python_packages(self) -> &'static [&'static str] {
        match self {
            Self::Python | Self::Full => &["mypy", "pytest", "ruff"],
            Self::Node => &[],
        }
    }
}

/// Repository under which engines know images that were built here.
const IMAGE_REPOSITORY: &str = "forge-sandbox";

/// A callback that reports progress.
pub type ProgressFn<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Builds an image below a directory of images: from packages, or from the image `from` of an engine at `host`. It is
/// called `name`, or otherwise after its source. Returns the names of what was made, one per line.
///
/// # Errors
/// [`Error::Missing`] when a prerequisite is missing, [`Error::Startup`] when a step fails. Either leaves a previous
/// image of that name in place.
pub async fn make_image(
    folder: &Path,
    host: Option<&str>,
    kind: ImageFlavor,
    from: Option<&str>,
    name: Option<&str>,
    say: ProgressFn<'_>,
) -> Result<Vec<String>, Error> {
    let name = sanitize_name(name.or(from).unwrap_or(kind.name()));
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| step_error(&format!("creating {}", folder.display()), &error))?;
    let place = UnfinishedImage::new(folder, &name)?;
    match from {
        Some(image) => engine::export_image(host, image, place.root_dir(), say).await?,
        None => build::build_from_packages(kind, place.root_dir(), say).await?,
    }
    let root = place.finish()?;
    let mut made = vec![format!("{} (for native sandboxes: sandbox.image = \"{name}\")", root.display())];
    if from.is_none() {
        for engine in [Engine::Docker, Engine::Podman] {
            made.extend(engine::import_image(engine, host, &root, &name, say).await?);
        }
    }
    Ok(made)
}

/// Returns the root directory of an image by its name; `forge-sandbox:NAME` and `NAME` are the same.
///
/// # Errors
/// [`Error::Missing`] with instructions to get the image.
pub fn find_image(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let plain = sanitize_name(name);
    let path = folder.join(&plain);
    match fs::canonicalize(&path) {
        Ok(root) if root.is_dir() => Ok(root),
        _ => {
            let step = match plain.as_str() {
                "python" | "node" | "full" => NextStep::BuildImage { image: Some(plain.clone()) },
                "latest" => NextStep::BuildImage { image: None },
                _ => NextStep::ImportImage { image: Some(name.to_owned()) },
            };
            let have: Vec<String> = image_names(folder);
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            let why = format!("image `{name}` not found in {} (available: {have})", folder.display());
            Err(Error::missing(MissingPart::with_next_step(why, step)))
        }
    }
}

/// Returns the names of the available images.
fn image_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// Returns a name for one directory: characters other than letters, digits and `-_.` become `-`.
fn sanitize_name(name: &str) -> String {
    let short = name.strip_prefix(IMAGE_REPOSITORY).and_then(|rest| rest.strip_prefix(':')).unwrap_or(name);
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let text: String = short.chars().map(kept).collect();
    let text = text.trim_start_matches('.');
    if text.is_empty() { "image".to_owned() } else { text.to_owned() }
}

/// An image that is being built next to its final path. Dropping it before it is finished removes it.
#[derive(Debug)]
struct UnfinishedImage {
    images_dir: PathBuf,
    name: String,
    temporary: PathBuf,
}

impl UnfinishedImage {
    fn new(folder: &Path, name: &str) -> Result<Self, Error> {
        let temporary = folder.join(format!(".making-{name}-{}", std::process::id()));
        forge_files::remove_tree(&temporary);
        fs::create_dir(&temporary)
            .map_err(|error| step_error(&format!("creating {}", temporary.display()), &error))?;
        Ok(Self { images_dir: folder.to_owned(), name: name.to_owned(), temporary })
    }

    fn root_dir(&self) -> &Path {
        &self.temporary
    }

    /// Moves the image into place, replacing and removing an older one.
    fn finish(self) -> Result<PathBuf, Error> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let place = self.images_dir.join(&self.name);
        let put = || -> io::Result<()> {
            if fs::symlink_metadata(&place).is_ok() {
                renameat_with(CWD, &self.temporary, CWD, &place, RenameFlags::EXCHANGE)?;
            } else {
                fs::rename(&self.temporary, &place)?;
            }
            let link = self.images_dir.join(format!(".latest-{}", std::process::id()));
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&self.name, &link)?;
            fs::rename(&link, self.images_dir.join("latest"))
        };
        put().map_err(|error| step_error(&format!("moving the image to {}", place.display()), &error))?;
        Ok(place)
    }
}

impl Drop for UnfinishedImage {
    fn drop(&mut self) {
        forge_files::remove_tree(&self.temporary);
    }
}

/// Creates the error of a failed step.
fn step_error(doing: &str, error: &io::Error) -> Error {
    Error::Startup { why: format!("{doing}: {error}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_one_folder() {
        assert_eq!(sanitize_name("forge-sandbox:python"), "python");
        assert_eq!(sanitize_name("docker.io/library/alpine:3.19"), "docker.io-library-alpine-3.19");
        assert_eq!(sanitize_name("../../etc"), "-..-etc");
        assert_eq!(sanitize_name(".."), "image");
    }

    #[test]
    fn an_image_takes_its_place_at_once_and_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_image(folder.path(), "forge-sandbox:node").unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
        assert_eq!(error.next_steps()[0], NextStep::BuildImage { image: Some("node".to_owned()) });
        for content in ["first", "second"] {
            let making = UnfinishedImage::new(folder.path(), "node").unwrap();
            fs::write(making.root_dir().join("file"), content).unwrap();
            making.finish().unwrap();
        }
        let root = find_image(folder.path(), "latest").unwrap();
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "second");
        drop(UnfinishedImage::new(folder.path(), "given-up").unwrap());
        assert_eq!(image_names(folder.path()), ["latest", "node"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
