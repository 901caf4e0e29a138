//! Attempts on other processes, and checks of the process's own state.

use crate::attempts::{AttemptOutcome, EscapeAttempt, make_attempt};
use crate::host_facts::{HostFacts, probe_failed, probe_not_applicable, probe_passed, probe_untested};
use forge_types::Digest;
use std::fs;

/// Returns a field of `/proc/self/status`.
fn status_field(name: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    values.next().map(|value| value.trim().to_owned())
}

pub(super) fn status_is(name: &str, value: &str) -> bool {
    status_field(name).as_deref() == Some(value)
}

fn expect_status(name: &str, value: &str) -> AttemptOutcome {
    match status_field(name) {
        Some(found) if found == value => probe_passed(format!("{name} {found}")),
        Some(found) => probe_failed(format!("{name} is {found}, not {value}")),
        None => probe_untested(format!("the kernel does not report {name}")),
    }
}

/// Name of the layer in a report.
pub(crate) const USER_SHARE_LAYER: &str = "share of what is counted by user";

const NO_CAPABILITY: &str = "0000000000000000";

pub(crate) fn capability_sets(_: &HostFacts) -> AttemptOutcome {
    AttemptOutcome::worst(
        ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|name| expect_status(name, NO_CAPABILITY)),
    )
}

pub(crate) fn bounding_set(_: &HostFacts) -> AttemptOutcome {
    expect_status("CapBnd", NO_CAPABILITY)
}

pub(crate) fn no_new_privs(_: &HostFacts) -> AttemptOutcome {
    expect_status("NoNewPrivs", "1")
}

pub(crate) fn seccomp_filter(_: &HostFacts) -> AttemptOutcome {
    expect_status("Seccomp", "2")
}

pub(crate) fn landlock_layers(_: &HostFacts) -> AttemptOutcome {
    make_attempt(&EscapeAttempt::LandlockInForce)
}

pub(crate) fn unprivileged_user(_: &HostFacts) -> AttemptOutcome {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if uid.is_root() || gid.is_root() {
        return probe_failed(format!("commands run as user {uid} and group {gid}"));
    }
    probe_passed(format!("user {uid}, group {gid}"))
}

pub(crate) fn id_maps(scene: &HostFacts) -> AttemptOutcome {
    let write = AttemptOutcome::worst(["uid_map", "gid_map", "setgroups"].map(|name| {
        match fs::write(format!("/proc/self/{name}"), "0 0 4294967295") {
            Ok(()) => probe_failed(format!("{name} was written")),
            Err(error) => probe_passed(error),
        }
    }));
    let Ok(map) = fs::read_to_string("/proc/self/uid_map") else {
        return probe_untested("the ID map cannot be read");
    };
    let fields: Vec<u64> = map.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    let root_is_mapped = fields.chunks(3).any(|m| m.get(1) == Some(&0));
    match (root_is_mapped, scene.backend.as_str()) {
        (true, "native") => probe_failed("user 0 of the host is mapped into the sandbox"),
        (true, _) => probe_not_applicable(
            "the engine maps no IDs (its option userns-remap); commands run as an ordinary user",
        ),
        _ => write,
    }
}

/// Checks that the namespace of this kind is not the host's.
pub(crate) fn separate_namespace(scene: &HostFacts, kind: &str) -> AttemptOutcome {
    let Ok(own) = fs::read_link(format!("/proc/self/ns/{kind}")) else {
        return probe_untested("it cannot be read");
    };
    match scene.namespaces.get(kind) {
        Some(host) if *host != own.to_string_lossy() => probe_passed("its own"),
        Some(_) if kind == "user" && scene.backend != "native" => {
            probe_not_applicable("the engine maps no IDs (its option userns-remap)")
        }
        Some(_) => probe_failed(format!("the sandbox is in the host's {kind} namespace")),
        None => probe_untested("the host's namespace cannot be read"),
    }
}

pub(crate) fn host_processes(scene: &HostFacts) -> AttemptOutcome {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|e| e.file_name().to_string_lossy().bytes().all(|b| b.is_ascii_digit()));
    for entry in pids {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        // Only its name, because the prober's own arguments contain the word as well.
        if line.starts_with(scene.mark.as_bytes()) {
            return probe_failed("a process of the host is visible");
        }
    }
    probe_passed("none is visible")
}

pub(crate) fn signal_host(scene: &HostFacts) -> AttemptOutcome {
    if std::path::Path::new(&format!("/proc/{}", scene.process)).exists() {
        let own = separate_namespace(scene, "pid");
        if matches!(own, AttemptOutcome::Passed(_)) {
            return probe_passed("its ID belongs to a process of the sandbox here");
        }
    }
    make_attempt(&EscapeAttempt::SignalHost(scene.process))
}

pub(crate) fn signal_init(_: &HostFacts) -> AttemptOutcome {
    let name = || fs::read_to_string("/proc/1/comm");
    let before = name();
    let sent = make_attempt(&EscapeAttempt::SignalInit);
    match (before, name()) {
        (Ok(before), Ok(after)) if before == after => sent,
        (Err(error), _) | (_, Err(error)) => probe_failed(error),
        _ => probe_failed("the init is a different process"),
    }
}

/// Checks that the sandbox leaves inotify instances for the user's other programs.
pub(crate) fn inotify_share(scene: &HostFacts) -> AttemptOutcome {
    let all = fs::read_to_string("/proc/sys/fs/inotify/max_user_instances");
    let Some(all) = all.ok().and_then(|text| text.trim().parse::<usize>().ok()) else {
        return probe_untested("the kernel does not report their number");
    };
    if scene.lacking.iter().any(|layer| layer == USER_SHARE_LAYER) {
        return probe_not_applicable("the sandbox reports that it cannot limit its share here");
    }
    let mut taken = Vec::new();
    while taken.len() < all {
        match rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC) {
            Ok(instance) => taken.push(instance),
            Err(rustix::io::Errno::MFILE) if taken.len() * 2 <= all => {
                return probe_passed(format!("{} of {all}", taken.len()));
            }
            // Other processes hold the rest at the moment.
            Err(_) => break,
        }
    }
    if scene.backend != "native" {
        return probe_not_applicable(
            "in a container all of the user's instances are available: the engine sets no share",
        );
    }
    probe_failed(format!("the sandbox holds {} of {all} instances", taken.len()))
}

pub(crate) fn host_environment(scene: &HostFacts) -> AttemptOutcome {
    const SECRET_NAME_PARTS: &[&str] =
        &["SECRET", "TOKEN", "PASSWORD", "PASSWD", "API_KEY", "APIKEY", "CREDENTIAL", "PRIVATE"];
    let Ok(bytes) = fs::read("/proc/self/environ") else {
        return probe_untested("the environment cannot be read");
    };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs.filter(|(name, _)| !scene.allowed.iter().any(|a| a == name)) {
        if scene.variables.get(name) == Some(&Digest::of_bytes(value.as_bytes()).to_string()) {
            return probe_failed(format!("{name} of the host's environment is visible"));
        }
        if SECRET_NAME_PARTS.iter().any(|word| name.to_ascii_uppercase().contains(word)) {
            return probe_failed(format!("there is a variable {name}"));
        }
    }
    probe_passed("no variables of the host")
}

pub(crate) fn inherited_descriptors(scene: &HostFacts) -> AttemptOutcome {
    match scene.inherited.as_slice() {
        [] => probe_passed("only the three streams"),
        extra => probe_failed(format!("there are {extra:?}")),
    }
}

pub(crate) fn standard_streams(_: &HostFacts) -> AttemptOutcome {
    AttemptOutcome::worst([0, 1, 2].map(|fd| match fs::read_link(format!("/proc/self/fd/{fd}")) {
        Ok(target) if target.to_string_lossy().starts_with("pipe:") || target.ends_with("null") => {
            probe_passed("pipes")
        }
        Ok(target) => probe_failed(format!("stream {fd} is {}", target.display())),
        Err(error) => probe_untested(error),
    }))
}

pub(crate) fn host_name(scene: &HostFacts) -> AttemptOutcome {
    let own = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match own.trim() == scene.hostname {
        true if scene.hostname == "forge" => probe_not_applicable("the host has the name of every sandbox"),
        true => probe_failed("the host's name is visible"),
        false => probe_passed("the sandbox has its own name"),
    }
}

pub(crate) fn oom_score(_: &HostFacts) -> AttemptOutcome {
    AttemptOutcome::worst(
        ["/proc/1/oom_score_adj", "/proc/1/oom_adj", "/proc/1/timerslack_ns", "/proc/1/comm"].map(|path| {
            match fs::File::options().write(true).open(path) {
                Ok(_) => probe_failed(format!("{path} can be written")),
                Err(error) => probe_passed(error),
            }
        }),
    )
}

/// Counts processes other than the init, this one and its parents.
pub(super) fn count_other_processes() -> usize {
    let own = rustix::process::getpid().as_raw_nonzero().get().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != own && name != "1").count()
}
