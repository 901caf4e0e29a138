//! Owners of containers: the labels that distinguish stale containers of a dead process from those of a living one.

use super::engine::EngineClient;
use super::error::Error;
use bollard::query_parameters::{ListContainersOptions, RemoveContainerOptions};
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;

const RUN_LABEL: &str = "forge.run_id";
const PID_LABEL: &str = "forge.owner_pid";
const START_TIME_LABEL: &str = "forge.owner_started";
const MACHINE_LABEL: &str = "forge.owner_machine";

/// Returns the labels of a container of this process.
pub(super) fn owner_labels(run: &str) -> HashMap<String, String> {
    let pid = std::process::id();
    let labels = [
        (RUN_LABEL, run.to_owned()),
        (PID_LABEL, pid.to_string()),
        (START_TIME_LABEL, process_start_time(pid).unwrap_or_default()),
        (MACHINE_LABEL, machine_id()),
    ];
    labels.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Returns the start time of a process in clock ticks since boot: with its pid, it identifies a process for good.
pub(super) fn process_start_time(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Returns the scope in which a pid is meaningful: this boot, this process namespace.
fn machine_id() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let namespace = std::fs::metadata("/proc/self/ns/pid").map(|m| m.ino()).unwrap_or_default();
    format!("{}/{namespace}", boot.trim())
}

/// Returns whether the owner named by the labels is certainly dead.
fn is_owner_dead(labels: &HashMap<String, String>, machine: &str) -> bool {
    let (Some(pid), Some(begun), Some(home)) =
        (labels.get(PID_LABEL), labels.get(START_TIME_LABEL), labels.get(MACHINE_LABEL))
    else {
        return false;
    };
    let boot = |machine: &str| machine.split('/').next().map(str::to_owned);
    if boot(home) != boot(machine) {
        // From another boot: none of its processes is alive. Engines of other machines are not supported.
        return true;
    }
    // A process of another namespace cannot be looked up from here.
    home == machine && pid.parse().ok().and_then(process_start_time).as_ref() != Some(begun)
}

/// Removes containers with a dead owner. Returns the runs they belonged to.
pub(super) async fn remove_stale_containers(engine: &EngineClient) -> Result<Vec<String>, Error> {
    let refused =
        |error: bollard::errors::Error| Error::from_engine(engine.kind, "listing containers", &error);
    let filters = HashMap::from([("label".to_owned(), vec![RUN_LABEL.to_owned()])]);
    let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
    let machine = machine_id();
    let mut removed = Vec::new();
    for container in engine.api.list_containers(Some(options)).await.map_err(refused)? {
        let (Some(id), Some(labels)) = (container.id, container.labels) else { continue };
        if !is_owner_dead(&labels, &machine) {
            continue;
        }
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match engine.api.remove_container(&id, Some(options)).await {
            Ok(()) => removed.push(labels.get(RUN_LABEL).cloned().unwrap_or(id)),
            // Its removal was already in progress.
            Err(bollard::errors::Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
            Err(error) => return Err(Error::from_engine(engine.kind, "removing a container", &error)),
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_owners_containers_are_leftovers() {
        let mut labels = owner_labels("r");
        let here = machine_id();
        assert!(!is_owner_dead(&labels, &here));
        labels.insert(START_TIME_LABEL.to_owned(), "1".to_owned());
        assert!(is_owner_dead(&labels, &here));
        assert!(!is_owner_dead(&labels, &format!("{}/1", here.split('/').next().unwrap())));
        assert!(is_owner_dead(&labels, "another-boot/1"));
        labels.remove(PID_LABEL);
        assert!(!is_owner_dead(&labels, "another-boot/1"));
    }
}
