//! Another user takes all names that a sandbox started by root may need.

use crate::rig::Boxed;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// First of the ids of root's sandboxes, and their number.
const FIRST: u32 = 0x7000_0000;
const IDS: u32 = 0x0040_0000;

#[test]
fn names_that_somebody_has_taken_keep_no_box_from_starting() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Every id that could be predicted from the ids of the next processes.
    let next = std::process::id();
    // As many as the descriptors of this process allow; the first names matter most.
    let processes = most_descriptors() / 256;
    let foreseen = (0..processes).flat_map(|process| {
        (0..256_u32).map(move |attempt| FIRST + next.wrapping_add(process + attempt * 7919) % IDS)
    });
    let taken: Vec<_> = foreseen
        .filter_map(|id| {
            let address = SocketAddr::from_abstract_name(format!("forge-jail-uid-{id}")).ok()?;
            UnixDatagram::bind_addr(&address).ok()
        })
        .collect();
    assert!(taken.len() > 256, "{}", taken.len());
    let boxed = Boxed::new();
    assert_eq!(boxed.sh("id -u").out, "1000\n");
    drop((boxed, taken));
}

/// Returns the number of descriptors that can be used up without disturbing the tests that run in parallel.
fn most_descriptors() -> u32 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("the own limit");
    let most = limit.maximum.unwrap_or(20_000).min(20_000);
    u32::try_from(most.saturating_sub(500)).expect("a small number")
}
