//! A run of eight steps that can be held, watched, killed and resumed at any position, and what must be true of it
//! afterwards. The matrix of positions is in `kills`.

use crate::containers;
use crate::harness::{World, until};
use forge_testkit::model_server::{
    Gate, MockReply, ModelServer, ReplyScript, SeenModelCall, SeenRole, VendorFormat,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Files and folders by path, with mode and content.
type Tree = BTreeMap<String, (u32, String)>;

/// What a run leaves that nobody disturbs; every other one must leave the same.
static UNDISTURBED: OnceLock<Tree> = OnceLock::new();

const LONG: Duration = Duration::from_secs(60);

/// Seconds for which a command stands still, by which its processes are known too.
const SLEEP: &str = "987652";

/// A folder that holds commands where the repository does not reach the box.
const HOLDS: &str = "holds";

/// A step that the model wants done, and how it finds out whether it was.
pub(crate) struct Step {
    pub(crate) tool: &'static str,
    arguments: fn(turn: usize) -> Value,
    /// The file that shows whether the step took effect, and what it holds then.
    check: &'static str,
    done: &'static str,
}

/// Read, write, append, look, edit, append, count, commit. A command first notes the turn that asked for it.
pub(crate) const STEPS: [Step; 8] = [
    Step {
        tool: "read_file",
        arguments: |_| json!({"path": "notes.md"}),
        check: "notes.md",
        done: "six steps",
    },
    Step {
        tool: "write_file",
        arguments: |_| json!({"path": "a.txt", "content": "alpha\n"}),
        check: "a.txt",
        done: "alpha",
    },
    Step {
        tool: "run_shell",
        arguments: |turn| command(2, turn, "echo first-line >> log.txt"),
        check: "log.txt",
        done: "first-line",
    },
    // To look once more does no harm, so this one counts as done once it was tried.
    Step {
        tool: "run_shell",
        arguments: |turn| command(3, turn, "cat log.txt"),
        check: "log.txt",
        done: "first-line",
    },
    Step {
        tool: "edit_file",
        arguments: |_| json!({"path": "a.txt", "old_text": "alpha", "new_text": "beta"}),
        check: "a.txt",
        done: "beta",
    },
    Step { tool: "run_shell", arguments: |turn| half_way(5, turn), check: "log.txt", done: "second-line" },
    Step {
        tool: "run_shell",
        arguments: |turn| command(6, turn, "n=$(cat count || echo 0); echo $((n + 1)) > count"),
        check: "count",
        done: "1",
    },
    Step {
        tool: "run_shell",
        arguments: |turn| {
            let commit = "git add -A && git -c user.name=t -c user.email=t@t commit -qm step";
            let told =
                "git rev-list --count HEAD; git log --format='%s %T'; git status --short; git fsck --strict";
            command(7, turn, &format!("{commit} && {{ {told}; }} > commits"))
        },
        check: "commits",
        done: "2",
    },
];

/// Answers of the model in an undisturbed run.
pub(crate) const TURNS: usize = STEPS.len() + 1;

fn command(step: usize, turn: usize, effect: &str) -> Value {
    let (before, after) = (Hold::Before.here(step), Hold::After.here(step));
    json!({"command": format!("echo {turn} >> ran.txt; {before}; {effect}; {after}")})
}

/// Writes a line in two halves, and leaves a process that has a session of its own.
fn half_way(step: usize, turn: usize) -> Value {
    let daemon = format!("(setsid sleep {SLEEP} > /dev/null 2>&1 &)");
    let effect =
        format!("{daemon}; printf second- >> log.txt; {}; echo line >> log.txt", Hold::Middle.here(step));
    let Value::Object(mut arguments) = command(step, turn, &effect) else { return Value::Null };
    arguments.insert("keep_background".to_owned(), true.into());
    Value::Object(arguments)
}

/// Where a command stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Before,
    /// Half of the output is written.
    Middle,
    After,
}

impl Hold {
    /// The command that stands still if it is told to, with something beside it that is in nobody's session.
    fn here(self, step: usize) -> String {
        let still =
            format!("(setsid sleep {SLEEP} &); echo half > begun; mkdir -p left/{step}; sleep {SLEEP}");
        let file = self.file(step);
        format!("test ! -e {file} -a ! -e {HOLDS}/{file} || {{ {still}; }}")
    }

    fn file(self, step: usize) -> String {
        format!("hold-{step}-{self:?}").to_lowercase()
    }
}

/// What the model says next: the step that is due, or after an interruption a look whether it is done already.
fn answer(call: &SeenModelCall) -> MockReply {
    let (mut at, mut unsure) = (0, false);
    for result in call.messages.iter().filter(|message| message.role == SeenRole::Tool) {
        if result.answers.starts_with("check") {
            unsure = false;
            at += usize::from(result.text.contains(STEPS[at].done));
        } else if result.text.contains("interrupted") {
            unsure = true;
        } else {
            at += 1;
        }
    }
    let turn = call.turn_index();
    match STEPS.get(at) {
        None => MockReply::text("All done."),
        Some(step) if unsure => {
            MockReply::default().and_call(format!("check{turn}"), "read_file", json!({"path": step.check}))
        }
        Some(step) => {
            MockReply::text("I go on. ").and_call(format!("step{turn}"), step.tool, (step.arguments)(turn))
        }
    }
}

/// Whether a file of this name lies anywhere below a folder.
fn holds(folder: &std::path::Path, name: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        path.file_name().is_some_and(|found| found == name)
            || (!path.is_symlink() && path.is_dir() && holds(&path, name))
    })
}

/// One run, its world and the process that works on it.
pub(crate) struct Matrix {
    label: String,
    world: World,
    server: ModelServer,
    gate: Gate,
    flags: Vec<&'static str>,
    process: Option<Process>,
    id: Option<String>,
    kills: usize,
}

impl Matrix {
    pub(crate) fn new(label: &str) -> Self {
        Self::of(World::new(), label)
    }

    /// The same for a user who is not root; `None` where there can be none.
    pub(crate) fn of_an_ordinary_user(label: &str) -> Option<Self> {
        Some(Self::of(World::of_an_ordinary_user(label)?, label))
    }

    /// The same in a container; `None` where no engine answers.
    pub(crate) fn in_a_container(label: &str) -> Option<Self> {
        let docker = containers::docker(label)?;
        let mut run = Self::of(World::new(), label);
        run.world.set("DOCKER_HOST", docker.host());
        run.flags.extend(containers::FLAGS);
        // A copy does not follow the repository: what holds commands lies where both sides see it.
        let holds = run.world.make_folder(HOLDS);
        run.world.set("FORGE_SANDBOX_WRITABLE_PATHS", &holds.display().to_string());
        std::os::unix::fs::symlink(&holds, run.world.repo().join(HOLDS)).expect("a link");
        run.world.file(".git/info/exclude", &format!("{HOLDS}\n"));
        Some(run)
    }

    fn of(mut world: World, label: &str) -> Self {
        let server = ModelServer::start(ReplyScript::always(answer));
        let flags = world.uses(&server, VendorFormat::OpenAi);
        world.file("notes.md", "Do the six steps.\n");
        world.git(&["init", "-q"]);
        world.git(&["add", "-A"]);
        world.git(&["commit", "-qm", "begin"]);
        Self {
            label: label.to_owned(),
            world,
            server,
            gate: Gate::new(),
            flags,
            process: None,
            id: None,
            kills: 0,
        }
    }

    /// The answer of this turn stops in its middle, the first time it is asked for.
    pub(crate) fn answer_held(self, turn: usize) -> Self {
        let gate = self.gate.clone();
        let mut asked = 0;
        self.server.set_script(ReplyScript::always(move |call| {
            asked += usize::from(call.turn_index() == turn);
            let held = call.turn_index() == turn && asked == 1;
            if held { answer(call).with_gate(&gate) } else { answer(call) }
        }));
        self
    }

    pub(crate) fn open(&self) {
        self.gate.open();
    }

    /// The command of this step stands still, whenever it runs.
    pub(crate) fn hold_command(&self, step: usize, hold: Hold) {
        let folder = Some(self.world.path(HOLDS)).filter(|folder| folder.exists());
        std::fs::write(folder.unwrap_or(self.world.repo()).join(hold.file(step)), "").expect("a file");
    }

    pub(crate) fn release_commands(&self) {
        for step in 0..STEPS.len() {
            for hold in [Hold::Before, Hold::Middle, Hold::After] {
                // Most are not there.
                for folder in [self.world.repo(), self.world.path(HOLDS)] {
                    let _ = std::fs::remove_file(folder.join(hold.file(step)));
                }
            }
        }
    }

    fn launch(&mut self, words: &[&str]) {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let errors =
            std::fs::File::create(self.world.path(&format!("stderr-{n}"))).expect("a writable folder");
        self.process = Some(Process::start(&self.world, words, errors.into()));
    }

    /// Starts the run and waits until it is stored.
    pub(crate) fn start(&mut self) {
        let flags = self.flags.clone();
        self.launch(&[&["run", "Do the six steps", "--output-format", "jsonl"][..], &flags].concat());
        let first = self.process().next().cloned();
        let first = first.unwrap_or_else(|| panic!("{}: no run", self.report()));
        self.id = Some(first["run_id"].as_str().expect("an id").to_owned());
    }

    /// Lets another process go on with the run, right now.
    pub(crate) fn resume(&mut self) {
        let id = self.id().to_owned();
        self.launch(&["resume", &id, "--output-format", "jsonl"]);
    }

    /// Waits for the end of the process that works on the run.
    pub(crate) fn finish(&mut self) {
        let mut process = self.process.take().expect("a process");
        while process.next().is_some() {}
        let code = process.child.wait().expect("its end").code();
        // A process may have ended the run before it could be killed; then there is nothing to resume.
        let over = code == Some(2) && self.status() == "completed";
        assert!(code == Some(0) || over, "{}: exit code {code:?}", self.report());
        assert_eq!(self.status(), "completed", "{}", self.report());
    }

    pub(crate) fn resume_to_the_end(&mut self) {
        self.resume();
        self.finish();
    }

    /// Kills the process that works on the run; says whether it was still at work.
    pub(crate) fn kill(&mut self) -> bool {
        let mut process = self.process.take().expect("a process");
        process.child.kill().expect("a process of ours");
        let killed = process.child.wait().expect("its end").code().is_none();
        self.kills += usize::from(killed);
        killed
    }

    fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("a process")
    }

    fn id(&self) -> &str {
        self.id.as_deref().expect("the run was started")
    }

    pub(crate) fn wait_for_request(&self, turn: usize) {
        assert!(self.server.wait_for_requests(turn + 1, LONG), "{}: no request {turn}", self.report());
    }

    pub(crate) fn wait_until_begun(&self) {
        // The command writes into the run's own view of the repository.
        let views = self.world.path("data").join("forge/runs").join(self.id());
        until("the command", || holds(&views, "begun").then_some(()));
    }

    /// Waits until the run itself has told so many events of this kind.
    pub(crate) fn wait_for_events(&mut self, kind: &str, count: usize) {
        self.process().wait_for(kind, count);
    }

    /// Reads so many further lines of the run, or all there are.
    pub(crate) fn read_lines(&mut self, count: usize) {
        let process = self.process();
        (0..count).all(|_| process.next().is_some());
    }

    /// Another process that follows the run.
    pub(crate) fn follow(&self) -> Process {
        Process::start(&self.world, &["logs", self.id(), "-f", "--json"], Stdio::null())
    }

    pub(crate) fn events(&self) -> Vec<Value> {
        self.world.events(self.id())
    }

    fn status(&self) -> String {
        let status = self.world.forge(&["status", self.id(), "--json"]).exits(0).json();
        status["status"].as_str().expect("a status").to_owned()
    }

    /// The processes on this machine that belong to a box of this run: by what they have mounted, by their control
    /// group, or by their command.
    pub(crate) fn processes(&self) -> Vec<String> {
        let folder = self.world.path("");
        let name = folder.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
        let all = std::fs::read_dir("/proc").expect("/proc").flatten();
        let says = |path: &std::path::Path, file: &str, text: &str| {
            // A process that is only waited for has nothing any more.
            std::fs::read(path.join(file)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        };
        let ours = |path: &std::path::Path| {
            says(path, "mountinfo", &name) || says(path, "cgroup", self.id()) || says(path, "cmdline", SLEEP)
        };
        all.filter(|entry| ours(&entry.path()))
            .map(|entry| {
                let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                format!("{:?} {}", entry.file_name(), String::from_utf8_lossy(&line).replace('\0', " "))
            })
            .collect()
    }

    /// What the processes of this run said on stderr, for failures.
    fn report(&self) -> String {
        let folder = std::fs::read_dir(self.world.path("")).expect("the folder of the world").flatten();
        let mut files: Vec<_> = folder.map(|entry| entry.path()).collect();
        files.retain(|path| path.to_string_lossy().contains("stderr-"));
        files.sort();
        let said = files.iter().map(|path| std::fs::read_to_string(path).unwrap_or_default());
        format!("{}\n{}", self.label, said.collect::<Vec<_>>().join("\n== next process\n"))
    }

    /// Everything that is promised of a run that was killed and resumed.
    pub(crate) fn assert_as_if_nothing_had_happened(&self) {
        let label = &self.label;
        assert_eq!(self.world.read("log.txt"), "first-line\nsecond-line\n", "{label}");
        assert_eq!(self.world.read("a.txt"), "beta\n", "{label}");
        assert_eq!(self.world.read("count"), "1\n", "{label}");
        let tree = self.tree();
        let undisturbed = UNDISTURBED.get_or_init(Self::undisturbed_tree);
        assert!(tree == *undisturbed, "{label}: {tree:#?} instead of {undisturbed:#?}");
        assert_eq!(
            self.world.git(&["rev-list", "--count", "HEAD"]),
            "1\n",
            "{label}: the repository's own history"
        );
        let events = self.events();
        for (event, seq) in events.iter().zip(1_u64..) {
            assert_eq!(event["seq"], seq, "{label}: a gap");
        }
        assert_eq!(events.last().expect("events")["kind"], "run.finished", "{label}");
        self.assert_one_outcome_per_intent(&events);
        self.assert_no_step_twice(&events);
        self.assert_requests_are_only_repeated(&events);
        self.assert_files_of_the_run_agree();
        until("the end of all boxes", || self.processes().is_empty().then_some(()));
    }

    /// Everything in the repository but its own git data: path, mode and content. What git knows in the box stands in
    /// a file.
    fn tree(&self) -> Tree {
        let (repo, mut tree) = (self.world.repo(), Tree::new());
        let mut todo = vec![repo.clone()];
        while let Some(path) = todo.pop() {
            let meta = path.symlink_metadata().expect("it is there");
            let mut content = Vec::new();
            if meta.is_dir() {
                let below =
                    std::fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path());
                todo.extend(below.filter(|path| !path.ends_with(".git") && !path.ends_with(HOLDS)));
            } else {
                content = std::fs::read(&path).expect("a file");
            }
            let short = path.strip_prefix(&repo).expect("below").display().to_string();
            tree.insert(short, (meta.permissions().mode(), String::from_utf8_lossy(&content).into_owned()));
        }
        tree
    }

    /// The same after a run that nobody disturbed.
    fn undisturbed_tree() -> Tree {
        let mut run = Self::new("undisturbed");
        run.start();
        run.finish();
        assert_eq!(run.world.read("commits").lines().next(), Some("2"), "{}", run.report());
        run.tree()
    }

    fn assert_one_outcome_per_intent(&self, events: &[Value]) {
        let label = &self.label;
        let count = |kinds: &[&str]| {
            events.iter().filter(|event| kinds.iter().any(|kind| event["kind"] == *kind)).count()
        };
        let asked = count(&["model.requested"]);
        assert_eq!(asked, count(&["model.completed", "model.failed"]), "{label}: model calls");
        let answered = count(&["model.completed"]);
        assert!(answered <= TURNS + 2 * self.kills, "{label}: {answered} answers for {} kills", self.kills);
        let mut calls: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for event in events {
            let id = event["data"]["call_id"].as_str().unwrap_or_default();
            match event["kind"].as_str() {
                Some("tool.called") => calls.entry(id).or_default().0 += 1,
                Some("tool.completed") => calls.entry(id).or_default().1 += 1,
                _ => {}
            }
        }
        for (id, (called, completed)) in &calls {
            assert_eq!(called, completed, "{label}: outcomes of {id}");
        }
        assert!(calls.len() >= STEPS.len(), "{label}: {calls:?}");
    }

    /// A command notes the turn that asked for it before all else: no turn is noted twice, and whatever is
    /// journalled as done is noted once.
    fn assert_no_step_twice(&self, events: &[Value]) {
        let label = &self.label;
        let noted = self.world.read("ran.txt");
        let ran: BTreeSet<&str> = noted.lines().collect();
        assert_eq!(ran.len(), noted.lines().count(), "{label}: a command ran twice: {noted:?}");
        let done = events.iter().filter(|event| event["kind"] == "tool.completed");
        let mut per_tool: BTreeMap<&str, usize> = BTreeMap::new();
        for data in done.map(|event| &event["data"]) {
            let (id, tool) =
                (data["call_id"].as_str().unwrap_or_default(), data["tool"].as_str().unwrap_or("?"));
            let ok = data["ok"] == true;
            *per_tool.entry(tool).or_default() += usize::from(ok);
            if tool == "run_shell" && ok {
                assert!(ran.contains(id.trim_start_matches("step")), "{label}: {id} never ran: {noted:?}");
            }
            assert!(ok || self.kills > 0, "{label}: {id} failed");
        }
        for (tool, most) in [("write_file", 1), ("edit_file", 1), ("run_shell", 5)] {
            let count = per_tool.get(tool).copied().unwrap_or_default();
            assert!(count <= most, "{label}: {tool} was finished {count} times");
            assert!(self.kills > 0 || count == most, "{label}: {tool} was finished {count} times");
        }
    }

    /// The model is asked the same question again only after a kill, and in the same words.
    fn assert_requests_are_only_repeated(&self, events: &[Value]) {
        let label = &self.label;
        let mut turns: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
        for call in self.server.model_calls() {
            turns.entry(call.turn_index()).or_default().push(call.http.body);
        }
        let repeated: usize = turns.values().map(|bodies| bodies.len() - 1).sum();
        assert!(repeated <= self.kills, "{label}: {repeated} repeated requests for {} kills", self.kills);
        for (turn, bodies) in &turns {
            assert!(
                bodies.iter().all(|body| *body == bodies[0]),
                "{label}: turn {turn} was asked differently"
            );
        }
        let answered = events.iter().filter(|event| event["kind"] == "model.completed").count();
        assert_eq!(answered, turns.len(), "{label}: each turn has one answer");
    }

    /// The folder of the run tells the same as the journal.
    fn assert_files_of_the_run_agree(&self) {
        let folder = self.world.path("data").join("forge/runs").join(self.id());
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect("a file of the run");
        let logs = self.world.forge(&["logs", self.id(), "--json"]).exits(0);
        assert_eq!(read("events.jsonl"), logs.out, "{}", self.label);
        let run: Value = serde_json::from_str(&read("run.json")).expect("JSON");
        assert_eq!(run["status"], "completed", "{}", self.label);
    }
}

/// A process whose lines of JSON are read as they come.
pub(crate) struct Process {
    child: Child,
    lines: Receiver<Value>,
    seen: Vec<Value>,
}

impl Process {
    fn start(world: &World, words: &[&str], stderr: Stdio) -> Self {
        let mut child = world
            .command(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // A killed process may leave half a line.
            let whole = out.lines().map_while(Result::ok).map_while(|line| serde_json::from_str(&line).ok());
            whole.map_while(|event: Value| sender.send(event).ok()).for_each(drop);
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// The next event; `None` when the process has closed its output.
    fn next(&mut self) -> Option<&Value> {
        match self.lines.recv_timeout(LONG) {
            Ok(event) => {
                self.seen.push(event);
                self.seen.last()
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("silence after {:?}", self.seen.last()),
        }
    }

    /// Waits for so many events of this kind; gives how many events there were up to the last of them.
    pub(crate) fn wait_for(&mut self, kind: &str, count: usize) -> usize {
        while self.seen.iter().filter(|event| event["kind"] == kind).count() < count {
            assert!(self.next().is_some(), "it ended without {kind}");
        }
        self.seen.len()
    }

    /// Waits until it has shown so many events.
    pub(crate) fn wait_for_lines(&mut self, count: usize) {
        while self.seen.len() < count {
            assert!(self.next().is_some(), "it ended after {} events", self.seen.len());
        }
    }

    /// A follower ends when the run has ended or nobody works on it.
    pub(crate) fn ends(mut self) {
        while self.next().is_some() {}
        assert_eq!(self.child.wait().expect("its end").code(), Some(0));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing of a failed test stays; a process that has ended can't be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
