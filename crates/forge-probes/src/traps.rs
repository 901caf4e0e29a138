//! Traps that a sandbox can leave in a repository: files that other programs execute by themselves. Each writes a
//! canary when executed, and no operation of Forge on the host may ever cause that.

/// A trap.
pub(super) struct WorkspaceTrap {
    /// Name of its probe and of its canary.
    pub(super) name: &'static str,
    /// Paths in the workspace with their contents; `@CANARY@` is replaced by the path of the canary.
    pub(super) files: &'static [(&'static str, &'static str)],
    /// Whether the texts are appended to existing files.
    pub(super) joins: bool,
}

const fn file_trap(name: &'static str, files: &'static [(&'static str, &'static str)]) -> WorkspaceTrap {
    WorkspaceTrap { name, files, joins: false }
}

const fn config_trap(name: &'static str, files: &'static [(&'static str, &'static str)]) -> WorkspaceTrap {
    WorkspaceTrap { name, files, joins: true }
}

const HOOK_SCRIPT: &str = "#!/bin/sh\ntouch '@CANARY@'\n";

/// All traps, in the order in which they are set.
pub(super) static TRAPS: &[WorkspaceTrap] = &[
    file_trap(
        "git-hooks",
        &[
            (".git/HEAD", "ref: refs/heads/main\n"),
            (".git/objects/info/.keep", ""),
            (".git/refs/heads/.keep", ""),
            (".git/config", "[core]\n\trepositoryformatversion = 0\n"),
            (".git/hooks/pre-commit", HOOK_SCRIPT),
            (".git/hooks/post-checkout", HOOK_SCRIPT),
            (".git/hooks/post-index-change", HOOK_SCRIPT),
            (".git/hooks/reference-transaction", HOOK_SCRIPT),
            (".git/hooks/pre-auto-gc", HOOK_SCRIPT),
        ],
    ),
    file_trap(
        "git-nested-hooks",
        &[
            ("nested/.git/HEAD", "ref: refs/heads/main\n"),
            ("nested/.git/objects/info/.keep", ""),
            ("nested/.git/refs/heads/.keep", ""),
            (
                "nested/.git/config",
                "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = \"touch '@CANARY@'; false\"\n",
            ),
            ("nested/.git/hooks/post-index-change", HOOK_SCRIPT),
        ],
    ),
    file_trap(
        "git-submodule-hooks",
        &[
            (
                ".gitmodules",
                "[submodule \"sub\"]\n\tpath = sub\n\turl = ./nested\n\tupdate = !touch '@CANARY@'\n",
            ),
            (".git/modules/sub/HEAD", "ref: refs/heads/main\n"),
            (
                ".git/modules/sub/config",
                "[core]\n\tworktree = ../../../sub\n\tfsmonitor = \"touch '@CANARY@'; false\"\n",
            ),
            (".git/modules/sub/hooks/post-checkout", HOOK_SCRIPT),
            ("sub/.git", "gitdir: ../.git/modules/sub\n"),
        ],
    ),
    config_trap("git-fsmonitor", &[(".git/config", "[core]\n\tfsmonitor = \"touch '@CANARY@'; false\"\n")]),
    config_trap(
        "git-hooks-path",
        &[
            (".git/config", "[core]\n\thooksPath = other-hooks\n"),
            ("other-hooks/post-index-change", HOOK_SCRIPT),
            ("other-hooks/pre-commit", HOOK_SCRIPT),
        ],
    ),
    config_trap(
        "git-ssh-command",
        &[(
            ".git/config",
            "[core]\n\tsshCommand = \"touch '@CANARY@'; false\"\n[remote \"origin\"]\n\turl = ssh://nowhere.invalid/x\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n",
        )],
    ),
    config_trap(
        "git-pager",
        &[(
            ".git/config",
            "[core]\n\tpager = \"touch '@CANARY@'; cat\"\n\teditor = \"touch '@CANARY@'; false\"\n[pager]\n\tstatus = true\n\tdiff = true\n\tlog = true\n",
        )],
    ),
    config_trap(
        "git-filters",
        &[
            (
                ".git/config",
                "[filter \"trap\"]\n\tclean = \"touch '@CANARY@'; cat\"\n\tsmudge = \"touch '@CANARY@'; cat\"\n\tprocess = \"touch '@CANARY@'; false\"\n",
            ),
            (".gitattributes", "*.trap filter=trap\n"),
            ("file.trap", "x\n"),
        ],
    ),
    config_trap(
        "git-textconv",
        &[
            (".git/config", "[diff \"trap\"]\n\ttextconv = \"touch '@CANARY@'; cat\"\n"),
            (".gitattributes", "*.conv diff=trap\n"),
            ("file.conv", "x\n"),
        ],
    ),
    config_trap(
        "git-diff-external",
        &[(
            ".git/config",
            "[diff]\n\texternal = \"touch '@CANARY@'; true\"\n[alias]\n\tstatus = \"!touch '@CANARY@'\"\n[credential]\n\thelper = \"!touch '@CANARY@'\"\n[gpg]\n\tprogram = \"touch '@CANARY@'\"\n",
        )],
    ),
    file_trap(
        "git-dir-file",
        &[
            ("linked/.git", "gitdir: ../elsewhere\n"),
            ("elsewhere/HEAD", "ref: refs/heads/main\n"),
            ("elsewhere/objects/info/.keep", ""),
            ("elsewhere/refs/heads/.keep", ""),
            (
                "elsewhere/config",
                "[core]\n\trepositoryformatversion = 0\n\tfsmonitor = \"touch '@CANARY@'; false\"\n",
            ),
        ],
    ),
    file_trap("direnv-file", &[(".envrc", "touch '@CANARY@'\n"), (".env.sh", "touch '@CANARY@'\n")]),
    file_trap(
        "editor-tasks",
        &[
            (
                ".vscode/tasks.json",
                "{\"version\":\"2.0.0\",\"tasks\":[{\"label\":\"x\",\"type\":\"shell\",\"command\":\"touch '@CANARY@'\",\"runOptions\":{\"runOn\":\"folderOpen\"}}]}\n",
            ),
            (
                ".idea/runConfigurations/x.xml",
                "<component><option name=\"SCRIPT_TEXT\" value=\"touch '@CANARY@'\"/></component>\n",
            ),
        ],
    ),
    file_trap("makefile", &[("Makefile", "X := $(shell touch '@CANARY@')\nall:\n\ttouch '@CANARY@'\n")]),
    file_trap(
        "conftest",
        &[
            ("conftest.py", "open('@CANARY@', 'w')\n"),
            ("sitecustomize.py", "open('@CANARY@', 'w')\n"),
            ("setup.py", "open('@CANARY@', 'w')\n"),
        ],
    ),
    file_trap(
        "build-script",
        &[
            ("build.rs", "fn main() { std::fs::write(\"@CANARY@\", \"\").unwrap(); }\n"),
            ("Cargo.toml", "[package]\nname = \"trap\"\nversion = \"0.0.0\"\nbuild = \"build.rs\"\n"),
            ("src/main.rs", "fn main() {}\n"),
        ],
    ),
    file_trap(
        "virtual-environment",
        &[
            ("venv/pyvenv.cfg", "home = /workspace/venv/bin\ninclude-system-site-packages = false\n"),
            ("venv/bin/python3", HOOK_SCRIPT),
            ("venv/bin/activate", "touch '@CANARY@'\n"),
            ("pyvenv.cfg", "home = /workspace/venv/bin\n"),
            ("bin/git", HOOK_SCRIPT),
        ],
    ),
    file_trap(
        "cargo-config",
        &[
            (
                ".cargo/config.toml",
                "[build]\nrustc-wrapper = \"/workspace/.cargo/wrapper\"\n[target.x86_64-unknown-linux-gnu]\nrunner = \"/workspace/.cargo/wrapper\"\n",
            ),
            (".cargo/wrapper", HOOK_SCRIPT),
        ],
    ),
    file_trap(
        "npm-scripts",
        &[
            (".npmrc", "script-shell=/workspace/.npm-shell\nnode-options=--require=/workspace/trap.js\n"),
            (".npm-shell", HOOK_SCRIPT),
            ("trap.js", "require('fs').writeFileSync('@CANARY@', '')\n"),
            (
                "package.json",
                "{\"name\":\"trap\",\"version\":\"0.0.0\",\"scripts\":{\"preinstall\":\"touch '@CANARY@'\",\"prepare\":\"touch '@CANARY@'\"}}\n",
            ),
        ],
    ),
];
