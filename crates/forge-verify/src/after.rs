//! Probes of what a box leaves behind: traps and files that are hard to handle in the workspace, and processes, mounts
//! and control groups on the host.

use super::canary::Stage;
use super::inside::{DEPTH, NAMES, POSE, POSER_CODE};
use super::room::Room;
use super::scene::{Ceiling, Task, broke, held, untested};
use super::traps::TRAPS;
use super::{Outcome, Outcomes};
use forge_ports::Sandbox;
use forge_ports::sandbox::{Error, SearchSpec};
use forge_types::{RunId, SandboxSpec};
use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// No file operation takes longer, whatever it meets.
const PATIENCE: Duration = Duration::from_secs(20);
/// Writes while a folder and a link are swapped; fewer where they take longer than [`PATIENCE`] in all.
const SWAPS: usize = 2_000;
/// So many on the slowest machine.
const FEWEST_SWAPS: usize = 100;
/// Where a write would land that followed a swapped or dangling link, in the box.
const ASTRAY: &str = "/tmp/forge-swap";

/// Makes all of them. `first` is the run whose box was closed before.
pub(super) async fn look(sandbox: &dyn Sandbox, spec: &SandboxSpec, stage: &Stage, first: RunId) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let run = RunId::generate();
    let result = open_work_close(sandbox, spec, stage, run, &mut outcomes).await;
    if let Err(why) = result {
        outcomes.insert("git-hooks".to_owned(), (untested(why), 0));
        return outcomes;
    }
    left(stage, &[first, run], &mut outcomes).await;
    outcomes
}

async fn open_work_close(
    sandbox: &dyn Sandbox,
    spec: &SandboxSpec,
    stage: &Stage,
    run: RunId,
    outcomes: &mut Outcomes,
) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let (workspace, canaries) =
        (stage.folder("after").map_err(|e| text(&e))?, stage.outside.join("canaries"));
    fs::create_dir(&canaries).map_err(|e| text(&e))?;
    fs::set_permissions(&canaries, fs::Permissions::from_mode(0o777)).map_err(|e| text(&e))?;
    let spec = SandboxSpec { repo: workspace.clone(), ..spec.clone() };
    let room = Room::open(sandbox, &spec, run).await.map_err(|e| text(&e))?;
    task(&room, &Task::Plant { canaries: canaries.clone() }).await?;
    work(&room).await;
    drop(room);
    // Opening looks at the workspace on the host: what a run left must not act on the next.
    let room = Room::open(sandbox, &spec, run).await.map_err(|e| text(&e))?;
    work(&room).await;
    task(&room, &Task::Litter { outside: stage.outside.clone() }).await?;
    files(&room, stage, outcomes).await;
    outcomes.insert("swapped-folder".to_owned(), timed(swapped(&room)).await);
    outcomes.insert("output-as-protocol".to_owned(), timed(pose(&room)).await);
    drop(room);
    for trap in TRAPS {
        let sprung = canaries.join(trap.name).exists();
        let outcome =
            if sprung { broke("it ran on the host") } else { held("nothing of it ran on the host") };
        outcomes.insert(trap.name.to_owned(), (outcome, 0));
    }
    outcomes.insert("closed-folders".to_owned(), (removed(&workspace), 0));
    Ok(())
}

async fn task(room: &Room, task: &Task) -> Result<(), String> {
    match room.ask(task, PATIENCE, &()).await {
        Ok(ran) if ran.exit_code == 0 => Ok(()),
        Ok(ran) => Err(format!("files could not be made in the box, code {}", ran.exit_code)),
        Err(error) => Err(error.to_string()),
    }
}

/// Everything that Forge itself does with a workspace from outside.
async fn work(room: &Room) {
    let search = SearchSpec {
        pattern: "x".to_owned(),
        path: String::new(),
        glob: None,
        max_matches: 100,
        max_files: 100,
    };
    // What they answer is not the question here.
    let _ = room.0.list("", 8, 10_000).await;
    let _ = room.0.find("*", 10_000).await;
    let _ = room.0.search(search).await;
    let _ = room.0.read(".git/config", 0, 1 << 16).await;
    let _ = room.0.write("file.trap", b"y").await;
    let _ = room.0.write("made-by-forge.py", b"import conftest\n").await;
    let _ = room.0.remove("made-by-forge.py").await;
    let _ = room.0.snapshot().await;
}

async fn timed(outcome: impl Future<Output = Outcome>) -> (Outcome, u64) {
    let begun = Instant::now();
    let outcome =
        tokio::time::timeout(PATIENCE * 3, outcome).await.unwrap_or_else(|_| broke("it took too long"));
    (outcome, u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// The operation ends by itself and is refused.
async fn refused<T>(what: &str, operation: impl Future<Output = Result<T, Error>>) -> Outcome {
    match tokio::time::timeout(PATIENCE, operation).await {
        Err(_) => broke(format!("{what} was waited for")),
        Ok(Ok(_)) => broke(format!("{what} worked")),
        Ok(Err(error @ Error::Died { .. })) => broke(format!("{what} ended the box: {error}")),
        Ok(Err(error)) => held(error),
    }
}

async fn files(room: &Room, stage: &Stage, outcomes: &mut Outcomes) {
    let reads = [("read-fifo", "fifo"), ("read-endless-device", "zero"), ("read-socket", "socket")];
    for (probe, path) in reads {
        outcomes.insert(probe.to_owned(), timed(refused(path, room.0.read(path, 0, 64))).await);
    }
    outcomes.insert("sparse-file".to_owned(), timed(sparse(room)).await);
    outcomes.insert("odd-names".to_owned(), timed(odd_names(room)).await);
    outcomes.insert("deep-folders".to_owned(), timed(deep(room)).await);
    outcomes.insert("symlink-loops".to_owned(), timed(loops(room)).await);
    outcomes.insert("dangling-symlink".to_owned(), timed(dangling(room, stage)).await);
    outcomes.insert("absolute-and-nul-paths".to_owned(), timed(paths(room)).await);
}

async fn sparse(room: &Room) -> Outcome {
    const SIZE: u64 = 100 << 30;
    match (room.0.read("sparse", 0, 1 << 20).await, room.0.read("sparse", SIZE - 8, 64).await) {
        (Ok(head), Ok(tail)) if head.size == SIZE && head.bytes.len() == 1 << 20 && tail.bytes.len() == 8 => {
            held("read in parts")
        }
        (Ok(_), Ok(_)) => broke("other bytes came than were asked for"),
        (Err(error), _) | (_, Err(error)) => untested(error),
    }
}

async fn odd_names(room: &Room) -> Outcome {
    let search = SearchSpec {
        pattern: "x".to_owned(),
        path: "names".to_owned(),
        glob: None,
        max_matches: 100,
        max_files: 100,
    };
    match (room.0.list("names", 1, 100).await, room.0.search(search).await) {
        (Ok(listed), Ok(found)) if listed.items.len() == NAMES.len() && found.items.len() == NAMES.len() => {
            held(format!("{} of them are listed", NAMES.len()))
        }
        (Ok(listed), Ok(found)) => broke(format!(
            "of {} {} are listed and {} found",
            NAMES.len(),
            listed.items.len(),
            found.items.len()
        )),
        (Err(error), _) | (_, Err(error)) => broke(error),
    }
}

async fn deep(room: &Room) -> Outcome {
    let depth = u32::try_from(DEPTH * 2).unwrap_or(u32::MAX);
    let Ok(listed) = tokio::time::timeout(PATIENCE, room.0.list("deep", depth, DEPTH * 2)).await else {
        return broke("listing it did not end");
    };
    match room.0.list("", 1, 100).await {
        Ok(_) => {
            held(listed.map_or_else(|e| e.to_string(), |l| format!("{} levels were listed", l.items.len())))
        }
        Err(error) => broke(format!("after it: {error}")),
    }
}

async fn loops(room: &Room) -> Outcome {
    let read = refused("reading a loop", room.0.read("loop-a", 0, 64)).await;
    let write = refused("writing a loop", room.0.write("loop-b", b"x")).await;
    let listed = match room.0.list("cycle", 64, 10_000).await {
        Ok(listed) if listed.items.len() < 10 => held("a circle is walked once"),
        Ok(listed) => broke(format!("a circle has {} entries", listed.items.len())),
        Err(error) => untested(error),
    };
    Outcome::worst([read, write, listed])
}

async fn dangling(room: &Room, stage: &Stage) -> Outcome {
    let mut outcomes = Vec::new();
    for path in ["dangling", "dangling-outside", "folder-outside/written"] {
        outcomes.push(refused(path, room.0.write(path, b"astray")).await);
    }
    let inside = room.existing(vec![PathBuf::from("/tmp/forge-dangling")]).await;
    outcomes.push(match inside {
        Ok(found) if found.is_empty() && !stage.outside.join("written").exists() => {
            held("nothing was written")
        }
        Ok(_) => broke("the link was followed"),
        Err(error) => untested(error),
    });
    Outcome::worst(outcomes)
}

async fn paths(room: &Room) -> Outcome {
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
        outcomes.push(refused(&format!("writing {path:?}"), room.0.write(path, b"x")).await);
        outcomes.push(refused(&format!("removing {path:?}"), room.0.remove(path)).await);
    }
    for path in ["/etc/passwd", "../etc/passwd", "/proc/self/environ", "folder-outside/secret"] {
        outcomes.push(refused(&format!("reading {path:?}"), room.0.read(path, 0, 64)).await);
    }
    Outcome::worst(outcomes)
}

/// Writes below a folder that the box swaps with a link out of the workspace.
async fn swapped(room: &Room) -> Outcome {
    let swapper = Task::Swap { target: PathBuf::from(ASTRAY) };
    let mut swapping = std::pin::pin!(room.ask(&swapper, PATIENCE * 2, &()));
    let writing = async {
        let (mut written, begun) = (0usize, Instant::now());
        for tried in 0..SWAPS {
            if tried >= FEWEST_SWAPS && begun.elapsed() > PATIENCE {
                return (written, tried);
            }
            written += usize::from(room.0.write("swapped/file", b"astray").await.is_ok());
            // A folder that the swapper has not made yet was made here, or the other way round: both are fine.
        }
        (written, SWAPS)
    };
    let (written, tried) = tokio::select! {
        ended = &mut swapping => return untested(format!("the swapping ended: {:?}", ended.map(|ran| ran.exit_code))),
        written = writing => written,
    };
    match room.existing(vec![Path::new(ASTRAY).join("file")]).await {
        Ok(found) if found.is_empty() => {
            held(format!("{written} of {tried} writes landed in the folder, none astray"))
        }
        Ok(_) => broke("a write followed the link"),
        Err(error) => untested(error),
    }
}

async fn pose(room: &Room) -> Outcome {
    let task = Task::Press { ceiling: Ceiling::FakeProtocol, limit: 0, token: String::new() };
    match room.ask(&task, PATIENCE, &()).await {
        Ok(ran)
            if ran.stdout.bytes == POSE.as_bytes()
                && ran.stderr.bytes == POSE.as_bytes()
                && ran.exit_code == POSER_CODE =>
        {
            held("it is output and nothing else")
        }
        Ok(ran) => broke(format!("{} bytes came, and code {}", ran.stdout.total, ran.exit_code)),
        Err(error) => broke(error),
    }
}

fn removed(workspace: &Path) -> Outcome {
    for name in ["shut", "deep", "names", "cycle"] {
        forge_files::remove_tree(&workspace.join(name));
        if workspace.join(name).symlink_metadata().is_ok() {
            return broke(format!("{name} could not be removed"));
        }
    }
    held("closed, deep and oddly named trees were removed")
}

/// What is still there a moment after the boxes were closed.
async fn left(stage: &Stage, runs: &[RunId], outcomes: &mut Outcomes) {
    let mut last = [Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..100 {
        last = [stage.processes(), stage.new_mounts(), groups(runs)];
        if last.iter().all(Vec::is_empty) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (probe, left) in ["processes-left", "mounts-left", "control-groups-left"].into_iter().zip(last) {
        let outcome = match left.first() {
            None => held("none"),
            Some(one) => broke(format!("{} are left, such as {one}", left.len())),
        };
        outcomes.insert(probe.to_owned(), (outcome, 0));
    }
}

/// Control groups that carry the id of one of these runs.
fn groups(runs: &[RunId]) -> Vec<String> {
    const DEEPEST: usize = 8;
    let names: Vec<String> = runs.iter().map(ToString::to_string).collect();
    let (mut folders, mut found) = (vec![(PathBuf::from("/sys/fs/cgroup"), 0)], Vec::new());
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) || depth == DEEPEST {
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
