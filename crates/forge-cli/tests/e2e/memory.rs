//! What the program itself takes for the largest change that the ceilings accept, in each command that reads it: long
//! paths of deep directories, because their number and their length count everywhere.
//!
//! `make test` changes a twelfth of the paths and allows a twelfth of the memory, `make soak` all.

#![allow(clippy::print_stdout, reason = "the numbers are what a failure is judged by")]

use crate::harness::World;
use crate::watched::peak_memory_kb;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use forge_testkit::scale;
use serde_json::json;

/// What `docs/workspace.md` promises for the largest change, in addition to what any run takes.
const MOST_MEMORY_KB: u64 = 300 << 10;
/// What differs between two runs of the same command, and what lists of a fixed length take.
const NOISE_KB: u64 = 20 << 10;
/// Changed paths, of which the ceiling is 100,000.
const PATHS: u64 = 98_000;

/// Whether a command is part of the sample.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    Soak,
}
use When::{Always, Soak};

/// The commands, of which a run makes all changes if there are none, and otherwise removes them.
const COMMANDS: [(&str, When); 19] = [
    ("run Work --apply never", Always),
    ("diff last", Soak),
    ("diff last --stat", Soak),
    ("diff last --json", Always),
    ("diff last --step 1", Soak),
    ("status last --json", Soak),
    ("logs last --json", Soak),
    ("undo last --to 0", Soak),
    ("redo last", Soak),
    ("apply last", Always),
    ("undo last --to 0", Always),
    ("redo last --json", Always),
    // Removes all, and applies that.
    ("run Work --json", Always),
    ("diff last --json", Soak),
    ("undo last --to 0", Soak),
    // From here on each removes or makes all.
    ("run Work --workspace branch", Soak),
    ("run Work --workspace inplace", Soak),
    ("run Work --workspace inplace", Soak),
    ("undo last --to 0", Soak),
];

/// A world whose model has one command run, once in each run.
fn world(command: String) -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    world.file("a.txt", "one\n");
    let server = ModelServer::start(ReplyScript::always(move |call| match call.turn_index() {
        0 => MockReply::call("run_shell", json!({ "command": command })),
        _ => MockReply::text("Done."),
    }));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

/// Returns the peak of a command that has to succeed.
fn peak(world: &World, words: &[&str], flags: &[&str]) -> u64 {
    let words = [words, flags].concat();
    let (status, peak_kb) = peak_memory_kb(world.command(&words));
    println!("{:4} MB  {}", peak_kb >> 10, words.join(" "));
    assert!(status.success(), "{words:?}: {status}");
    peak_kb
}

#[test]
fn the_largest_accepted_change_takes_little_memory_in_every_command() {
    let divisor = scale::sample_or_all(12, 1);
    let paths = PATHS / divisor;
    let (plain, _server, flags) = world("touch z".to_owned());
    let most = peak(&plain, &["run", "Work"], &flags) + MOST_MEMORY_KB / divisor + NOISE_KB;

    // Each file has a content of its own.
    let folder = format!("{}/{}", "d".repeat(240), "e".repeat(50));
    let make = format!("mkdir -p {folder} && cd {folder} && seq {paths} | split -l 1 -a 19 -d - f");
    let (world, _server, flags) = world(format!("if [ -e d* ]; then rm -r d*; else {make}; fi"));
    let took: Vec<_> = COMMANDS
        .iter()
        .filter(|(_, when)| *when == Always || scale::is_soak())
        .map(|(words, _)| {
            let words: Vec<&str> = words.split(' ').collect();
            let flags: &[&str] = if words[0] == "run" { &flags } else { &[] };
            (peak(&world, &words, flags), words)
        })
        .collect();
    for (peak_kb, words) in took {
        assert!(peak_kb <= most, "{words:?} took {} MB of {} MB", peak_kb >> 10, most >> 10);
    }
}
