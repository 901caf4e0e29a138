//! The isolation layers this machine allows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::client::Jail;
use crate::protocol::error::Error;
use forge_jail_protocol::{
    IsolationLayer, JailLayerState, JailSpec, LayerReport, OverlayAttributes, RootMode,
};

/// Starts a sandbox around `workspace` and ends it again: the most reliable test, in a few milliseconds. Writes
/// nothing. `exe` is a binary that acts as init, normally `/proc/self/exe`.
///
/// A layer that blocks the start is reported as missing together with its remedy; the layers after it are then unknown
/// and not in the report.
#[must_use]
pub fn probe_layers(exe: &Path, workspace: &Path) -> Vec<LayerReport> {
    let spec = JailSpec::new("probe", workspace);
    match Jail::spawn(&spec, exe) {
        Ok(jail) => jail.layers().into_iter().chain(probe_program_list(spec, exe)).collect(),
        Err(Error::Refused(reports)) => reports,
        Err(error) => {
            let layer = error.missing_layers().first().copied().unwrap_or(IsolationLayer::MountNamespace);
            vec![LayerReport::missing(layer, error.to_string(), None)]
        }
    }
}

/// Reports whether a program list can be enforced here. Only a sandbox with a list needs it, so it never blocks.
fn probe_program_list(spec: JailSpec, exe: &Path) -> Option<LayerReport> {
    let layers = match Jail::spawn(&JailSpec { programs: Some(Vec::new()), ..spec }, exe) {
        Ok(jail) => jail.layers(),
        Err(Error::Refused(reports)) => reports,
        Err(_) => return None,
    };
    let report = layers.into_iter().find(|report| report.layer == IsolationLayer::ProgramList)?;
    Some(match &report.state {
        JailLayerState::Missing { why } => {
            LayerReport::degraded(report.layer, format!("it can't be held: {why}"), report.remedy.as_deref())
        }
        _ => report,
    })
}

/// Finds out whether a copy-on-write overlay of `lower` works with its layers below `upper_parent`, and with which
/// attributes, by starting a sandbox in a directory that is removed again.
///
/// # Errors
/// The reason why no overlay works, as text for the user.
pub fn probe_overlay(exe: &Path, lower: &Path, upper_parent: &Path) -> Result<OverlayAttributes, String> {
    let name = format!(".forge-try-{}-{:?}", std::process::id(), std::thread::current().id());
    let place = upper_parent.join(name.replace(['(', ')'], ""));
    let (upper, work) = (place.join("upper"), place.join("work"));
    let made = fs::create_dir_all(&upper).and_then(|()| fs::create_dir_all(&work));
    let tried = match made {
        Err(error) => Err(format!("{}: {error}", upper_parent.display())),
        Ok(()) => {
            let mut spec = JailSpec::new("probe", lower);
            spec.roots[0].mode = RootMode::Overlay { upper, work: work.clone() };
            match Jail::spawn(&spec, exe) {
                Ok(jail) => jail.overlay_attributes().ok_or_else(|| "the box has no such view".to_owned()),
                Err(Error::Overlay { why }) => Err(why),
                Err(error) => Err(error.to_string()),
            }
        }
    };
    // The kernel creates its own directory in `work` without permissions.
    let _ = fs::set_permissions(work.join("work"), fs::Permissions::from_mode(0o700));
    let _ = fs::remove_dir_all(&place);
    tried
}
