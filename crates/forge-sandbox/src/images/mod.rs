//! Root folders for native boxes and images for container engines.
//!
//! An image is made once by a person (`forge sandbox build`), from Debian's packages or out of an image that an engine
//! has, and then only read. It is a folder below the data folder under its own name; `latest` leads to the one that
//! was made last. Where an engine runs, what was made from packages is given to it as well.

mod build;
mod engine;

use crate::docker::EngineKind as Engine;
use forge_ports::sandbox::Error;
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFlavor {
    /// Python with pytest, ruff and mypy, and tools to build with.
    Python,
    /// Node and npm.
    Node,
    /// Both.
    Full,
}

impl ImageFlavor {
    /// The image's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Full => "full",
        }
    }

    /// Debian's packages in it.
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

    /// What Debian does not have, or only old: from Python's own packages.
    const fn python_packages(self) -> &'static [&'static str] {
        match self {
            Self::Python | Self::Full => &["mypy", "pytest", "ruff"],
            Self::Node => &[],
        }
    }
}

/// The name under which engines know images that were made here.
const IMAGE_REPOSITORY: &str = "forge-sandbox";

/// Says on the way what is done.
pub type ProgressFn<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// Makes an image in `folder`: from packages, or `from` an image that an engine at `host` has. Its name is `name`,
/// else that of what it is made from. Names what was made, one thing a line.
///
/// # Errors
/// [`Error::Missing`] when something that is needed is not there, [`Error::Startup`] when a step fails. What was in
/// the image's place before is then still there.
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
    made.map_err(|error| step_error(&format!("making {}", folder.display()), &error))?;
    let place = UnfinishedImage::new(folder, &name)?;
    match from {
        Some(image) => engine::export_image(host, image, place.root_dir(), say).await?,
        None => build::build_from_packages(kind, place.root_dir(), say).await?,
    }
    let root = place.finish()?;
    let mut made = vec![format!("{} (for native boxes: sandbox.image = \"{name}\")", root.display())];
    if from.is_none() {
        for engine in [Engine::Docker, Engine::Podman] {
            made.extend(engine::import_image(engine, host, &root, &name, say).await?);
        }
    }
    Ok(made)
}

/// The root folder of an image by its name, `forge-sandbox:NAME` and `NAME` being the same.
///
/// # Errors
/// [`Error::Missing`] with how to get it.
pub fn find_image(folder: &Path, name: &str) -> Result<PathBuf, Error> {
    let plain = sanitize_name(name);
    let path = folder.join(&plain);
    match fs::canonicalize(&path) {
        Ok(root) if root.is_dir() => Ok(root),
        _ => {
            let way = match plain.as_str() {
                "python" | "node" | "full" => format!("`forge sandbox build {plain}` makes it"),
                "latest" => "`forge sandbox build` makes one".to_owned(),
                _ => format!("`forge sandbox build --from {name}` takes it over from docker or podman"),
            };
            let have: Vec<String> = image_names(folder);
            let have = if have.is_empty() { "none".to_owned() } else { have.join(", ") };
            let why =
                format!("there is no image `{name}` in {} (there are: {have}); {way}", folder.display());
            Err(Error::Missing { missing: vec![why] })
        }
    }
}

/// The images that are there.
fn image_names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

/// A name of one folder: what is no letter, digit or one of `-_.` becomes `-`.
fn sanitize_name(name: &str) -> String {
    let short = name.strip_prefix(IMAGE_REPOSITORY).and_then(|rest| rest.strip_prefix(':')).unwrap_or(name);
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let text: String = short.chars().map(kept).collect();
    let text = text.trim_start_matches('.');
    if text.is_empty() { "image".to_owned() } else { text.to_owned() }
}

/// An image that is being made beside its place. Dropped before it is finished, nothing of it stays.
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
            .map_err(|error| step_error(&format!("making {}", temporary.display()), &error))?;
        Ok(Self { images_dir: folder.to_owned(), name: name.to_owned(), temporary })
    }

    fn root_dir(&self) -> &Path {
        &self.temporary
    }

    /// Puts it in its place; boxes that are open on an older one keep that.
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
        put().map_err(|error| step_error(&format!("putting the image at {}", place.display()), &error))?;
        Ok(place)
    }
}

impl Drop for UnfinishedImage {
    fn drop(&mut self) {
        forge_files::remove_tree(&self.temporary);
    }
}

/// A step that failed.
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
        let text = find_image(folder.path(), "forge-sandbox:node").unwrap_err().to_string();
        assert!(text.contains("forge sandbox build node") && text.contains("none"), "{text}");
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
