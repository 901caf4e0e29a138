//! A run's result as a commit on a branch of its own.
//!
//! Everything that reads the run's files or its git data happens in the box: configuration, filters and hooks there are
//! the run's, not to be trusted. What comes out is a pack, that is objects and nothing else. The host's git looks at
//! them in a [git directory of Forge's own](forge_git), and Forge gives the repository the pack and one reference.

use super::WorkspaceStorage;
use super::layout::WorkspaceLayout;
use crate::active_work::ActiveWork;
use crate::blocking::run_blocking;
use forge_git::{IncomingPack, Repository, RepositoryHeads, ScratchRepository};
use forge_ports::Workspace;
use forge_ports::sandbox::{BackgroundPolicy, Error, ExecResult, ExecSpec};
use forge_ports::workspace_store::PublishedBranch;
use forge_types::RunId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a pack that are read at once.
const READ_CHUNK_BYTES: usize = 4 << 20;
/// Longest time of one step in the box.
const STEP_TIMEOUT: Duration = Duration::from_secs(900);
/// Who a commit is by, where the repository does not say.
const DEFAULT_AUTHOR_NAME: &str = "Forge";
const DEFAULT_AUTHOR_EMAIL: &str = "forge@localhost";

/// What is to be published, and where.
pub(crate) struct BranchPublisher<'a> {
    /// The open box, its workspace in the state to publish.
    pub sandbox: &'a dyn Workspace,
    /// Ends the commands in the sandbox when nobody waits for the result any more.
    pub work: &'a ActiveWork,
    /// The repository's folder in the workspace; empty: it is the workspace.
    pub directory: &'a str,
    /// The repository on the host.
    pub repo: &'a Path,
    /// The run.
    pub run: RunId,
    /// The commit's message.
    pub message: &'a str,
    /// Paths in the repository that stay as they are in its last commit.
    pub masked: Vec<PathBuf>,
}

impl BranchPublisher<'_> {
    /// The branch.
    fn branch_name(&self) -> String {
        format!("forge/{}", self.run)
    }

    /// Commits in the box, takes the result out and gives the repository its branch. `None`: nothing to commit.
    pub(crate) async fn publish(&self) -> Result<Option<PublishedBranch>, Error> {
        let repo = self.repo.to_owned();
        let heads = run_blocking(move || Ok(Repository::find(&repo)?.read_heads()?)).await?;
        let scratch = format!(".forge-publish-{}", self.run);
        let made = self.commit_and_pack(&heads, &scratch).await;
        // Whatever happened: nothing of it stays in the workspace.
        let swept = self.exec_in_sandbox(&["rm", "-rf", "--", &scratch], &[]).await;
        let Some((commit, pack)) = made? else { return Ok(None) };
        swept?;
        let (repo, branch, wanted) = (self.repo.to_owned(), self.branch_name(), commit.clone());
        run_blocking(move || {
            Ok(pack.import_into(&Repository::find(&repo)?, &branch, &wanted, &heads.known)?)
        })
        .await?;
        Ok(Some(PublishedBranch { branch: self.branch_name(), commit }))
    }

    /// The commit and a pack of what the repository lacks of it.
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
        // By a command: files of git's own are not written for anybody.
        let alternates = format!("{git_dir}/objects/info/alternates");
        let line = ["sh", "-c", "printf '%s\\n' \"$1\" > \"$2\"", "sh", &objects, &alternates];
        if self.exec_in_sandbox(&line, &[]).await?.exit_code != 0 {
            return Err(publish_error("the repository's objects can't be named to git".to_owned()));
        }
        for (name, to) in [("index", "index"), ("shallow", "shallow")] {
            let from =
                self.run_git(&["rev-parse", "--path-format=absolute", "--git-path", name], &[]).await?;
            // One that is not there is none to copy.
            self.exec_in_sandbox(&["cp", "--", &from, &format!("{git_dir}/{to}")], &[]).await?;
        }
        let inside = format!("{}/{}{git_dir}", forge_jail::WORKSPACE_PATH, self.prefix());
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

    /// Everything that is not ignored as a commit on top of `parent`; the parent itself if nothing differs from it.
    async fn commit_on(
        &self,
        parent: Option<&str>,
        scratch: &str,
        env: &[(String, String)],
    ) -> Result<Option<String>, Error> {
        let mut add = vec!["add".to_owned(), "--all".to_owned(), "--".to_owned(), ":/".to_owned()];
        add.push(format!(":(exclude,top,literal){scratch}"));
        for masked in &self.masked {
            add.push(format!(":(exclude,top,literal){}", masked.display()));
        }
        let add: Vec<&str> = add.iter().map(String::as_str).collect();
        self.run_git(&add, env).await?;
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

    /// The repository's own user, or Forge.
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

    /// The commit and all of it that the repository lacks, in a file of the host.
    async fn pack_commit(
        &self,
        git_dir: &str,
        commit: &str,
        heads: &RepositoryHeads,
    ) -> Result<IncomingPack, Error> {
        // Whole objects: nothing of the repository is needed to read them.
        const PACK_SCRIPT: &str = "git --git-dir=\"$0\" rev-list --objects --ignore-missing \"$@\" >\"$0/list\" && \
                            git --git-dir=\"$0\" pack-objects -q --stdout <\"$0/list\" >\"$0/result\"";
        let mut argv = vec!["sh", "-c", PACK_SCRIPT, git_dir, commit];
        if !heads.known.is_empty() {
            argv.push("--not");
            argv.extend(heads.known.iter().map(String::as_str));
        }
        let packed = self.exec_in_sandbox(&argv, &[]).await?;
        Self::check_success(&packed, "pack-objects")?;
        let repo = self.repo.to_owned();
        let mut pack =
            run_blocking(move || Ok(ScratchRepository::new(&Repository::find(&repo)?)?.create_incoming()?))
                .await?;
        let path = format!("{}{git_dir}/result", self.prefix());
        let mut at = 0;
        loop {
            let chunk = self.sandbox.read_file(&path, at, READ_CHUNK_BYTES).await?;
            at += chunk.bytes.len() as u64;
            let more = !chunk.bytes.is_empty();
            pack = run_blocking(move || Ok(pack.append(&chunk.bytes)?)).await?;
            if !more {
                return Ok(pack);
            }
        }
    }

    fn prefix(&self) -> String {
        if self.directory.is_empty() { String::new() } else { format!("{}/", self.directory) }
    }

    /// Runs git in the box and gives what it printed.
    async fn run_git(&self, arguments: &[&str], env: &[(String, String)]) -> Result<String, Error> {
        // What the run may have put into the configuration must not change what a commit holds, nor run anything more.
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
                "the result can't be committed: there is no git in the sandbox; use an image with git".into(),
            )),
            code => {
                let said = lossy_text(&ran.stderr.bytes);
                Err(publish_error(format!(
                    "the result can't be committed: `git {what}` in the sandbox ended with {code}: {said}"
                )))
            }
        }
    }

    async fn exec_in_sandbox(&self, argv: &[&str], env: &[(String, String)]) -> Result<ExecResult, Error> {
        // Whatever the configuration says of where the files are.
        let here = format!("{}/{}", forge_jail::WORKSPACE_PATH, self.directory);
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
            background: BackgroundPolicy::Kill,
            also: argv.first().map(|&program| program.to_owned()).into_iter().collect(),
        };
        tokio::select! {
            ran = self.sandbox.exec(spec, &()) => ran,
            // What still runs ends with the sandbox.
            () = self.work.wait_stopped() => Err(Error::Stopped),
        }
    }
}

/// Takes the branch of a run away again.
pub(crate) fn delete_branch(repo: &Path, branch: &str) {
    // Only after another repository of the same run failed; what is left then is a branch that nobody was told of.
    let _ = Repository::find(repo).and_then(|repository| repository.remove_branch(branch));
}

/// Removes from the repositories of all runs what publishing a branch left there when it was killed.
pub fn remove_stale_packs(store: &WorkspaceStorage) {
    let runs = std::fs::read_dir(&store.workspaces).into_iter().flatten().flatten();
    let ids = runs.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let metas =
        ids.filter_map(|run| WorkspaceLayout::for_run(&store.workspaces, run).load_meta().ok().flatten());
    let repos: BTreeSet<PathBuf> = metas.flat_map(|meta| meta.repos).map(|repo| repo.path).collect();
    for repository in repos.iter().filter_map(|repo| Repository::find(repo).ok()) {
        repository.remove_stale_packs();
    }
}

fn lossy_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn publish_error(why: String) -> Error {
    Error::View { why }
}
