//! A run's result as a commit on a branch of its own.
//!
//! Everything that reads the run's files or its git data happens in the box: configuration, filters and hooks there are
//! the run's, not to be trusted. What comes out is a bundle, that is one ref and objects. The host's git takes it with
//! its own eyes closed to everything but that: no hooks, no configuration but the repository's, nothing else written.

use super::git::{host_git, owner};
use crate::door::blocking;
use crate::leftovers;
use forge_ports::Workspace;
use forge_ports::sandbox::{Error, ExecResult, ExecSpec, Leftovers};
use forge_ports::views::Published;
use forge_types::RunId;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A repository with more branches than this is told of the first so many: the bundle is larger than it has to be then.
const MOST_HEADS: usize = 400;
/// Bytes of a bundle that are read at once.
const PIECE: usize = 4 << 20;
/// Longest time of one step in the box.
const LONGEST: Duration = Duration::from_secs(1800);
/// Who a commit is by, where the repository does not say.
const NAME: &str = "Forge";
const EMAIL: &str = "forge@localhost";

/// What is to be published, and where.
pub(crate) struct Publish<'a> {
    /// The open box, its workspace in the state to publish.
    pub(crate) room: &'a dyn Workspace,
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

/// What a repository of the host is at before anything is added.
#[derive(Debug)]
pub(crate) struct Heads {
    /// The commit that is checked out; `None`: there is none yet.
    head: Option<String>,
    /// Commits that it has for sure.
    known: Vec<String>,
}

impl Publish<'_> {
    /// The branch.
    fn branch(&self) -> String {
        format!("forge/{}", self.run)
    }

    /// Commits in the box, takes the result out and gives the repository its branch. `None`: nothing to commit.
    pub(crate) async fn publish(&self) -> Result<Option<Published>, Error> {
        let repo = self.repo.to_owned();
        let heads = blocking(move || look(&repo)).await?;
        let scratch = format!(".forge-publish-{}", self.run);
        let made = self.commit(&heads, &scratch).await;
        // Whatever happened: nothing of it stays in the workspace.
        let swept = self.exec(&["rm", "-rf", "--", &scratch], &[]).await;
        let Some((commit, bundle)) = made? else { return Ok(None) };
        swept?;
        let (repo, branch, wanted) = (self.repo.to_owned(), self.branch(), commit.clone());
        blocking(move || fetch(&repo, &bundle, &branch, &wanted)).await?;
        Ok(Some(Published { branch: self.branch(), commit }))
    }

    /// The commit and a bundle of what the repository lacks of it.
    async fn commit(&self, heads: &Heads, scratch: &str) -> Result<Option<(String, Bundle)>, Error> {
        let git_dir = format!("{scratch}/git");
        let format = self.git(&["rev-parse", "--show-object-format"], &[]).await?;
        let objects =
            self.git(&["rev-parse", "--path-format=absolute", "--git-path", "objects"], &[]).await?;
        let format = format!("--object-format={format}");
        self.git(&["init", "--bare", "--quiet", "--template=", &format, &git_dir], &[]).await?;
        let place = |path: &str| format!("{}{git_dir}/{path}", self.prefix());
        self.room.write(&place("objects/info/alternates"), format!("{objects}\n").as_bytes()).await?;
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
        self.bundle(&git_dir, &commit, heads).await.map(|bundle| Some((commit, bundle)))
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

    /// The branch and all of it that the repository lacks, in a file of the host.
    async fn bundle(&self, git_dir: &str, commit: &str, heads: &Heads) -> Result<Bundle, Error> {
        let (at, name) = (format!("--git-dir={git_dir}"), format!("refs/heads/{}", self.branch()));
        self.git(&[&at, "update-ref", &name, commit], &[]).await?;
        let file = format!("{git_dir}/bundle");
        let mut create = vec![&at, "bundle", "create", "--quiet", &file, "--ignore-missing", &name];
        let known: Vec<&str> = heads.known.iter().map(String::as_str).collect();
        if !known.is_empty() {
            create.push("--not");
            create.extend(known);
        }
        self.git(&create, &[]).await?;
        let owner = owner(self.repo)?;
        let mut bundle = blocking(move || Bundle::new(owner)).await?;
        let path = format!("{}{file}", self.prefix());
        let mut at = 0;
        loop {
            let chunk = self.room.read(&path, at, PIECE).await?;
            at += chunk.bytes.len() as u64;
            let more = !chunk.bytes.is_empty();
            bundle = blocking(move || bundle.add(&chunk.bytes)).await?;
            if !more {
                return Ok(bundle);
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
        match ran.exit_code {
            0 => Ok(text(&ran.stdout.bytes)),
            127 => Err(view(
                "the result can't be committed: there is no git in the sandbox; use an image with git".into(),
            )),
            code => {
                let what = arguments.iter().find(|a| !a.starts_with('-')).copied().unwrap_or("git");
                let said = text(&ran.stderr.bytes);
                Err(view(format!(
                    "the result can't be committed: `git {what}` in the sandbox ended with {code}: {said}"
                )))
            }
        }
    }

    async fn exec(&self, argv: &[&str], env: &[(String, String)]) -> Result<ExecResult, Error> {
        let mut all: BTreeMap<String, String> = env.iter().cloned().collect();
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
        self.room.exec(spec, &()).await
    }
}

/// A file with a bundle that the repository's owner can read; removed when dropped.
struct Bundle {
    path: PathBuf,
    file: File,
}

impl Bundle {
    fn new(owner: (u32, u32)) -> Result<Self, Error> {
        let path = std::env::temp_dir().join(forge_jail::own_name(leftovers::BUNDLE));
        let failed = |error: std::io::Error| {
            view(format!("the result can't be taken out: {}: {error}", path.display()))
        };
        let file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
        let bundle = Self { path, file };
        if rustix::process::geteuid().is_root() {
            let give = std::os::unix::fs::fchown(&bundle.file, Some(owner.0), Some(owner.1));
            give.map_err(|error| view(format!("the result can't be taken out: {error}")))?;
        }
        Ok(bundle)
    }

    fn add(mut self, bytes: &[u8]) -> Result<Self, Error> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| {
            view(format!("the result can't be taken out: {}: {error}", self.path.display()))
        })?;
        Ok(self)
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Looks at the repository of the host.
pub(crate) fn look(repo: &Path) -> Result<Heads, Error> {
    if fs::symlink_metadata(repo.join(".git")).is_err() {
        return Err(view(format!(
            "{} is not a git repository, so there is no branch to put the result on; use `--workspace transaction`",
            repo.display()
        )));
    }
    let head = host_git(repo, &["rev-parse", "--quiet", "--verify", "HEAD^{commit}"])?;
    let head = head.status.success().then(|| text(&head.stdout));
    let refs = host_git(repo, &["for-each-ref", "--format=%(objectname)", "refs/heads", "refs/remotes"])?;
    if !refs.status.success() {
        let said = text(&refs.stderr);
        return Err(view(format!("git can't read the repository {}: {said}", repo.display())));
    }
    let refs = text(&refs.stdout);
    let known = head.iter().cloned().chain(refs.lines().map(str::to_owned)).take(MOST_HEADS).collect();
    Ok(Heads { head, known })
}

/// Gives the repository the branch of a bundle, with its objects and nothing else.
fn fetch(repo: &Path, bundle: &Bundle, branch: &str, commit: &str) -> Result<(), Error> {
    let path = bundle.path.display().to_string();
    let refs = format!("+refs/heads/{branch}:refs/heads/{branch}");
    let fetch = [
        "fetch",
        "--quiet",
        "--no-tags",
        "--no-write-fetch-head",
        "--no-auto-maintenance",
        "--no-write-commit-graph",
        "--no-recurse-submodules",
        "--no-prune",
        "--no-prune-tags",
        "--",
        &path,
        &refs,
    ];
    let done = host_git(repo, &fetch)?;
    let there = host_git(repo, &["rev-parse", "--quiet", "--verify", &format!("refs/heads/{branch}")])?;
    if done.status.success() && text(&there.stdout) == commit {
        return Ok(());
    }
    let said = text(&done.stderr);
    Err(view(format!("the repository {} did not take the branch {branch}: {said}", repo.display())))
}

/// Takes the branch of a run away again.
pub(crate) fn unpublish(repo: &Path, branch: &str) {
    // Only after another repository of the same run failed; what is left then is a branch that nobody was told of.
    let _ = host_git(repo, &["update-ref", "-d", &format!("refs/heads/{branch}")]);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn view(why: String) -> Error {
    Error::View { why }
}
