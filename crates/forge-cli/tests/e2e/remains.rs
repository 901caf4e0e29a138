//! What processes that were killed can leave on a machine, counted thing by thing. Only what belongs to one world is
//! counted: other tests run beside this one.

use crate::harness::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Process ids with when each began, in clock ticks since boot: together they name a process for good.
type Known = BTreeMap<u32, u64>;

/// The processes of a world: those it started, whatever came of them, and those that show that they belong to it.
pub(crate) struct Processes {
    /// By which its folders are known in mounts and environments.
    name: String,
    /// Everything that was ever seen.
    known: Known,
    /// The folder for temporary files.
    temporary: PathBuf,
    /// Words by which things in memory are known that the probes make.
    words: BTreeSet<String>,
}

/// The fields of `/proc/PID/stat` behind the name, as proc(5) numbers them from 3 on.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

fn began(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

fn everybody() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

impl Processes {
    pub(crate) fn of(world: &World) -> Self {
        let folder = world.path("");
        let name = folder.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        let (known, temporary) = (Known::new(), world.path("tmp"));
        Self { name, known, temporary, words: BTreeSet::new() }
    }

    /// Takes note of a process that was just started.
    pub(crate) fn begun(&mut self, pid: u32) {
        self.known.extend(began(pid).map(|at| (pid, at)));
    }

    /// How many were seen.
    pub(crate) fn seen(&self) -> usize {
        self.known.len()
    }

    /// Takes note of everything that descends from what is known, or shows that it belongs here.
    pub(crate) fn look(&mut self) {
        let all: Vec<(u32, u32, u64)> = everybody()
            .into_iter()
            .filter_map(|pid| {
                let stat = stat(pid)?;
                Some((pid, stat.get(1)?.parse().ok()?, stat.get(19)?.parse().ok()?))
            })
            .collect();
        let probes = entries(&self.temporary, |name| name.starts_with("forge-verify-"));
        let words = probes.iter().filter_map(|path| path.to_str()?.rsplit('-').next().map(str::to_owned));
        self.words.extend(words);
        let mut more = true;
        while more {
            more = false;
            for (pid, parent, at) in &all {
                let ours = self.known.get(pid) == Some(at);
                let below =
                    self.known.contains_key(parent) && self.known.get(parent).copied() == began(*parent);
                if !ours && below {
                    self.known.insert(*pid, *at);
                    more = true;
                }
            }
        }
        let shown: Vec<_> = all.iter().filter(|(pid, _, _)| self.shows(*pid)).collect();
        self.known.extend(shown.into_iter().map(|(pid, _, at)| (*pid, *at)));
    }

    /// Whether a process shows that it belongs here: by its environment, what it has mounted, its control group.
    fn shows(&self, pid: u32) -> bool {
        let says = |file: &str| {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains(&self.name)
        };
        pid != std::process::id() && (says("environ") || says("mountinfo") || self.in_group(pid))
    }

    fn in_group(&self, pid: u32) -> bool {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|line| line.rsplit('/').next().is_some_and(|group| self.owns(group)))
    }

    /// Whether a name holds the id of a process of this world, and when it began: `…-PID-BEGAN-…`.
    fn owns(&self, name: &str) -> bool {
        let parts: Vec<u64> = name.split(['-', '.']).map(|part| part.parse().unwrap_or(0)).collect();
        let pairs = parts.windows(2);
        pairs.into_iter().any(|pair| {
            u32::try_from(pair[0]).is_ok_and(|pid| self.known.get(&pid) == Some(&pair[1]) && pair[1] != 0)
        })
    }

    /// Those that live.
    pub(crate) fn alive(&self) -> Vec<u32> {
        let lives = |pid: &u32| {
            // One that has ended and is still to be waited for holds nothing.
            let ended = stat(*pid).is_none_or(|stat| stat.first().is_some_and(|state| state == "Z"));
            !ended && (self.known.get(pid).copied() == began(*pid) || self.shows(*pid))
        };
        everybody().into_iter().filter(lives).collect()
    }
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Remains {
    processes: Vec<String>,
    namespaces: BTreeSet<u64>,
    mounts: Vec<String>,
    groups: Vec<PathBuf>,
    /// In the folder for temporary files, in the machine's own, and in memory.
    temporary: Vec<PathBuf>,
    /// In the data folder: what belongs to no run, and sockets.
    data: Vec<PathBuf>,
    /// Beside files of the repository.
    repository: Vec<PathBuf>,
    /// Shared memory and message queues.
    queues: Vec<String>,
}

impl Remains {
    /// Counts what is there of a world and of processes of it that are gone.
    pub(crate) fn of(world: &World, processes: &Processes) -> Self {
        let mut found = Self::default();
        for pid in processes.alive() {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            found.processes.push(format!("{pid} {}", line.chars().take(120).collect::<String>()));
            found.namespaces.extend(std::fs::metadata(format!("/proc/{pid}/ns/net")).map(|meta| meta.ino()));
        }
        let own = std::fs::metadata("/proc/self/ns/net").expect("/proc").ino();
        found.namespaces.remove(&own);
        found.mounts = mounts(&processes.name);
        groups(Path::new("/sys/fs/cgroup"), processes, &mut found.groups);
        found.temporary = entries(&processes.temporary, |_| true);
        for place in ["/tmp", "/var/tmp", "/dev/shm", "/run", "/dev/mqueue"] {
            let ours = |name: &str| processes.words.iter().any(|word| name.contains(word.as_str()));
            found.temporary.extend(entries(Path::new(place), |name| processes.owns(name) || ours(name)));
        }
        // Each user has a directory of its own there.
        let own = entries(Path::new("/dev/shm"), |name| name.starts_with("forge-"));
        for place in own.iter().map(PathBuf::as_path).chain([Path::new("/dev/shm")]) {
            found.temporary.extend(entries(place, |name| {
                let pid =
                    name.strip_prefix("forge-scratch-").and_then(|rest| rest.split('-').next()?.parse().ok());
                pid.is_some_and(|pid: u32| processes.known.contains_key(&pid))
            }));
        }
        found.data = nobodys(world);
        astray(&world.repo(), &mut found.repository);
        found.queues = queues(processes);
        found
    }

    pub(crate) fn assert_nothing(&self) {
        assert_eq!(*self, Self::default(), "something was left behind");
    }
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} processes, {} network namespaces, {} mounts, {} control groups, {} temporary files and folders, {} \
             in the data folder, {} in the repository, {} queues",
            self.processes.len(),
            self.namespaces.len(),
            self.mounts.len(),
            self.groups.len(),
            self.temporary.len(),
            self.data.len(),
            self.repository.len(),
            self.queues.len()
        )
    }
}

/// Mounts of this world.
fn mounts(name: &str) -> Vec<String> {
    let all = std::fs::read_to_string("/proc/self/mountinfo").expect("/proc");
    let ours = |line: &&str| line.contains(name) || line.contains("forge-box-");
    all.lines().filter(ours).map(str::to_owned).collect()
}

fn groups(folder: &Path, processes: &Processes, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_str().is_some_and(|name| processes.owns(name)) {
                found.push(entry.path());
            }
            groups(&entry.path(), processes, found);
        }
    }
}

fn entries(folder: &Path, counts: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let all = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = all.filter(|entry| counts(&entry.file_name().to_string_lossy()));
    named.map(|entry| entry.path()).collect()
}

/// What of the data folder belongs to no run that is listed: everything else has a place and an owner.
fn nobodys(world: &World) -> Vec<PathBuf> {
    let data = world.path("data").join("forge");
    let runs: BTreeSet<String> =
        world.runs().iter().filter_map(|run| run["run_id"].as_str().map(str::to_owned)).collect();
    let kept =
        ["forge.db", "forge.db-wal", "forge.db-shm", "migrate.lock", "reserve", "trust.json", "gc.stamp"];
    let folders = ["runs", "locks", "wake", "blobs", "verdicts", "images", "tmp", "covers"];
    let mut found = entries(&data, |name| !kept.contains(&name) && !folders.contains(&name));
    found.extend(entries(&data.join("tmp"), |_| true));
    found.extend(entries(&data.join("runs"), |name| !runs.contains(name)));
    found.extend(entries(&data.join("locks/applying"), |_| true));
    for folder in ["locks", "wake"] {
        found.extend(entries(&data.join(folder), |name| {
            let stem = name.split('.').next().unwrap_or_default();
            stem.parse::<u64>().is_ok() || (stem.len() == 36 && !runs.contains(stem))
        }));
    }
    sockets(&data, &mut found);
    found
}

fn sockets(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => sockets(&entry.path(), found),
            Ok(kind) if kind.is_socket() => found.push(entry.path()),
            _ => {}
        }
    }
}

/// Temporaries of an apply, and of git's: locks, packs and objects that never got their names.
fn astray(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let gits = name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with("incoming-");
        let in_git = path.components().any(|part| part.as_os_str() == ".git");
        if name.starts_with(".forge-tmp-") || (gits && in_git) {
            found.push(path);
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            astray(&entry.path(), found);
        }
    }
}

/// Shared memory and message queues by the process that made them, as proc(5) describes `/proc/sysvipc`.
fn queues(processes: &Processes) -> Vec<String> {
    let made_by = |file: &str, column: &str| {
        let text = std::fs::read_to_string(format!("/proc/sysvipc/{file}")).unwrap_or_default();
        let mut lines = text.lines();
        let at = lines.next().and_then(|head| head.split_whitespace().position(|name| name == column));
        let ours = |line: &&str| {
            let pid = at.and_then(|at| line.split_whitespace().nth(at)?.parse().ok());
            pid.is_some_and(|pid: u32| processes.known.contains_key(&pid))
        };
        lines.filter(ours).map(|line| format!("{file}: {line}")).collect::<Vec<_>>()
    };
    // A queue tells who used it last; one that nobody used tells nothing, so those are found by their number of bytes.
    [made_by("shm", "cpid"), made_by("msg", "lspid")].concat()
}
