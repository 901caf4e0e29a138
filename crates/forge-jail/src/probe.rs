//! The isolation layers this machine allows, and remedies for those it does not.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::client::Jail;
use crate::error::Error;
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

/// Explains a failed step and suggests a remedy, from the settings of this machine.
pub(crate) fn explain_failure(layer: IsolationLayer, step: &str, errno: i32) -> LayerReport {
    let cause = io::Error::from_raw_os_error(errno);
    let why = format!("{step}: {cause}");
    let restricted = |path: &str, bad: &str| fs::read_to_string(path).is_ok_and(|v| v.trim() == bad);
    let remedy = if restricted("/proc/sys/kernel/unprivileged_userns_clone", "0") {
        "allow user namespaces: sysctl -w kernel.unprivileged_userns_clone=1".to_owned()
    } else if restricted("/proc/sys/user/max_user_namespaces", "0") {
        "allow user namespaces: sysctl -w user.max_user_namespaces=15000".to_owned()
    } else if restricted("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1") {
        "AppArmor restricts user namespaces: give forge a profile with the rule `userns,`, or \
         sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
            .to_owned()
    } else if errno == libc::ENOSPC || errno == libc::EUSERS {
        format!("the number of namespaces is exhausted: raise /proc/sys/user/max_*_namespaces ({layer})")
    } else if errno == libc::ENOSYS || errno == libc::EINVAL {
        "the kernel is too old or was built without it; Linux 5.14 or newer is needed".to_owned()
    } else if errno == libc::EPERM || errno == libc::EACCES {
        let container = "if this is a container, start it with the right to make namespaces (for Docker: \
                         --security-opt seccomp=unconfined --security-opt systempaths=unconfined, or use the docker \
                         backend instead)";
        match fs::read_to_string("/proc/self/attr/current").ok().as_deref().and_then(apparmor_profile) {
            Some(profile) => format!(
                "AppArmor's profile `{profile}` confines forge: give it the rules `userns,` and `capability,` or run \
                 forge outside of it (for Docker: --security-opt apparmor=unconfined); {container}"
            ),
            None => container.to_owned(),
        }
    } else {
        return LayerReport::missing(layer, why, None);
    };
    LayerReport::missing(layer, why, Some(remedy))
}

/// Returns the AppArmor profile in force, from the text of `/proc/self/attr/current`; other security modules write
/// other forms.
fn apparmor_profile(current: &str) -> Option<&str> {
    current.trim_end().strip_suffix(" (enforce)")
}

/// Returns the name of the file system that holds `path`, from the mount table.
pub(crate) fn file_system_name(path: &Path) -> String {
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mount = before.split(' ').nth(4)?;
            path.starts_with(mount).then(|| (mount.len(), after.split(' ').next().unwrap_or("unknown")))
        })
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::apparmor_profile;

    #[test]
    fn only_a_profile_in_force_confines() {
        assert_eq!(apparmor_profile("/usr/bin/forge (enforce)\n"), Some("/usr/bin/forge"));
        assert_eq!(apparmor_profile("unconfined\n"), None);
        assert_eq!(apparmor_profile("forge (complain)\n"), None);
        assert_eq!(apparmor_profile("system_u:system_r:init_t:s0\0"), None);
    }
}
