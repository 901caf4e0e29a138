//! Probes of what a sandbox leaves behind: traps and hard-to-handle files in the workspace, and processes, mounts and
//! control groups on the host.

use super::canary::CanaryHost;
use super::host_facts::{ProberTask, ResourceCeiling, probe_failed, probe_passed, probe_untested};
use super::inside::{DEEP_TREE_DEPTH, FAKE_EXIT_CODE, FAKE_PROTOCOL_OUTPUT, ODD_NAMES};
use super::probe_session::ProbeSession;
use super::traps::TRAPS;
use super::{AttemptOutcome, ProbeOutcomes};
use forge_ports::Sandbox;
use forge_ports::sandbox::{Error, SearchSpec};
use forge_types::{RunId, SandboxSpec};
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Maximum time of a file operation, whatever it meets.
const FILE_OPERATION_TIMEOUT: Duration = Duration::from_secs(20);
/// Maximum number of writes while a directory and a link are swapped; fewer if they exceed [`FILE_OPERATION_TIMEOUT`]
/// in total.
const MAX_SWAP_WRITES: usize = 2_000;
/// Minimum number of writes, even on the slowest machine.
const MIN_SWAP_WRITES: usize = 100;
/// Directory in the sandbox that a write would reach by following a swapped or dangling link.
const SWAP_TARGET_DIR: &str = "/tmp/forge-swap";

/// Runs all of these probes. `first` is the run of the sandbox that was closed before.
pub(super) async fn run_after_probes(
    sandbox: &dyn Sandbox,
    spec: &SandboxSpec,
    stage: &CanaryHost,
    first: RunId,
) -> ProbeOutcomes {
    let mut outcomes = ProbeOutcomes::new();
    let run = RunId::generate();
    let result = probe_workspace(sandbox, spec, stage, run, &mut outcomes).await;
    if let Err(why) = result {
        outcomes.insert("git-hooks".to_owned(), (probe_untested(why), 0));
        return outcomes;
    }
    probe_residue(stage, &[first, run], &mut outcomes).await;
    outcomes
}

async fn probe_workspace(
    sandbox: &dyn Sandbox,
    spec: &SandboxSpec,
    stage: &CanaryHost,
    run: RunId,
    outcomes: &mut ProbeOutcomes,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (workspace, canaries) =
        (stage.create_probe_dir("after").map_err(|e| text(&e))?, stage.outside.join("canaries"));
    fs::create_dir(&canaries).map_err(|e| text(&e))?;
    fs::set_permissions(&canaries, fs::Permissions::from_mode(0o777)).map_err(|e| text(&e))?;
    let spec = SandboxSpec { repo: workspace.clone(), ..spec.clone() };
    let room = ProbeSession::open(sandbox, &spec, run).await.map_err(|e| text(&e))?;
    run_task(&room, &ProberTask::Plant { canaries: canaries.clone() }).await?;
    exercise_workspace(&room).await;
    drop(room);
    // Opening inspects the workspace on the host; files left by one run must not affect the next.
    let room = ProbeSession::open(sandbox, &spec, run).await.map_err(|e| text(&e))?;
    exercise_workspace(&room).await;
    run_task(&room, &ProberTask::Litter { outside: stage.outside.clone() }).await?;
    probe_files(&room, stage, outcomes).await;
    outcomes.insert("swapped-folder".to_owned(), time_outcome(probe_swapped_dir(&room)).await);
    outcomes.insert("output-as-protocol".to_owned(), time_outcome(probe_fake_protocol(&room)).await);
    drop(room);
    for trap in TRAPS {
        let sprung = canaries.join(trap.name).exists();
        let outcome = if sprung {
            probe_failed("it ran on the host")
        } else {
            probe_passed("nothing of it ran on the host")
        };
        outcomes.insert(trap.name.to_owned(), (outcome, 0));
    }
    outcomes.insert("closed-folders".to_owned(), (probe_tree_removal(&workspace), 0));
    Ok(())
}

async fn run_task(room: &ProbeSession, task: &ProberTask) -> Result<(), String> {
    match room.run_prober(task, FILE_OPERATION_TIMEOUT, &()).await {
        Ok(ran) if ran.exit_code == 0 => Ok(()),
        Ok(ran) => Err(format!("files could not be created in the sandbox, code {}", ran.exit_code)),
        Err(error) => Err(error.to_string()),
    }
}

/// Performs every operation that Forge itself applies to a workspace from outside.
async fn exercise_workspace(room: &ProbeSession) {
    let search = SearchSpec {
        pattern: "x".to_owned(),
        path: String::new(),
        glob: None,
        max_matches: 100,
        max_files: 100,
    };
    // The results do not matter here.
    let _ = room.0.list_directory("", 8, 10_000).await;
    let _ = room.0.find_files("*", 10_000).await;
    let _ = room.0.search_contents(search).await;
    let _ = room.0.read_file(".git/config", 0, 1 << 16).await;
    let _ = room.0.write_file("file.trap", b"y").await;
    let _ = room.0.write_file("made-by-forge.py", b"import conftest\n").await;
    let _ = room.0.remove_file("made-by-forge.py").await;
    let _ = room.0.snapshot().await;
}

async fn time_outcome(outcome: impl Future<Output = AttemptOutcome>) -> (AttemptOutcome, u64) {
    let begun = Instant::now();
    let outcome = tokio::time::timeout(FILE_OPERATION_TIMEOUT * 3, outcome)
        .await
        .unwrap_or_else(|_| probe_failed("it took too long"));
    (outcome, u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Expects that the operation ends by itself and is refused.
async fn expect_refusal<T>(what: &str, operation: impl Future<Output = Result<T, Error>>) -> AttemptOutcome {
    match tokio::time::timeout(FILE_OPERATION_TIMEOUT, operation).await {
        Err(_) => probe_failed(format!("{what} blocked")),
        Ok(Ok(_)) => probe_failed(format!("{what} worked")),
        Ok(Err(error @ Error::Died { .. })) => probe_failed(format!("{what} ended the sandbox: {error}")),
        Ok(Err(error)) => probe_passed(error),
    }
}

async fn probe_files(room: &ProbeSession, stage: &CanaryHost, outcomes: &mut ProbeOutcomes) {
    let reads = [("read-fifo", "fifo"), ("read-endless-device", "zero"), ("read-socket", "socket")];
    for (probe, path) in reads {
        outcomes.insert(
            probe.to_owned(),
            time_outcome(expect_refusal(path, room.0.read_file(path, 0, 64))).await,
        );
    }
    outcomes.insert("sparse-file".to_owned(), time_outcome(probe_sparse_file(room)).await);
    outcomes.insert("odd-names".to_owned(), time_outcome(probe_odd_names(room)).await);
    outcomes.insert("deep-folders".to_owned(), time_outcome(probe_deep_dirs(room)).await);
    outcomes.insert("symlink-loops".to_owned(), time_outcome(probe_symlink_loops(room)).await);
    outcomes.insert("dangling-symlink".to_owned(), time_outcome(probe_dangling_symlinks(room, stage)).await);
    outcomes.insert("absolute-and-nul-paths".to_owned(), time_outcome(probe_bad_paths(room)).await);
}

async fn probe_sparse_file(room: &ProbeSession) -> AttemptOutcome {
    const SPARSE_FILE_BYTES: u64 = 100 << 30;
    match (
        room.0.read_file("sparse", 0, 1 << 20).await,
        room.0.read_file("sparse", SPARSE_FILE_BYTES - 8, 64).await,
    ) {
        (Ok(head), Ok(tail))
            if head.size == SPARSE_FILE_BYTES && head.bytes.len() == 1 << 20 && tail.bytes.len() == 8 =>
        {
            probe_passed("read in parts")
        }
        (Ok(_), Ok(_)) => probe_failed("other bytes were returned than requested"),
        (Err(error), _) | (_, Err(error)) => probe_untested(error),
    }
}

async fn probe_odd_names(room: &ProbeSession) -> AttemptOutcome {
    let search = SearchSpec {
        pattern: "x".to_owned(),
        path: "names".to_owned(),
        glob: None,
        max_matches: 100,
        max_files: 100,
    };
    match (room.0.list_directory("names", 1, 100).await, room.0.search_contents(search).await) {
        (Ok(listed), Ok(found))
            if listed.items.len() == ODD_NAMES.len() && found.items.len() == ODD_NAMES.len() =>
        {
            probe_passed(format!("{} of them are listed", ODD_NAMES.len()))
        }
        (Ok(listed), Ok(found)) => probe_failed(format!(
            "of {} {} are listed and {} found",
            ODD_NAMES.len(),
            listed.items.len(),
            found.items.len()
        )),
        (Err(error), _) | (_, Err(error)) => probe_failed(error),
    }
}

async fn probe_deep_dirs(room: &ProbeSession) -> AttemptOutcome {
    let depth = u32::try_from(DEEP_TREE_DEPTH * 2).unwrap_or(u32::MAX);
    let Ok(listed) = tokio::time::timeout(
        FILE_OPERATION_TIMEOUT,
        room.0.list_directory("deep", depth, DEEP_TREE_DEPTH * 2),
    )
    .await
    else {
        return probe_failed("listing it did not end");
    };
    match room.0.list_directory("", 1, 100).await {
        Ok(_) => probe_passed(
            listed.map_or_else(|e| e.to_string(), |l| format!("{} levels were listed", l.items.len())),
        ),
        Err(error) => probe_failed(format!("after it: {error}")),
    }
}

async fn probe_symlink_loops(room: &ProbeSession) -> AttemptOutcome {
    let read = expect_refusal("reading a loop", room.0.read_file("loop-a", 0, 64)).await;
    let write = expect_refusal("writing a loop", room.0.write_file("loop-b", b"x")).await;
    let listed = match room.0.list_directory("cycle", 64, 10_000).await {
        Ok(listed) if listed.items.len() < 10 => probe_passed("a cycle is walked once"),
        Ok(listed) => probe_failed(format!("a cycle has {} entries", listed.items.len())),
        Err(error) => probe_untested(error),
    };
    AttemptOutcome::worst([read, write, listed])
}

async fn probe_dangling_symlinks(room: &ProbeSession, stage: &CanaryHost) -> AttemptOutcome {
    let mut outcomes = Vec::new();
    for path in ["dangling", "dangling-outside", "folder-outside/written"] {
        outcomes.push(expect_refusal(path, room.0.write_file(path, b"astray")).await);
    }
    let inside = room.existing_paths(vec![PathBuf::from("/tmp/forge-dangling")]).await;
    outcomes.push(match inside {
        Ok(found) if found.is_empty() && !stage.outside.join("written").exists() => {
            probe_passed("nothing was written")
        }
        Ok(_) => probe_failed("the link was followed"),
        Err(error) => probe_untested(error),
    });
    AttemptOutcome::worst(outcomes)
}

async fn probe_bad_paths(room: &ProbeSession) -> AttemptOutcome {
    let mut outcomes = Vec::new();
    for path in [
        "/etc/forge",
        "../forge",
        "src/../../forge",
        "nul\0byte",
        "/workspace/../forge",
        "//tmp/forge",
        "/tmp/forge",
    ] {
        outcomes.push(expect_refusal(&format!("writing {path:?}"), room.0.write_file(path, b"x")).await);
        outcomes.push(expect_refusal(&format!("removing {path:?}"), room.0.remove_file(path)).await);
    }
    for path in ["/etc/passwd", "../etc/passwd", "/proc/self/environ", "folder-outside/secret"] {
        outcomes.push(expect_refusal(&format!("reading {path:?}"), room.0.read_file(path, 0, 64)).await);
    }
    AttemptOutcome::worst(outcomes)
}

/// Writes below a directory that the sandbox swaps with a link out of the workspace.
async fn probe_swapped_dir(room: &ProbeSession) -> AttemptOutcome {
    let swapper = ProberTask::Swap { target: PathBuf::from(SWAP_TARGET_DIR) };
    let mut swapping = std::pin::pin!(room.run_prober(&swapper, FILE_OPERATION_TIMEOUT * 2, &()));
    let writing = async {
        let (mut written, begun) = (0usize, Instant::now());
        for tried in 0..MAX_SWAP_WRITES {
            if tried >= MIN_SWAP_WRITES && begun.elapsed() > FILE_OPERATION_TIMEOUT {
                return (written, tried);
            }
            written += usize::from(room.0.write_file("swapped/file", b"astray").await.is_ok());
            // The directory may have been created here or by the swapper; both are fine.
        }
        (written, MAX_SWAP_WRITES)
    };
    let (written, tried) = tokio::select! {
        ended = &mut swapping => return probe_untested(format!("the swapping ended: {:?}", ended.map(|ran| ran.exit_code))),
        written = writing => written,
    };
    match room.existing_paths(vec![Path::new(SWAP_TARGET_DIR).join("file")]).await {
        Ok(found) if found.is_empty() => {
            probe_passed(format!("{written} of {tried} writes landed in the directory, none elsewhere"))
        }
        Ok(_) => probe_failed("a write followed the link"),
        Err(error) => probe_untested(error),
    }
}

async fn probe_fake_protocol(room: &ProbeSession) -> AttemptOutcome {
    let task = ProberTask::Exhaust { ceiling: ResourceCeiling::FakeProtocol, limit: 0, token: String::new() };
    match room.run_prober(&task, FILE_OPERATION_TIMEOUT, &()).await {
        Ok(ran)
            if ran.stdout.bytes == FAKE_PROTOCOL_OUTPUT.as_bytes()
                && ran.stderr.bytes == FAKE_PROTOCOL_OUTPUT.as_bytes()
                && ran.exit_code == FAKE_EXIT_CODE =>
        {
            probe_passed("it is treated as plain output")
        }
        Ok(ran) => probe_failed(format!("{} bytes arrived, and code {}", ran.stdout.total, ran.exit_code)),
        Err(error) => probe_failed(error),
    }
}

fn probe_tree_removal(workspace: &Path) -> AttemptOutcome {
    for name in ["shut", "deep", "names", "cycle"] {
        forge_files::remove_tree(&workspace.join(name));
        if workspace.join(name).symlink_metadata().is_ok() {
            return probe_failed(format!("{name} could not be removed"));
        }
    }
    probe_passed("inaccessible, deep and oddly named trees were removed")
}

/// Checks what still exists a moment after the sandboxes were closed.
async fn probe_residue(stage: &CanaryHost, runs: &[RunId], outcomes: &mut ProbeOutcomes) {
    let mut last = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..100 {
        last = [stage.token_processes(), stage.new_mounts(), find_cgroups(runs)];
        if last.iter().all(Vec::is_empty) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (probe, left) in ["processes-left", "mounts-left", "control-groups-left"].into_iter().zip(last) {
        let outcome = match left.first() {
            None => probe_passed("none"),
            Some(one) => probe_failed(format!("{} are left, such as {one}", left.len())),
        };
        outcomes.insert(probe.to_owned(), (outcome, 0));
    }
}

/// Finds control groups with the ID of one of these runs in their name.
fn find_cgroups(runs: &[RunId]) -> Vec<String> {
    const MAX_CGROUP_DEPTH: usize = 8;
    let names: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let (mut folders, mut found) = (vec![(PathBuf::from("/sys/fs/cgroup"), 0)], Vec::new());
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth == MAX_CGROUP_DEPTH {
                continue;
            }
            let path = entry.path();
            if names.iter().any(|name| entry.file_name().to_string_lossy().contains(name)) {
                found.push(path.display().to_string());
            }
            folders.push((path, depth + 1));
        }
    }
    found
}
