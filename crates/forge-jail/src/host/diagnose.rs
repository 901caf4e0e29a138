//! The reason why a layer is missing on this machine, and the remedy.

use std::fs;
use std::io;
use std::path::Path;

use forge_jail_protocol::{IsolationLayer, LayerReport};

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
