//! Transfer of images between engines and directories.

use super::build::{find_program, system_command};
use super::{IMAGE_REPOSITORY, ProgressFn, step_error};
use crate::docker::{EngineClient, EngineKind, Fault, inspect_image};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, RemoveContainerOptions, TagImageOptions,
};
use bytes::Bytes;
use forge_ports::sandbox::{Error, MissingPart};
use futures::StreamExt as _;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Size of the chunks in which an image is transferred.
const COPY_CHUNK_BYTES: usize = 256 << 10;

/// Fills `root` with the files of an image that docker or podman has.
pub(super) async fn export_image(
    host: Option<&str>,
    name: &str,
    root: &Path,
    say: ProgressFn<'_>,
) -> Result<(), Error> {
    let mut refusals = Vec::new();
    for kind in [EngineKind::Docker, EngineKind::Podman] {
        let engine = match EngineClient::connect(kind, kind.matching_host(host)).await {
            Ok(engine) => engine,
            Err(error) => {
                refusals.push(MissingPart::from(error.to_string()));
                continue;
            }
        };
        match inspect_image(&engine, name).await {
            Ok(_) => {
                say(&format!("exporting `{name}` from {kind}"));
                return unpack_image(&engine, name, root).await;
            }
            Err(error) => refusals.push(error.into_missing_part()),
        }
    }
    Err(Error::Missing { missing: refusals })
}

async fn unpack_image(engine: &EngineClient, name: &str, root: &Path) -> Result<(), Error> {
    let doing = "exporting an image";
    let refused = |error: bollard::errors::Error| Error::from(Fault::from_engine(engine.kind, doing, &error));
    // Never started: an engine exports all files at once only from a container.
    let body = ContainerCreateBody {
        image: Some(name.to_owned()),
        cmd: Some(vec!["/".to_owned()]),
        network_disabled: Some(true),
        ..Default::default()
    };
    let made = engine.api.create_container(None::<CreateContainerOptions>, body).await.map_err(refused)?;
    let filled = unpack_container(engine, &made.id, root).await;
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    let removed = engine.api.remove_container(&made.id, Some(options)).await;
    filled?;
    removed.map_err(refused)
}

async fn unpack_container(engine: &EngineClient, container: &str, root: &Path) -> Result<(), Error> {
    let refused = |error: bollard::errors::Error| {
        Error::from(Fault::from_engine(engine.kind, "exporting an image", &error))
    };
    let broken = |error: std::io::Error| step_error("unpacking the image", &error);
    let mut unpack = tar_command()?;
    // Devices are provided by the sandbox; owners are kept if this user may give files away.
    unpack
        .args(["--extract", "--numeric-owner", "--exclude=dev/*", "--exclude=./dev/*", "--directory"])
        .arg(root);
    let mut child =
        unpack.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(broken)?;
    let mut input = child.stdin.take().ok_or_else(|| broken(std::io::Error::other("no pipe")))?;
    let mut pieces = std::pin::pin!(engine.api.export_container(container));
    while let Some(piece) = pieces.next().await {
        if input.write_all(&piece.map_err(refused)?).await.is_err() {
            // It ended before all was written; its error output is reported below.
            break;
        }
    }
    drop(input);
    let ended = child.wait_with_output().await.map_err(broken)?;
    if ended.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    Err(Error::Startup { why: format!("unpacking the image: {}", last.join("; ")) })
}

fn tar_command() -> Result<tokio::process::Command, Error> {
    let tar = find_program("tar");
    let missing = || Error::missing("tar is not installed");
    Ok(system_command(&tar.ok_or_else(missing)?))
}

/// Imports a root directory into an engine as an image, if the engine is available. Returns the names of the images.
pub(super) async fn import_image(
    kind: EngineKind,
    host: Option<&str>,
    root: &Path,
    name: &str,
    say: ProgressFn<'_>,
) -> Result<Vec<String>, Error> {
    let engine = match EngineClient::connect(kind, kind.matching_host(host)).await {
        Ok(engine) => engine,
        Err(error) => {
            say(&format!("not imported into {kind}: {error}"));
            return Ok(Vec::new());
        }
    };
    say(&format!("importing it into {kind}"));
    let refused =
        |error: bollard::errors::Error| Error::from(Fault::from_engine(kind, "importing the image", &error));
    let broken = |error: std::io::Error| step_error("packing the image", &error);
    let mut pack = tar_command()?;
    pack.args(["--create", "--numeric-owner", "--one-file-system", "--directory"]).arg(root).arg(".");
    let mut child =
        pack.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(broken)?;
    let output = child.stdout.take().ok_or_else(|| broken(std::io::Error::other("no pipe")))?;
    let pieces = futures::stream::unfold(output, |mut output| async move {
        let mut piece = Vec::with_capacity(COPY_CHUNK_BYTES);
        match output.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), output)),
            Err(error) => Some((Err(error), output)),
        }
    });
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(IMAGE_REPOSITORY.to_owned()),
        tag: Some(name.to_owned()),
        ..Default::default()
    };
    let mut steps =
        std::pin::pin!(engine.api.create_image(Some(options), Some(bollard::body_try_stream(pieces)), None));
    while let Some(step) = steps.next().await {
        step.map_err(refused)?;
    }
    let packed = child.wait().await.map_err(broken)?;
    if !packed.success() {
        return Err(Error::Startup { why: format!("packing the image: tar failed ({packed})") });
    }
    let image = format!("{IMAGE_REPOSITORY}:{name}");
    let latest = TagImageOptions { repo: Some(IMAGE_REPOSITORY.to_owned()), tag: Some("latest".to_owned()) };
    engine.api.tag_image(&image, Some(latest)).await.map_err(refused)?;
    Ok(vec![format!("{image} (in {kind}, also as {IMAGE_REPOSITORY}:latest)")])
}
