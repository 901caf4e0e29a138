//! A list of programs, through the built program: what passes the reading of the line is still refused by the sandbox.

use crate::harness::World;
use forge_testkit::model_server::{MockReply, ModelServer, ReplyScript, VendorFormat};
use serde_json::json;

fn shell(line: &str) -> MockReply {
    MockReply::call("run_shell", json!({ "command": line }))
}

#[test]
fn only_listed_programs_are_executed_whatever_the_line_says() {
    let mut world = World::new();
    let server = ModelServer::start(ReplyScript::from_replies([
        shell("ls | cat"),
        shell("id"),
        // Nothing of these shows in the line itself.
        shell("git -c alias.x='!id' x"),
        shell("git -c alias.y='!/lib64/ld-linux-x86-64.so.2 /usr/bin/id' y"),
        shell("cat /usr/bin/id > ls; git -c alias.z='!chmod +x ls; ./ls; PATH=. ls' z"),
        MockReply::text("Done."),
    ]));
    world.set("FORGE_RUNTIME_ALLOWED_SHELL_COMMANDS", "ls,cat,git,no-such-program");
    world.file("notes.md", "some\n");
    let flags = world.uses(&server, VendorFormat::OpenAi);
    let done = world.run(&flags, "Look around").exits(0);
    let calls = server.model_calls();
    let seen = |turn: usize| calls[turn].last_tool_result().unwrap_or_default().to_owned();
    assert!(seen(1).contains("notes.md"), "{}", seen(1));
    assert!(seen(2).contains("not in runtime.allowed_shell_commands"), "{}", seen(2));
    for turn in [3, 4, 5] {
        assert!(!seen(turn).contains("uid="), "{}", seen(turn));
        assert!(
            seen(turn).contains("executes only the programs of runtime.allowed_shell_commands"),
            "{}",
            seen(turn)
        );
    }
    let status = world.forge(&["status", &world.only_run(), "--json"]).exits(0).json();
    let sandbox = status["summary"]["sandbox"].to_string();
    assert!(
        sandbox.contains("program list") && sandbox.contains("`no-such-program`"),
        "{sandbox}\n{}",
        done.err
    );
}

#[test]
fn forges_own_tools_start_what_they_need() {
    let mut world = World::new();
    let patch = "--- /dev/null\n+++ b/tool.sh\n@@ -0,0 +1 @@\n+echo made\n";
    let patch = format!("diff --git a/tool.sh b/tool.sh\nnew file mode 100755\n{patch}");
    let server = ModelServer::start(ReplyScript::from_replies([
        MockReply::call("apply_patch", json!({ "patch": patch })),
        MockReply::call("git_diff", json!({})),
        MockReply::call("list_directory", json!({})),
        shell("git status"),
        MockReply::text("Done."),
    ]));
    world.set("FORGE_RUNTIME_ALLOWED_SHELL_COMMANDS", "ls");
    world.file("notes.md", "some\n");
    world.git(&["init", "-q"]);
    let flags = world.uses(&server, VendorFormat::OpenAi);
    world.run(&flags, "Look around").exits(0);
    let run = world.only_run();
    let tools = world.tools(&run);
    assert_eq!(tools[..3], ["apply_patch:true", "git_diff:true", "list_directory:true"], "{tools:?}");
    let refused = server.model_calls()[4].last_tool_result().unwrap_or_default().to_owned();
    assert!(refused.contains("not in runtime.allowed_shell_commands"), "{refused}");
}
