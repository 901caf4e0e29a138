//! A user's world for one test: own folders, own repository, nothing of the real environment but `PATH`.

use forge_testkit::model_server::{ModelServer, VendorFormat};
use serde_json::Value;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;
use tempfile::TempDir;

/// No command of a test takes longer; one that does hangs.
const LONGEST: Duration = Duration::from_secs(90);

/// Folders of a user, and a repository.
pub(crate) struct World {
    folder: TempDir,
    variables: Vec<(String, String)>,
    /// The user and group that commands run as, if not the test's own.
    user: Option<u32>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("forge-e2e-").tempdir().expect("a temporary folder");
        for name in ["data", "config", "home", "repo"] {
            std::fs::create_dir(folder.path().join(name)).expect("an empty folder");
        }
        let data = folder.path().join("data/forge");
        copy_verdicts(&verdicts(None), &data.join("verdicts"));
        if data.exists() {
            std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("the owner may");
        }
        Self { folder, variables: Vec::new(), user: None }
    }

    /// A world of a user who is not root; `None`, and a line in the log of skipped tests, if there can be none.
    pub(crate) fn of_an_ordinary_user(what: &str) -> Option<Self> {
        Self::of_user(NOBODY, what)
    }

    /// The same of this user, if this is root.
    pub(crate) fn of_user(user: u32, what: &str) -> Option<Self> {
        let mut world = Self::new();
        if !rustix::process::geteuid().is_root() {
            return Some(world);
        }
        let reachable = Path::new(env!("CARGO_BIN_EXE_forge"))
            .ancestors()
            .skip(1)
            .all(|folder| folder.metadata().is_ok_and(|meta| meta.permissions().mode() & 0o001 != 0));
        if !reachable {
            skip(what, "the program lies where only root can start it");
            return None;
        }
        // Verdicts of root are none of this user's.
        let _ = std::fs::remove_dir_all(world.path("data").join("forge"));
        for path in [".", "data", "config", "home", "repo"] {
            std::os::unix::fs::chown(world.path(path), Some(user), Some(user)).expect("root may");
        }
        world.user = Some(user);
        let data = world.path("data").join("forge");
        copy_verdicts(&verdicts(world.user), &data.join("verdicts"));
        if data.exists() {
            std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("root may");
            world.give_to_user(&data);
        }
        Some(world)
    }

    /// Sets a variable for all commands of this world.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Points the provider of this shape at `server`; gives the flags that choose it.
    pub(crate) fn uses(&mut self, server: &ModelServer, shape: VendorFormat) -> Vec<&'static str> {
        let (provider, prefix, key) = match shape {
            VendorFormat::OpenAi | VendorFormat::Responses => ("openai", "OPENAI", true),
            VendorFormat::Anthropic => ("anthropic", "ANTHROPIC", true),
            VendorFormat::Gemini => ("gemini", "GEMINI", true),
            VendorFormat::Ollama | VendorFormat::Generate => ("ollama", "OLLAMA", false),
            VendorFormat::Completion => ("llama_cpp", "FORGE_PROVIDERS_LLAMA_CPP", false),
        };
        self.set(&format!("{prefix}_BASE_URL"), &server.base_url(shape));
        if key {
            self.set(&format!("{prefix}_API_KEY"), KEY);
        }
        vec!["--provider", provider, "--model", "tiny"]
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a folder beside the repository that belongs to the user.
    pub(crate) fn make_folder(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir(&path).expect("an empty place");
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&path, Some(user), Some(user)).expect("root may");
        }
        path
    }

    /// Gives everything below a path to the user whom commands run as, also what lies deeper than paths are long.
    #[allow(clippy::disallowed_methods, reason = "the test makes the user's files")]
    pub(crate) fn give_to_user(&self, path: &Path) {
        if let Some(user) = self.user {
            // What changes while it is given stays whose it is.
            let _ = Command::new("chown").args(["-hR", &format!("{user}:{user}")]).arg(path).output();
        }
    }

    pub(crate) fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// Writes a file of the repository.
    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.repo().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a writable folder");
        std::fs::write(path, text).expect("a writable file");
        self
    }

    /// Runs git in the repository as its user, who is `t`; gives what it says.
    #[allow(clippy::disallowed_methods, reason = "the test is the user, who uses git")]
    pub(crate) fn git(&self, words: &[&str]) -> String {
        let mut git = Command::new("git");
        git.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]).args(words);
        git.current_dir(self.repo()).env("HOME", self.path("home")).env("GIT_CONFIG_NOSYSTEM", "1");
        if let Some(user) = self.user {
            git.uid(user).gid(user);
        }
        let output = git.output().expect("git is there");
        assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Reads a file of the repository.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.repo().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Waits until a file of this name lies in the view that a run has of the repository.
    pub(crate) fn wait_for_file(&self, run: &str, name: &str) {
        let view = self.path("data").join("forge/runs").join(run).join("view");
        until(name, || holds(&view, name).then_some(()));
    }

    /// Copies a folder of the repository's fixtures into the repository, over what is there.
    pub(crate) fn copy_fixture(&self, name: &str) {
        copy(&fixture(name), &self.repo());
    }

    #[allow(clippy::disallowed_methods, reason = "the test is the user, who starts the program")]
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forge"));
        command.args(words).current_dir(self.repo()).env_clear();
        for (name, value) in [("PATH", std::env::var("PATH").unwrap_or_default()), ("LANG", "C.UTF-8".into())]
        {
            command.env(name, value);
        }
        command
            .env("HOME", self.path("home"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("FORGE_MODEL_RETRY_BASE_MS", "20");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command
    }

    /// Starts a command and leaves it running.
    pub(crate) fn start(&self, words: &[&str]) -> Running {
        Running::start(self.command(words), words)
    }

    /// The same with further variables.
    pub(crate) fn start_with(&self, words: &[&str], variables: &[(&str, &str)]) -> Running {
        let mut command = self.command(words);
        command.envs(variables.iter().copied());
        Running::start(command, words)
    }

    /// Runs a command to its end.
    pub(crate) fn forge(&self, words: &[&str]) -> Done {
        self.start(words).wait()
    }

    /// Runs a task with these flags.
    pub(crate) fn run(&self, flags: &[&str], task: &str) -> Done {
        self.forge(&[&["run", task][..], flags].concat())
    }

    /// The runs there are, newest first.
    pub(crate) fn runs(&self) -> Vec<Value> {
        let list = self.forge(&["list", "--json", "--limit", "0"]).exits(0).json();
        list.as_array().expect("a list").clone()
    }

    /// The id of the only run.
    pub(crate) fn only_run(&self) -> String {
        let runs = self.runs();
        assert_eq!(runs.len(), 1, "{runs:#?}");
        runs[0]["run_id"].as_str().expect("an id").to_owned()
    }

    /// The id of the oldest run.
    pub(crate) fn oldest_run(&self) -> String {
        let runs = self.runs();
        runs.last().and_then(|run| run["run_id"].as_str()).expect("a run").to_owned()
    }

    /// The events of a run.
    pub(crate) fn events(&self, run: &str) -> Vec<Value> {
        let logs = self.forge(&["logs", run, "--json"]).exits(0);
        logs.out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    /// What tools were run, each as `tool:ok`, in the order in which they ended.
    pub(crate) fn tools(&self, run: &str) -> Vec<String> {
        let events = self.events(run);
        let done = events.iter().filter(|event| event["kind"] == "tool.completed");
        done.map(|e| format!("{}:{}", e["data"]["tool"].as_str().unwrap_or("?"), e["data"]["ok"])).collect()
    }
}

/// A world leaves what was found about its boxes to those of the same user that come after it: the same program on the
/// same machine need not try everything anew in each test. What is not for them is not found by them.
impl Drop for World {
    fn drop(&mut self) {
        copy_verdicts(&self.path("data").join("forge/verdicts"), &verdicts(self.user));
    }
}

/// Where verdicts on boxes of a user lie between tests.
fn verdicts(user: Option<u32>) -> PathBuf {
    let name = user.map_or_else(|| "verdicts".to_owned(), |user| format!("verdicts-{user}"));
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Copies verdicts that are not there yet, each whole.
fn copy_verdicts(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        if target.exists() {
            continue;
        }
        std::fs::create_dir_all(to).expect("a folder for verdicts");
        let draft = target.with_extension(format!("{}.draft", std::process::id()));
        // Another test may take the same one away or put it there.
        let _ = std::fs::copy(entry.path(), &draft).and_then(|_| std::fs::rename(&draft, &target));
    }
}

/// The user of nobody's files.
const NOBODY: u32 = 65_534;

/// Says loudly, and in the log of skipped tests, what is not tested here.
#[allow(clippy::disallowed_methods, clippy::print_stderr, reason = "a skipped test says so loudly")]
pub(crate) fn skip(what: &str, why: &str) {
    let line = format!("skipped: {what}: {why}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("TEST_SKIP_LOG") {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(path);
        // Only a convenience of the runner's last lines.
        let _ = log.and_then(|mut log| log.write_all(line.as_bytes()));
    }
}

/// The key that tests use; it must never be seen in any output.
pub(crate) const KEY: &str = "sk-test-0123456789abcdef";

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a writable folder");
    for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// Whether a file of this name lies anywhere below a folder.
fn holds(folder: &Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        path.file_name().is_some_and(|found| found == name)
            || (!path.is_symlink() && path.is_dir() && holds(&path, name))
    })
}

/// A command at work.
pub(crate) struct Running {
    pub(crate) id: u32,
    words: String,
    done: Receiver<Done>,
}

impl Running {
    fn start(mut command: Command, words: &[&str]) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (sender, done) = channel();
        let words: Vec<_> = words.iter().map(|word| word.chars().take(60).collect::<String>()).collect();
        let words = words.join(" ");
        let (id, shown) = (child.id(), words.clone());
        std::thread::spawn(move || {
            // The test may have given up already.
            let _ = sender.send(Done::of(child, shown));
        });
        Self { id, words, done }
    }

    /// Waits for the end.
    pub(crate) fn wait(self) -> Done {
        match self.done.recv_timeout(LONGEST) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout) => {
                self.signal(rustix::process::Signal::KILL);
                let done = self.done.recv_timeout(LONGEST).expect("a killed process ends");
                panic!("forge {} hangs; so far: {done:#?}", self.words);
            }
            Err(RecvTimeoutError::Disconnected) => panic!("the output of forge {} is lost", self.words),
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.id).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
        // It may have ended by itself; the test looks at how.
        let _ = rustix::process::kill_process(id, signal);
    }
}

/// A command that ended.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    words: String,
    /// `None`: a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    fn of(child: Child, words: String) -> Self {
        let output = child.wait_with_output().expect("its output");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { words, code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Insists on the exit code, and that no key is shown.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "forge {}\n{}\n{}", self.words, self.out, self.err);
        assert!(!self.out.contains(KEY) && !self.err.contains(KEY), "forge {} shows a key", self.words);
        self
    }

    /// Insists that stderr says each of these.
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "forge {}: no `{part}` in\n{}", self.words, self.err);
        }
        self
    }

    /// Insists that stdout shows each of these.
    pub(crate) fn shows(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.out.contains(part), "forge {}: no `{part}` in\n{}", self.words, self.out);
        }
        self
    }

    /// All of stdout as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("forge {}: {error} in\n{}", self.words, self.out))
    }
}

/// Waits until `ready` gives something; asks again and again, since what it looks at has no bell to ring.
pub(crate) fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + LONGEST;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(std::time::Instant::now() < end, "{what} did not come about");
        std::thread::yield_now();
    }
}
