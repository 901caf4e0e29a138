//! Files that the sandbox leaves in the workspace: traps for programs on the host, and files that are hard to handle.

use crate::traps::{self, WorkspaceTrap};
use forge_jail_protocol::WORKSPACE_PATH;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

/// Sets all traps. Each would create a file below `canaries`, a directory of the host, if it were executed there.
pub(super) fn plant_traps(canaries: &Path) -> io::Result<()> {
    for trap in traps::TRAPS {
        plant_trap(trap, canaries)?;
    }
    Ok(())
}

fn plant_trap(trap: &WorkspaceTrap, canaries: &Path) -> io::Result<()> {
    let canary = canaries.join(trap.name).display().to_string();
    for (path, text) in trap.files {
        let path = Path::new(WORKSPACE_PATH).join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let text = text.replace("@CANARY@", &canary);
        let before = if trap.joins { fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
        fs::write(&path, before + &text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(())
}

/// Depth of the deep directory tree.
pub(crate) const DEEP_TREE_DEPTH: usize = 4096;
/// Names that are not UTF-8, contain line breaks, or change the text direction.
pub(crate) const ODD_NAMES: &[&[u8]] =
    &[b"not-\xff\xfe-utf8", b"new\nline", "right-\u{202e}to-left".as_bytes(), b"\x1b[31mred", b"-rf", b" "];

/// Creates files that are hard to handle.
pub(super) fn make_hostile_files(outside: &Path) -> io::Result<()> {
    let place = |name: &str| Path::new(WORKSPACE_PATH).join(name);
    let special = |name: &str, kind, mode| {
        rustix::fs::mknodat(rustix::fs::CWD, place(name), kind, rustix::fs::Mode::from_raw_mode(mode), 0)
    };
    special("fifo", rustix::fs::FileType::Fifo, 0o644)?;
    drop(std::os::unix::net::UnixListener::bind(place("socket"))?);
    symlink("/dev/zero", place("zero"))?;
    symlink("loop-b", place("loop-a"))?;
    symlink("loop-a", place("loop-b"))?;
    fs::create_dir(place("cycle"))?;
    symlink("..", place("cycle/up"))?;
    symlink("/tmp/forge-dangling", place("dangling"))?;
    symlink(outside.join("written"), place("dangling-outside"))?;
    symlink(outside, place("folder-outside"))?;
    fs::File::create(place("sparse"))?.set_len(100 << 30)?;
    fs::create_dir(place("names"))?;
    for name in ODD_NAMES {
        fs::write(place("names").join(OsStr::from_bytes(name)), "x")?;
    }
    make_closed_tree()?;
    make_deep_tree()
}

/// Creates a tree of inaccessible directories.
fn make_closed_tree() -> io::Result<()> {
    let top = Path::new(WORKSPACE_PATH).join("shut");
    fs::create_dir_all(top.join("inner/most"))?;
    fs::write(top.join("inner/most/file"), "x")?;
    for folder in ["inner/most", "inner", ""] {
        fs::set_permissions(top.join(folder), fs::Permissions::from_mode(0o000))?;
    }
    Ok(())
}

/// Creates a tree that is deeper than the maximum path length.
fn make_deep_tree() -> io::Result<()> {
    let top = Path::new(WORKSPACE_PATH).join("deep");
    fs::create_dir(&top)?;
    std::env::set_current_dir(&top)?;
    for _ in 0..DEEP_TREE_DEPTH {
        fs::create_dir("d")?;
        std::env::set_current_dir("d")?;
    }
    Ok(())
}

/// Swaps a directory and a link to `target` as fast as possible until killed.
pub(super) fn swap_dir_and_link(target: &Path) -> io::Result<()> {
    let (folder, link) =
        (Path::new(WORKSPACE_PATH).join("swapped"), Path::new(WORKSPACE_PATH).join("swapped-link"));
    fs::create_dir_all(target).or_else(|error| if target.exists() { Ok(()) } else { Err(error) }).ok();
    fs::create_dir_all(&folder)?;
    let _ = fs::remove_file(&link);
    symlink(target, &link)?;
    for round in 0u32.. {
        // Varies the delay, so that writes meet both states and the change itself.
        for _ in 0..round.wrapping_mul(2_654_435_761) % 4_000 {
            std::hint::spin_loop();
        }
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            &folder,
            rustix::fs::CWD,
            &link,
            rustix::fs::RenameFlags::EXCHANGE,
        )?;
    }
    Ok(())
}
