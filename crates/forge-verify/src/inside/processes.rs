//! Attempts on other processes, and the state of the own one.

use crate::attempts::{Attempt, Outcome, attempt};
use crate::scene::{Scene, absent, broke, held, untested};
use forge_types::Digest;
use std::fs;

/// A field of `/proc/self/status`.
fn status(name: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().map(|value| value.trim().to_owned())
}

pub(super) fn status_is(name: &str, value: &str) -> bool {
    status(name).as_deref() == Some(value)
}

fn must_be(name: &str, value: &str) -> Outcome {
    match status(name) {
        Some(found) if found == value => held(format!("{name} {found}")),
        Some(found) => broke(format!("{name} is {found}, not {value}")),
        None => untested(format!("the kernel does not say {name}")),
    }
}

/// The layer's name in a report.
pub(crate) const SHARE: &str = "share of what is counted by user";

const NO_CAPABILITY: &str = "0000000000000000";

pub(crate) fn capabilities(_: &Scene) -> Outcome {
    Outcome::worst(["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| must_be(name, NO_CAPABILITY)))
}

pub(crate) fn bounding(_: &Scene) -> Outcome {
    must_be("CapBnd", NO_CAPABILITY)
}

pub(crate) fn no_new_privs(_: &Scene) -> Outcome {
    must_be("NoNewPrivs", "1")
}

pub(crate) fn seccomp(_: &Scene) -> Outcome {
    must_be("Seccomp", "2")
}

pub(crate) fn landlock(_: &Scene) -> Outcome {
    attempt(&Attempt::LandlockInForce)
}

pub(crate) fn user(_: &Scene) -> Outcome {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() || gid.is_root() {
        return broke(format!("commands run as user {uid} and group {gid}"));
    }
    held(format!("user {uid}, group {gid}"))
}

pub(crate) fn id_maps(scene: &Scene) -> Outcome {
    let write = Outcome::worst(["uid_map", "gid_map", "setgroups"].map(|name| {
        match fs::write(format!("/proc/self/{name}"), "0 0 4294967295") {
            Ok(()) => broke(format!("{name} was written")),
            Err(error) => held(error),
        }
    }));
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else { return untested("no map of ids") };
    let fields: Vec<u64> = map.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let root_is_mapped = fields.chunks(3).any(|m| m.get(1) == Some(&0));
    match (root_is_mapped, scene.backend.as_str()) {
        (true, "native") => broke("user 0 of the host is mapped into the box"),
        (true, _) => {
            absent("the engine maps no ids (its option userns-remap); commands run as an ordinary user")
        }
        _ => write,
    }
}

/// The namespace of this kind is not the host's.
pub(crate) fn namespace(scene: &Scene, kind: &str) -> Outcome {
    let Ok(own) = fs::read_link(format!("/proc/self/ns/{kind}")) else {
        return untested("it cannot be seen");
    };
    match scene.namespaces.get(kind) {
        Some(host) if *host != own.to_string_lossy() => held("its own"),
        Some(_) if kind == "user" && scene.backend != "native" => {
            absent("the engine maps no ids (its option userns-remap)")
        }
        Some(_) => broke(format!("the box is in the host's {kind} namespace")),
        None => untested("the host's own cannot be seen"),
    }
}

pub(crate) fn host_processes(scene: &Scene) -> Outcome {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    for entry in pids {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // Only its name: the prober's own arguments hold the word as well.
        if line.starts_with(scene.mark.as_bytes()) {
            return broke("a process of the host is seen");
        }
    }
    held("none is seen")
}

pub(crate) fn signal_host(scene: &Scene) -> Outcome {
    if std::path::Path::new(&format!("/proc/{}", scene.process)).exists() {
        let own = namespace(scene, "pid");
        if matches!(own, Outcome::Held(_)) {
            return held("its number means a process of the box here");
        }
    }
    attempt(&Attempt::SignalHost(scene.process))
}

pub(crate) fn signal_init(_: &Scene) -> Outcome {
    let name = || fs::read_to_string("/proc/1/comm");
    let before = name();
    let sent = attempt(&Attempt::SignalInit);
    match (before, name()) {
        (Ok(before), Ok(after)) if before == after => sent,
        (Err(error), _) | (_, Err(error)) => broke(error),
        _ => broke("the init is another"),
    }
}

/// The box must leave some to the user's other programs.
pub(crate) fn inotify_share(scene: &Scene) -> Outcome {
    let all = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    let Some(all) = all.ok().and_then(|text| text.trim().parse::<usize>().ok()) else {
        return untested("the kernel does not say how many there are");
    };
    if scene.lacking.iter().any(|layer| layer == SHARE) {
        return absent("the box reports that it can't take a share only here");
    }
    let mut taken = Vec::new();
    while taken.len() < all {
        match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
            Ok(instance) => taken.push(instance),
            Err(rustix::io::Errno::MFILE) if taken.len() * 2 <= all => {
                return held(format!("{} of {all}", taken.len()));
            }
            // Others have the rest at this moment.
            Err(_) => break,
        }
    }
    if scene.backend != "native" {
        return absent("in a container all of the user's instances are had: the engine sets no share");
    }
    broke(format!("{} of {all} instances are the box's", taken.len()))
}

pub(crate) fn environment(scene: &Scene) -> Outcome {
    const TELLING: &[&str] =
        &["SECRET", "TOKEN", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "CREDENTIAL", "PRIVATE"];
    let Ok(bytes) = fs::read("/proc/self/environ") else { return untested("the environment cannot be read") };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs.filter(|(name, _)| !scene.allowed.iter().any(|a| a == name)) {
        if scene.variables.get(name) == Some(&Digest::of(value.as_bytes()).to_string()) {
            return broke(format!("{name} of the host's environment is seen"));
        }
        if TELLING.iter().any(|word| name.to_ascii_uppercase().contains(word)) {
            return broke(format!("there is a variable {name}"));
        }
    }
    held("nothing of the host's")
}

pub(crate) fn descriptors(scene: &Scene) -> Outcome {
    match scene.inherited.as_slice() {
        [] => held("only the three streams"),
        extra => broke(format!("there are {extra:?}")),
    }
}

pub(crate) fn streams(_: &Scene) -> Outcome {
    Outcome::worst([0, 1, 2].map(|fd| match fs::read_link(format!("/proc/self/fd/{fd}")) {
        Ok(target) if target.to_string_lossy().starts_with("pipe:") || target.ends_with("null") => {
            held("pipes")
        }
        Ok(target) => broke(format!("stream {fd} is {}", target.display())),
        Err(error) => untested(error),
    }))
}

pub(crate) fn host_name(scene: &Scene) -> Outcome {
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match own.trim() == scene.hostname {
        true if scene.hostname == "forge" => absent("the host has the name of every box"),
        true => broke("the host's name is seen"),
        false => held("a name of its own"),
    }
}

pub(crate) fn oom_score(_: &Scene) -> Outcome {
    Outcome::worst(["/proc/1/oom_score_adj", "/proc/1/oom_adj", "/proc/1/timerslack_ns", "/proc/1/comm"].map(
        |path| match fs::File::options().write(true).open(path) {
            Ok(_) => broke(format!("{path} can be written")),
            Err(error) => held(error),
        },
    ))
}

/// Processes beside the init, this one and its parents.
pub(super) fn others() -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != own && name != "1").count()
}
