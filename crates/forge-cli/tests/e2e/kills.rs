//! The crash matrix with real `kill -9`: a run of eight steps dies during each model call, during each tool call, after
//! each event that another process sees, and at random; whoever resumes it ends it as if nothing had happened.
//!
//! `make test` takes a sample of the positions, `make soak` all of them and more than a hundred random kills.

use crate::harness::{World, until};
use crate::steps::{Hold, Matrix, STEPS, TURNS};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use forge_testkit::scale;
use forge_testkit::seeded_rng::SeededRng;
use rustix::process::Signal;
use serde_json::json;
use std::path::Path;

/// Random kills in `make test`, and in `make soak`.
const RANDOM: (usize, usize) = (3, 120);

#[test]
fn a_kill_during_a_model_call() {
    let turns: Vec<usize> = scale::sample_or_all(vec![3], (0..TURNS).collect());
    for turn in &turns {
        let mut run = Matrix::new(&format!("killed while the model answers turn {turn}")).answer_held(*turn);
        run.start();
        run.wait_for_request(*turn);
        run.kill();
        run.resume_to_the_end();
        run.assert_as_if_nothing_had_happened();
    }
    println!("kill -9 during a model call: {} of {TURNS} positions", turns.len());
}

/// A run that is killed while a command of it stands still, and resumed.
fn killed_in_a_command(mut run: Matrix, step: usize, hold: Hold) {
    run.hold_command(step, hold);
    run.start();
    run.wait_until_begun();
    run.kill();
    run.release_commands();
    run.resume_to_the_end();
    run.assert_as_if_nothing_had_happened();
}

#[test]
fn a_kill_during_a_command() {
    let commands = || (0..STEPS.len()).filter(|step| STEPS[*step].tool == "run_shell");
    let mut all: Vec<_> = commands().flat_map(|step| [(step, Hold::Before), (step, Hold::After)]).collect();
    // With half of a line written, and a process left behind.
    all.push((5, Hold::Middle));
    let positions = scale::sample_or_all(vec![all[0], (5, Hold::Middle), (7, Hold::After)], all.clone());
    for (step, hold) in &positions {
        let run = Matrix::new(&format!("killed while command {step} stands {hold:?} its effect"));
        killed_in_a_command(run, *step, *hold);
    }
    println!("kill -9 during a command: {} of {} positions", positions.len(), all.len());
}

#[test]
fn a_kill_during_a_command_of_an_ordinary_user() {
    let Some(run) = Matrix::of_an_ordinary_user("killed as an ordinary user") else { return };
    killed_in_a_command(run, 5, Hold::After);
}

#[test]
fn a_kill_during_a_command_in_a_container() {
    let all = [(2, Hold::Before), (5, Hold::Middle), (6, Hold::After), (7, Hold::After)];
    let positions = scale::sample_or_all(&all[1..2], &all[..]);
    for (step, hold) in positions {
        let label = format!("killed in a container while command {step} stands {hold:?} its effect");
        let Some(run) = Matrix::in_a_container(&label) else { return };
        killed_in_a_command(run, *step, *hold);
    }
    println!("kill -9 during a command in a container: {} of {} positions", positions.len(), all.len());
}

#[test]
fn a_kill_as_soon_as_a_tool_call_is_journalled() {
    let steps: Vec<usize> = scale::sample_or_all(vec![1], (0..STEPS.len()).collect());
    for step in &steps {
        let mut run = Matrix::new(&format!("killed when the call of step {step} was journalled"));
        run.start();
        run.wait_for_events("tool.called", step + 1);
        run.kill();
        run.resume_to_the_end();
        run.assert_as_if_nothing_had_happened();
    }
    println!("kill -9 when a tool call is journalled: {} of {} positions", steps.len(), STEPS.len());
}

#[test]
fn a_kill_after_an_event_that_another_process_sees() {
    let count = events_of_an_undisturbed_run();
    let positions: Vec<usize> =
        scale::sample_or_all((5..count).step_by(count / 5).collect(), (1..=count).collect());
    let mut kills = 0;
    for position in &positions {
        // The first answer is held until the other process follows, or it would see little but the end.
        let mut run =
            Matrix::new(&format!("killed after event {position} as a follower sees it")).answer_held(0);
        run.start();
        let mut follower = run.follow();
        let before_the_answer = follower.wait_for("model.requested", 1);
        if *position > before_the_answer {
            run.open();
            follower.wait_for_lines(*position);
        }
        kills += usize::from(run.kill());
        // The first request may come from the process that resumes.
        run.open();
        follower.ends();
        run.resume_to_the_end();
        run.assert_as_if_nothing_had_happened();
    }
    println!("kill -9 after an event: {} of {count} positions, {kills} in time", positions.len());
}

#[test]
fn a_kill_after_an_event_that_the_run_itself_tells() {
    let count = events_of_an_undisturbed_run();
    let positions: Vec<usize> = scale::sample_or_all(vec![1, 2], (1..=count).collect());
    let mut kills = 0;
    for position in &positions {
        let mut run = Matrix::new(&format!("killed after it told event {position}"));
        run.start();
        run.read_lines(position - 1);
        kills += usize::from(run.kill());
        run.resume_to_the_end();
        run.assert_as_if_nothing_had_happened();
    }
    println!("kill -9 after an event of its own: {} of {count} positions, {kills} in time", positions.len());
}

#[test]
fn a_kill_at_random_and_again_while_resuming() {
    let count = events_of_an_undisturbed_run();
    let wanted = scale::sample_or_all(RANDOM.0, RANDOM.1);
    let mut dice = SeededRng::new(0x5EED_F046);
    let (mut runs, mut kills) = (0, 0);
    while kills < wanted {
        let mut run = Matrix::new(&format!("random run {runs}"));
        run.start();
        let mut most = count;
        for _ in 0..=dice.below(3) {
            run.read_lines(1 + dice.index(most));
            // Somewhere between this event and the next.
            (0..dice.below(3_000)).for_each(|_| std::thread::yield_now());
            kills += usize::from(run.kill());
            run.resume();
            most = most / 2 + 1;
        }
        run.finish();
        run.assert_as_if_nothing_had_happened();
        runs += 1;
    }
    println!("kill -9 at random: {kills} kills in {runs} runs");
}

/// How many events a run has that nobody disturbs; also shows that the matrix compares with the right thing.
fn events_of_an_undisturbed_run() -> usize {
    let mut run = Matrix::new("undisturbed");
    run.start();
    run.finish();
    run.assert_as_if_nothing_had_happened();
    run.events().len()
}

#[test]
fn a_killed_run_leaves_no_process_of_its_box() {
    let mut run = Matrix::new("killed with a command at work");
    run.hold_command(2, Hold::Before);
    run.start();
    run.wait_until_begun();
    assert!(run.processes().len() >= 2, "the init of the box and the command: {:?}", run.processes());
    run.kill();
    until("the end of the box", || run.processes().is_empty().then_some(()));
}

/// Files that a run changes whose result is being applied when its process is killed.
const MANY: usize = 600;

/// A run that rewrites many files and is killed while they reach the repository.
fn killed_while_it_is_applied() -> (World, ModelServer, String) {
    let first_is_new = |world: &World| world.read("d/0").starts_with("new");
    // The moment is short; a run that was faster tells nothing.
    (0..10).find_map(|_| try_to_kill_when(&first_is_new, &[])).expect("one of ten is killed in time")
}

/// Kills a run when all files are new and some of the removed ones can't be renamed back any more.
fn killed_while_it_cleans_up() -> (World, ModelServer, String) {
    let is_cleaning = |world: &World| {
        let is_done =
            world.repo().join("d/more").exists() && new_files(world) == MANY && removed(world) == MANY;
        is_done && temporaries(&world.repo().join("e")).len() < MANY
    };
    (0..20).find_map(|_| try_to_kill_when(&is_cleaning, &[])).expect("one of twenty is killed in time")
}

fn try_to_kill_when(
    is_time: &dyn Fn(&World) -> bool,
    more: &[&'static str],
) -> Option<(World, ModelServer, String)> {
    let mut world = World::new();
    for n in 0..MANY {
        world.file(&format!("d/{n}"), &format!("old {n}\n"));
        world.file(&format!("e/{n}"), &format!("removed {n}\n"));
    }
    world.file("e/stays", "");
    let rewrite = "for n in $(ls d); do echo new $n > d/$n; done; echo more > d/more; rm e/[0-9]*";
    let server = ModelServer::start(ReplyScript::always(move |call| match call.turn_index() {
        0 if call.messages.iter().any(|message| message.text.starts_with("Look")) => {
            MockReply::text("").and_call("c", "run_shell", json!({ "command": "cat d/* > looked" }))
        }
        0 => MockReply::text("").and_call("c", "run_shell", json!({ "command": rewrite })),
        _ => MockReply::text("Done."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let run = world.start(&[&["run", "Rewrite"][..], &flags, more].concat());
    until("the moment of the apply", || is_time(&world).then_some(()));
    run.signal(Signal::KILL);
    let in_time = run.wait().code.is_none();
    let id = if more.is_empty() { world.only_run() } else { String::new() };
    let left = ["d", "e"].map(|directory| temporaries(&world.repo().join(directory)));
    (in_time && !left.concat().is_empty()).then_some((world, server, id))
}

fn temporaries(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("a folder").flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(".forge-tmp-")).collect()
}

/// How many files are new; each must be either old or new.
fn new_files(world: &World) -> usize {
    let is_new = |n: &usize| match world.read(&format!("d/{n}")) {
        text if text == format!("new {n}\n") => true,
        text if text == format!("old {n}\n") => false,
        text => panic!("d/{n} is neither old nor new: {text:?}"),
    };
    (0..MANY).filter(is_new).count()
}

#[test]
fn a_kill_while_the_result_is_applied_and_a_resume() {
    let (world, _server, id) = killed_while_it_is_applied();
    let before = new_files(&world);
    world.forge(&["resume", &id]).exits(0).shows(&["applied to the repository"]);
    assert_eq!((new_files(&world), temporaries(&world.repo().join("d"))), (MANY, Vec::new()));
    assert_eq!(world.read("d/more"), "more\n");
    println!("kill -9 during an apply: {before} of {MANY} files were new");
}

/// How many files the run's result removed; each other must be whole.
fn removed(world: &World) -> usize {
    let is_removed = |n: &usize| match std::fs::read_to_string(world.repo().join(format!("e/{n}"))) {
        Ok(text) => {
            assert_eq!(text, format!("removed {n}\n"), "e/{n}");
            false
        }
        Err(_) => true,
    };
    (0..MANY).filter(is_removed).count()
}

#[test]
fn a_kill_while_the_result_is_applied_and_a_cancel() {
    cancel_restores(killed_while_it_is_applied());
}

#[test]
fn a_kill_while_an_apply_cleans_up_and_a_cancel() {
    cancel_restores(killed_while_it_cleans_up());
}

#[allow(clippy::print_stdout, reason = "the log of the tests shows how far the apply was")]
fn cancel_restores((world, _server, id): (World, ModelServer, String)) {
    let before = new_files(&world);
    world.forge(&["cancel", &id]).exits(0);
    assert_eq!(
        ["d", "e"].map(|directory| temporaries(&world.repo().join(directory))).concat(),
        Vec::<String>::new(),
        "nothing is left beside the files"
    );
    assert_eq!((new_files(&world), removed(&world)), (0, 0), "what is cancelled is not in the repository");
    assert!(!world.repo().join("d/more").exists());
    world.forge(&["apply", &id]).exits(0);
    assert_eq!((new_files(&world), temporaries(&world.repo().join("d"))), (MANY, Vec::new()));
    println!("kill -9 during an apply, then cancelled: {before} of {MANY} files were new");
}

/// Asserts that nothing of an interrupted apply is in the repository.
fn assert_undone(world: &World, after: &str) {
    let left = ["d", "e"].map(|directory| temporaries(&world.repo().join(directory))).concat();
    assert_eq!((new_files(world), removed(world), left), (0, 0, Vec::new()), "{after}");
    assert!(!world.repo().join("d/more").exists(), "{after}");
}

#[test]
fn a_kill_while_the_result_is_applied_and_another_run_on_the_repository() {
    for mode in ["transaction", "inplace"] {
        let (mut world, server, id) = killed_while_it_is_applied();
        let flags = world.uses(&server, VendorFormat::OpenAi);
        let other = world.run(&[&flags[..], &["--workspace", mode]].concat(), "Look at it").exits(0);
        assert_undone(&world, mode);
        assert!(
            !world.read("looked").contains("new"),
            "{mode} began with the repository as it was: {other:?}"
        );
        world.forge(&["resume", &id]).exits(0).shows(&["applied to the repository"]);
        assert_eq!((new_files(&world), temporaries(&world.repo().join("d"))), (MANY, Vec::new()), "{mode}");
    }
}

#[test]
fn a_kill_while_the_result_is_applied_and_a_command_in_a_sandbox() {
    let (world, _server, id) = killed_while_it_is_applied();
    let command =
        ["sandbox", "exec", "--", "sh", "-c", "cat d/* | grep -c new; ls -A d | grep -c forge-tmp; :"];
    world.forge(&command).exits(0).shows(&["0\n0\n"]);
    assert_undone(&world, "a command");
    world.forge(&["resume", &id]).exits(0);
    assert_eq!((new_files(&world), temporaries(&world.repo().join("d"))), (MANY, Vec::new()));
}

#[test]
fn a_kill_while_the_result_of_a_run_that_is_not_kept_is_applied() {
    let first_is_new = |world: &World| world.read("d/0").starts_with("new");
    let killed = || {
        let kill = |_| try_to_kill_when(&first_is_new, &["--no-durable"]);
        (0..10).find_map(kill).expect("one of ten is killed in time").0
    };
    for words in [["sandbox", "prune"].as_slice(), &["sandbox", "exec", "--", "true"]] {
        let world = killed();
        let done = world.forge(words).exits(0);
        assert_undone(&world, &format!("{done:?}"));
    }
}
