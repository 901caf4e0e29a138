//! The crash matrix with real `kill -9`: a run of eight steps dies during each model call, during each tool call, after
//! each event that another process sees, and at random; whoever resumes it ends it as if nothing had happened.
//!
//! `make test` takes a sample of the positions, `make soak` all of them and more than a hundred random kills.

use crate::dice::Dice;
use crate::harness::until;
use crate::steps::{Hold, Matrix, STEPS, TURNS};
use forge_testkit::scale;

/// Random kills in `make test`, and in `make soak`.
const RANDOM: (usize, usize) = (3, 120);

#[test]
fn a_kill_during_a_model_call() {
    let turns: Vec<usize> = scale::pick(vec![3], (0..TURNS).collect());
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

#[test]
fn a_kill_during_a_command() {
    let commands = || (0..STEPS.len()).filter(|step| STEPS[*step].tool == "run_shell");
    let mut all: Vec<_> = commands().flat_map(|step| [(step, Hold::Before), (step, Hold::After)]).collect();
    // With half of a line written, and a process left behind.
    all.push((5, Hold::Middle));
    let positions = scale::pick(vec![all[0], (5, Hold::Middle), (7, Hold::After)], all.clone());
    for (step, hold) in &positions {
        let mut run = Matrix::new(&format!("killed while command {step} stands {hold:?} its effect"));
        run.hold_command(*step, *hold);
        run.start();
        run.wait_until_begun();
        run.kill();
        run.release_commands();
        run.resume_to_the_end();
        run.assert_as_if_nothing_had_happened();
    }
    println!("kill -9 during a command: {} of {} positions", positions.len(), all.len());
}

#[test]
fn a_kill_during_a_command_of_an_ordinary_user() {
    let Some(mut run) = Matrix::of_an_ordinary_user("killed as an ordinary user") else { return };
    run.hold_command(5, Hold::After);
    run.start();
    run.wait_until_begun();
    run.kill();
    run.release_commands();
    run.resume_to_the_end();
    run.assert_as_if_nothing_had_happened();
}

#[test]
fn a_kill_during_a_command_in_a_container() {
    let all = [(2, Hold::Before), (5, Hold::Middle), (6, Hold::After), (7, Hold::After)];
    let positions = scale::pick(&all[1..2], &all[..]);
    for (step, hold) in positions {
        let label = format!("killed in a container while command {step} stands {hold:?} its effect");
        let Some(mut run) = Matrix::in_a_container(&label) else { return };
        run.hold_command(*step, *hold);
        run.start();
        run.wait_until_begun();
        run.kill();
        run.release_commands();
        run.resume_to_the_end();
        run.assert_as_if_nothing_had_happened();
    }
    println!("kill -9 during a command in a container: {} of {} positions", positions.len(), all.len());
}

#[test]
fn a_kill_as_soon_as_a_tool_call_is_journalled() {
    let steps: Vec<usize> = scale::pick(vec![1], (0..STEPS.len()).collect());
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
    let positions: Vec<usize> = scale::pick((5..count).step_by(count / 5).collect(), (1..=count).collect());
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
    let positions: Vec<usize> = scale::pick(vec![1, 2], (1..=count).collect());
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
    let wanted = scale::pick(RANDOM.0, RANDOM.1);
    let mut dice = Dice::new(0x5EED_F046);
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
