//! Publishing a run's result as a commit on a separate branch.
//!
//! Everything that reads the run's files or git data happens in the sandbox: configuration, filters and hooks there
//! belong to the run and are not trusted. The sandbox delivers a pack, which contains only objects. The host's git
//! examines them in a [git directory owned by Forge](forge_git), and Forge gives the repository the pack and one
//! reference.

use super::WorkspaceStorage;
use super::layout::WorkspaceLayout;
use super::repos::{OpenRepo, open_available_repos};
use crate::active_work::ActiveWork;
use crate::blocking::run_blocking;
use forge_git::{IncomingPack, Repository, RepositoryHeads, ScratchRepository};
use forge_ports::Workspace;
use forge_ports::sandbox::{BackgroundPolicy, Error, ExecResult, ExecSpec, InheritedEnv};
use forge_ports::workspace_store::PublishedBranch;
use forge_snapshot::WorkBounds;
use forge_types::RunId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a pack to read at once.
const READ_CHUNK_BYTES: usize = 4 << 20;
/// Longest time of one step in the sandbox.
const STEP_TIMEOUT: Duration = Duration::from_secs(900);
/// Most paths in arguments of `git add`; a longer list is passed in a file.
const MAX_PATHSPEC_ARGUMENTS: usize = 500;
/// Bytes of a list in one command line; the kernel's limit is two MiB with the environment.
const MAX_LIST_CHUNK_BYTES: usize = 256 << 10;
/// Author of a commit if the repository does not name one.
const DEFAULT_AUTHOR_NAME: &str = "Forge";
const DEFAULT_AUTHOR_EMAIL: &str = "forge@localhost";

/// A result to publish and its destination.
pub(crate) struct BranchPublisher<'a> {
    /// Open sandbox with the workspace in the state to publish.
    pub sandbox: &'a dyn Workspace,
    /// Handle that ends the commands in the sandbox when the caller no longer waits for the result.
    pub work: &'a ActiveWork,
    /// Directory of the repository in the workspace; empty if it is the workspace itself.
    pub directory: &'a str,
    /// Repository on the host.
    pub repo: &'a OpenRepo,
    /// The run.
    pub run: RunId,
    /// Private directory for temporary files.
    pub temporary: &'a Path,
    /// Bounds of the host's part of the work, which end with `work`.
    pub bounds: WorkBounds,
    /// Commit message.
    pub message: &'a str,
    /// Paths in the repository that stay as they are in its last commit.
    pub masked: Vec<PathBuf>,
}

impl BranchPublisher<'_> {
    /// Returns the name of the branch.
    fn branch_name(&self) -> String {
        format!("forge/{}", self.run)
    }

    /// Commits in the sandbox, imports the result and creates the branch. Returns `None` if there is nothing to commit.
    pub(crate) async fn publish(&self) -> Result<Option<PublishedBranch>, Error> {
        let (repo, bounds) = (self.repo.clone(), self.bounds.clone());
        let heads =
            run_blocking(move || Ok(Repository::find(repo.work_tree())?.read_heads(&bounds)?)).await?;
        let scratch = format!(".forge-publish-{}", self.run);
        let made = self.commit_and_pack(&heads, &scratch).await;
        // Nothing of it stays in the workspace, whatever happened.
        let swept = self.exec_in_sandbox(&["rm", "-rf", "--", &scratch], &[]).await;
        let Some((commit, pack)) = made? else { return Ok(None) };
        swept?;
        let (repo, branch, wanted) = (self.repo.clone(), self.branch_name(), commit.clone());
        run_blocking(move || {
            Ok(pack.import_into(&Repository::find(repo.work_tree())?, &branch, &wanted, &heads.known)?)
        })
        .await?;
        Ok(Some(PublishedBranch { branch: self.branch_name(), commit }))
    }

    /// Returns the commit and a pack of the objects that the repository lacks.
    async fn commit_and_pack(
        &self,
        heads: &RepositoryHeads,
        scratch: &str,
    ) -> Result<Option<(String, IncomingPack)>, Error> {
        let git_dir = format!("{scratch}/git");
        let format = self.run_git(&["rev-parse", "--show-object-format"], &[]).await?;
        let objects =
            self.run_git(&["rev-parse", "--path-format=absolute", "--git-path", "objects"], &[]).await?;
        let format = format!("--object-format={format}");
        let anywhere = [("GIT_WORK_TREE".to_owned(), String::new())];
        self.run_git(&["init", "--bare", "--quiet", "--template=", &format, &git_dir], &anywhere).await?;
        // Written by a command: file requests to git's own files are refused.
        let alternates = format!("{git_dir}/objects/info/alternates");
        let line = ["sh", "-c", "printf '%s\\n' \"$1\" > \"$2\"", "sh", &objects, &alternates];
        if self.exec_in_sandbox(&line, &[]).await?.exit_code != 0 {
            return Err(publish_error("cannot point git to the repository's objects".to_owned()));
        }
        for (name, to) in [("index", "index"), ("shallow", "shallow")] {
            let from =
                self.run_git(&["rev-parse", "--path-format=absolute", "--git-path", name], &[]).await?;
            // A missing file is not copied.
            self.exec_in_sandbox(&["cp", "--", &from, &format!("{git_dir}/{to}")], &[]).await?;
        }
        let inside = format!("{}/{}{git_dir}", forge_jail_protocol::WORKSPACE_PATH, self.prefix());
        let env = [
            ("GIT_OBJECT_DIRECTORY".to_owned(), format!("{inside}/objects")),
            ("GIT_INDEX_FILE".to_owned(), format!("{inside}/index")),
        ];
        let parent =
            self.exec_in_sandbox(&["git", "rev-parse", "--quiet", "--verify", "HEAD^{commit}"], &env).await?;
        let parent = (parent.exit_code == 0).then(|| lossy_text(&parent.stdout.bytes));
        let Some(commit) = self.commit_on(parent.as_deref(), scratch, &env).await? else { return Ok(None) };
        if heads.head.as_ref() == Some(&commit) {
            return Ok(None);
        }
        self.pack_commit(&git_dir, &commit, heads).await.map(|pack| Some((commit, pack)))
    }

    /// Commits everything that is not ignored on top of `parent`; returns the parent itself if nothing differs.
    async fn commit_on(
        &self,
        parent: Option<&str>,
        scratch: &str,
        env: &[(String, String)],
    ) -> Result<Option<String>, Error> {
        let mut added = vec![":/".to_owned(), format!(":(exclude,top,literal){scratch}")];
        added.extend(self.masked.iter().map(|masked| format!(":(exclude,top,literal){}", masked.display())));
        let added: Vec<&str> = added.iter().map(String::as_str).collect();
        // The file needs git 2.25, and images may have an older one.
        if added.len() <= MAX_PATHSPEC_ARGUMENTS {
            self.run_git(&[&["add", "--all", "--"], added.as_slice()].concat(), env).await?;
        } else {
            let list = format!("{scratch}/git/pathspecs");
            self.write_list(&list, r"%s\0", &added).await?;
            let from = format!("--pathspec-from-file={list}");
            self.run_git(&["add", "--all", &from, "--pathspec-file-nul"], env).await?;
        }
        let tree = self.run_git(&["write-tree", "--missing-ok"], env).await?;
        let before = match parent {
            Some(parent) => Some(self.run_git(&["rev-parse", &format!("{parent}^{{tree}}")], env).await?),
            None => None,
        };
        if before.as_ref() == Some(&tree) {
            return Ok(parent.map(str::to_owned));
        }
        let mut env = env.to_vec();
        env.extend(self.author_env().await?);
        // The first line must not be empty.
        let message = match self.message.trim() {
            "" => "Forge",
            message => message,
        };
        let message = message.replace('\0', " ");
        let mut commit = vec!["commit-tree", &tree, "-m", &message];
        if let Some(parent) = parent {
            commit.extend(["-p", parent]);
        }
        self.run_git(&commit, &env).await.map(Some)
    }

    /// Returns the variables for the author: the repository's configured user, or Forge.
    async fn author_env(&self) -> Result<Vec<(String, String)>, Error> {
        let name = self.exec_in_sandbox(&["git", "config", "--get", "user.name"], &[]).await?;
        let email = self.exec_in_sandbox(&["git", "config", "--get", "user.email"], &[]).await?;
        let (mut who, mut mail) = (lossy_text(&name.stdout.bytes), lossy_text(&email.stdout.bytes));
        if name.exit_code != 0 || email.exit_code != 0 || who.is_empty() || mail.is_empty() {
            (who, mail) = (DEFAULT_AUTHOR_NAME.to_owned(), DEFAULT_AUTHOR_EMAIL.to_owned());
        }
        let pairs = [
            ("AUTHOR_NAME", &who),
            ("AUTHOR_EMAIL", &mail),
            ("COMMITTER_NAME", &who),
            ("COMMITTER_EMAIL", &mail),
        ];
        Ok(pairs.into_iter().map(|(key, value)| (format!("GIT_{key}"), value.clone())).collect())
    }

    /// Packs the commit and all objects that the repository lacks into a file on the host.
    async fn pack_commit(
        &self,
        git_dir: &str,
        commit: &str,
        heads: &RepositoryHeads,
    ) -> Result<IncomingPack, Error> {
        // Whole objects: reading them requires nothing of the repository.
        const PACK_SCRIPT: &str = "git --git-dir=\"$0\" rev-list --objects --ignore-missing --stdin \"$1\" \
                            <\"$0/known\" >\"$0/list\" && \
                            git --git-dir=\"$0\" pack-objects -q --stdout <\"$0/list\" >\"$0/result\"";
        let known: Vec<&str> = heads.known.iter().map(String::as_str).collect();
        self.write_list(&format!("{git_dir}/known"), r"^%s\n", &known).await?;
        let argv = ["sh", "-c", PACK_SCRIPT, git_dir, commit];
        let packed = self.exec_in_sandbox(&argv, &[]).await?;
        Self::check_success(&packed, "pack-objects")?;
        let (repo, bounds, temporary) = (self.repo.clone(), self.bounds.clone(), self.temporary.to_owned());
        let mut pack = run_blocking(move || {
            let repository = Repository::find(repo.work_tree())?;
            Ok(ScratchRepository::new(&repository, &temporary, &bounds)?.create_incoming()?)
        })
        .await?;
        let path = format!("{}{git_dir}/result", self.prefix());
        let mut at = 0;
        loop {
            let chunk = self.until_stopped(self.sandbox.read_file(&path, at, READ_CHUNK_BYTES)).await?;
            at += chunk.bytes.len() as u64;
            let more = !chunk.bytes.is_empty();
            pack = run_blocking(move || Ok(pack.append(&chunk.bytes)?)).await?;
            if !more {
                return Ok(pack);
            }
        }
    }

    /// Writes a list that could be too long for a command line to a file in the workspace. `format` is that of `printf`
    /// for one entry.
    async fn write_list(&self, path: &str, format: &str, entries: &[&str]) -> Result<(), Error> {
        const APPEND_SCRIPT: &str =
            "if [ $# -eq 0 ]; then : >\"$0\"; else f=\"$1\"; shift; printf \"$f\" \"$@\" >>\"$0\"; fi";
        let mut written = self.exec_in_sandbox(&["sh", "-c", APPEND_SCRIPT, path], &[]).await?;
        let mut left = entries;
        while written.exit_code == 0 && !left.is_empty() {
            let mut bytes = 0;
            let fits = left.iter().take_while(|entry| {
                bytes += entry.len() + 1;
                bytes <= MAX_LIST_CHUNK_BYTES
            });
            let (now, later) = left.split_at(fits.count().max(1));
            let command = [&["sh", "-c", APPEND_SCRIPT, path, format], now].concat();
            written = self.exec_in_sandbox(&command, &[]).await?;
            left = later;
        }
        if written.exit_code != 0 {
            let said = lossy_text(&written.stderr.bytes);
            return Err(publish_error(format!(
                "cannot commit the result: cannot write {path} in the sandbox: {said}"
            )));
        }
        Ok(())
    }

    fn prefix(&self) -> String {
        if self.directory.is_empty() { String::new() } else { format!("{}/", self.directory) }
    }

    /// Runs git in the sandbox and returns its output.
    async fn run_git(&self, arguments: &[&str], env: &[(String, String)]) -> Result<String, Error> {
        // The run may have changed the configuration: it must not affect the commit's content or run other programs.
        let mut argv = vec!["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"];
        argv.extend(["-c", "core.splitIndex=false", "-c", "i18n.commitEncoding=UTF-8", "-c", "gc.auto=0"]);
        argv.extend(["-c", "advice.addEmbeddedRepo=false"]);
        argv.extend(arguments);
        let ran = self.exec_in_sandbox(&argv, env).await?;
        Self::check_success(&ran, arguments.iter().find(|a| !a.starts_with('-')).copied().unwrap_or("git"))?;
        Ok(lossy_text(&ran.stdout.bytes))
    }

    fn check_success(ran: &ExecResult, what: &str) -> Result<(), Error> {
        match ran.exit_code {
            0 => Ok(()),
            127 => Err(publish_error(
                "cannot commit the result: git not found in the sandbox; use an image with git".into(),
            )),
            code => {
                let said = lossy_text(&ran.stderr.bytes);
                Err(publish_error(format!(
                    "cannot commit the result: `git {what}` in the sandbox exited with {code}: {said}"
                )))
            }
        }
    }

    async fn exec_in_sandbox(&self, argv: &[&str], env: &[(String, String)]) -> Result<ExecResult, Error> {
        // Overrides the work tree that the configuration may name.
        let here = format!("{}/{}", forge_jail_protocol::WORKSPACE_PATH, self.directory);
        let mut all = BTreeMap::from([("GIT_WORK_TREE".to_owned(), here)]);
        all.extend(env.iter().cloned());
        all.retain(|_, value| !value.is_empty());
        all.insert("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned());
        let spec = ExecSpec {
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            cwd: self.directory.to_owned(),
            env: all,
            timeout: STEP_TIMEOUT,
            keep_bytes: 64 << 10,
            inherited_env: InheritedEnv::All,
            stdin: None,
            background: BackgroundPolicy::Kill,
            also: argv.first().map(|&program| program.to_owned()).into_iter().collect(),
        };
        // Commands that are still running end with the sandbox.
        self.until_stopped(self.sandbox.exec(spec, &())).await
    }

    /// Waits for a request to the sandbox, or until the work is no longer needed.
    async fn until_stopped<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            () = self.work.wait_stopped() => Err(Error::Stopped),
            done = request => done,
        }
    }
}

/// Removes the branch of a run after another repository of the run failed. Returns the reason if it remains.
pub(crate) fn delete_branch(repo: &OpenRepo, branch: &str) -> Option<String> {
    let removed = Repository::find(repo.work_tree()).and_then(|repository| repository.remove_branch(branch));
    let path = repo.record.path.display();
    removed.err().map(|error| format!("{path} has the branch {branch}, which could not be removed: {error}"))
}

/// Removes packs that killed publishing processes left in the repositories of all runs.
pub fn remove_stale_packs(store: &WorkspaceStorage) {
    let runs = std::fs::read_dir(&store.workspaces).into_iter().flatten().flatten();
    let ids = runs.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let metas =
        ids.filter_map(|run| WorkspaceLayout::for_run(&store.workspaces, run).load_meta().ok().flatten());
    let mut seen = BTreeSet::new();
    for repo in metas.flat_map(|meta| open_available_repos(&meta)) {
        if seen.insert((repo.stamp.dev, repo.stamp.ino))
            && let Ok(repository) = Repository::find(repo.work_tree())
        {
            repository.remove_stale_packs();
        }
    }
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn publish_error(why: String) -> Error {
    Error::View { why }
}
