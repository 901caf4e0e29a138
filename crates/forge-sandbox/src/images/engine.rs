//! Images between engines and folders.

use super::build::{command, program};
use super::{REPOSITORY, Say, failed};
use crate::docker::{Engine, Fault, Kind, image};
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, RemoveContainerOptions, TagImageOptions,
};
use bytes::Bytes;
use forge_ports::sandbox::Error;
use futures::StreamExt as _;
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Size of the pieces in which an image is passed on.
const PIECE: usize = 256 << 10;

/// Fills `root` with the files of an image that docker or podman has.
pub(super) async fn export(host: Option<&str>, name: &str, root: &Path, say: Say<'_>) -> Result<(), Error> {
    let mut refusals = Vec::new();
    for kind in [Kind::Docker, Kind::Podman] {
        let engine = match Engine::connect(kind, kind.named(host)).await {
            Ok(engine) => engine,
            Err(error) => {
                refusals.push(error.to_string());
                continue;
            }
        };
        match image(&engine, name).await {
            Ok(_) => {
                say(&format!("taking `{name}` over from {kind}"));
                return unpack(&engine, name, root).await;
            }
            Err(error) => refusals.push(error.to_string()),
        }
    }
    Err(Error::Missing { missing: refusals })
}

async fn unpack(engine: &Engine, name: &str, root: &Path) -> Result<(), Error> {
    let doing = "taking an image over";
    let refused = |error: bollard::errors::Error| Error::from(Fault::said(engine.kind, doing, &error));
    // Never started: only a container can be asked for all of its files at once.
    let body = ContainerCreateBody {
        image: Some(name.to_owned()),
        cmd: Some(vec!["/".to_owned()]),
        network_disabled: Some(true),
        ..Default::default()
    };
    let made = engine.api.create_container(None::<CreateContainerOptions>, body).await.map_err(refused)?;
    let filled = fill(engine, &made.id, root).await;
    let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
    let removed = engine.api.remove_container(&made.id, Some(options)).await;
    filled?;
    removed.map_err(refused)
}

async fn fill(engine: &Engine, container: &str, root: &Path) -> Result<(), Error> {
    let refused =
        |error: bollard::errors::Error| Error::from(Fault::said(engine.kind, "taking an image over", &error));
    let broken = |error: std::io::Error| failed("unpacking the image", &error);
    let mut unpack = tar()?;
    // Devices are the box's own; owners are kept where this user may give files away.
    unpack
        .args(["--extract", "--numeric-owner", "--exclude=dev/*", "--exclude=./dev/*", "--directory"])
        .arg(root);
    let mut child =
        unpack.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(broken)?;
    let mut input = child.stdin.take().ok_or_else(|| broken(std::io::Error::other("no pipe")))?;
    let mut pieces = std::pin::pin!(engine.api.export_container(container));
    while let Some(piece) = pieces.next().await {
        if input.write_all(&piece.map_err(refused)?).await.is_err() {
            // It ended before all was passed on; what it says is below.
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

fn tar() -> Result<tokio::process::Command, Error> {
    let tar = program("tar");
    let missing = || Error::Missing { missing: vec!["tar is not installed".to_owned()] };
    Ok(command(&tar.ok_or_else(missing)?))
}

/// Gives a root folder to an engine as an image, if the engine is there. Names what was made.
pub(super) async fn give(
    kind: Kind,
    host: Option<&str>,
    root: &Path,
    name: &str,
    say: Say<'_>,
) -> Result<Vec<String>, Error> {
    let engine = match Engine::connect(kind, kind.named(host)).await {
        Ok(engine) => engine,
        Err(error) => {
            say(&format!("not given to {kind}: {error}"));
            return Ok(Vec::new());
        }
    };
    say(&format!("giving it to {kind}"));
    let refused =
        |error: bollard::errors::Error| Error::from(Fault::said(kind, "being given the image", &error));
    let broken = |error: std::io::Error| failed("packing the image", &error);
    let mut pack = tar()?;
    pack.args(["--create", "--numeric-owner", "--one-file-system", "--directory"]).arg(root).arg(".");
    let mut child =
        pack.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(broken)?;
    let output = child.stdout.take().ok_or_else(|| broken(std::io::Error::other("no pipe")))?;
    let pieces = futures::stream::unfold(output, |mut output| async move {
        let mut piece = Vec::with_capacity(PIECE);
        match output.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), output)),
            Err(error) => Some((Err(error), output)),
        }
    });
    let options = CreateImageOptions {
        from_src: Some("-".to_owned()),
        repo: Some(REPOSITORY.to_owned()),
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
        return Err(Error::Startup { why: format!("packing the image: tar ended with {packed}") });
    }
    let image = format!("{REPOSITORY}:{name}");
    let latest = TagImageOptions { repo: Some(REPOSITORY.to_owned()), tag: Some("latest".to_owned()) };
    engine.api.tag_image(&image, Some(latest)).await.map_err(refused)?;
    Ok(vec![format!("{image} (in {kind}, also as {REPOSITORY}:latest)")])
}
