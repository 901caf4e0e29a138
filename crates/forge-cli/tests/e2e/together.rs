//! Two runs and a person who edits, on one repository at once, in an order drawn from a seed: whatever the order, no
//! line is lost, and what can't be applied is named.
//!
//! The model's answers are held until it is their turn, so each step, each start and each end of a run is one move of a
//! schedule, and the person's edits lie between them. `make test` plays a few schedules, `make soak` more.

use crate::harness::{Done, Running, World, until};
use forge_testkit::model_server::{Gate, MockReply, ModelServer, ReplyScript, SeenModelCall, VendorFormat};
use forge_testkit::scale;
use forge_testkit::seeded_rng::SeededRng;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const FILES: [&str; 4] = ["a.txt", "b.txt", "dir/c.txt", "new.txt"];
/// Lines of each file at the beginning.
const LINES: usize = 12;

/// One line that somebody adds somewhere.
#[derive(Clone, Debug)]
struct Edit {
    file: &'static str,
    /// Before which line; beyond the last one is at the end.
    at: usize,
    line: String,
}

impl Edit {
    fn draw(dice: &mut SeededRng, who: &str, number: usize) -> Self {
        let file = FILES[dice.index(FILES.len())];
        // Few places, so that they often meet.
        let at = [1, LINES / 2, LINES + 100][dice.index(3)];
        Self { file, at, line: format!("{who} wrote line {number}") }
    }

    /// The same as a command.
    fn command(&self) -> String {
        let Self { file, at, line } = self;
        if *at > LINES {
            return format!("echo '{line}' >> {file}");
        }
        format!(
            "if [ \"$(cat {file} | wc -l)\" -ge {at} ]; then sed -i '{at}i {line}' {file}; else echo '{line}' >> {file}; fi"
        )
    }

    /// Done by the person, to the repository.
    fn by_hand(&self, world: &World) {
        let old = std::fs::read_to_string(world.repo().join(self.file)).unwrap_or_default();
        let mut lines: Vec<&str> = old.lines().collect();
        let at = self.at.saturating_sub(1).min(lines.len());
        lines.insert(at, &self.line);
        world.file(self.file, &(lines.join("\n") + "\n"));
    }
}

/// One of the two runs.
struct Player {
    name: &'static str,
    edits: Vec<Edit>,
    gates: Vec<Gate>,
    process: Option<Running>,
    /// Answers that were let go.
    answered: usize,
    id: String,
    /// What stood in the repository when it began, and what others changed there since.
    begun_with: BTreeMap<&'static str, Option<String>>,
    ended: Option<Done>,
}

impl Player {
    fn new(name: &'static str, dice: &mut SeededRng) -> Self {
        let edits: Vec<_> = (0..=dice.index(3)).map(|number| Edit::draw(dice, name, number)).collect();
        let gates = (0..=edits.len()).map(|_| Gate::new()).collect();
        let (process, ended, begun_with) = (None, None, BTreeMap::new());
        Self { name, edits, gates, process, answered: 0, id: String::new(), begun_with, ended }
    }

    fn wrote(&self) -> BTreeSet<&'static str> {
        self.edits.iter().map(|edit| edit.file).collect()
    }
}

/// A schedule while it is played.
struct Game {
    label: String,
    world: World,
    server: ModelServer,
    flags: Vec<&'static str>,
    dice: SeededRng,
    players: [Player; 2],
    by_hand: Vec<Edit>,
    moves: Vec<String>,
}

fn contents(world: &World) -> BTreeMap<&'static str, Option<String>> {
    FILES.iter().map(|file| (*file, std::fs::read_to_string(world.repo().join(file)).ok())).collect()
}

/// Whether a diff says of a file that what the run began with is not there any more.
fn is_beyond(diff: &Done, file: &str) -> bool {
    diff.out.contains(&format!("no longer available: {file}"))
}

fn script(players: &[Player; 2]) -> ReplyScript {
    let known: Vec<_> = players.iter().map(|p| (p.name, p.edits.clone(), p.gates.clone())).collect();
    ReplyScript::always(move |call: &SeenModelCall| {
        let (_, edits, gates) = known
            .iter()
            .find(|(name, ..)| call.messages.iter().any(|m| m.text.contains(&format!("I am {name}"))))
            .expect("one of the two");
        let turn = call.turn_index();
        let reply = match edits.get(turn) {
            Some(edit) => MockReply::text("I write. ").and_call(
                format!("c{turn}"),
                "run_shell",
                json!({ "command": edit.command() }),
            ),
            None => MockReply::text("Done."),
        };
        reply.with_gate(&gates[turn])
    })
}

impl Game {
    fn new(seed: u64) -> Self {
        let mut dice = SeededRng::new(seed);
        let players = [Player::new("Ada", &mut dice), Player::new("Bob", &mut dice)];
        let mut world = World::new();
        for file in &FILES[..3] {
            let text: String = (1..=LINES).map(|n| format!("{file} {n}\n")).collect();
            world.file(file, &text);
        }
        world.git(&["init", "-q"]);
        world.git(&["add", "-A"]);
        world.git(&["commit", "-qm", "begin"]);
        let server = ModelServer::start(script(&players));
        let flags = world.uses(&server, VendorFormat::OpenAi);
        let label = format!("schedule {seed:#x}");
        Self { label, world, server, flags, dice, players, by_hand: Vec::new(), moves: Vec::new() }
    }

    /// Plays until both runs have ended.
    fn play(&mut self) {
        while self.players.iter().any(|player| player.ended.is_none()) {
            match self.dice.index(5) {
                0 | 1 => self.step(0),
                2 | 3 => self.step(1),
                _ => self.person(),
            }
        }
        self.person();
    }

    fn person(&mut self) {
        let edit = Edit::draw(&mut self.dice, "the person", self.by_hand.len());
        self.moves.push(format!("{edit:?}"));
        edit.by_hand(&self.world);
        self.by_hand.push(edit);
        if self.dice.index(3) == 0 {
            self.world.git(&["add", "-A"]);
            self.world.git(&["commit", "-qm", "by hand"]);
        }
    }

    /// The next move of a run: it begins, does a step, or ends and is applied.
    fn step(&mut self, which: usize) {
        if self.players[which].ended.is_some() {
            return;
        }
        let asked = self.server.request_count();
        let player = &mut self.players[which];
        if player.process.is_none() {
            player.begun_with = contents(&self.world);
            let task = format!("I am {}", player.name);
            let words = [&["run", &task, "--workspace", "transaction"][..], &self.flags].concat();
            player.process = Some(self.world.start(&words));
            assert!(self.server.wait_for_requests(asked + 1, LONG), "{}: no request", self.label);
            let known: Vec<String> = self.players.iter().map(|player| player.id.clone()).collect();
            let runs = self.world.runs();
            let mut ids = runs.iter().filter_map(|run| run["run_id"].as_str().map(str::to_owned));
            self.players[which].id = ids.find(|id| !known.contains(id)).expect("a new run");
            self.moves.push(format!("{} begins", self.players[which].name));
            return;
        }
        self.moves.push(format!("{} goes on", player.name));
        player.gates[player.answered].open();
        player.answered += 1;
        if player.answered < player.gates.len() {
            assert!(self.server.wait_for_requests(asked + 1, LONG), "{}: no request", self.label);
            return;
        }
        // Sometimes both end at once.
        let other = &mut self.players[1 - which];
        let last =
            other.process.is_some() && other.ended.is_none() && other.answered + 1 == other.gates.len();
        if last && self.dice.index(2) == 0 {
            self.moves.push("both end".to_owned());
            other.gates[other.answered].open();
            other.answered += 1;
            self.end(1 - which);
        }
        self.end(which);
    }

    fn end(&mut self, which: usize) {
        let player = &mut self.players[which];
        let process = player.process.take().expect("it was started");
        player.ended = Some(process.wait().exits(0));
    }

    fn is_there(&self, edit: &Edit) -> bool {
        let text = std::fs::read_to_string(self.world.repo().join(edit.file)).unwrap_or_default();
        text.lines().any(|line| line == edit.line)
    }

    fn assert_there<'a>(&self, edits: impl IntoIterator<Item = &'a Edit>, when: &str) {
        for edit in edits {
            let text = std::fs::read_to_string(self.world.repo().join(edit.file)).unwrap_or_default();
            assert!(self.is_there(edit), "{} {when}: lost {edit:?}\n{:#?}\n{text}", self.label, self.moves);
        }
    }

    /// Nothing is lost; what was not applied says why, is still there and can be brought in. Gives how many were
    /// refused and how many of these merged.
    fn assert_nothing_lost(&self) -> (usize, usize) {
        self.assert_there(&self.by_hand, "after both runs");
        let mut refused = Vec::new();
        for player in &self.players {
            let said = player.ended.as_ref().expect("it has ended");
            if said.out.contains("NOT applied") {
                refused.push(player);
            } else {
                said.clone().shows(&["applied to the repository"]);
                self.assert_there(&player.edits, "applied");
            }
        }
        let mut merged = 0;
        let mut within: Vec<&Edit> = self.by_hand.iter().collect();
        let applied = self.players.iter().filter(|player| refused.iter().all(|r| r.name != player.name));
        within.extend(applied.flat_map(|player| &player.edits));
        for player in &refused {
            merged += usize::from(self.bring_in(player));
            within.extend(&player.edits);
            self.assert_there(within.iter().copied(), "brought in");
        }
        (refused.len(), merged)
    }

    /// Where what a run wrote lies.
    fn view(&self, player: &Player) -> PathBuf {
        self.world.path("data").join("forge/runs").join(&player.id).join("view/0/upper")
    }

    /// Brings in what was refused: by a merge, else after what is in its way was moved aside. Says whether it merged.
    fn bring_in(&self, player: &Player) -> bool {
        let label = format!("{} {}\n{:#?}", self.label, player.name, self.moves);
        let before = contents(&self.world);
        let none = player.edits.iter().all(|edit| !self.is_there(edit));
        assert!(none, "{label}: nothing of what was refused was applied");
        let diff = self.world.forge(&["diff", &player.id]).exits(0);
        for edit in &player.edits {
            // Of a file that somebody changed before the run did, what it began with is not known any more.
            let shown = diff.out.contains(&format!("+{}", edit.line)) || is_beyond(&diff, edit.file);
            assert!(shown, "{label}: {edit:?} in\n{}", diff.out);
            let own = std::fs::read_to_string(self.view(player).join(edit.file)).unwrap_or_default();
            assert!(own.lines().any(|line| line == edit.line), "{label}: {edit:?} in its own view\n{own}");
        }
        let again = self.world.forge(&["apply", &player.id]).exits(1);
        let changed = |file: &&&'static str| {
            player.wrote().contains(**file) && before[**file] != player.begun_with[**file]
        };
        let in_conflict: Vec<&'static str> = FILES.iter().filter(changed).copied().collect();
        assert!(!in_conflict.is_empty(), "{label}: refused without a reason: {}", again.err);
        for file in FILES {
            let named = again.err.contains(file);
            assert_eq!(named, in_conflict.contains(&file), "{label}: {file} in\n{}", again.err);
        }
        assert_eq!(contents(&self.world), before, "{label}: nothing was applied");
        let merged = self.world.forge(&["apply", &player.id, "--merge"]);
        if merged.code == Some(0) {
            return true;
        }
        merged.exits(1);
        assert_eq!(contents(&self.world), before, "{label}: nothing was merged");
        // A person moves aside what is in the way, lets the run's work in, and writes down their own again.
        for file in &in_conflict {
            match &player.begun_with[file] {
                Some(_) if is_beyond(&diff, file) => {
                    let own = std::fs::read_to_string(self.view(player).join(file)).expect("its own");
                    self.world.file(file, &own);
                }
                Some(text) => drop(self.world.file(file, text)),
                None => std::fs::remove_file(self.world.repo().join(file)).expect("it is there"),
            }
        }
        let last = self.world.forge(&["apply", &player.id]);
        assert_eq!(last.code, Some(0), "{label}: {in_conflict:?} put back\n{}\n{}", diff.out, last.err);
        for file in &in_conflict {
            let (now, theirs) = (self.world.read(file), before[file].clone().unwrap_or_default());
            let missing: String = theirs
                .lines()
                .filter(|line| !now.lines().any(|l| l == *line))
                .map(|l| format!("{l}\n"))
                .collect();
            self.world.file(file, &(now + &missing));
        }
        false
    }
}

#[test]
fn two_runs_and_a_person_lose_nothing_of_each_other() {
    let count: u64 = scale::sample_or_all(3, 30);
    let (mut refused, mut merged, mut moves) = (0, 0, 0);
    for number in 0..count {
        let mut game = Game::new(0x0AD_A0B0B + number * 7_919);
        game.play();
        until("the end of both", || game.players.iter().all(|player| player.ended.is_some()).then_some(()));
        let (no, after_merge) = game.assert_nothing_lost();
        (refused, merged, moves) = (refused + no, merged + after_merge, moves + game.moves.len());
    }
    println!(
        "two runs and a person: {count} schedules, {moves} moves, {refused} refused, {merged} of these merged, the \
         others brought in by hand"
    );
}
