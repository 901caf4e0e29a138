//! The demo.

use crate::harness::World;

#[test]
fn the_demo_fixes_its_project_and_says_that_the_model_is_scripted() {
    let world = World::new();
    let done = world.forge(&["demo"]).exits(0);
    for part in ["+++ b/invoice/money.py", "completed", "native"] {
        assert!(done.out.contains(part), "{part} is missing in\n{}", done.out);
    }
    let done = done.says(&["scripted", "ANTHROPIC_API_KEY", "forge run"]);
    assert!(done.err.contains("run_shell python3 -m unittest (exit 0"), "{}", done.err);
    assert_eq!(world.runs().len(), 0, "the demo leaves nothing in the user's own journal");
}

#[test]
fn the_demo_ignores_the_users_settings() {
    let mut world = World::new();
    world.set("FORGE_AGENT_MAX_ITERATIONS", "1").set("FORGE_NONSENSE", "1");
    world.file("forge.yaml", "nonsense: true\n");
    world.forge(&["demo"]).exits(0);
}
