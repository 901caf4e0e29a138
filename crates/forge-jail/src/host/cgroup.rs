//! Control groups: ceilings for the sandbox as a whole, version 1 or 2, whichever this process may use.
//!
//! A group is created once per sandbox, below the caller's own group, so that limits above keep counting. Moving
//! another process into a group waits for all processors (several milliseconds); a thread that moves itself does not
//! (Linux 5.5), so on version 1 the init joins by itself. The groups are created while the init builds the base of the
//! sandbox, and the init joins them before it receives the specification.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use forge_jail_protocol::{DisabledProtection, IsolationLayer, JailLimits, LayerReport};
use forge_processes::init_name::process_start_time;

/// Prefix of the group names; then owner's process id, its start time, the sandbox's number and label.
const GROUP_PREFIX: &str = "forge-";
/// Depth to which [`prune_stale_groups`] searches: a service of a user's session, or a container in a container, is
/// deep.
const MAX_PRUNE_DEPTH: usize = 16;

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
struct CgroupHierarchy {
    /// The controllers of a version 1 hierarchy; empty for version 2.
    controllers: Vec<String>,
    /// The mount point.
    mount: PathBuf,
    /// The caller's own group in it.
    own: PathBuf,
}

/// The groups of one sandbox.
#[derive(Debug, Default)]
pub(crate) struct JailCgroups {
    directories: Vec<PathBuf>,
    memory: Option<PathBuf>,
    /// The file that counts kills, kept open because it is read after every command.
    kills: Option<fs::File>,
    /// The files of the current and the peak usage, kept open for the same reason.
    usage: Option<fs::File>,
    peak: Option<fs::File>,
}

/// The groups of a new sandbox and the ceilings that they enforce.
#[derive(Debug, Default)]
pub(crate) struct CgroupSetup {
    /// The groups; empty when none could be created.
    pub(crate) group: JailCgroups,
    /// One report for each ceiling that a group enforces.
    pub(crate) layers: Vec<LayerReport>,
}

impl CgroupSetup {
    #[cfg(test)]
    fn holds(&self, layer: IsolationLayer) -> bool {
        self.layers.iter().any(|l| l.layer == layer)
    }
}

/// Creates the groups for a sandbox as far as this machine and user allow.
pub(crate) fn create_groups(label: &str, limits: &JailLimits, without: &[DisabledProtection]) -> CgroupSetup {
    let hierarchies = find_hierarchies();
    let name = group_name(label);
    let made = create_groups_in(&hierarchies, &name, limits, without);
    // Stale groups next to the new ones are removed now: a killed process of this session left them.
    for parent in made.group.directories.iter().filter_map(|folder| folder.parent()) {
        prune_below(parent, MAX_PRUNE_DEPTH, &mut Vec::new());
    }
    made
}

fn create_groups_in(
    hierarchies: &[CgroupHierarchy],
    name: &str,
    limits: &JailLimits,
    without: &[DisabledProtection],
) -> CgroupSetup {
    let mut made = CgroupSetup::default();
    for (layer, controller) in
        [(IsolationLayer::Memory, "memory"), (IsolationLayer::Pids, "pids"), (IsolationLayer::Cpu, "cpu")]
    {
        if (layer == IsolationLayer::Cpu && limits.cpus.is_none()) || is_left_out(without, layer) {
            continue;
        }
        let v1 = hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller));
        if let Some(hierarchy) = v1 {
            let folder = hierarchy.own.join(name);
            if made.group.create_group(&folder).and_then(|()| limit_v1(&folder, layer, limits)).is_ok() {
                made.record_layer(layer, &folder, "cgroup v1");
            }
        }
    }
    if made.layers.is_empty()
        && let Some(v2) = hierarchies.iter().find(|h| h.controllers.is_empty())
    {
        create_v2(v2, name, limits, without, &mut made);
    }
    made
}

impl CgroupSetup {
    fn record_layer(&mut self, layer: IsolationLayer, folder: &Path, how: &str) {
        self.layers.push(LayerReport::enforced(layer, how));
        if layer == IsolationLayer::Memory {
            self.group.memory = Some(folder.to_owned());
            self.group.open_counters(folder);
        }
    }
}

fn is_left_out(without: &[DisabledProtection], layer: IsolationLayer) -> bool {
    without.iter().any(|weakness| weakness.layer() == layer)
}

/// Creates a version 2 group. Version 2 allows limits only on groups with a parent that contains no processes: the
/// candidates are the own group (at the root), its parent and the groups above, as far as this process may write them.
fn create_v2(
    hierarchy: &CgroupHierarchy,
    name: &str,
    limits: &JailLimits,
    without: &[DisabledProtection],
    made: &mut CgroupSetup,
) {
    for parent in hierarchy.own.ancestors().take_while(|p| p.starts_with(&hierarchy.mount)) {
        let control = parent.join("cgroup.subtree_control");
        let offered = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        if !offered.split_whitespace().any(|c| c == "memory") {
            continue;
        }
        let active = fs::read_to_string(&control).unwrap_or_default();
        if !["memory", "pids"].iter().all(|c| active.split_whitespace().any(|a| a == *c))
            && fs::write(&control, "+memory +pids +cpu").is_err()
            && fs::write(&control, "+memory +pids").is_err()
        {
            continue;
        }
        let folder = parent.join(name);
        if made.group.create_group(&folder).is_err() {
            continue;
        }
        for layer in [IsolationLayer::Memory, IsolationLayer::Pids, IsolationLayer::Cpu] {
            if !is_left_out(without, layer) && limit_v2(&folder, layer, limits).is_ok_and(|wanted| wanted) {
                made.record_layer(layer, &folder, "cgroup v2");
            }
        }
        return;
    }
}

fn limit_v1(folder: &Path, layer: IsolationLayer, limits: &JailLimits) -> io::Result<()> {
    match layer {
        IsolationLayer::Memory => {
            fs::write(folder.join("memory.limit_in_bytes"), limits.memory_bytes.to_string())?;
            let with_swap = folder.join("memory.memsw.limit_in_bytes");
            if with_swap.exists() {
                fs::write(with_swap, limits.memory_bytes.to_string())?;
            }
            // Version 1 counts socket buffers separately, and not at all where this file is absent.
            let _ = fs::write(folder.join("memory.kmem.tcp.limit_in_bytes"), limits.memory_bytes.to_string());
            Ok(())
        }
        IsolationLayer::Pids => fs::write(folder.join("pids.max"), limits.pids.to_string()),
        _ => {
            fs::write(folder.join("cpu.cfs_period_us"), "100000")?;
            fs::write(folder.join("cpu.cfs_quota_us"), cpu_quota_us(limits).to_string())
        }
    }
}

/// Sets the limit; returns whether it was wanted.
fn limit_v2(folder: &Path, layer: IsolationLayer, limits: &JailLimits) -> io::Result<bool> {
    match layer {
        IsolationLayer::Memory => {
            fs::write(folder.join("memory.max"), limits.memory_bytes.to_string())?;
            let swap = folder.join("memory.swap.max");
            if swap.exists() {
                fs::write(swap, "0")?;
            }
        }
        IsolationLayer::Pids => fs::write(folder.join("pids.max"), limits.pids.to_string())?,
        _ if limits.cpus.is_none() => return Ok(false),
        _ => fs::write(folder.join("cpu.max"), format!("{} 100000", cpu_quota_us(limits)))?,
    }
    Ok(true)
}

/// Microseconds of CPU time in each period of 100,000.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates; the range is checked by the spec"
)]
fn cpu_quota_us(limits: &JailLimits) -> i64 {
    limits.cpus.map_or(-1, |cpus| ((cpus * 100_000.0) as i64).max(1000))
}

impl JailCgroups {
    /// Finds the groups of a process that another process placed there; they are only read, never changed or removed.
    pub(crate) fn of_process(pid: i32) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let holds = |h: &&CgroupHierarchy| {
            (h.controllers.is_empty() || h.controllers.iter().any(|c| c == "memory"))
                && ["memory.oom_control", "memory.events"].iter().any(|name| h.own.join(name).exists())
        };
        let found = parse_hierarchies(&mounts, &groups);
        let mut group = Self::default();
        group.memory = found.iter().find(holds).map(|h| h.own.clone());
        if let Some(folder) = group.memory.clone() {
            group.open_counters(&folder);
        }
        group
    }

    /// Opens the counters that are read with every command.
    fn open_counters(&mut self, folder: &Path) {
        let open = |name: &&str| fs::File::open(folder.join(name)).ok();
        self.kills = ["memory.oom_control", "memory.events"].iter().find_map(open);
        self.usage = ["memory.usage_in_bytes", "memory.current"].iter().find_map(open);
        // Version 2 resets only what this descriptor sees (Linux 6.12); version 1 resets it for all readers.
        let both = |name: &&str| fs::File::options().read(true).write(true).open(folder.join(name)).ok();
        let names = ["memory.max_usage_in_bytes", "memory.peak"];
        self.peak = names.iter().find_map(both).or_else(|| names.iter().find_map(open));
    }

    /// Resets the peak, if the kernel can, and returns the current usage in bytes.
    pub(crate) fn reset_peak(&self) -> Option<u64> {
        if let Some(peak) = &self.peak {
            // If it cannot be reset, the peak since the sandbox's start counts.
            let _ = peak.write_at(b"0", 0);
        }
        read_number(self.usage.as_ref()?)
    }

    /// Returns the current memory usage in bytes.
    pub(crate) fn memory_usage(&self) -> Option<u64> {
        read_number(self.usage.as_ref()?)
    }

    /// Returns the peak memory usage since the last reset, in bytes.
    pub(crate) fn memory_peak_since_reset(&self) -> Option<u64> {
        read_number(self.peak.as_ref()?)
    }

    fn create_group(&mut self, folder: &Path) -> io::Result<()> {
        if self.directories.iter().any(|f| f == folder) {
            return Ok(());
        }
        fs::create_dir(folder)?;
        self.directories.push(folder.to_owned());
        Ok(())
    }

    /// Opens the groups' thread lists, with which a thread moves itself; `None` where only processes can be moved
    /// (version 2).
    pub(crate) fn open_task_lists(&self) -> Option<Vec<OwnedFd>> {
        let open = |folder: &PathBuf| fs::File::options().write(true).open(folder.join("tasks"));
        let lists: io::Result<Vec<_>> = self.directories.iter().map(|f| open(f).map(OwnedFd::from)).collect();
        lists.ok().filter(|lists| !lists.is_empty())
    }

    /// Moves a process, and with it all its future children, into the groups.
    pub(crate) fn add_process(&self, pid: i32) -> io::Result<()> {
        self.directories.iter().try_for_each(|folder| fs::write(folder.join("cgroup.procs"), pid.to_string()))
    }

    /// Returns the number of processes of the sandbox that the kernel has killed for memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        let mut text = [0u8; 512];
        let read = self.kills.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = String::from_utf8_lossy(&text[..read]);
        text.lines().find_map(|l| l.strip_prefix("oom_kill ")?.trim().parse().ok()).unwrap_or(0)
    }

    /// Returns the sandbox's peak memory usage in bytes, if the kernel reports it.
    pub(crate) fn memory_peak(&self) -> Option<u64> {
        let folder = self.memory.as_ref()?;
        ["memory.max_usage_in_bytes", "memory.peak"]
            .iter()
            .find_map(|name| fs::read_to_string(folder.join(name)).ok()?.trim().parse().ok())
    }
}

impl Drop for JailCgroups {
    fn drop(&mut self) {
        for folder in &self.directories {
            // The sandbox is dead and reaped by now; if not, `prune_stale_groups` finds the directory later.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn read_number(file: &fs::File) -> Option<u64> {
    let mut text = [0u8; 32];
    let read = file.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(text.get(..read)?).ok()?.trim().parse().ok()
}

fn group_name(label: &str) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);
    let label: String =
        label.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')).take(64).collect();
    let pid = std::process::id();
    let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{GROUP_PREFIX}{pid}-{}-{number}-{label}", process_start_time(pid).unwrap_or(0))
}

/// Removes groups that have lost their owner and contain no process; returns the removed directories.
pub fn prune_stale_groups() -> Vec<PathBuf> {
    let mut removed = Vec::new();
    for hierarchy in find_hierarchies() {
        prune_below(&hierarchy.mount, 0, &mut removed);
    }
    removed
}

fn prune_below(folder: &Path, depth: usize, removed: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
        let path = entry.path();
        // Any user who may create groups can use such a name, so the directory's owner is checked too.
        let own = || entry.metadata().is_ok_and(|meta| meta.uid() == rustix::process::geteuid().as_raw());
        let dead = entry.file_name().to_str().is_some_and(owner_is_dead) && own();
        // The kernel refuses to remove a group that contains a process, so no running process is affected.
        if dead && fs::remove_dir(&path).is_ok() {
            removed.push(path);
        } else if depth < MAX_PRUNE_DEPTH {
            prune_below(&path, depth + 1, removed);
        }
    }
}

fn owner_is_dead(name: &str) -> bool {
    let mut parts = name.strip_prefix(GROUP_PREFIX).unwrap_or_default().splitn(4, '-');
    let pid = parts.next().and_then(|p| p.parse::<u32>().ok());
    let started = parts.next().and_then(|s| s.parse::<u64>().ok());
    match (pid, started) {
        (Some(pid), Some(started)) => process_start_time(pid) != Some(started),
        _ => false,
    }
}

fn find_hierarchies() -> Vec<CgroupHierarchy> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut found = parse_hierarchies(&mounts, &groups);
    for hierarchy in &mut found {
        if !hierarchy.own.is_dir() {
            hierarchy.own.clone_from(&hierarchy.mount);
        }
    }
    found
}

/// Reads `/proc/self/mountinfo` and `/proc/self/cgroup`, as proc(5) and cgroups(7) describe them.
fn parse_hierarchies(mounts: &str, groups: &str) -> Vec<CgroupHierarchy> {
    let mut found = Vec::new();
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let mut fields = before.split(' ').skip(3);
        let (Some(root), Some(mount)) = (fields.next(), fields.next()) else { continue };
        let mut after = after.split(' ');
        let (kind, options) = (after.next().unwrap_or_default(), after.next_back().unwrap_or_default());
        let controllers: Vec<String> = match kind {
            "cgroup" => options.split(',').filter(|o| *o != "rw" && *o != "ro").map(str::to_owned).collect(),
            "cgroup2" => Vec::new(),
            _ => continue,
        };
        let own = groups.lines().find_map(|group| {
            let mut parts = group.splitn(3, ':').skip(1);
            let (names, path) = (parts.next()?, parts.next()?);
            let same = match controllers.first() {
                None => names.is_empty(),
                Some(first) => names.split(',').any(|n| n == first),
            };
            same.then_some(path)
        });
        let own = own.unwrap_or("/");
        let below = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
        let mount = PathBuf::from(mount);
        found.push(CgroupHierarchy { own: mount.join(below), controllers, mount });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 20 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 30 0:28 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn hierarchies_and_the_own_group_are_found() {
        let groups = "4:memory:/a/b\n2:cpu,cpuacct:/docker/abc/x\n0::/user.slice\n";
        let found = parse_hierarchies(MOUNTS, groups);
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].own, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found[1].own, Path::new("/sys/fs/cgroup/cpu,cpuacct/x"));
        assert_eq!(found[1].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[2].own, Path::new("/sys/fs/cgroup/unified/user.slice"));
    }

    #[test]
    fn version_2_is_used_where_it_is_delegated() {
        let root = tempfile::tempdir().unwrap();
        let slice = root.path().join("app.slice");
        let own = slice.join("terminal.scope");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.controllers"), "").unwrap();
        fs::write(slice.join("cgroup.controllers"), "cpu memory pids").unwrap();
        fs::write(slice.join("cgroup.subtree_control"), "memory pids").unwrap();
        let hierarchy = CgroupHierarchy { controllers: Vec::new(), mount: root.path().to_owned(), own };
        let made = create_groups_in(&[hierarchy], "forge-x", &JailLimits::default(), &[]);
        assert!(
            made.holds(IsolationLayer::Memory)
                && made.holds(IsolationLayer::Pids)
                && !made.holds(IsolationLayer::Cpu)
        );
        let folder = slice.join("forge-x");
        assert_eq!(fs::read_to_string(folder.join("memory.max")).unwrap(), (2u64 << 30).to_string());
        assert_eq!(fs::read_to_string(folder.join("pids.max")).unwrap(), "1024");
    }

    #[test]
    fn a_name_tells_whether_its_owner_lives() {
        assert!(!owner_is_dead(&group_name("run-1")));
        assert!(owner_is_dead("forge-4194304-12-0-x"));
        assert!(!owner_is_dead("forge-other"));
        assert!(!owner_is_dead("system.slice"));
    }
}
