//! Shares of resources that the kernel counts per user or does not charge to a process: each sandbox gets its share
//! once, in its own namespaces.
//!
//! A user's counters include the sandboxes of that user: without a share, one sandbox could keep every other program of
//! the user from watching a file. Sandboxes started by root have a user of their own; for them this is an additional
//! layer.

use std::fs;
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};

use crate::sys;
use forge_jail_protocol::{DisabledProtection, IsolationLayer, JailSpec, LayerReport};
use forge_processes::objects;

/// Semaphores per set, in total, operations per call, sets: the usual values before the defaults became unlimited.
const SEMAPHORE_LIMITS: &str = "250 32000 100 128";
/// Message queues; each holds 16 KiB.
const MAX_MESSAGE_QUEUES: &str = "128";
/// Divisors of the user's inotify instances and watches that give a sandbox's share.
const INOTIFY_INSTANCES_DIVISOR: u64 = 4;
const INOTIFY_WATCHES_DIVISOR: u64 = 2;

/// Limits the sandbox's own IPC namespace. The kernel allows that only to user 0 of the namespace, which an ordinary
/// user's sandbox lacks: there the supervisor removes the excess.
pub(super) fn limit_ipc(spec: &JailSpec) {
    if spec.lacks_protection(DisabledProtection::IpcNamespace) {
        return;
    }
    let pages = (spec.limits.memory_bytes / objects::MEMORY_SHARE_DIVISOR / sys::page_size()).max(1);
    let _ = write_sysctl("kernel/shmall", &pages.to_string());
    let _ = write_sysctl("kernel/sem", SEMAPHORE_LIMITS);
    let _ = write_sysctl("kernel/msgmni", MAX_MESSAGE_QUEUES);
}

/// Limits the resources counted per user, in the user namespace that was just entered. `proc` is a writable /proc.
pub(super) fn limit_user_counts(proc: BorrowedFd<'_>, spec: &JailSpec, layers: &mut Vec<LayerReport>) {
    if spec.lacks_protection(DisabledProtection::Counts) {
        return;
    }
    let of = |name: &str, part: u64| {
        let all = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}")).ok()?;
        Some((all.trim().parse::<u64>().ok()? / part).clamp(1, i32::MAX.unsigned_abs().into()))
    };
    let shares = [
        ("max_inotify_instances", of("max_user_instances", INOTIFY_INSTANCES_DIVISOR)),
        ("max_inotify_watches", of("max_user_watches", INOTIFY_WATCHES_DIVISOR)),
    ];
    let set_all = shares.iter().all(|(name, share)| {
        share.is_none_or(|share| {
            write_sysctl_at(proc, &format!("sys/user/{name}"), &share.to_string()).is_ok()
        })
    });
    if !set_all {
        let why = "/proc/sys can't be written here: the box can use up the inotify instances of this user";
        layers.push(LayerReport::degraded(IsolationLayer::Measure(DisabledProtection::Counts), why, None));
    }
}

fn write_sysctl_at(proc: BorrowedFd<'_>, path: &str, value: &str) -> std::io::Result<()> {
    let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, value.as_bytes())?;
    Ok(())
}

fn write_sysctl(name: &str, value: &str) -> std::io::Result<()> {
    fs::write(format!("/proc/sys/{name}"), value)
}
