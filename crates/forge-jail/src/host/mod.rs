//! The side of a jail that runs in the process of its owner: starts the init, holds the control groups, sends requests.

pub(crate) mod cgroup;
pub(crate) mod client;
mod diagnose;
mod examine_binary;
pub(crate) mod idmapped_mount;
pub(crate) mod probe;
mod run_user;
