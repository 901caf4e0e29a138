//! Repositories that were made to do harm, through the commands: nothing of them starts a program on the host, nothing
//! blocks, nothing takes the machine's memory, and a refusal says of what file and why.
//!
//! `FORGE_HOSTILE=17,23` tries these cases only, each through the commands that it belongs to.

#![allow(clippy::print_stdout, reason = "a case that fails or takes long is found by what it said")]

use crate::harness::World;
use crate::watched::{Ended, watch};
use forge_testkit::hostile_repo::{HostileRepo, PRIVATE_MARKER};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use forge_testkit::scale;
use forge_testkit::seeded_rng::SeededRng;
use serde_json::json;
use std::path::Path;

/// Cases of an ordinary run of the tests, and of the full one.
const CASES: [u64; 2] = [100, 2_000];
/// One case in so many is an ordinary user's where root runs the tests.
const ORDINARY_ONCE_IN: u64 = 3;
/// A run ends by itself after so long, well before a command is said to hang.
const RUN_MS: &str = "8000";

/// Commands that belong together, so that the cases can be shared among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A run on a private view, and all that can be done with its result.
    Transaction,
    /// A run whose result becomes a branch.
    Branch,
    /// A run on the repository itself.
    Inplace,
    /// A conversation, and the commands that look at settings.
    Chat,
}

impl Way {
    const ALL: [Self; 4] = [Self::Transaction, Self::Branch, Self::Inplace, Self::Chat];

    /// The one that a case belongs to.
    fn of(case: u64) -> Self {
        *SeededRng::of_case(case ^ 0xFACE).pick(&Self::ALL)
    }

    /// The commands, each with what it reads on standard input.
    fn commands(self) -> Vec<(Vec<&'static str>, &'static str)> {
        let run = |mode: &'static str, apply: &'static str| {
            let words = ["run", "Change it", "--workspace", mode, "--apply", apply, "--command-timeout", "5"];
            (words.to_vec(), "")
        };
        let plain = |line: &'static str| (line.split(' ').collect::<Vec<_>>(), "");
        match self {
            Self::Transaction => vec![
                run("transaction", "never"),
                plain("diff last"),
                plain("diff last --stat"),
                plain("apply last"),
                plain("undo last --to 0"),
                plain("redo last"),
                plain("status last"),
                run("transaction", "auto"),
            ],
            Self::Branch => vec![run("branch", "auto"), plain("diff last --steps"), plain("status")],
            Self::Inplace => {
                vec![run("inplace", "auto"), plain("diff last"), plain("undo last --to 0"), plain("status")]
            }
            Self::Chat => vec![
                plain("doctor"),
                plain("status"),
                plain("config get model.name"),
                plain("config show"),
                plain("config validate"),
                plain("secret list"),
                plain("trust --show"),
                (vec!["chat", "--command-timeout", "5"], "What is this?\n"),
                plain("trust --yes"),
                (vec!["chat", "--command-timeout", "5"], "And now?\n"),
                plain("trust --revoke"),
                plain("config set agent.max_iterations 7"),
                plain("init --yes"),
                (vec!["secret", "set", "HOSTILE", "--local"], "a value\n"),
                // It ends with the code of its command.
                (vec!["sandbox", "exec", "--timeout", "5", "--", "sh", "-c", "git status; true"], ""),
            ],
        }
    }
}

#[test]
fn nothing_of_a_hostile_repository_has_an_effect_through_a_run_and_its_result() {
    try_all(Way::Transaction);
}

#[test]
fn nothing_of_a_hostile_repository_has_an_effect_through_a_branch() {
    try_all(Way::Branch);
}

#[test]
fn nothing_of_a_hostile_repository_has_an_effect_through_a_run_in_place() {
    try_all(Way::Inplace);
}

#[test]
fn nothing_of_a_hostile_repository_has_an_effect_through_a_conversation_and_settings() {
    try_all(Way::Chat);
}

fn try_all(way: Way) {
    let mut failures = Vec::new();
    let mut tried = 0;
    for case in cases().into_iter().filter(|case| Way::of(*case) == way) {
        tried += 1;
        failures.extend(try_one(case, way));
    }
    println!("{way:?}: {tried} hostile repositories");
    let numbers: Vec<String> = failures.iter().map(|(case, _)| case.to_string()).collect();
    let told: Vec<&str> = failures.iter().map(|(_, told)| told.as_str()).collect();
    assert!(
        failures.is_empty(),
        "{} of {tried} hostile repositories had an effect; again with FORGE_HOSTILE={}\n\n{}",
        failures.len(),
        numbers.join(","),
        told.join("\n\n")
    );
}

#[allow(clippy::disallowed_methods, reason = "how a person says which cases to try again")]
fn cases() -> Vec<u64> {
    match std::env::var("FORGE_HOSTILE") {
        Ok(list) => list.split(',').map(|case| case.trim().parse().expect("numbers of cases")).collect(),
        Err(_) => (0..scale::sample_or_all(CASES[0], CASES[1])).collect(),
    }
}

/// Tries a case; gives its number and what was wrong.
fn try_one(case: u64, way: Way) -> Option<(u64, String)> {
    let mut world = match SeededRng::of_case(case ^ 0xBEEF).one_in(ORDINARY_ONCE_IN) {
        true => World::of_an_ordinary_user("hostile repositories of an ordinary user")?,
        false => World::new(),
    };
    let (area, temporary) = (world.make_folder("area"), world.make_folder("tmp"));
    let server = ModelServer::start(ReplyScript::always(|call| match call.turn_index() {
        0 => MockReply::text("I write.").and_call(
            "w",
            "write_file",
            json!({"path": "written.txt", "content": "written\n"}),
        ),
        1 => MockReply::text("I look.").and_call("r", "run_shell", json!({"command": LOOK})),
        _ => MockReply::text("Done."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    world.set("FORGE_PASSPHRASE", "correct horse battery staple");
    world.set("TMPDIR", &temporary.display().to_string());
    world.set("FORGE_RUNTIME_MAX_PIPELINE_DURATION_MS", RUN_MS);
    let mut hostile = HostileRepo::make(case, &world.repo(), &area)
        .unwrap_or_else(|error| panic!("case {case} can't be made: {error}"));
    world.give_to_user(&world.repo());
    world.give_to_user(&area);
    let mut wrong = Vec::new();
    println!("{case}: {}", hostile.describe_changes());
    for (mut words, input) in way.commands() {
        if ["run", "chat"].contains(&words[0]) {
            words.extend(&flags);
        }
        let ended = watch(with_canaries(&world, &words, &hostile), &words, input);
        judge(&ended, &hostile, &mut wrong);
        // Shown if the test fails, or with `--nocapture`.
        println!("{case}: {ended}");
        if ended.killed() {
            break;
        }
    }
    wrong.extend(hostile.intrusions());
    let seen = |body: &[u8]| String::from_utf8_lossy(body).contains(PRIVATE_MARKER);
    if server.recorded_requests().iter().any(|request| seen(&request.body)) {
        wrong.push("the model was shown what stands in another repository".to_owned());
    }
    hostile.stop_changing();
    remove(&world.repo());
    let told = hostile.describe_changes();
    (!wrong.is_empty()).then(|| (case, format!("case {case}, {way:?}: {told}\n  {}", wrong.join("\n  "))))
}

/// What a command of the model looks at: everything that a box may show.
const LOOK: &str = "echo five >> a.txt; echo x >> log.txt; mkdir -p src/new; echo n > src/new/n; \
     timeout 2 git log --all -p 2>&1 | head -c 20000; timeout 2 git config -l 2>&1 | head -c 20000; \
     timeout 2 head -qc 300 .env server.pem README.md .git/* .git/*/* .git/worktrees/w/* 2>/dev/null; \
     timeout 2 head -qc 300 ../beside/* /tmp/*/*/beside/* 2>/dev/null; true";

/// A command with the canaries before all programs of the machine.
fn with_canaries(world: &World, words: &[&str], hostile: &HostileRepo) -> std::process::Command {
    let mut command = world.command(words);
    let path = command.get_envs().find_map(|(name, value)| (name == "PATH").then_some(value?)).map_or_else(
        || hostile.canary_bin_dir().into_os_string(),
        |path| {
            std::env::join_paths([hostile.canary_bin_dir()].into_iter().chain(std::env::split_paths(path)))
                .expect("no colon")
        },
    );
    command.env("PATH", path);
    command
}

/// Adds what is wrong with how a command ended.
fn judge(ended: &Ended, hostile: &HostileRepo, wrong: &mut Vec<String>) {
    wrong.extend(ended.faults());
    // Commands that settings stand in the way of, and runs that did not come about, say what is to be done.
    let refused = matches!(ended.code, Some(1 | 2));
    let said = format!("{}{}", ended.out, ended.err);
    if refused && !ended.words.starts_with("doctor") {
        let ceiling = ["workspace.", "sandbox.", "runtime."].iter().any(|setting| said.contains(setting));
        let own = hostile.changed_paths().iter().any(|name| named(&said, name));
        // What follows a run that never began has nothing to work on.
        let nothing = [
            "there is no run",
            "has no steps",
            "no run last",
            "nothing to",
            "is not trusted",
            "can't be resumed",
        ];
        if !ceiling && !own && !nothing.iter().any(|words| said.contains(words)) {
            wrong.push(format!("`{}` does not say which file and why: {}", ended.words, said.trim()));
        }
    }
}

/// Whether a text names a path of the repository, or a directory that it lies in.
fn named(text: &str, path: &str) -> bool {
    Path::new(path).ancestors().filter(|part| !part.as_os_str().is_empty()).any(|part| {
        let part = part.display().to_string();
        text.contains(&part)
    })
}

/// Removes a repository with directories too deep for the standard library.
#[allow(clippy::disallowed_methods, reason = "the test clears up")]
fn remove(repo: &Path) {
    let done = std::process::Command::new("rm").arg("-rf").arg("--").arg(repo).status();
    assert!(done.is_ok(), "rm is there");
}
