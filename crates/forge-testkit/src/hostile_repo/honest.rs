//! The repository before anything is wrong with it.

use super::programs::run_git;
use std::fs;
use std::io;
use std::path::Path;

/// Its files, and what stands in them.
const TRACKED_FILES: &[(&str, &str)] = &[
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
const UNTRACKED_FILES: &[(&str, &str)] = &[
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
pub(super) fn create_repository(repo: &Path) -> io::Result<()> {
    write_files(repo, TRACKED_FILES)?;
    commit_all(repo, "first")?;
    run_git(repo, &["branch", "side"])?;
    run_git(repo, &["gc", "--quiet"])?;
    fs::write(repo.join("a.txt"), "one\ntwo\nthree\nfour\n")?;
    commit_all(repo, "second")?;
    write_files(repo, UNTRACKED_FILES)
}

/// Makes another one, that nobody may see.
pub(super) fn create_private_repository(repo: &Path, words: &str) -> io::Result<()> {
    write_files(repo, &[("private.txt", words)])?;
    commit_all(repo, words)?;
    run_git(repo, &["config", "remote.origin.url", &format!("https://me:{words}@127.0.0.1:1/x")])
}

fn write_files(repo: &Path, files: &[(&str, &str)]) -> io::Result<()> {
    for (path, text) in files {
        let path = repo.join(path);
        fs::create_dir_all(path.parent().unwrap_or(repo))?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn commit_all(repo: &Path, message: &str) -> io::Result<()> {
    run_git(repo, &["init", "--quiet"])?;
    run_git(repo, &["add", "--all"])?;
    run_git(repo, &["commit", "--quiet", "--message", message])
}
