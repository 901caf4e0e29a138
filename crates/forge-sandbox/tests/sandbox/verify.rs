//! Tests of the probes: an intact sandbox passes all of them, whatever happened to the sandbox before, and a sandbox
//! without one of its protections fails exactly those that the protection stops.

use crate::as_both;
use crate::engine::{IMAGE, engines};
use crate::rig::{Rig, command, folder, options, out, spec};
use forge_jail::{DisabledProtection, HELPER_PATH};
use forge_ports::sandbox::Error;
use forge_ports::{Sandbox, Workspace, async_trait};
use forge_sandbox::probes::{self, PROBER_ARG, PROBES, ProbeGroup, ProbeScope, ProbeState, ProbeVerdict};
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{RunId, SandboxLayer, SandboxSpec, SnapshotId};
use futures::StreamExt as _;
use std::path::Path;
use std::sync::Arc;

/// Cases that users may select by name.
const TEN: [&str; 10] = [
    "host-files",
    "symlink-out",
    "masked-files",
    "host-environment",
    "signal-host-process",
    "mount",
    "ptrace",
    "outside-tcp",
    "host-loopback",
    "capabilities",
];
/// Probes that a test machine need not support.
const MAY_BE_ABSENT: [&str; 5] = ["cargo", "node", "python", "workspace-ceiling", "host-posix-queue"];
/// Probes that a container need not support either.
const ABSENT_IN_CONTAINERS: &[&str] = &[
    "inotify-of-user",
    "read-only-proc",
    "user-namespace",
    "id-maps",
    "control-group-namespace",
    "tmp-files",
];
/// Minimum number of probes: fewer would mean that the list was cut.
const FEWEST: usize = 180;

async fn verdict(sandbox: &dyn Sandbox, backend: &str, scope: ProbeScope) -> ProbeVerdict {
    let dir = folder();
    probes::run_probes(sandbox, backend, scope, &spec(dir.path(), backend))
        .await
        .expect("the probes can be made")
}

/// Returns names and states, without what differs between runs.
fn states(verdict: &ProbeVerdict) -> Vec<(String, bool)> {
    let probes = verdict.probes.iter();
    probes.map(|probe| (probe.name.clone(), probe.state == ProbeState::Passed)).collect()
}

/// The fate of the sandbox before the one that is probed.
#[derive(Clone, Copy)]
enum Before {
    /// Closed; the probed one is opened for the same run.
    Closed,
    /// Ended by killing its init.
    Killed,
    /// None; a child run gets a sandbox with the same specification.
    Child,
}

/// A sandbox backend that never probes a run's first sandbox.
struct Again(Backends, Before);

#[async_trait]
impl Sandbox for Again {
    async fn probe_layers(&self) -> Vec<SandboxLayer> {
        self.0.probe_layers().await
    }

    async fn open(
        &self,
        spec: &SandboxSpec,
        run: RunId,
        at: Option<SnapshotId>,
    ) -> Result<Arc<dyn Workspace>, Error> {
        // The plan of a run contains the specification as JSON.
        let kept: SandboxSpec = serde_json::from_str(&serde_json::to_string(spec).unwrap()).unwrap();
        assert_eq!(kept, *spec);
        if let Before::Child = self.1 {
            return self.0.open(&kept, RunId::generate(), at).await;
        }
        let first = self.0.open(spec, run, at).await?;
        if let Before::Killed = self.1 {
            let pid: i32 = first.report().id.rsplit_once('/').unwrap().1.parse().unwrap();
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            while first.exec(command(&["true"]), &()).await.is_ok() {}
        }
        drop(first);
        self.0.open(&kept, run, at).await
    }
}

/// Probes that only the list of programs stops.
const PROGRAM_LIST_PROBES: &[&str] = &[
    "unlisted-programs",
    "functions-named-like-programs",
    "wrappers-of-programs",
    "variables-that-start-programs",
    "texts-that-shells-evaluate",
    "start-files",
    "local-files-named-like-programs",
    "copies-and-links-of-programs",
    "interpreters-of-scripts",
    "loaders",
    "programs-by-descriptor",
    "written-libraries",
    "programs-of-git",
    "programs-in-memory-files",
    "executed-by-descriptor",
];

/// Returns the probes that must fail without a protection, the layer that must be missing, and the scope to run.
fn missed(weakness: DisabledProtection) -> (ProbeScope, &'static str, &'static [&'static str]) {
    use ProbeScope::{Of, Required};
    match weakness {
        DisabledProtection::Seccomp => (
            Required,
            "seccomp",
            &[
                "call-filter",
                "ptrace",
                "read-memory-of-processes",
                "pidfd-getfd",
                "io-uring",
                "add-key",
                "keyctl",
                "personality",
                "netlink-sockets",
                "limits-of-the-init",
                "make-whiteout",
                "mark-of-commands",
                "other-protocols",
            ],
        ),
        DisabledProtection::Landlock => (Required, "Landlock", &["landlock-in-force"]),
        DisabledProtection::Capabilities => (Required, "capabilities", &["capabilities", "bounding-set"]),
        DisabledProtection::NoNewPrivs => (Required, "no new privileges", &["no-new-privileges"]),
        DisabledProtection::ProcHidden => (Required, "masked /proc", &["kernel-symbols"]),
        DisabledProtection::ReadOnlyProc => (Required, "read-only /proc", &["read-only-proc"]),
        DisabledProtection::PidNamespace => (Required, "pid namespace", &["pid-namespace", "host-processes"]),
        DisabledProtection::NetNamespace => (
            Required,
            "network namespace",
            &["network-namespace", "interfaces", "host-loopback", "host-loopback-udp"],
        ),
        DisabledProtection::IpcNamespace => {
            (Required, "ipc namespace", &["ipc-namespace", "host-shared-memory", "host-message-queue"])
        }
        DisabledProtection::UtsNamespace => {
            (Required, "uts namespace", &["host-name-namespace", "host-name"])
        }
        DisabledProtection::ReadOnlySystem => (Required, "read-only mounts", &["write-root"]),
        DisabledProtection::Masks => (Required, "masks", &["masked-files", "masked-files-by-their-folder"]),
        DisabledProtection::EnvironmentCleared => (Required, "empty environment", &["host-environment"]),
        DisabledProtection::Memory => (
            Of(ProbeGroup::Resources),
            "supervisor",
            &["memory-ceiling", "memory-files", "socket-buffers", "hidden-processes"],
        ),
        DisabledProtection::Pids => (Of(ProbeGroup::Resources), "limits", &["process-ceiling"]),
        DisabledProtection::KillBackground => {
            (Of(ProbeGroup::Resources), "remaining processes are killed", &["daemons"])
        }
        DisabledProtection::Siblings => {
            (Of(ProbeGroup::Resources), "domains of commands", &["sibling-commands"])
        }
        DisabledProtection::Counts => {
            (Of(ProbeGroup::Resources), "share of the user's counts", &["inotify-of-user"])
        }
        DisabledProtection::ProgramList => (Of(ProbeGroup::Programs), "program list", PROGRAM_LIST_PROBES),
        DisabledProtection::FilesBeneath => {
            (Of(ProbeGroup::AfterRun), "openat2 beneath", &["absolute-and-nul-paths"])
        }
    }
}

/// Number of weakened sandboxes probed at once: their probes wait more than they work.
const AT_ONCE: usize = 4;

/// Probes a sandbox without this protection.
async fn weakened(weakness: DisabledProtection) {
    let (scope, layer, wanted) = missed(weakness);
    let data = folder();
    let weak = Backends::new(BackendOptions { without: vec![weakness], ..options(data.path()) });
    let verdict = verdict(&weak, "native", scope).await;
    assert!(!verdict.passed, "{weakness:?} was not noticed");
    let failed: Vec<_> = verdict.failed_probes().map(|probe| probe.name.as_str()).collect();
    for name in wanted {
        assert!(failed.contains(name), "{weakness:?} was not noticed by {name}: {failed:?}");
    }
    for probe in verdict.failed_probes() {
        let listed = PROBES.iter().find(|p| p.name == probe.name).unwrap();
        assert!(listed.layers.contains(layer), "without {weakness:?} {probe:?} failed as well");
    }
}

/// Prints which probes could not be run, each with its reason, and asserts that they are among these.
fn told_absent(backend: &str, verdict: &ProbeVerdict, may_be: &[&str]) {
    println!("{backend}: {}; host {:?}", verdict.summary(), verdict.host);
    let mut others = Vec::new();
    for probe in &verdict.probes {
        let ProbeState::NotApplicable(why) = &probe.state else { continue };
        println!("  not applicable: {}: {why}", probe.name);
        others.extend((!may_be.contains(&probe.name.as_str())).then_some(probe));
    }
    assert!(others.is_empty(), "{others:#?}");
}

/// Returns how often a directory is swapped while a program writes into it.
fn tries() -> usize {
    if std::env::var_os("FORGE_SOAK").is_some() { 100_000 } else { 500 }
}

as_both! {
    async fn a_native_box_passes_every_probe() {
        let data = folder();
        let verdict = verdict(&Backends::new(options(data.path())), "native", ProbeScope::All).await;
        assert!(verdict.passed && verdict.required_passed, "{}", verdict.summary());
        assert!(verdict.probes.len() >= FEWEST && verdict.probes.len() == PROBES.len());
        told_absent("native", &verdict, &MAY_BE_ABSENT);
        for name in TEN {
            let probe = verdict.probes.iter().find(|p| p.name == name).expect("it is in the list");
            assert!(probe.required && probe.state == ProbeState::Passed, "{probe:?}");
        }
        let text = serde_json::to_string(&verdict).unwrap();
        assert_eq!(serde_json::from_str::<ProbeVerdict>(&text).unwrap(), verdict);
    }

    async fn a_box_is_as_tight_after_a_resume_a_kill_and_for_a_child() {
        let data = folder();
        let scope = if std::env::var_os("FORGE_SOAK").is_some() { ProbeScope::All } else { ProbeScope::Required };
        let first = verdict(&Backends::new(options(data.path())), "native", scope).await;
        assert!(first.required_passed, "{}", first.summary());
        println!("compared: {} of {} probes", first.probes.len(), PROBES.len());
        for before in [Before::Closed, Before::Killed, Before::Child] {
            let again = Again(Backends::new(options(data.path())), before);
            let again = verdict(&again, "native", scope).await;
            assert_eq!(states(&again), states(&first), "{}", again.summary());
        }
    }

    async fn each_missing_protection_is_noticed_by_its_probes_and_by_no_others() {
        futures::stream::iter(DisabledProtection::ALL).for_each_concurrent(AT_ONCE, |weakness| weakened(*weakness)).await;
    }

    async fn commands_without_a_box_fail_the_probes() {
        let data = folder();
        let verdict = verdict(&Backends::new(options(data.path())), "process", ProbeScope::Required).await;
        assert!(!verdict.passed && !verdict.required_passed);
        assert_eq!(verdict.failed_probes().count(), verdict.probes.len());
    }

    async fn the_traps_are_live() {
        let (rig, canaries) = (Rig::new("native").await, folder());
        let task = serde_json::json!({ "plant": { "canaries": canaries.path() } }).to_string();
        let ran = rig.exec(command(&[HELPER_PATH, PROBER_ARG, &task])).await.unwrap();
        assert_eq!(ran.exit_code, 0, "{}", out(&ran));
        let on_the_host = |argv: &[&str]| {
            let mut command = std::process::Command::new(argv[0]);
            let done = command.args(&argv[1..]).current_dir(rig.dir.path()).output();
            done.map_err(|error| println!("NOT TESTED: {argv:?}: {error}")).is_ok()
        };
        // Commands of a careless tool; the repository is the test's own, so only the test's user could be harmed.
        let git = on_the_host(&["git", "status"]) && on_the_host(&["git", "add", "-A"]) && on_the_host(&["git", "fetch"]);
        let make = on_the_host(&["make", "-n"]);
        let sprung = |name: &str| canaries.path().join(name).exists();
        for (name, tried) in [("git-fsmonitor", git), ("git-filters", git), ("git-ssh-command", git), ("makefile", make)] {
            assert_eq!(sprung(name), tried, "{name}");
        }
    }

    async fn no_write_follows_a_folder_that_is_swapped_with_a_link() {
        let rig = Rig::new("native").await;
        let task = serde_json::json!({ "swap": { "target": "/tmp/astray" } }).to_string();
        let argv = [HELPER_PATH, PROBER_ARG, &task];
        let mut endless = command(&argv);
        endless.timeout = std::time::Duration::from_secs(3600);
        let mut swapping = std::pin::pin!(rig.exec(endless));
        let writing = async {
            // On a busy machine the swapping starts late.
            let (mut tried, mut written) = (0, 0);
            while tried < tries() || written == 0 {
                tried += 1;
                written += usize::from(rig.room.write_file("swapped/file", b"astray").await.is_ok());
            }
        };
        tokio::select! {
            ran = &mut swapping => panic!("the swapping ended: {ran:?}"),
            () = writing => {}
        }
        assert_eq!(out(&rig.sh("ls -A /tmp/astray").await), "");
    }
}

#[test]
fn containers_pass_every_probe_that_can_be_made_there() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for engine in engines() {
        let (backends, kind, dir) = (engine.backends(), engine.kind.to_string(), folder());
        let template = SandboxSpec { image: Some(IMAGE.to_owned()), ..spec(dir.path(), &kind) };
        let verdict =
            runtime.block_on(probes::run_probes(&backends, &kind, ProbeScope::All, &template)).unwrap();
        assert!(verdict.passed && verdict.probes.len() == PROBES.len(), "{}", verdict.summary());
        let may_be: Vec<_> = MAY_BE_ABSENT.iter().chain(ABSENT_IN_CONTAINERS).copied().collect();
        told_absent(&kind, &verdict, &may_be);
    }
}

#[test]
fn a_verdict_is_kept_where_it_is_asked_for() {
    let (folder, key) = (folder(), ProbeVerdict::cache_key("native", "", ProbeScope::Required));
    assert_eq!(ProbeVerdict::load(folder.path(), &key), None);
    assert_eq!(ProbeVerdict::load(Path::new("/nonexistent"), &key), None);
}
