//! The memory as people and programs see it: a file, several writers, and files that are not as they should be.

use forge_memory::FileMemory;
use forge_ports::Memory;
use forge_testkit::clock::TestClock;
use forge_testkit::sample::time;
use forge_types::{ChatMessage, MemoryFact, Role};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

fn memory(path: &Path) -> FileMemory {
    FileMemory::new(path.to_owned(), Arc::new(TestClock::skipping(time(0), Duration::ZERO)))
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(".forge/memory/memory.json");
    (folder, path)
}

fn turn(question: &str, answer: &str) -> Vec<ChatMessage> {
    let said = |role, content: &str| ChatMessage { role, content: content.to_owned() };
    vec![said(Role::User, question), said(Role::Assistant, answer)]
}

fn fact(key: &str, value: &str) -> MemoryFact {
    MemoryFact { key: key.to_owned(), value: value.to_owned() }
}

#[tokio::test]
async fn it_is_a_file_that_people_can_read() {
    let (_folder, path) = place();
    let memory = memory(&path);
    assert_eq!(memory.load_all().await.history, []);
    assert!(!path.parent().expect("a folder").exists(), "nothing is made before there is something to keep");
    memory.add_turn(turn("Hi\nthere", "Grüße 😀")).await.expect("kept");
    memory.add_fact(fact("name", "Ada")).await.expect("kept");
    let text = std::fs::read_to_string(&path).expect("a file");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["history"][0], serde_json::json!({"role": "user", "content": "Hi\nthere"}));
    assert_eq!(json["history"][1], serde_json::json!({"role": "assistant", "content": "Grüße 😀"}));
    assert_eq!(json["facts"][0], serde_json::json!({"key": "name", "value": "Ada"}));
    assert!(text.lines().count() > 10, "one thing a line");
    let mode = path.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o077, 0, "what was said is nobody else's");
    let ignored = std::fs::read_to_string(path.with_file_name(".gitignore")).expect("kept out of git");
    assert_eq!(ignored, "*\n");
}

#[tokio::test]
async fn facts_are_added_changed_and_survive_a_cleared_history() {
    let (_folder, path) = place();
    let memory = memory(&path);
    assert!(!memory.update_fact(fact("color", "red")).await.expect("no fact yet"));
    memory.add_fact(fact("color", "red")).await.expect("kept");
    memory.add_fact(fact("city", "Bern")).await.expect("kept");
    assert!(memory.update_fact(fact("color", "blue")).await.expect("changed"));
    memory.add_fact(fact("city", "Basel")).await.expect("replaced");
    memory.add_turn(turn("a", "b")).await.expect("kept");
    memory.clear_history().await.expect("cleared");
    assert_eq!(memory.list_facts().await, [fact("color", "blue"), fact("city", "Basel")]);
    assert_eq!(memory.load_all().await.history, []);
}

#[test]
fn two_conversations_at_once_lose_nothing() {
    let (_folder, path) = place();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let memory = memory(&path);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
                for n in 0..25 {
                    runtime.block_on(memory.add_turn(turn(&format!("{writer}-{n}"), "ok"))).expect("kept");
                    runtime.block_on(memory.add_fact(fact(&format!("{writer}-{n}"), "x"))).expect("kept");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("no panic"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let all = runtime.block_on(memory(&path).load_all());
    assert_eq!((all.history.len(), all.facts.len()), (200, 100));
    for pair in all.history.chunks(2) {
        assert_eq!((pair[0].role, pair[1].role), (Role::User, Role::Assistant), "a turn stays together");
    }
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_told_of_once() {
    let (folder, path) = place();
    for (n, damage) in ["{\"history\": [", "[]", "nonsense", "{\"history\": 5}"].iter().enumerate() {
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, damage).expect("a file");
        let memory = memory(&path);
        let seen = memory.load_all().await;
        assert_eq!(seen.history, []);
        assert!(seen.warning.expect("a warning").contains("renamed to"), "{damage}");
        assert_eq!(memory.load_all().await.warning, None);
        memory.add_turn(turn("a", "b")).await.expect("a new one was started");
        assert_eq!(memory.load_all().await.history.len(), 2);
        let entries = std::fs::read_dir(path.parent().expect("a folder")).expect("a folder");
        let aside: Vec<_> = entries
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("memory.json.corrupt-"))
            .collect();
        assert_eq!(aside.len(), n + 1, "each keeps its own name");
    }
    drop(folder);
}

#[tokio::test]
async fn damage_found_while_writing_is_told_of_too() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, "nonsense").expect("a file");
    let memory = memory(&path);
    memory.add_turn(turn("a", "b")).await.expect("kept in a new one");
    assert!(memory.load_all().await.warning.is_some_and(|warning| warning.contains("renamed to")));
}

#[tokio::test]
async fn what_somebody_else_wrote_into_it_stays() {
    let (_folder, path) = place();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    std::fs::write(&path, r#"{"facts": [], "mine": {"a": 1}}"#).expect("a file");
    memory(&path).add_turn(turn("a", "b")).await.expect("kept");
    let json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
    assert_eq!(json["mine"]["a"], 1);
}

#[tokio::test]
async fn a_place_that_can_not_be_written_is_an_error_and_no_more() {
    let (folder, _) = place();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    let below = memory(&file.join("memory.json"));
    let error = below.add_turn(turn("a", "b")).await.expect_err("a file is no folder");
    assert!(error.to_string().contains("memory.json"), "{error}");
    assert_eq!(below.load_all().await.history, []);
    let folder_there = memory(folder.path());
    assert!(folder_there.load_all().await.warning.is_some(), "a folder is no file");
}

#[tokio::test]
async fn a_link_is_not_written_through() {
    let (folder, path) = place();
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
    let other = folder.path().join("precious");
    std::fs::write(&other, "{}").expect("a file");
    symlink(&other, &path).expect("a link");
    let memory = memory(&path);
    memory.add_turn(turn("a", "b")).await.expect_err("a link");
    assert_eq!(std::fs::read_to_string(&other).expect("a file"), "{}");
}

#[tokio::test]
async fn it_does_not_grow_for_ever() {
    let (_folder, path) = place();
    let memory = memory(&path);
    let many = (0..1_200).flat_map(|n| turn(&n.to_string(), "ok")).collect();
    memory.add_turn(many).await.expect("kept");
    let all = memory.load_all().await.history;
    assert_eq!(all.len(), 2_000);
    assert_eq!(all[0].content, "200");
}
