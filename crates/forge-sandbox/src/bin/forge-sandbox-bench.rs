//! Measures sandboxes against plain fork+exec and other programs in one go, and prints JSON for the bench report.
//!
//! `forge-sandbox-bench DIR [IMAGE]`: DIR is an empty directory on the disk to measure on; IMAGE is an image of a
//! container engine that runs here. Measurements that this machine does not support are reported with the reason.
#![allow(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a program for the bench: it prints, and starts others"
)]

use forge_jail::{ExecEnd, Jail, JailCommand, JailReply, JailRequest, JailSpec, PrewarmedJail};
use forge_ports::sandbox::{BackgroundPolicy, ExecSpec, InheritedEnv};
use forge_ports::{Sandbox, Workspace};
use forge_sandbox::{BackendOptions, Backends, helper_main};
use forge_types::{RunId, SandboxSpec, WorkspaceMode};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Rounds of operations that take about a millisecond, and of longer ones.
const QUICK_ROUNDS: usize = 400;
const MEDIUM_ROUNDS: usize = 60;
const SLOW_ROUNDS: usize = 10;

type BenchResult<T> = std::result::Result<T, Box<dyn Error>>;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(code) = helper_main(&arguments) {
        std::process::exit(code);
    }
    let folder = arguments.get(1).map_or_else(std::env::temp_dir, Into::into);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
    let report = runtime.block_on(measure_all(&folder, arguments.get(2).map(String::as_str)));
    println!("{}", Value::Object(report));
}

async fn measure_all(folder: &Path, image: Option<&str>) -> Map<String, Value> {
    let mut report = Map::new();
    let mut note = |name: &str, result: BenchResult<f64>| {
        let value = match result {
            Ok(seconds) => json!(seconds * 1e3),
            Err(error) => json!(error.to_string()),
        };
        report.insert(name.to_owned(), value);
    };
    note("fork_exec_ms", time_rounds(QUICK_ROUNDS, || run_program(Command::new("/bin/true"))));
    note("native_cold_ms", time_bare_sandbox(folder, PrewarmMode::Prewarmed));
    note("native_cold_from_nothing_ms", time_bare_sandbox(folder, PrewarmMode::Nothing));
    note(
        "native_view_ms",
        time_cold_open(folder, "native", None, PrewarmMode::Prewarmed, MEDIUM_ROUNDS).await,
    );
    note(
        "native_view_from_nothing_ms",
        time_cold_open(folder, "native", None, PrewarmMode::Nothing, MEDIUM_ROUNDS).await,
    );
    note("native_warm_ms", time_warm_exec(folder, "native", None, QUICK_ROUNDS).await);
    note("bwrap_ms", time_rounds(MEDIUM_ROUNDS, || run_program(bwrap_command())));
    if let Some(image) = image {
        note(
            "docker_init_cold_ms",
            time_cold_open(folder, "docker", Some(image), PrewarmMode::Nothing, SLOW_ROUNDS).await,
        );
        note("docker_init_warm_ms", time_warm_exec(folder, "docker", Some(image), QUICK_ROUNDS).await);
        note("docker_exec_ms", docker_exec(image));
        note(
            "docker_run_ms",
            time_rounds(SLOW_ROUNDS, || {
                run_program(docker_command(&["run", "--rm", "--network=none", image, "/bin/true"]))
            }),
        );
    }
    for (name, files, bytes) in [("view_5gb_ms", 2_000, 2_600_000), ("view_100k_files_ms", 100_000, 100)] {
        note(name, time_workspace_open(folder, files, bytes).await);
    }
    report
}

/// Returns the median time of a call in seconds; the first call is a warm-up.
fn time_rounds(rounds: usize, mut call: impl FnMut() -> BenchResult<()>) -> BenchResult<f64> {
    call()?;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let begun = Instant::now();
        call()?;
        times.push(begun.elapsed());
    }
    Ok(median(times))
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

/// Starts a program and waits for its end.
fn run_program(mut command: Command) -> BenchResult<()> {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()?;
    if status.status.success() {
        return Ok(());
    }
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&status.stderr).trim()).into())
}

fn bwrap_command() -> Command {
    let mut command = Command::new("bwrap");
    command.args(["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "/bin/true"]);
    command
}

fn docker_command(words: &[&str]) -> Command {
    let mut command = Command::new("docker");
    command.args(words);
    command
}

fn docker_exec(image: &str) -> BenchResult<f64> {
    let name = format!("forge-bench-{}", std::process::id());
    run_program(docker_command(&[
        "run",
        "--detach",
        "--rm",
        "--network=none",
        "--name",
        &name,
        image,
        "sleep",
        "600",
    ]))?;
    let time = time_rounds(SLOW_ROUNDS, || run_program(docker_command(&["exec", &name, "/bin/true"])));
    run_program(docker_command(&["rm", "--force", &name]))?;
    time
}

fn sandbox_backends(folder: &Path) -> Backends {
    Backends::new(BackendOptions::under_directory(folder))
}

fn sandbox_spec(folder: &Path, backend: &str, image: Option<&str>) -> BenchResult<SandboxSpec> {
    let repo = folder.join("bench-repo");
    std::fs::create_dir_all(&repo)?;
    std::fs::write(repo.join("file"), "text\n")?;
    Ok(SandboxSpec {
        image: image.map(str::to_owned),
        mode: WorkspaceMode::Transaction,
        ..SandboxSpec::new(backend, repo)
    })
}

fn test_command() -> ExecSpec {
    ExecSpec {
        argv: vec!["/bin/true".to_owned()],
        cwd: String::new(),
        env: BTreeMap::new(),
        timeout: Duration::from_secs(60),
        keep_bytes: 1024,
        inherited_env: InheritedEnv::All,
        stdin: None,
        background: BackgroundPolicy::Kill,
        also: Vec::new(),
    }
}

async fn run_in_workspace(workspace: &Arc<dyn Workspace>) -> BenchResult<()> {
    match workspace.exec(test_command(), &()).await?.exit_code {
        0 => Ok(()),
        code => Err(format!("true ended with {code}").into()),
    }
}

/// The preparation of a sandbox before it is opened.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PrewarmMode {
    /// None.
    Nothing,
    /// The sandbox is prewarmed, as in a process that has just started or a server between two runs.
    Prewarmed,
}

/// Measures starting a sandbox around a plain directory, as `bwrap` and `docker run` do, with one command in it.
fn time_bare_sandbox(folder: &Path, ahead: PrewarmMode) -> BenchResult<f64> {
    let spec = JailSpec::new("bench", sandbox_spec(folder, "native", None)?.repo);
    let exe = Path::new("/proc/self/exe");
    let mut times = Vec::new();
    for _ in 0..=MEDIUM_ROUNDS {
        let spare =
            (ahead == PrewarmMode::Prewarmed).then(|| PrewarmedJail::start(&spec, exe)).transpose()?;
        let begun = Instant::now();
        let jail = match spare {
            Some(spare) => spare.finish(&spec)?,
            None => Jail::spawn(&spec, exe)?,
        };
        let (mut read, write) = std::io::pipe()?;
        let exec = JailCommand {
            program: None,
            argv: vec!["/bin/true".into()],
            cwd: "".into(),
            env: Vec::new(),
            timeout_ms: Some(60_000),
            inherited_env: None,
            stdin: None,
            background: forge_jail::BackgroundProcesses::Kill,
            also: Vec::new(),
        };
        let answer = jail.call(JailRequest::Exec(exec), &[write.as_fd(), write.as_fd()])?;
        drop(write);
        std::io::copy(&mut read, &mut std::io::sink())?;
        times.push(begun.elapsed());
        if !matches!(&answer.reply, JailReply::Ended(ended) if ended.end == ExecEnd::Exited(0)) {
            return Err(format!("true ended with {:?}", answer.reply).into());
        }
    }
    times.remove(0);
    Ok(median(times))
}

/// Measures opening a sandbox with the workspace of a repository, with one command in it.
async fn time_cold_open(
    folder: &Path,
    backend: &str,
    image: Option<&str>,
    ahead: PrewarmMode,
    rounds: usize,
) -> BenchResult<f64> {
    let (boxes, spec) = (sandbox_backends(folder), sandbox_spec(folder, backend, image)?);
    let mut times = Vec::new();
    for _ in 0..=rounds {
        if ahead == PrewarmMode::Prewarmed {
            boxes.prewarm(&spec);
            boxes.wait_prewarmed();
        }
        let begun = Instant::now();
        let workspace = boxes.open(&spec, RunId::generate(), None).await?;
        run_in_workspace(&workspace).await?;
        times.push(begun.elapsed());
        drop(workspace);
    }
    times.remove(0);
    Ok(median(times))
}

/// Measures one command in an open sandbox.
async fn time_warm_exec(
    folder: &Path,
    backend: &str,
    image: Option<&str>,
    rounds: usize,
) -> BenchResult<f64> {
    let workspace = sandbox_backends(folder)
        .open(&sandbox_spec(folder, backend, image)?, RunId::generate(), None)
        .await?;
    let mut times = Vec::new();
    for _ in 0..=rounds {
        let begun = Instant::now();
        run_in_workspace(&workspace).await?;
        times.push(begun.elapsed());
    }
    times.remove(0);
    Ok(median(times))
}

/// Measures opening the workspace of a tree, including the sandbox.
async fn time_workspace_open(folder: &Path, files: usize, bytes: u64) -> BenchResult<f64> {
    let repo = folder.join(format!("bench-tree-{files}"));
    if !repo.exists() {
        for number in 0..files {
            let below = repo.join(format!("d{}", number / 100));
            std::fs::create_dir_all(&below)?;
            // Sparse files make a tree of any size cheap: their contents are never read.
            std::fs::File::create(below.join(format!("f{number}")))?.set_len(bytes)?;
        }
    }
    let (boxes, spec) = (sandbox_backends(folder), SandboxSpec::new("native", &repo));
    let mut times = Vec::new();
    for _ in 0..=SLOW_ROUNDS {
        let begun = Instant::now();
        let workspace = boxes.open(&spec, RunId::generate(), None).await?;
        times.push(begun.elapsed());
        if !workspace.report().view.starts_with("overlay") {
            return Err(format!("the workspace is not an overlay: {}", workspace.report().view).into());
        }
    }
    times.remove(0);
    Ok(median(times))
}
