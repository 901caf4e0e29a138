//! The repository before anything is wrong with it.

use super::programs::git;
use std::fs;
use std::io;
use std::path::Path;

/// Its files, and what stands in them.
const FILES: &[(&str, &str)] = &[
    (".gitignore", "*.log\ntarget\n"),
    (".mailmap", "A <a@a> <b@b>\n"),
    ("README.md", "# A project\n"),
    ("AGENTS.md", "Be brief.\n"),
    ("CLAUDE.md", "Be brief.\n"),
    ("Makefile", "all:\n\t./canary.sh\n"),
    ("a.txt", "one\ntwo\nthree\n"),
    ("src/b.txt", "bee\n"),
    ("package.json", "{\"name\": \"x\"}\n"),
    ("forge.toml", "[agent]\nmax_iterations = 20\n"),
];
/// Files that no commit holds.
const UNTRACKED: &[(&str, &str)] = &[
    (".env", "KEY=not-to-be-seen\n"),
    ("server.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ("deploy/.env", "KEY=not-to-be-seen\n"),
    (".forge/memory/memory.json", "{\"facts\": [], \"history\": []}\n"),
    (".git/worktrees/w/HEAD", "ref: refs/heads/side\n"),
    (".git/worktrees/w/commondir", "../..\n"),
    (".git/worktrees/w/gitdir", "/nowhere/w/.git\n"),
    (".git/modules/sub/HEAD", "ref: refs/heads/main\n"),
    (".git/modules/sub/config", "[core]\n\tworktree = ../../../sub\n"),
];

/// Makes it: two commits, one of them packed, a second branch, a worktree that is gone, a submodule's data.
pub(super) fn repository(repo: &Path) -> io::Result<()> {
    write(repo, FILES)?;
    commit(repo, "first")?;
    git(repo, &["branch", "side"])?;
    git(repo, &["gc", "--quiet"])?;
    fs::write(repo.join("a.txt"), "one\ntwo\nthree\nfour\n")?;
    commit(repo, "second")?;
    write(repo, UNTRACKED)
}

/// Makes another one, that nobody may see.
pub(super) fn private(repo: &Path, words: &str) -> io::Result<()> {
    write(repo, &[("private.txt", words)])?;
    commit(repo, words)?;
    git(repo, &["config", "remote.origin.url", &format!("https://me:{words}@127.0.0.1:1/x")])
}

fn write(repo: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    for (path, text) in files {
        let path = repo.join(path);
        fs::create_dir_all(path.parent().unwrap_or(repo))?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn commit(repo: &Path, message: &str) -> io::Result<()> {
    git(repo, &["init", "--quiet"])?;
    git(repo, &["add", "--all"])?;
    git(repo, &["commit", "--quiet", "--message", message])
}
