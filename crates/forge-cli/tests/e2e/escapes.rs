//! Nothing that a model, a command or a repository says can drive the terminal that it is shown on, whatever shows it.

use crate::harness::World;
use crate::picture::on_a_terminal;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::json;

/// Sequences that set the clipboard and the title, clear the screen, the same in one byte, and turn the text around.
const EVIL: &str =
    "\u{1b}]52;c;aGk=\u{7}\u{1b}]0;owned\u{7}\u{1b}[2J\u{1b}P1$r\u{1b}\\\u{9b}2J\u{9d}0;owned\u{9c}\u{202e}";
/// The same as `printf` writes it.
const PRINTED: &str =
    r"\033]52;c;aGk=\007\033]0;owned\007\033[2J\033P1$r\033\\\302\2332J\302\2350;owned\342\200\256";

/// What a terminal would obey of it. What Forge itself sends for its picture is none of these.
fn obeyed(screen: &str) -> Vec<&'static str> {
    let all = ["\u{1b}]", "\u{1b}[2J", "\u{1b}P", "\u{7}", "\u{9b}", "\u{9d}", "\u{202e}", "\u{1b}\\"];
    all.into_iter().filter(|sequence| screen.contains(sequence)).collect()
}

/// A repository whose names are sequences, and a model that uses them wherever it says something.
fn world() -> (World, ModelServer, Vec<&'static str>) {
    let mut world = World::new();
    world.file("a.txt", "one\n").file(&format!("name{}x", EVIL.replace('/', "")), "two\n");
    std::os::unix::fs::symlink(EVIL, world.repo().join("link")).expect("an empty place");
    world.git(&["init", "-q"]);
    world.git(&["add", "-A"]);
    world.git(&["commit", "-qm", EVIL]);
    let server = ModelServer::start(ReplyScript::always(|call| {
        let text = format!("I say {EVIL}.");
        match call.turn_index() {
            0 => MockReply::text(text).with_thinking(format!("I think {EVIL}"), Some("s")).and_call(
                "a",
                "write_file",
                json!({"path": format!("new{EVIL}"), "content": EVIL}),
            ),
            1 => MockReply::text(text).and_call("b", format!("tool{EVIL}"), json!({"x": EVIL})),
            2 => MockReply::text(text).and_call("c", "read_file", json!({"path": format!("none{EVIL}")})),
            3 => {
                let line = format!(
                    "printf '{PRINTED}'; printf '{PRINTED}' >&2; rm -f link; ln -s \"$(printf '{PRINTED}')\" \
                     link; mkdir \"$(printf '{PRINTED}')\"; echo '{EVIL}' > a.txt; exit 3"
                );
                MockReply::text(text).and_call("d", "run_shell", json!({"command": line}))
            }
            _ => MockReply::text(text),
        }
    }));
    let flags = world.uses(&server, VendorFormat::Anthropic);
    (world, server, flags)
}

#[test]
fn no_command_shows_what_a_terminal_would_obey() {
    let (world, _server, flags) = world();
    let task = format!("Look {EVIL}");
    let run = [&["run", &task, "--apply", "never", "-v"][..], &flags].concat();
    let commands: Vec<Vec<&str>> = vec![
        run,
        vec!["status"],
        vec!["status", "last"],
        vec!["list"],
        vec!["logs", "last"],
        vec!["diff", "last"],
        vec!["diff", "last", "--stat"],
        vec!["diff", "last", "--steps"],
        vec!["apply", "last"],
        vec!["undo", "last", "--to", "1"],
        vec!["redo", "last"],
        vec!["status", "last"],
        vec!["config", "get", EVIL],
        vec!["trust", "--show"],
    ];
    for words in commands {
        let Some(screen) = on_a_terminal(&world, &words) else { return };
        assert!(!screen.trim().is_empty(), "forge {words:?} shows nothing");
        assert_eq!(obeyed(&screen), Vec::<&str>::new(), "forge {words:?} shows\n{screen:?}");
    }
    // The sequences got where they were to be seen.
    let events = world.forge(&["logs", "last", "--json"]).exits(0);
    for part in ["I say ", "owned", "run_shell", "write_file"] {
        assert!(events.out.contains(part), "{part} is missing in\n{}", events.out);
    }
    assert!(!events.out.contains(['\u{1b}', '\u{7}']), "control characters are escaped in JSON");
}
