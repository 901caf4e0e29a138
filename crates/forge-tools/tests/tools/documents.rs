//! `docs/tools.md` says what the registry says.

use forge_tools::builtin_tools;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "# Tools\n\n\
What a model can call. This file is rendered from the tools' own declarations (`FORGE_UPDATE_DOCS=1 cargo test -p \
forge-tools documents`); `forge tool list` shows which are enabled. All act inside the sandbox on the run's own view \
of the repository; only `create_pr` speaks to the outside, and it touches no file.\n\n\
Access says what a tool touches: `read` runs beside other reads and is repeated after a crash; `write` and `exec` \
run alone and are followed by a snapshot; `network` has its effect outside and is never repeated unasked; `nothing` touches neither files nor network. Paths are \
relative to `/workspace`; what leads out of it is refused. So is writing to git's own data by tools that write, whatever \
path leads there: `.git` in any spelling, through links, the data of nested repositories, submodules and worktrees, bare \
repositories. A failure is an answer \
that the model reads; a failed call changes nothing.\n";

/// Limits and particulars, and an example, of each tool.
const MORE: [(&str, &str, &str); 17] = [
    (
        "read_file",
        "100 KB or 10,000 lines; what is left out is said. Files that are not text are named by their kind.",
        r#"{"path": "src/main.rs", "offset": 1, "limit": 200}"#,
    ),
    (
        "write_file",
        "100 KB per call. Written whole or not at all; an existing mode stays.",
        r#"{"path": "notes.md", "content": "one\n"}"#,
    ),
    (
        "edit_file",
        "Files up to 4 MB. `old_text` must stand there once; white space is overlooked only where one place fits. A \
         miss shows the nearest place.",
        r#"{"path": "a.py", "old_text": "x = 1", "new_text": "x = 2"}"#,
    ),
    ("list_directory", "500 entries, 20 levels.", r#"{"path": "src", "recursive": true, "max_depth": 2}"#),
    (
        "search_code",
        "20 matches, at most 200, in at most 50 files; `.git` and ignored files are left out.",
        r#"{"pattern": "fn main", "file_glob": "*.rs"}"#,
    ),
    ("find_files", "100 files; `.git` and ignored files are left out.", r#"{"glob": "**/*.toml"}"#),
    (
        "run_shell",
        "120 s by default, 600 s and `sandbox.timeout_seconds` at most; 50 KB of output. With `keep_background` the \
         processes that the command leaves behind live until the run ends (they stand still while a snapshot is \
         taken); without it they end with the command.",
        r#"{"command": "npm run dev >dev.log 2>&1 &", "keep_background": true}"#,
    ),
    (
        "create_file",
        "100 KB, known extensions, into `.forge/files`.",
        r##"{"filename": "report.md", "content": "# Report\n"}"##,
    ),
    (
        "apply_patch",
        "A patch of 1 MB, 200 files of 4 MB. Unified diffs as `diff -u` and git write them, or the `*** Begin Patch` \
         form. All hunks of all files are applied or none. Wrong line numbers and counts do not matter where the old \
         lines stand at one place only; line ends and white space are overlooked as in `edit_file`. New files get \
         mode 0644 unless the patch asks for 0755; others keep theirs. Binary patches, symlinks and submodules are \
         refused.",
        r#"{"patch": "*** Begin Patch\n*** Update File: a.py\n@@ def f():\n-    return 1\n+    return 2\n*** End Patch\n"}"#,
    ),
    (
        "git_diff",
        "50 KB, then an outline with `--stat` first. `staged` or `base_ref`, not both. Names untracked files. Starts no \
         pager, external diff or text converter; a filter of the repository may run, so it counts as writing.",
        r#"{"base_ref": "HEAD~1", "path": "src"}"#,
    ),
    (
        "git_commit",
        "Only what is staged, else `No staged changes to commit.` Hooks run, in the box; nothing is signed. Where no \
         identity is configured the author is `Forge <forge@localhost>`. Absent with `git.read_only`.",
        r#"{"message": "Mend the parser"}"#,
    ),
    (
        "git_create_branch",
        "Names as `git check-ref-format` wants them; an existing branch is left alone. Absent with `git.read_only`.",
        r#"{"branch_name": "feature/parser", "base_ref": "main"}"#,
    ),
    (
        "create_pr",
        "GitHub's REST API from outside the sandbox, with the token that Forge was given (`GITHUB_TOKEN`), to the \
         configured API host only; 30 s a request. It goes to the repository that the remote `origin` named when the \
         run began, whatever the run makes of it, or to one of `tools.create_pr.repositories`; `head` is a branch of \
         such a repository, as `branch` or `owner:branch`. The branch must be on GitHub already. If there is an open one for \
         the same branches, it is named and none is opened. Enabled by default only if there is a token. Absent with \
         `git.read_only`.",
        r#"{"title": "Mend the parser", "body": "It lost the last line.", "base": "main"}"#,
    ),
    (
        "chat",
        "For the executor `router`, where it is always enabled: its content is the answer. In other runs only if \
         `tools.enabled` names it.",
        r#"{"content": "Hello! How can I help you?"}"#,
    ),
    (
        "code",
        "For the executor `router`, where it is enabled by default: gives a Python program as plain text, without a \
         fence and common indentation, and runs nothing.",
        r#"{"content": "print(6 * 7)"}"#,
    ),
    (
        "remember",
        "Conversations (`forge chat`) offer it while `memory.enabled` is true. Keys have 100 characters, values 2,000. \
         Facts stand in the system prompt of later runs; see [chat.md](chat.md).",
        r#"{"key": "favourite color", "value": "green"}"#,
    ),
    (
        "recall",
        "Offered from the first compaction of a conversation on (unless `tools.enabled` is set and does not name it): \
         searches the messages that the summary stands for by their words. At most 5 passages of 900 bytes, each with \
         the number of its message and its turn; see [models.md](models.md#context).",
        r#"{"query": "error in parser.rs"}"#,
    ),
];

fn rendered() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n| tool | also called | access | for |\n|---|---|---|---|\n");
    for spec in builtin_tools().list_specs() {
        let aliases = spec.aliases.iter().map(|alias| format!("`{alias}`")).collect::<Vec<_>>().join(", ");
        let _ =
            writeln!(text, "| `{}` | {aliases} | {} | {} |", spec.name, spec.access.name(), spec.description);
    }
    for spec in builtin_tools().list_specs() {
        let (_, limits, example) = MORE
            .iter()
            .find(|(name, ..)| *name == spec.name)
            .unwrap_or_else(|| panic!("{} is not described", spec.name));
        let _ = write!(text, "\n## {}\n\n{limits}\n\n| argument | type | |\n|---|---|---|\n", spec.name);
        for param in &spec.params {
            let need = if param.required { "required" } else { "optional" };
            let said =
                if param.description.is_empty() { String::new() } else { format!("; {}", param.description) };
            let _ = writeln!(text, "| `{}` | {} | {need}{said} |", param.name, param.kind.name());
        }
        let _ = write!(text, "\n```json\n{example}\n```\n");
    }
    text
}

#[test]
#[allow(clippy::disallowed_methods, reason = "the switch is for developers, not for users")]
fn the_document_is_rendered_from_the_tools() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/tools.md");
    if std::env::var_os("FORGE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, rendered()).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == rendered(), "docs/tools.md is not what the tools say; run with FORGE_UPDATE_DOCS=1");
}

#[test]
fn every_example_fits_its_tool() {
    for (name, _, example) in MORE {
        let Ok(Value::Object(arguments)) = serde_json::from_str(example) else { panic!("{name}: {example}") };
        assert_eq!(builtin_tools().find_spec(name).unwrap().check_arguments(&arguments), Ok(()), "{name}");
    }
}
