//! Undo and redo over random sequences of commands in real sandboxes, and that killed owners leave nothing behind.

use crate::as_both;
use crate::rig::{folder, spec};
use crate::run::{Run, repository, transaction};
use crate::tree::Tree;
use forge_ports::{Sandbox as _, SnapshotStorage as _, WorkspaceStore as _};
use forge_sandbox::BackendOptions;
use forge_types::{SandboxSpec, SnapshotId, WorkspaceMode};
use std::fs;
use std::io::BufRead as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Returns the number of repetitions: `soak` if there is time.
pub(crate) fn times(usual: usize, soak: usize) -> usize {
    if std::env::var_os("FORGE_SOAK").is_some() { soak } else { usual }
}

/// A generator of numbers that depend only on the seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// Returns one operation as a shell command; the shell chooses its target among the existing files.
fn operation(dice: &mut Dice) -> String {
    let n = dice.roll(1000);
    let file = format!("$(find . -path ./.git -prune -o -type f -print | sort | sed -n $(({n} % 7 + 1))p)");
    let dir = format!(
        "$(find . -mindepth 1 -path ./.git -prune -o -type d -print | sort | sed -n $(({n} % 4 + 1))p)"
    );
    let git = "git -c user.name=x -c user.email=x@x";
    match dice.roll(18) {
        0 => {
            format!("chmod -f u+w new{0} .hidden{1}; echo {n} > new{0}; echo {n} > .hidden{1}", n % 5, n % 3)
        }
        1 => format!("f={file}; [ -z \"$f\" ] || {{ chmod u+w \"$f\"; echo {n} >> \"$f\"; }}"),
        2 => format!("f={file}; [ -z \"$f\" ] || rm -f \"$f\""),
        3 => format!("d={dir}; [ -z \"$d\" ] || rm -rf \"$d\""),
        4 => format!("d={dir}; [ -z \"$d\" ] || {{ rm -rf dir{n}; mv \"$d\" dir{n}; }}"),
        5 => format!("f={file}; [ -z \"$f\" ] || mv -f \"$f\" renamed{}", n % 4),
        6 => format!("f={file}; [ -z \"$f\" ] || ln -f \"$f\" hard{} || true", n % 4),
        7 => format!("ln -sfn target{n} soft{}", n % 3),
        8 => format!(
            "f={file}; [ -z \"$f\" ] || chmod {} \"$f\"",
            ["600", "755", "444", "640"][n as usize % 4]
        ),
        9 => format!("mkdir -p deep/a{}/b/c; chmod {} deep", n % 3, ["700", "755", "711"][n as usize % 3]),
        10 => format!("chmod -f u+w large{1}; head -c {0} /dev/urandom > large{1}", 200_000 + n * 500, n % 2),
        11 => format!(
            "mkdir -p target; chmod -f u+w target/ignored{0} run.log; echo {n} > target/ignored{0}; echo {n} >> run.log",
            n % 3
        ),
        12 => format!("{git} add -A; {git} commit -q --allow-empty -m c{n}"),
        13 => format!("{git} checkout -q -B b{} || true", n % 3),
        14 => format!("{git} stash -q -u || true; {git} gc -q || true"),
        15 => format!("rm -f pipe{0}; mkfifo pipe{0}", n % 2),
        16 => format!("f={file}; [ -z \"$f\" ] || {{ cp -p \"$f\" copy; mv copy \"$f\"; }}"),
        _ => format!(
            "rm -rf swap{0} && (echo f > swap{0}; rm swap{0}; mkdir swap{0}; echo {n} > swap{0}/in)",
            n % 2
        ),
    }
}

/// The workspace of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// An overlay of the repository, or a copy where the kernel has no overlay.
    View,
    /// A copy of the repository.
    Copy,
    /// The repository itself.
    Itself,
    /// A workspace with a result that becomes a branch.
    Branch,
}

impl On {
    fn of(seed: usize) -> Self {
        [Self::View, Self::Branch, Self::View, Self::Itself, Self::Copy][seed % 5]
    }

    fn spec(self, repo: &Path) -> SandboxSpec {
        match self {
            Self::View | Self::Copy => transaction(repo),
            Self::Itself => spec(repo, "native"),
            Self::Branch => SandboxSpec { mode: WorkspaceMode::Branch, ..transaction(repo) },
        }
    }
}

/// Makes random steps, restores some of them in any order, and ends at the baseline. A repository that is not changed
/// directly stays untouched, its git data included, except for a branch if one is made.
async fn sequence(seed: u64, on: On) {
    let (repo, data) = (repository(), folder());
    let untouched = crate::tree::of(repo.path());
    let options = BackendOptions { copies: on == On::Copy, ..crate::rig::options(data.path()) };
    let mut run = Run::with(options, on.spec(repo.path())).await;
    let mut dice = Dice(0x9E37_79B9_7F4A_7C15 ^ (seed << 1 | 1));
    let mut states: Vec<(SnapshotId, String)> = vec![(run.snapshot().await, run.inside().await)];
    let mut log = Vec::new();
    for _ in 0..8 {
        let script = (0..=dice.roll(3)).map(|_| operation(&mut dice)).collect::<Vec<_>>().join("\n");
        run.sh(&script).await;
        log.push(script);
        states.push((run.snapshot().await, run.inside().await));
    }
    let log = log.join("\n---\n");
    for _ in 0..4 {
        let at = usize::try_from(dice.roll(states.len() as u64)).unwrap();
        let (id, tree) = &states[at];
        run.reopen(Some(*id)).await;
        assert_eq!(run.inside().await, *tree, "seed {seed} on {on:?}, at {at}:\n{log}");
        assert_eq!(run.snapshot().await, *id, "seed {seed} on {on:?}, at {at}:\n{log}");
    }
    run.reopen(Some(states[0].0)).await;
    assert_eq!(run.inside().await, states[0].1, "seed {seed} on {on:?}:\n{log}");
    if on == On::Itself {
        run.close();
        let is = crate::tree::contents(&crate::tree::of(repo.path()));
        assert_eq!(is, crate::tree::contents(&untouched), "seed {seed}:\n{log}");
        return;
    }
    assert_eq!(crate::tree::of(repo.path()), untouched, "seed {seed} on {on:?}:\n{log}");
    if on == On::Branch {
        let last = states.len() - 1;
        published(&mut run, repo.path(), states[last].0, &untouched).await;
        run.reopen(None).await;
        assert_eq!(run.snapshot().await, states[last].0, "seed {seed}, published:\n{log}");
    }
}

/// Makes a branch of a state: the repository gains one ref and objects, and all else is unchanged.
async fn published(run: &mut Run, repo: &Path, at: SnapshotId, before: &Tree) {
    run.close();
    let branch = run.backends.workspaces().publish(&run.spec, run.id, at, "done").await.unwrap();
    let refs = crate::tree::git(repo, &["for-each-ref", "--format=%(refname)"]);
    let added = branch.map(|branch| format!("refs/heads/{}", branch.branch));
    let wanted: Vec<&str> = added.as_deref().into_iter().chain(["refs/heads/main"]).collect();
    assert_eq!(refs.lines().collect::<Vec<_>>(), wanted);
    let own = format!(".git/refs/heads/forge/{}", run.id);
    let besides = |tree: &Tree| {
        let mut tree = crate::tree::contents(tree);
        tree.retain(|path, _| {
            !path.starts_with(".git/objects") && *path != own && path != ".git/refs/heads/forge"
        });
        tree
    };
    let after = crate::tree::of(repo);
    assert_eq!(besides(&after), besides(before));
    let kept = before.iter().filter(|(path, _)| path.starts_with(".git/objects/") && path.len() > 20);
    for (path, what) in kept {
        assert_eq!(after.get(path), Some(what), "{path}");
    }
}

/// Returns everything of a sandbox that is visible on this machine: processes, mounts, control groups, directories.
fn traces(id: &str) -> Vec<String> {
    let mut traces = Vec::new();
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let path = process.path();
        let holds =
            |name: &str| fs::read(path.join(name)).is_ok_and(|b| String::from_utf8_lossy(&b).contains(id));
        if path.join("stat").exists() && (holds("cmdline") || holds("mountinfo") || holds("cgroup")) {
            traces.push(format!("process or mount: {}", path.display()));
        }
    }
    let found = Command::new("find")
        .args(["/sys/fs/cgroup", "-type", "d", "-name"])
        .arg(format!("*{id}*"))
        .output()
        .unwrap();
    traces
        .extend(String::from_utf8_lossy(&found.stdout).lines().map(|line| format!("control group: {line}")));
    for entry in fs::read_dir("/tmp").unwrap().flatten() {
        if entry.file_name().to_string_lossy().contains(id) {
            traces.push(format!("folder: {}", entry.path().display()));
        }
    }
    traces
}

/// Acts as the owner of a sandbox that is going to be killed: prints its run's id, and keeps the sandbox busy.
#[test]
fn a_victim() {
    let Some(place) = std::env::var_os("FORGE_VICTIM") else { return };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let place = Path::new(&place);
        let run = Run::new(&place.join("data"), transaction(&place.join("repo"))).await;
        println!("run {}", run.id);
        loop {
            run.sh("echo x >> a.txt; mkdir -p busy/$$; (setsid sleep 1000 &) ; cp large.bin busy/$$/").await;
            run.snapshot().await;
        }
    });
}

as_both! {
    async fn random_sequences_are_undone_and_redone() {
        for seed in 0..times(5, 500) {
            sequence(seed as u64, On::of(seed)).await;
            if seed % 25 == 24 {
                println!("{} sequences", seed + 1);
            }
        }
    }

    async fn killed_owners_leave_nothing_behind() {
        for round in 0..times(4, 50) {
            let place = folder();
            let repo = repository();
            fs::rename(repo.path(), place.path().join("repo")).unwrap();
            fs::create_dir(repo.path()).unwrap();
            let before = crate::tree::of(&place.path().join("repo"));
            let mut victim = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "undo::a_victim", "--nocapture"])
                .env("FORGE_VICTIM", place.path())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut lines = std::io::BufReader::new(victim.stdout.take().unwrap()).lines();
            let id = lines.by_ref().find_map(|l| Some(l.unwrap().split_once("run ")?.1.to_owned())).unwrap();
            // At some point of its work.
            let wait = std::time::Instant::now();
            while wait.elapsed().as_millis() < (round as u128 * 37) % 200 {}
            victim.kill().unwrap();
            victim.wait().unwrap();
            loop {
                let _ = forge_sandbox::remove_stale_resources(&place.path().join("data/tmp"));
                let left = traces(&id);
                if left.is_empty() {
                    break;
                }
                assert!(wait.elapsed().as_secs() < 30, "{left:#?}");
            }
            assert_eq!(crate::tree::of(&place.path().join("repo")), before);
            // The run resumes from its last state, and all of it can be removed.
            let backends = crate::rig::backends(&place.path().join("data"));
            let run = id.parse().unwrap();
            let spec = transaction(&place.path().join("repo"));
            drop(backends.open(&spec, run, None).await.unwrap());
            backends.workspaces().remove_snapshots(run).await.unwrap();
            assert!(!place.path().join("data/runs").join(&id).join("view").exists());
        }
    }
}
