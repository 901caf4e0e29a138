//! `docs/tools.md` matches the registry.

use forge_tools::builtin_tools;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;

const HEAD: &str = "# Tools\n\n\
The tools that a model can call. This file is rendered from the tools' declarations\n\
(`FORGE_UPDATE_DOCS=1 cargo test -p forge-tools documents`); `forge tool list` shows the enabled\n\
ones. All tools act inside the sandbox on the run's own workspace, except `create_pr`, which uses\n\
the network and accesses no files.\n\n\
The column *access* lists what a tool accesses. `read` tools run concurrently with other reads and\n\
are repeated after a crash. `write` and `exec` tools run alone and are followed by a snapshot.\n\
`network` tools have effects outside the sandbox and are never repeated automatically. `nothing`\n\
means neither files nor network. Paths are relative to `/workspace`; paths that lead out of it are\n\
rejected. Tools that write files also reject git's own data, by any path: `.git` in any spelling,\n\
links, the data of nested repositories, submodules and worktrees, bare repositories. The model\n\
receives a failure as an answer; a failed call changes nothing.\n";

/// Limits, details and an example of each tool.
const MORE: [(&str, &str, &str); 17] = [
    (
        "read_file",
        "100 KB or 10,000 lines; the output states what is omitted. Files other than text are reported by\n\
         kind.",
        r#"{"path": "src/main.rs", "offset": 1, "limit": 200}"#,
    ),
    (
        "write_file",
        "100 KB per call. The file is written completely or not at all; an existing mode is kept.",
        r#"{"path": "notes.md", "content": "one\n"}"#,
    ),
    (
        "edit_file",
        "Files up to 4 MB. `old_text` must occur exactly once; differences in white space are ignored if only\n\
         one place matches. If none matches, the error shows the nearest place.",
        r#"{"path": "a.py", "old_text": "x = 1", "new_text": "x = 2"}"#,
    ),
    ("list_directory", "500 entries, 20 levels.", r#"{"path": "src", "recursive": true, "max_depth": 2}"#),
    (
        "search_code",
        "20 matches by default, 200 at most, in at most 50 files; `.git` and ignored files are skipped.",
        r#"{"pattern": "fn main", "file_glob": "*.rs"}"#,
    ),
    ("find_files", "100 files; `.git` and ignored files are skipped.", r#"{"glob": "**/*.toml"}"#),
    (
        "run_shell",
        "120 s by default, 600 s and `sandbox.timeout_seconds` at most; 50 KB of output. With\n\
         `keep_background`, background processes of the command live until the run ends (they are paused\n\
         during snapshots); otherwise they end with the command.",
        r#"{"command": "npm run dev >dev.log 2>&1 &", "keep_background": true}"#,
    ),
    (
        "create_file",
        "100 KB, known extensions, written to `.forge/files`.",
        r##"{"filename": "report.md", "content": "# Report\n"}"##,
    ),
    (
        "apply_patch",
        "A patch of at most 1 MB, for at most 200 files of 4 MB each. Unified diffs in the format of\n\
         `diff -u` and git, or the `*** Begin Patch` form. All hunks of all files are applied, or none. Wrong\n\
         line numbers and counts are ignored if the old lines occur only once; line endings and white space\n\
         are treated as in `edit_file`. New files get mode 0644 unless the patch requests 0755; other files\n\
         keep theirs. Binary patches, symlinks and submodules are rejected.",
        r#"{"patch": "*** Begin Patch\n*** Update File: a.py\n@@ def f():\n-    return 1\n+    return 2\n*** End Patch\n"}"#,
    ),
    (
        "git_diff",
        "50 KB; longer output is cut and begins with a `--stat` summary. `staged` or `base_ref`, not both.\n\
         Untracked files are named. No pager, external diff or text converter is started; a filter of the\n\
         repository may run, so the access is `write`.",
        r#"{"base_ref": "HEAD~1", "path": "src"}"#,
    ),
    (
        "git_commit",
        "Commits only what is staged, else fails with `No staged changes to commit.` Hooks run, in the\n\
         sandbox; nothing is signed. If no identity is configured, the author is `Forge <forge@localhost>`.\n\
         Not available with `git.read_only`.",
        r#"{"message": "Fix the parser"}"#,
    ),
    (
        "git_create_branch",
        "Names must satisfy `git check-ref-format`; an existing branch is not changed. Not available with\n\
         `git.read_only`.",
        r#"{"branch_name": "feature/parser", "base_ref": "main"}"#,
    ),
    (
        "create_pr",
        "Uses GitHub's REST API from outside the sandbox, with the token given to Forge (`GITHUB_TOKEN`), on\n\
         the configured API host only; 30 s per request. The target is the repository of the remote `origin`\n\
         at the start of the run, whatever the run changes, or one of `tools.create_pr.repositories`; `head`\n\
         is a branch of such a repository, as `branch` or `owner:branch`. The branch must already be on\n\
         GitHub. If a pull request for the same branches is open, it is named and none is opened. Enabled by\n\
         default only with a token. Not available with `git.read_only`.\n\n\
         With `--workspace inplace`, commands write to the repository's own git data, `.git/config` included: what\n\
         a run sets as `origin` there is the target of the next run. Compare `git remote -v` after such a run, or\n\
         use a private workspace, from which no git data reaches the repository.",
        r#"{"title": "Fix the parser", "body": "It lost the last line.", "base": "main"}"#,
    ),
    (
        "chat",
        "For the executor `router`, where it is always enabled: its content is the answer. In other runs only\n\
         if `tools.enabled` names it.",
        r#"{"content": "Hello! How can I help you?"}"#,
    ),
    (
        "code",
        "For the executor `router`, where it is enabled by default: returns a Python program as plain text,\n\
         without a code fence or common indentation, and runs nothing.",
        r#"{"content": "print(6 * 7)"}"#,
    ),
    (
        "remember",
        "Available in conversations (`forge chat`) if `memory.enabled` is true. Keys have at most 100\n\
         characters, values 2,000. Facts are in the system prompt of later runs; see [chat.md](chat.md).",
        r#"{"key": "favourite color", "value": "green"}"#,
    ),
    (
        "recall",
        "Available after the first compaction of a conversation (unless `tools.enabled` is set and does not\n\
         name it): searches the messages replaced by the summary for words. At most 5 passages of 900 bytes,\n\
         each with the number of its message and turn; see [models.md](models.md#context).",
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
    assert!(text == rendered(), "docs/tools.md does not match the tools; run with FORGE_UPDATE_DOCS=1");
}

#[test]
fn every_example_fits_its_tool() {
    for (name, _, example) in MORE {
        let Ok(Value::Object(arguments)) = serde_json::from_str(example) else { panic!("{name}: {example}") };
        assert_eq!(builtin_tools().find_spec(name).unwrap().check_arguments(&arguments), Ok(()), "{name}");
    }
}
