//! A data folder that is damaged, cut short, read-only or full, looked at with every command.

use crate::harness::World;
use forge_testkit::model_server::{Gate, ModelServer, Reply, Script, Shape};
use serde_json::json;

/// More than the journal keeps in its rows: such a payload is a file of its own.
const LARGE: usize = 300_000;

fn work() -> (World, ModelServer, String) {
    let mut world = World::new();
    let server = ModelServer::start(Script::of([
        Reply::text(format!("First. {}", "long ".repeat(LARGE / 5))).and_call("c1", "write_file", json!({"path": "a.txt", "content": "x"})),
        Reply::text("Second.").and_call("c2", "run_shell", json!({"command": "yes 123456789 | head -c 30000"})),
        Reply::text("Third."),
        Reply::text("Fine."),
    ]));
    let flags = world.uses(&server, Shape::OpenAi);
    world.run(&flags, "Write a file").exits(0);
    let id = world.only_run();
    (world, server, id)
}

fn look(world: &World, id: &str) {
    for words in [&["status", id][..], &["status", id, "--json"], &["logs", id], &["logs", id, "--json"], &["list"], &["resume", id], &["doctor"], &["status"], &["cancel", id]] {
        let done = world.forge(words);
        println!("=== {words:?} -> {:?}\nOUT {}\nERR {}", done.code, done.out.chars().take(600).collect::<String>(), done.err.chars().take(800).collect::<String>());
    }
    let done = world.run(&["--provider","openai","--model","tiny"], "another");
    println!("=== run -> {:?}\nOUT {}\nERR {}", done.code, done.out.chars().take(300).collect::<String>(), done.err.chars().take(800).collect::<String>());
}

#[test]
fn explore() {
    for what in ["blobfile", "blobgone", "event", "half", "zero", "short", "garbage"] {
        let (world, _server, id) = work();
        let db = world.path("data").join("forge/forge.db");
        sql(&world, "PRAGMA wal_checkpoint(TRUNCATE)");
        println!("################ {what} {}", std::fs::metadata(&db).unwrap().len());
        let blobs = || {
            let mut all = vec![];
            for d in std::fs::read_dir(world.path("data").join("forge/blobs")).unwrap().flatten() { for f in std::fs::read_dir(d.path()).unwrap().flatten() { all.push(f.path()); } }
            all
        };
        match what {
            "blobs" => sql(&world, "UPDATE blobs SET bytes = x'00'"),
            "blobfile" => { let b = blobs(); assert!(!b.is_empty()); b.iter().for_each(|p| std::fs::write(p, "zz").unwrap()) }
            "blobgone" => blobs().iter().for_each(|p| std::fs::remove_file(p).unwrap()),
            "event" => sql(&world, "UPDATE events SET data = '{' WHERE (id & 255) = 4"),
            "half" => { let n = std::fs::metadata(&db).unwrap().len(); std::fs::OpenOptions::new().write(true).open(&db).unwrap().set_len(n / 2).unwrap() }
            "zero" => std::fs::write(&db, "").unwrap(),
            "short" => std::fs::OpenOptions::new().write(true).open(&db).unwrap().set_len(100).unwrap(),
            _ => std::fs::write(&db, [0xA5; 40_000]).unwrap(),
        }
        look(&world, &id);
    }
}

/// Does to the store what no program of ours does.
#[allow(clippy::disallowed_methods, reason = "the test damages what the program wrote")]
fn sql(world: &World, statement: &str) {
    const PROGRAM: &str =
        "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute(sys.argv[2]); c.commit(); c.close()";
    let mut python = std::process::Command::new("python3");
    python.args(["-c", PROGRAM]).arg(world.path("data").join("forge/forge.db")).arg(statement);
    let done = python.output().expect("python3 starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}
