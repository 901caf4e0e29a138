//! What a person sees on a terminal.

use crate::harness::{World, skip};
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::json;
use std::process::{Command, Stdio};

/// Runs forge on a terminal of its own, made by `script` of util-linux, and gives all that the terminal got.
#[allow(clippy::disallowed_methods, reason = "the test makes a terminal")]
pub(crate) fn on_a_terminal(world: &World, words: &[&str]) -> Option<String> {
    let inner = world.command(words);
    let quoted = |text: &std::ffi::OsStr| format!("'{}'", text.to_string_lossy());
    let line: Vec<_> = [inner.get_program()].into_iter().chain(inner.get_args()).map(quoted).collect();
    let mut script = Command::new("script");
    script.args(["-qec", &format!("stty cols 80 rows 24; {}", line.join(" ")), "/dev/null"]);
    script.current_dir(world.repo()).env_clear().stdin(Stdio::null());
    for (name, value) in inner.get_envs() {
        script.env(name, value.unwrap_or_default());
    }
    script.env("TERM", "xterm-256color");
    match script.output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            skip("what a person sees on a terminal", &format!("script: {error}"));
            None
        }
    }
}

fn world() -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::text("I look at it.").and_call(
            "c",
            "run_shell",
            json!({"command": "echo some output; exit 3"}),
        ),
        MockReply::text("All is well."),
    ]));
    let flags = world.uses(&server, VendorFormat::OpenAi);
    (world, server, flags)
}

#[test]
fn the_run_is_a_moving_picture_and_what_happened_stays() {
    let (world, _server, flags) = world();
    let Some(screen) = on_a_terminal(&world, &[&["run", "Look"][..], &flags].concat()) else { return };
    for part in [
        "turn 1/25",
        "I look at it.",
        "\u{1b}[31m✗\u{1b}[0m run_shell echo some output; exit 3 (exit 3",
        "      some output",
        "All is well.",
        "╭─ ",
        "completed",
    ] {
        assert!(screen.contains(part), "{part} is missing in\n{screen}");
    }
    let last = screen.rsplit("All is well.").next().unwrap_or_default();
    assert!(!last.trim_end().ends_with("tokens"), "the status line is gone at the end: {last:?}");
}

#[test]
fn colours_can_be_switched_off() {
    for (words, variable) in [(&["--no-color"][..], None), (&[], Some("1"))] {
        let (mut world, _server, flags) = world();
        if let Some(value) = variable {
            world.set("NO_COLOR", value);
        }
        let Some(screen) = on_a_terminal(&world, &[&["run", "Look"][..], &flags, words].concat()) else {
            return;
        };
        assert!(screen.contains("completed"), "{screen}");
        let colours: Vec<_> =
            screen.match_indices("\u{1b}[").filter(|(at, _)| is_colour(&screen[at + 2..])).collect();
        assert!(colours.is_empty(), "{screen:?}");
    }
}

/// Whether a control sequence ends in `m`: ECMA-48's SGR.
fn is_colour(rest: &str) -> bool {
    rest.chars().find(|c| !c.is_ascii_digit() && *c != ';') == Some('m')
}
