//! The request to an engine: one hardened container per sandbox.

use super::engine::EngineClient;
use super::error::Error;
use super::host_dir::ContainerHostDir;
use super::mounts::{BindMount, MaskKind, MountAccess};
use super::{EngineKind, owner};
use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, ImageInspect, Mount,
    MountBindOptions, MountBindOptionsPropagationEnum, MountType, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use bollard::query_parameters::{CreateContainerOptions, StartContainerOptions};
use forge_jail::{HelperBinary, JailSpec, NetworkAccess, RawBytes, WrittenCode};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The complete plan of a container.
#[derive(Debug)]
pub(crate) struct ContainerPlan<'a> {
    pub(crate) run: String,
    pub(crate) image: &'a str,
    pub(crate) user: (u32, u32),
    pub(crate) jail: &'a JailSpec,
    pub(crate) helper: &'a HelperBinary,
    pub(crate) host_dir: &'a ContainerHostDir,
    /// Mounts in addition to those of every sandbox.
    pub(crate) mounts: Vec<BindMount>,
    /// Files and directories of the container that are masked by empty ones.
    pub(crate) covered: Vec<(PathBuf, MaskKind)>,
}

/// Files of /proc and /sys that reveal or control the machine; the engine masks them. The first ones are the engines'
/// own defaults, which a custom list replaces.
const MASKED_PATHS: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/proc/config.gz",
    "/proc/driver",
    "/proc/dynamic_debug",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/ioports",
    "/proc/kallsyms",
    "/proc/key-users",
    "/proc/modules",
    "/proc/slabinfo",
    "/proc/softirqs",
    "/proc/sysrq-trigger",
    "/proc/tty",
    "/sys/kernel/debug",
    "/sys/kernel/tracing",
];
/// Maximum number of processes of one user, where a number is required.
const MAX_PROCESSES: u64 = 16_384;
/// Paths that are readable but not writable.
const READ_ONLY_PATHS: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// A created container. Dropping this removes it, whatever its state.
#[derive(Debug)]
pub(crate) struct EngineContainer {
    pub(crate) id: String,
    socket: PathBuf,
}

impl Drop for EngineContainer {
    fn drop(&mut self) {
        // The engine removes it as soon as its init has ended; this waits for that, and removes one that never started.
        // If the engine is gone, the clean-up of the next start removes the container.
        let _ = super::engine::remove_container_blocking(&self.socket, &self.id);
    }
}

impl EngineContainer {
    /// Creates the container. Also returns the engine's warnings.
    pub(crate) async fn create(
        engine: &EngineClient,
        plan: &ContainerPlan<'_>,
    ) -> Result<(Self, Vec<String>), Error> {
        const CREATE_ACTION: &str = "creating a container";
        let options =
            CreateContainerOptions { name: Some(plan.host_dir.container_name()), ..Default::default() };
        let body = create_body(engine, plan)?;
        let made =
            engine.api.create_container(Some(options), body).await.map_err(
                |error| match Error::from_engine(engine.kind, CREATE_ACTION, &error) {
                    Error::Refused { engine, why, .. } if why.to_lowercase().contains("no such image") => {
                        Error::NoImage { engine, image: plan.image.to_owned() }
                    }
                    other => other,
                },
            )?;
        Ok((Self { id: made.id, socket: engine.socket.clone() }, made.warnings))
    }

    /// Starts the container.
    pub(crate) async fn start(&self, engine: &EngineClient) -> Result<(), Error> {
        let started = engine.api.start_container(&self.id, None::<StartContainerOptions>).await;
        started.map_err(|error| Error::from_engine(engine.kind, "starting the container", &error))
    }
}

/// Returns the image, if the engine has it and it is for this machine.
pub(crate) async fn inspect_image(engine: &EngineClient, name: &str) -> Result<ImageInspect, Error> {
    let found = engine.api.inspect_image(name).await.map_err(|error| match &error {
        bollard::errors::Error::DockerResponseServerError { status_code: 404, .. } => {
            Error::NoImage { engine: engine.kind, image: name.to_owned() }
        }
        _ => Error::from_engine(engine.kind, "looking for the image", &error),
    })?;
    let has = super::engine::image_architecture(found.architecture.as_deref().unwrap_or_default());
    // An imported image may not name one.
    if !has.is_empty() && has != engine.architecture {
        let needs = engine.architecture.clone();
        return Err(Error::Architecture { image: name.to_owned(), has, needs });
    }
    Ok(found)
}

fn create_body(engine: &EngineClient, plan: &ContainerPlan<'_>) -> Result<ContainerCreateBody, Error> {
    let (uid, gid) = plan.user;
    Ok(ContainerCreateBody {
        hostname: Some(plan.jail.hostname.clone()),
        user: Some(format!("{uid}:{gid}")),
        // Commands get their environment from the init. The image's own must not affect the loader.
        env: Some(["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES"].map(str::to_owned).into()),
        entrypoint: Some(plan.helper.container_command()),
        cmd: Some(Vec::new()),
        image: Some(plan.image.to_owned()),
        working_dir: Some("/".to_owned()),
        labels: Some(owner::owner_labels(&plan.run)),
        tty: Some(false),
        open_stdin: Some(false),
        network_disabled: (plan.jail.network == NetworkAccess::Off).then_some(true),
        host_config: Some(host_config(engine, plan)?),
        ..Default::default()
    })
}

fn host_config(engine: &EngineClient, plan: &ContainerPlan<'_>) -> Result<HostConfig, Error> {
    let limits = &plan.jail.limits;
    let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let podman = engine.kind == EngineKind::Podman;
    Ok(HostConfig {
        memory: Some(bytes(limits.memory_bytes)),
        // Memory and swap together: equal means no swap.
        memory_swap: Some(bytes(limits.memory_bytes)),
        pids_limit: Some(limits.pids.into()),
        nano_cpus: limits.cpus.map(nano_cpus),
        shm_size: Some(bytes(limits.tmp_bytes / 4)),
        tmpfs: Some(tmpfs_mounts(plan, podman)),
        ulimits: Some(process_ulimits(plan.jail, podman)),
        mounts: Some(container_mounts(plan)),
        network_mode: Some(
            match plan.jail.network {
                NetworkAccess::Off => "none",
                NetworkAccess::Host => "host",
            }
            .to_owned(),
        ),
        readonly_rootfs: Some(true),
        cap_drop: Some(vec!["ALL".to_owned()]),
        privileged: Some(false),
        security_opt: Some(security_options(plan, podman)?),
        // With the engine's own init before this one, their orphans could not be told apart.
        init: Some(false),
        auto_remove: Some(true),
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), ..Default::default() }),
        ipc_mode: Some("private".to_owned()),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        // Rootless podman maps files to the calling user only if it is told to.
        userns_mode: (podman && engine.rootless).then(|| "keep-id".to_owned()),
        log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
        masked_paths: Some(MASKED_PATHS.iter().map(|p| (*p).to_owned()).collect()),
        readonly_paths: Some(READ_ONLY_PATHS.iter().map(|p| (*p).to_owned()).collect()),
        ..Default::default()
    })
}

/// Returns processors in billionths, as the API counts them.
#[allow(
    clippy::cast_possible_truncation,
    reason = "a float cast saturates; the jail's spec checks the range"
)]
fn nano_cpus(cpus: f64) -> i64 {
    (cpus * 1e9) as i64
}

fn tmpfs_mounts(plan: &ContainerPlan<'_>, podman: bool) -> HashMap<String, String> {
    let written = forge_jail::written_code(plan.jail.programs.as_deref());
    let code = if written == WrittenCode::None { "noexec" } else { "exec" };
    let options = |size: u64| {
        // Empty files cost kernel memory that the size does not count; podman has no option for it.
        let inodes =
            if podman { String::new() } else { format!(",nr_inodes={}", (size / 4096).clamp(1024, 1 << 20)) };
        format!("rw,{code},nosuid,nodev,mode=1777,size={size}{inodes}")
    };
    let temporary = options(plan.jail.limits.tmp_bytes);
    let mut places = HashMap::from(["/tmp", "/var/tmp"].map(|place| (place.to_owned(), temporary.clone())));
    if let Some(size) = plan.jail.caches {
        places.insert("/cache".to_owned(), options(size));
    }
    places
}

/// Returns all limits explicitly: those that an engine passes on depend on how it was started.
fn process_ulimits(jail: &JailSpec, podman: bool) -> Vec<ResourcesUlimits> {
    let limit = |name: &str, value: u64| ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: i64::try_from(value).ok(),
        hard: i64::try_from(value).ok(),
    };
    let mut limits =
        vec![limit("nofile", jail.limits.open_files.max(64)), limit("core", 0), limit("memlock", 8 << 20)];
    if podman {
        // By default podman requests more than it may give. The number counts every process of the user, so it is only
        // a coarse bound; the control group counts those of the sandbox.
        let own = rustix::process::getrlimit(rustix::process::Resource::Nproc).maximum;
        limits.push(limit("nproc", own.unwrap_or(u64::MAX).min(MAX_PROCESSES)));
    }
    limits
}

fn security_options(plan: &ContainerPlan<'_>, podman: bool) -> Result<Vec<String>, Error> {
    let profile = forge_jail::docker_seccomp_profile();
    // Docker takes the profile itself, podman the name of a file.
    let seccomp = if podman {
        let file = plan
            .host_dir
            .write_file("seccomp.json", &profile, 0o644)
            .map_err(Error::host_failure("writing the syscall filter"))?;
        format!("seccomp={}", file.display())
    } else {
        format!("seccomp={profile}")
    };
    let mut options = vec!["no-new-privileges".to_owned(), seccomp];
    if podman {
        // Podman ignores the list of masked paths that docker takes.
        options.push(format!("mask={}", MASKED_PATHS.join(":")));
    }
    Ok(options)
}

fn container_mounts(plan: &ContainerPlan<'_>) -> Vec<Mount> {
    let place = plan.host_dir;
    let fixed = [
        (place.socket_path(), Path::new(forge_jail::CONTAINER_SOCKET_PATH)),
        (place.entry_path("passwd"), Path::new("/etc/passwd")),
        (place.entry_path("group"), Path::new("/etc/group")),
    ];
    let helper =
        plan.helper.required_binds().iter().map(|f| bind_mount(&f.source, &f.target, MountAccess::Read));
    let shown = plan.mounts.iter().map(|s| bind_mount(&s.source, &s.target, s.access));
    let empty = |cover: MaskKind| match cover {
        MaskKind::File => place.entry_path("covered"),
        MaskKind::Directory => place.entry_path("covered-folder"),
    };
    // Outer mount points first, so that inner ones are on top.
    let mut mounts: Vec<Mount> =
        fixed.iter().map(|(s, t)| bind_mount(s, t, MountAccess::Read)).chain(helper).chain(shown).collect();
    mounts.sort_by_key(|m| m.target.as_deref().map_or(0, |t| Path::new(t).components().count()));
    mounts
        .extend(plan.covered.iter().map(|(path, cover)| bind_mount(&empty(*cover), path, MountAccess::Read)));
    mounts
}

fn bind_mount(source: &Path, target: &Path, access: MountAccess) -> Mount {
    let text = |path: &Path| Some(path.to_string_lossy().into_owned());
    Mount {
        source: text(source),
        target: text(target),
        typ: Some(MountType::BIND),
        read_only: Some(access == MountAccess::Read),
        bind_options: Some(MountBindOptions {
            propagation: Some(MountBindOptionsPropagationEnum::RPRIVATE),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Puts the image's own search path before that of the sandbox.
pub(crate) fn prepend_search_path(image: &ImageInspect, env: &mut [(RawBytes, RawBytes)]) {
    let lines = image.config.as_ref().and_then(|config| config.env.as_ref());
    let Some(first) = lines.into_iter().flatten().find_map(|line| line.strip_prefix("PATH=")) else { return };
    let Some((_, path)) = env.iter_mut().find(|(name, _)| name.0 == b"PATH") else { return };
    let mut folders: Vec<&str> = first.split(':').filter(|folder| !folder.is_empty()).collect();
    let rest = path.to_string();
    for folder in rest.split(':') {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    *path = RawBytes::from(folders.join(":"));
}
