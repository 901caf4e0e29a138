//! What shows that a repository had something run, written or asked on the host.

use super::programs::write_executable;
use crate::seeded_rng::SeededRng;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

/// Words that stand in files outside of the repository only: no model and no command in a sandbox may see them.
pub const PRIVATE_MARKER: &str = "CANARY-OF-ANOTHER-REPOSITORY";

/// Programs that nothing but a repository's configuration would have the host start.
const PROGRAM_NAMES: &[&str] = &[
    "bash",
    "cat",
    "curl",
    "emacs",
    "git-credential-x",
    "git-lfs",
    "git-remote-ext",
    "git-remote-x",
    "gpg",
    "gpg2",
    "less",
    "lesspipe",
    "more",
    "nano",
    "open",
    "perl",
    "python3",
    "scp",
    "sensible-editor",
    "sh",
    "ssh",
    "ssh-askpass",
    "ssh-keygen",
    "true",
    "vi",
    "vim",
    "wget",
    "x",
    "xdg-open",
];

/// Programs, files and an address outside of a repository, which what stands in it must not reach.
#[derive(Debug)]
pub(super) struct Canary {
    area: PathBuf,
    listener: CanaryListener,
    before: BTreeMap<PathBuf, ContentStamp>,
}

impl Canary {
    /// Makes everything below `area`.
    pub(super) fn new(area: &Path) -> io::Result<Self> {
        let canary =
            Self { area: area.to_owned(), listener: CanaryListener::new()?, before: BTreeMap::new() };
        for name in ["ran", "bin", "beside"] {
            fs::create_dir_all(canary.area.join(name))?;
        }
        // Whoever it is that starts a program, its mark is seen.
        fs::set_permissions(canary.run_log_dir(), fs::Permissions::from_mode(0o777))?;
        for name in PROGRAM_NAMES {
            write_executable(&canary.bin_dir().join(name), &canary.marker_script(name))?;
        }
        write_executable(&canary.area.join("run.sh"), &canary.marker_script("run.sh"))?;
        fs::write(canary.outside_file(), format!("{PRIVATE_MARKER}\n"))?;
        let pipe = canary.area.join("pipe");
        super::programs::run_program("mkfifo", &[pipe.as_os_str()])?;
        Ok(canary)
    }

    /// Remembers what stands beside the repository; call it when all of that is made.
    pub(super) fn record_baseline(&mut self) -> io::Result<()> {
        self.before = scan_tree(&self.area.join("beside"))?;
        Ok(())
    }

    /// A directory with the names of programs, to be the first on the path.
    pub(super) fn bin_dir(&self) -> PathBuf {
        self.area.join("bin")
    }

    /// A file outside of the repository.
    pub(super) fn outside_file(&self) -> PathBuf {
        self.area.join("beside/secret.txt")
    }

    fn run_log_dir(&self) -> PathBuf {
        self.area.join("ran")
    }

    /// A program that leaves a mark with its arguments. It starts no other: the path is full of canaries.
    pub(super) fn marker_script(&self, name: &str) -> String {
        let ran = self.run_log_dir().display().to_string();
        format!("#!/bin/sh\nprintf '%s\\n' \"{name}: $0 $*\" > '{ran}/'{name}-$$ 2>/dev/null\nexit 1\n")
    }

    /// A value that names a program.
    pub(super) fn program_value(&self, dice: &mut SeededRng) -> String {
        let path = self.area.join("run.sh").display().to_string();
        match dice.below(6) {
            0 => format!("!{path}"),
            1 => format!("{path} --with arguments"),
            2 => format!("sh -c '{path}; cat'"),
            3 => "./canary.sh".to_owned(),
            4 => format!("$({path})"),
            _ => path,
        }
    }

    /// A value that names something to read.
    pub(super) fn readable_value(&self, dice: &mut SeededRng) -> String {
        match dice.below(6) {
            0 => "/dev/zero".to_owned(),
            1 => self.area.join("pipe").display().to_string(),
            2 => "hooks".to_owned(),
            3 => self.area.join("beside").display().to_string(),
            4 => "../.gitattributes".to_owned(),
            _ => self.outside_file().display().to_string(),
        }
    }

    /// A value that names something to write.
    pub(super) fn writable_value(&self, dice: &mut SeededRng) -> String {
        let name = if dice.one_in(2) { "ran/written" } else { "beside/written" };
        self.area.join(name).display().to_string()
    }

    /// A value that names something to ask.
    pub(super) fn address_value(&self, dice: &mut SeededRng) -> String {
        let (at, path) = (self.listener.address, self.area.join("run.sh").display().to_string());
        match dice.below(7) {
            0 => format!("ext::{path} %S "),
            1 => "ext::./canary.sh ".to_owned(),
            2 => format!("http://{at}/"),
            3 => format!("git://{at}/"),
            4 => format!("ssh://{at}/"),
            5 => self.area.join("beside/private").display().to_string(),
            _ => format!("x::http://{at}/"),
        }
    }

    /// What was started, written or asked that must not be.
    pub(super) fn intrusions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.run_log_dir()).into_iter().flatten().flatten() {
            let said = fs::read(entry.path()).unwrap_or_default();
            found.push(format!("on the host ran {}", String::from_utf8_lossy(&said).trim()));
        }
        match scan_tree(&self.area.join("beside")) {
            Ok(now) if now == self.before => {}
            Ok(now) => found
                .push(format!("beside the repository changed: {}", describe_difference(&self.before, &now))),
            Err(error) => found.push(format!("beside the repository: {error}")),
        }
        match self.listener.count.load(Ordering::SeqCst) {
            0 => {}
            count => found.push(format!("{count} connections to an address that the repository names")),
        }
        found
    }
}

/// Kind and content of something.
type ContentStamp = (u32, u64, Vec<u8>);

/// Everything below a directory.
fn scan_tree(top: &Path) -> io::Result<BTreeMap<PathBuf, ContentStamp>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        let content = if meta.is_file() { fs::read(&path)? } else { Vec::new() };
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
        found.insert(path, (meta.mode(), if meta.is_dir() { 0 } else { meta.ino() }, content));
    }
    Ok(found)
}

fn describe_difference(
    before: &BTreeMap<PathBuf, ContentStamp>,
    now: &BTreeMap<PathBuf, ContentStamp>,
) -> String {
    let all = before.keys().chain(now.keys()).filter(|path| before.get(*path) != now.get(*path));
    let mut names: Vec<String> = all.map(|path| path.display().to_string()).collect();
    names.dedup();
    names.join(", ")
}

/// An address that counts who comes.
#[derive(Debug)]
struct CanaryListener {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl CanaryListener {
    fn new() -> io::Result<Self> {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        let address = socket.local_addr()?;
        let (count, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ended) = (Arc::clone(&count), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            for come in socket.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                counted.fetch_add(usize::from(come.is_ok()), Ordering::SeqCst);
            }
        });
        Ok(Self { address, count, over, thread: Some(thread) })
    }
}

impl Drop for CanaryListener {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It waits for somebody to come.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
