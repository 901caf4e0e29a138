//! What is there after runs whose process was killed at a random moment and that were then resumed, cancelled or left
//! to `forge sandbox prune`: nothing. What could be left is counted, each thing with its name.
//!
//! `make test` kills 50 times, `make soak` 500 times.

use crate::containers;
use crate::harness::{World, until};
use crate::remains::{Processes, Remains};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, SeenModelCall, VendorFormat};
use forge_testkit::scale;
use forge_testkit::seeded_rng::SeededRng;
use rustix::process::Signal;
use serde_json::json;
use std::time::{Duration, Instant};

/// What is started to be killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Writes a file, appends to one.
    Plain,
    /// Leaves processes in the background, some of which left their session.
    Background,
    /// Has a way out, and a connection open in it.
    Egress,
    /// Keeps a key outside of its box.
    Key,
    /// Its result becomes a branch.
    Branch,
    /// Works in the repository itself.
    Inplace,
    /// Is not kept.
    Memory,
    /// A command in a box, without a run.
    Exec,
    /// A program in a box of its own.
    Once,
    /// The probes.
    Verify,
    /// In a container.
    Docker,
}

const KINDS: [Kind; 10] = [
    Kind::Plain,
    Kind::Background,
    Kind::Egress,
    Kind::Branch,
    Kind::Exec,
    Kind::Key,
    Kind::Inplace,
    Kind::Memory,
    Kind::Once,
    Kind::Verify,
];

/// Lets the box reach a host whose requests get a key.
const KEYS: [(&str, &str); 4] = [
    ("FORGE_EGRESS_MODE", "allowlist"),
    ("FORGE_EGRESS_ALLOWED_DOMAINS", "example.test"),
    ("FORGE_EGRESS_KEYS", "example.test=LEFT_KEY"),
    ("LEFT_KEY", "left-0123456789"),
];

impl Kind {
    /// The words that start it.
    fn words(self, round: usize, flags: &[&'static str]) -> Vec<String> {
        let more: &[&str] = match self {
            Self::Plain | Self::Background | Self::Key => &[],
            Self::Egress => &["--allow-host", "127.0.0.1:9"],
            Self::Branch => &["--workspace", "branch"],
            Self::Inplace => &["--workspace", "inplace"],
            Self::Memory => &["--no-durable"],
            Self::Docker => &containers::FLAGS,
            Self::Exec => {
                let command = "echo x > left; setsid sleep 987653 & sleep 987653";
                return ["sandbox", "exec", "--", "sh", "-c", command].map(str::to_owned).into();
            }
            Self::Once => return ["sandbox", "exec", "--code", "slow.py"].map(str::to_owned).into(),
            Self::Verify => return ["sandbox", "verify", "--required"].map(str::to_owned).into(),
        };
        let task = format!("Round {round} of {self:?}");
        let words = ["run", &task].into_iter().chain(flags.iter().copied()).chain(more.iter().copied());
        words.map(str::to_owned).collect()
    }

    /// How long it takes at most, milliseconds, or how long it is worth waiting.
    const fn span(self) -> u64 {
        match self {
            Self::Verify => 1_200,
            Self::Docker => 2_500,
            _ => 450,
        }
    }
}

/// What the model asks for, by the task.
fn answer(call: &SeenModelCall) -> MockReply {
    let task = call.messages.iter().find_map(|m| m.text.strip_prefix("Round ")).unwrap_or_default();
    let (round, kind) = task.split_once(" of ").unwrap_or_default();
    let shell = |command: String, keep: bool| {
        let arguments = json!({"command": command, "keep_background": keep});
        MockReply::text("Next. ").and_call(format!("c{}", call.turn_index()), "run_shell", arguments)
    };
    match (call.turn_index(), kind.lines().next().unwrap_or_default()) {
        (0, _) => {
            let arguments = json!({"path": format!("f{round}.txt"), "content": "one\n"});
            MockReply::text("I write. ").and_call("c0", "write_file", arguments)
        }
        (1, "Background") => {
            shell("(setsid sleep 987653 & ) ; sleep 987653 & echo started >> log.txt".to_owned(), true)
        }
        (1, "Egress") => shell(
            "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT example.test:443 HTTP/1.1\\r\\n\\r\\n' >&3; \
             sleep 0.1; echo asked >> log.txt"
                .replace("exec", "bash -c 'exec")
                + "'",
            false,
        ),
        (1, _) => {
            shell("sleep 0.05 & echo x >> log.txt; mkdir -p d; echo y > d/y; sleep 0.05".to_owned(), false)
        }
        // Git that is killed in the repository itself leaves its own locks there.
        (2, "Inplace") => shell("echo more >> log.txt".to_owned(), false),
        (2, _) => {
            shell("git add -A && git -c user.name=t -c user.email=t@t commit -qm step".to_owned(), false)
        }
        _ => MockReply::text("Done."),
    }
}

/// A world in which things are killed, and everything that was seen of them.
struct Scene {
    world: World,
    _server: ModelServer,
    flags: Vec<&'static str>,
    dice: SeededRng,
    processes: Processes,
    kills: usize,
    resumed: usize,
    cancelled: usize,
}

impl Scene {
    fn new(mut world: World, seed: u64) -> Self {
        let server = ModelServer::start(ReplyScript::always(answer));
        let flags = world.uses(&server, VendorFormat::OpenAi);
        world.make_folder("tmp");
        let temporary = world.path("tmp").display().to_string();
        world.set("TMPDIR", &temporary);
        world.file("notes.md", "Nothing stays.\n").file("slow.py", "import time\ntime.sleep(60)\n");
        world.git(&["init", "-q"]);
        world.git(&["add", "-A"]);
        world.git(&["commit", "-qm", "begin"]);
        // The probes that a first run needs are done once, or most kills would meet nothing else.
        world.run(&flags, "Round 0 of Plain").exits(0);
        let processes = Processes::of(&world);
        let dice = SeededRng::new(seed);
        Self { world, _server: server, flags, dice, processes, kills: 0, resumed: 0, cancelled: 0 }
    }

    /// Starts something, kills it at a random moment, and goes on with it in a random way.
    fn round(&mut self, round: usize, kind: Kind) {
        let words = kind.words(round, &self.flags);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let running = self.world.start_with(&words, if kind == Kind::Key { &KEYS } else { &[] });
        self.processes.begun(running.id);
        let moment = Duration::from_millis(self.dice.below(kind.span()));
        let end = Instant::now() + moment;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        self.processes.look();
        running.signal(Signal::KILL);
        let done = running.wait();
        self.kills += usize::from(done.code.is_none());
        assert!(done.code.is_none_or(|code| code == 0), "round {round} of {kind:?}: {done:#?}");
        let open = self.open();
        match (open.first(), self.dice.below(3)) {
            (Some(run), 0) => {
                self.world.start_with(&["resume", run], &KEYS).wait().exits(0);
                self.resumed += 1;
            }
            (Some(run), 1) => {
                self.world.forge(&["cancel", run]).exits(0);
                self.cancelled += 1;
            }
            _ => {}
        }
    }

    /// Runs that have not ended.
    fn open(&self) -> Vec<String> {
        let ended = ["completed", "failed", "cancelled", "timed_out"];
        let runs = self.world.runs();
        let open = runs.iter().filter(|run| !ended.iter().any(|status| run["status"] == *status));
        open.map(|run| run["run_id"].as_str().expect("an id").to_owned()).collect()
    }

    /// Rounds of these kinds in turn until so many processes were killed.
    fn rounds(&mut self, kills: usize, kinds: &[Kind]) {
        let mut round = 1;
        while self.kills < kills {
            self.round(round, kinds[round % kinds.len()]);
            round += 1;
        }
    }

    /// Ends what is still open and clears up, as the documentation says; then nothing may be left.
    fn assert_nothing_is_left(mut self, what: &str) -> String {
        for run in self.open() {
            self.world.forge(&["cancel", &run]).exits(0);
            self.cancelled += 1;
        }
        // What was killed is gone by itself.
        until("the end of all processes", || self.processes.alive().is_empty().then_some(()));
        self.world.forge(&["sandbox", "prune"]).exits(0);
        self.world.forge(&["gc"]).exits(0);
        let remains = Remains::of(&self.world, &self.processes);
        let told = format!(
            "{what}: {} kills, {} resumed, {} cancelled, {} processes seen; left: {remains}",
            self.kills,
            self.resumed,
            self.cancelled,
            self.processes.seen()
        );
        remains.assert_nothing();
        self.world.git(&["fsck", "--strict"]);
        self.world.run(&self.flags, "Round 1000 of Plain").exits(0);
        Remains::of(&self.world, &self.processes).assert_nothing();
        told
    }
}

#[test]
fn nothing_is_left_of_runs_that_are_killed_at_random() {
    let mut scene = Scene::new(World::new(), 0x1EF7_0B0D);
    scene.rounds(scale::sample_or_all(50, 500), &KINDS);
    println!("{}", scene.assert_nothing_is_left("killed at random"));
}

#[test]
fn nothing_is_left_of_an_ordinary_users_runs() {
    let Some(world) = World::of_an_ordinary_user("leftovers of an ordinary user") else { return };
    let mut scene = Scene::new(world, 0x0D0B_7FE1);
    scene.rounds(scale::sample_or_all(8, 80), &KINDS);
    println!("{}", scene.assert_nothing_is_left("killed at random, as an ordinary user"));
}

#[test]
fn nothing_is_left_of_runs_in_containers() {
    let Some(docker) = containers::docker("leftovers of containers") else { return };
    let mut world = World::new();
    world.set("DOCKER_HOST", docker.host());
    let mut scene = Scene::new(world, 0xC0DA_1A5E);
    scene.world.run(&[&scene.flags[..], &containers::FLAGS].concat(), "Round 0 of Docker").exits(0);
    scene.rounds(scale::sample_or_all(3, 30), &[Kind::Docker]);
    let runs = scene.world.runs();
    println!("{}", scene.assert_nothing_is_left("killed at random, in containers"));
    let ids: Vec<_> = runs.iter().filter_map(|run| run["run_id"].as_str()).collect();
    let left = docker.containers();
    assert!(!ids.iter().any(|id| left.contains(id)), "{left}");
}
