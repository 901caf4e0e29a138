//! A run's result as a commit on a branch of its own.
//!
//! Everything that reads the run's files or its git data happens in the box: configuration, filters and hooks there are
//! the run's, not to be trusted. What comes out is a pack, that is objects and nothing else. The host's git looks at
//! them in a [git directory of Forge's own](forge_git), and Forge gives the repository the pack and one reference.

use super::Store;
use super::place::Place;
use crate::door::blocking;
use crate::wanted::Wanted;
use forge_git::{Heads, Incoming, Private, Repository};
use forge_ports::Workspace;
use forge_ports::sandbox::{Error, ExecResult, ExecSpec, Leftovers};
use forge_ports::views::Published;
use forge_types::RunId;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of a pack that are read at once.
const PIECE: usize = 4 << 20;
/// Longest time of one step in the box.
const LONGEST: Duration = Duration::from_secs(900);
/// Who a commit is by, where the repository does not say.
const NAME: &str = "Forge";
const EMAIL: &str = "forge@localhost";

/// What is to be published, and where.
pub(crate) struct Publish<'a> {
    /// The open box, its workspace in the state to publish.
    pub(crate) room: &'a dyn Workspace,
    /// Ends the commands in the sandbox when nobody waits for the result any more.
    pub(crate) wanted: &'a Wanted,
    /// The repository's folder in the workspace; empty: it is the workspace.
    pub(crate) folder: &'a str,
    /// The repository on the host.
    pub(crate) repo: &'a Path,
    /// The run.
    pub(crate) run: RunId,
    /// The commit's message.
    pub(crate) message: &'a str,
    /// Paths in the repository that stay as they are in its last commit.
    pub(crate) masked: Vec<PathBuf>,
}

impl Publish<'_> {
    /// The branch.
    fn branch(&self) -> String {
        format!("forge/{}", self.run)
    }

    /// Commits in the box, takes the result out and gives the repository its branch. `None`: nothing to commit.
    pub(crate) async fn publish(&self) -> Result<Option<Published>, Error> {
        let repo = self.repo.to_owned();
        let heads = blocking(move || Ok(Repository::find(&repo)?.heads()?)).await?;
        let scratch = format!(".forge-publish-{}", self.run);
        let made = self.commit(&heads, &scratch).await;
        // Whatever happened: nothing of it stays in the workspace.
        let swept = self.exec(&["rm", "-rf", "--", &scratch], &[]).await;
        let Some((commit, pack)) = made? else { return Ok(None) };
        swept?;
        let (repo, branch, wanted) = (self.repo.to_owned(), self.branch(), commit.clone());
        blocking(move || Ok(pack.take_in(&Repository::find(&repo)?, &branch, &wanted, &heads.known)?))
            .await?;
        Ok(Some(Published { branch: self.branch(), commit }))
    }

    /// The commit and a pack of what the repository lacks of it.
    async fn commit(&self, heads: &Heads, scratch: &str) -> Result<Option<(String, Incoming)>, Error> {
        let git_dir = format!("{scratch}/git");
        let format = self.git(&["rev-parse", "--show-object-format"], &[]).await?;
        let objects =
            self.git(&["rev-parse", "--path-format=absolute", "--git-path", "objects"], &[]).await?;
        let format = format!("--object-format={format}");
        let anywhere = [("GIT_WORK_TREE".to_owned(), String::new())];
        self.git(&["init", "--bare", "--quiet", "--template=", &format, &git_dir], &anywhere).await?;
        // By a command: files of git's own are not written for anybody.
        let alternates = format!("{git_dir}/objects/info/alternates");
        let line = ["sh", "-c", "printf '%s\\n' \"$1\" > \"$2\"", "sh", &objects, &alternates];
        if self.exec(&line, &[]).await?.exit_code != 0 {
            return Err(view("the repository's objects can't be named to git".to_owned()));
        }
        for (name, to) in [("index", "index"), ("shallow", "shallow")] {
            let from = self.git(&["rev-parse", "--path-format=absolute", "--git-path", name], &[]).await?;
            // One that is not there is none to copy.
            self.exec(&["cp", "--", &from, &format!("{git_dir}/{to}")], &[]).await?;
        }
        let inside = format!("{}/{}{git_dir}", forge_jail::WORKSPACE, self.prefix());
        let env = [
            ("GIT_OBJECT_DIRECTORY".to_owned(), format!("{inside}/objects")),
            ("GIT_INDEX_FILE".to_owned(), format!("{inside}/index")),
        ];
        let parent = self.exec(&["git", "rev-parse", "--quiet", "--verify", "HEAD^{commit}"], &env).await?;
        let parent = (parent.exit_code == 0).then(|| text(&parent.stdout.bytes));
        let Some(commit) = self.commit_on(parent.as_deref(), scratch, &env).await? else { return Ok(None) };
        if heads.head.as_ref() == Some(&commit) {
            return Ok(None);
        }
        self.pack(&git_dir, &commit, heads).await.map(|pack| Some((commit, pack)))
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
        self.git(&add, env).await?;
        let tree = self.git(&["write-tree", "--missing-ok"], env).await?;
        let before = match parent {
            Some(parent) => Some(self.git(&["rev-parse", &format!("{parent}^{{tree}}")], env).await?),
            None => None,
        };
        if before.as_ref() == Some(&tree) {
            return Ok(parent.map(str::to_owned));
        }
        let mut env = env.to_vec();
        env.extend(self.identity().await?);
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
        self.git(&commit, &env).await.map(Some)
    }

    /// The repository's own user, or Forge.
    async fn identity(&self) -> Result<Vec<(String, String)>, Error> {
        let name = self.exec(&["git", "config", "--get", "user.name"], &[]).await?;
        let email = self.exec(&["git", "config", "--get", "user.email"], &[]).await?;
        let (mut who, mut mail) = (text(&name.stdout.bytes), text(&email.stdout.bytes));
        if name.exit_code != 0 || email.exit_code != 0 || who.is_empty() || mail.is_empty() {
            (who, mail) = (NAME.to_owned(), EMAIL.to_owned());
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
    async fn pack(&self, git_dir: &str, commit: &str, heads: &Heads) -> Result<Incoming, Error> {
        // Whole objects: nothing of the repository is needed to read them.
        const PACK: &str = "git --git-dir=\"$0\" rev-list --objects --ignore-missing \"$@\" >\"$0/list\" && \
                            git --git-dir=\"$0\" pack-objects -q --stdout <\"$0/list\" >\"$0/result\"";
        let mut argv = vec!["sh", "-c", PACK, git_dir, commit];
        if !heads.known.is_empty() {
            argv.push("--not");
            argv.extend(heads.known.iter().map(String::as_str));
        }
        let packed = self.exec(&argv, &[]).await?;
        Self::succeeded(&packed, "pack-objects")?;
        let repo = self.repo.to_owned();
        let mut pack = blocking(move || Ok(Private::new(&Repository::find(&repo)?)?.incoming()?)).await?;
        let path = format!("{}{git_dir}/result", self.prefix());
        let mut at = 0;
        loop {
            let chunk = self.room.read(&path, at, PIECE).await?;
            at += chunk.bytes.len() as u64;
            let more = !chunk.bytes.is_empty();
            pack = blocking(move || Ok(pack.append(&chunk.bytes)?)).await?;
            if !more {
                return Ok(pack);
            }
        }
    }

    fn prefix(&self) -> String {
        if self.folder.is_empty() { String::new() } else { format!("{}/", self.folder) }
    }

    /// Runs git in the box and gives what it printed.
    async fn git(&self, arguments: &[&str], env: &[(String, String)]) -> Result<String, Error> {
        // What the run may have put into the configuration must not change what a commit holds, nor run anything more.
        let mut argv = vec!["git", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"];
        argv.extend(["-c", "core.splitIndex=false", "-c", "i18n.commitEncoding=UTF-8", "-c", "gc.auto=0"]);
        argv.extend(["-c", "advice.addEmbeddedRepo=false"]);
        argv.extend(arguments);
        let ran = self.exec(&argv, env).await?;
        Self::succeeded(&ran, arguments.iter().find(|a| !a.starts_with('-')).copied().unwrap_or("git"))?;
        Ok(text(&ran.stdout.bytes))
    }

    fn succeeded(ran: &ExecResult, what: &str) -> Result<(), Error> {
        match ran.exit_code {
            0 => Ok(()),
            127 => Err(view(
                "the result can't be committed: there is no git in the sandbox; use an image with git".into(),
            )),
            code => {
                let said = text(&ran.stderr.bytes);
                Err(view(format!(
                    "the result can't be committed: `git {what}` in the sandbox ended with {code}: {said}"
                )))
            }
        }
    }

    async fn exec(&self, argv: &[&str], env: &[(String, String)]) -> Result<ExecResult, Error> {
        // Whatever the configuration says of where the files are.
        let here = format!("{}/{}", forge_jail::WORKSPACE, self.folder);
        let mut all = BTreeMap::from([("GIT_WORK_TREE".to_owned(), here)]);
        all.extend(env.iter().cloned());
        all.retain(|_, value| !value.is_empty());
        all.insert("GIT_TERMINAL_PROMPT".to_owned(), "0".to_owned());
        let spec = ExecSpec {
            argv: argv.iter().map(|&a| a.to_owned()).collect(),
            cwd: self.folder.to_owned(),
            env: all,
            timeout: LONGEST,
            keep_bytes: 64 << 10,
            leftovers: Leftovers::Kill,
            also: argv.first().map(|&program| program.to_owned()).into_iter().collect(),
        };
        tokio::select! {
            ran = self.room.exec(spec, &()) => ran,
            // What still runs ends with the sandbox.
            () = self.wanted.stopped() => Err(Error::Stopped),
        }
    }
}

/// Takes the branch of a run away again.
pub(crate) fn unpublish(repo: &Path, branch: &str) {
    // Only after another repository of the same run failed; what is left then is a branch that nobody was told of.
    let _ = Repository::find(repo).and_then(|repository| repository.remove_branch(branch));
}

/// Removes from the repositories of all runs what publishing a branch left there when it was killed.
pub(crate) fn remove_stale_packs(store: &Store) {
    let runs = std::fs::read_dir(&store.views).into_iter().flatten().flatten();
    let ids = runs.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let metas = ids.filter_map(|run| Place::of(&store.views, run).load().ok().flatten());
    let repos: BTreeSet<PathBuf> = metas.flat_map(|meta| meta.repos).map(|repo| repo.path).collect();
    for repository in repos.iter().filter_map(|repo| Repository::find(repo).ok()) {
        repository.remove_stale_packs();
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn view(why: String) -> Error {
    Error::View { why }
}
