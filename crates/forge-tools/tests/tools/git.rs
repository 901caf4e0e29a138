//! The tools that speak to git.

use crate::Bench;
use forge_tools::{GitAccess, ToolOptions};
use forge_types::ErrorKind;
use proptest::prelude::*;
use serde_json::json;

/// A repository with one commit of `a`.
fn repository() -> Bench {
    let bench = Bench::new();
    bench.put("a", "one\n");
    bench.host(
        "git init -q -b main . && git config user.name Ann && git config user.email ann@localhost && git add a && \
         git commit -q -m first",
    );
    bench
}

fn host(bench: &Bench, command: &str) -> String {
    String::from_utf8(bench.host_bytes(command)).unwrap().trim_end().to_owned()
}

#[test]
fn a_diff_shows_what_is_asked_for() {
    let bench = repository();
    assert_eq!(bench.ok("git_diff", json!({})), "No changes.");
    bench.put("a", "two\n");
    bench.put("sub/ü", "new\n");
    bench.put("-x", "new\n");
    let diff = bench.ok("git_diff", json!({}));
    assert!(diff.contains("-one\n+two\n"), "{diff}");
    assert!(diff.ends_with("Untracked files, not in the diff: -x, sub/ü"), "{diff}");
    assert_eq!(bench.ok("git_diff", json!({"staged": true})), "No staged changes.");
    bench.host("git add -A");
    assert_eq!(bench.ok("git_diff", json!({})), "No changes.");
    let staged = bench.ok("git_diff", json!({"staged": true, "path": "sub"}));
    assert!(staged.contains("+++ b/sub/ü") && !staged.contains("+two"), "{staged}");
    assert!(bench.ok("git_diff", json!({"staged": true, "path": "-x"})).contains("b/-x"));
    bench.host("git commit -q -m second");
    let based = bench.ok("git_diff", json!({"base_ref": "HEAD~1", "path": "/workspace/a"}));
    assert!(based.contains("-one\n+two\n") && !based.contains("sub"), "{based}");
}

#[test]
fn a_diff_refuses_what_makes_no_sense() {
    let bench = repository();
    let both = json!({"staged": true, "base_ref": "HEAD"});
    assert!(bench.fails("git_diff", both, ErrorKind::BadArguments).contains("not both"));
    let said = bench.fails("git_diff", json!({"base_ref": "--output=x"}), ErrorKind::NotFound);
    assert_eq!(said, "there is no commit `--output=x` in the repository");
    bench.fails("git_diff", json!({"path": "../x"}), ErrorKind::Denied);
    let said = Bench::new().fails("git_diff", json!({}), ErrorKind::Execution);
    assert!(said.starts_with("/workspace is not a git repository"), "{said}");
}

#[test]
fn a_diff_starts_no_program_and_leaves_the_index_alone() {
    let bench = repository();
    bench.host("printf '#!/bin/sh\\ntouch ran' >x.sh; chmod +x x.sh; echo x.sh ran >>.git/info/exclude");
    bench.host(
        "git config diff.external ./x.sh; git config core.fsmonitor ./x.sh; git config core.pager ./x.sh; \
         git config diff.t.textconv ./x.sh; echo '* diff=t' >.git/info/attributes",
    );
    bench.put("a", "two\n");
    let before = std::fs::read(bench.path(".git/index")).unwrap();
    assert!(bench.ok("git_diff", json!({})).contains("+two"));
    assert_eq!(std::fs::read(bench.path(".git/index")).unwrap(), before);
    assert!(!bench.path("ran").exists());
    for spec in bench.workspace.requested_commands().iter().filter(|spec| spec.argv[0] == "git") {
        assert_eq!(spec.env["GIT_TERMINAL_PROMPT"], "0");
        assert_eq!(spec.env["GIT_OPTIONAL_LOCKS"], "0");
    }
}

#[test]
fn a_long_diff_is_cut_and_begins_with_its_outline() {
    let bench = repository();
    bench.put("a", (0..20_000).map(|n| format!("line {n}\n")).collect::<String>());
    let output = bench.call("git_diff", json!({}));
    let said = crate::said(&output);
    assert!(output.truncated && said.len() < 60_000);
    assert!(said.contains("20000 ") && said.contains("[The diff is cut. Give a path"), "{}", &said[..300]);
}

#[test]
fn only_what_is_staged_is_committed() {
    let bench = repository();
    let commit = json!({"message": "Second\n\n# not a comment"});
    assert_eq!(
        bench.fails("git_commit", commit.clone(), ErrorKind::Execution),
        "No staged changes to commit."
    );
    bench.put("a", "two\n");
    bench.put("b", "b\n");
    assert_eq!(
        bench.fails("git_commit", commit.clone(), ErrorKind::Execution),
        "No staged changes to commit."
    );
    bench.host("git add b && git config commit.gpgsign true && git config gpg.program false");
    let said = bench.ok("git_commit", commit);
    assert!(said.starts_with("Committed: [main ") && said.contains("Second"), "{said}");
    assert_eq!(
        host(&bench, "git log -1 --format='%an %ae %B' --name-only"),
        "Ann ann@localhost Second\n\n# not a comment\n\n\nb"
    );
    bench.fails("git_commit", json!({"message": " \n"}), ErrorKind::BadArguments);
}

#[test]
fn somebody_commits_even_if_nobody_is_configured() {
    let bench = Bench::new();
    bench.host("git init -q . && echo x >x && git add x");
    let wanted = host(
        &bench,
        "echo \"$(git config user.name || echo Forge) $(git config user.email || echo forge@localhost)\"",
    );
    bench.ok("git_commit", json!({"message": "x"}));
    assert_eq!(host(&bench, "git log -1 --format='%cn %ae'"), wanted);
}

#[test]
fn a_hook_that_refuses_is_reported() {
    let bench = repository();
    bench.host("printf '#!/bin/sh\\necho lint: bad style >&2; exit 1' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit");
    bench.host("echo two >a; git add a");
    let said = bench.fails("git_commit", json!({"message": "x"}), ErrorKind::Execution);
    assert!(said.starts_with("Nothing was committed") && said.contains("lint: bad style"), "{said}");
    assert_eq!(host(&bench, "git log --oneline | wc -l"), "1");
}

#[test]
fn a_branch_is_made_and_checked_out() {
    let bench = repository();
    bench.host("echo two >a; git commit -q -a -m second");
    assert_eq!(
        bench.ok("git_create_branch", json!({"branch_name": "feature/x"})),
        "Switched to the new branch `feature/x`"
    );
    let said = bench.ok("git_create_branch", json!({"branch_name": "old", "base_ref": "main~1"}));
    assert!(said.starts_with("Switched to the new branch `old` at "), "{said}");
    assert_eq!(
        (host(&bench, "git branch --show-current").as_str(), bench.get("a").as_str()),
        ("old", "one\n")
    );
    let said = bench.fails("git_create_branch", json!({"branch_name": "main"}), ErrorKind::Execution);
    assert!(said.contains("already exists"), "{said}");
    bench.fails("git_create_branch", json!({"branch_name": "y", "base_ref": "nope"}), ErrorKind::NotFound);
    for name in
        ["", "-f", "a b", "a..b", "x.lock", "@", "HEAD", "a//b", "/a", "a/", ".a", "a.", "a@{1}", "a\nb"]
    {
        let said = bench.fails("git_create_branch", json!({"branch_name": name}), ErrorKind::BadArguments);
        assert!(said.contains("can't be the name of a branch"), "{said}");
    }
    assert_eq!(host(&bench, "git branch --format='%(refname:short)'"), "feature/x\nmain\nold");
}

#[test]
fn who_may_only_look_has_no_tool_that_writes() {
    let all = forge_tools::builtin_tools();
    let some =
        forge_tools::builtin_tools_with(&ToolOptions { git: GitAccess::ReadOnly, ..ToolOptions::default() });
    let names = |registry: &forge_ports::ToolRegistry| -> Vec<String> {
        registry
            .list_specs()
            .map(|spec| spec.name.clone())
            .filter(|name| name.contains("git_") || name == "create_pr")
            .collect()
    };
    assert_eq!(names(&all), ["git_diff", "git_commit", "git_create_branch", "create_pr"]);
    assert_eq!(names(&some), ["git_diff"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// No name is let through that git would refuse.
    #[test]
    fn names_of_branches_are_judged_as_git_does(name in "[-a@{}./~^:?*\\[ \\\\]{1,6}|[a.]{1,4}(\\.lock)?") {
        let bench = Bench::new();
        bench.put(".git-is-here", "");
        bench.host("git init -q -b main . && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x");
        let output = bench.call("git_create_branch", json!({"branch_name": name}));
        let quoted = name.replace('\'', "");
        let theirs = bench.call("run_shell", json!({"command": format!("git check-ref-format 'refs/heads/{quoted}'")}));
        let fine = theirs.exit_code == Some(0) && !name.starts_with('-') && name != "@";
        prop_assert_eq!(output.error.is_none(), fine, "{:?} {:?}", name, output);
    }
}
