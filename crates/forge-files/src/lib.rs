//! Files of repositories, sandboxes and data directories, read on the host as if every byte were hostile.
//!
//! A repository, or a process in a sandbox, can put anything where Forge expects a small file: a named pipe, a device,
//! a symbolic link to another place, a sparse file of terabytes, a file that changes while it is read. [`read()`] and
//! [`read_text`] open without blocking, accept only regular files and read no more than the caller allows;
//! [`read_within`] and [`read_text_within`] also refuse every symbolic link below a directory that the caller trusts,
//! [`read_below`] and [`read_text_below`] below one that the caller has open.
//!
//! [`find_enclosed_place`] tells whether a repository contains Forge's own files. [`Directory`] writes files by name into a directory that was reached without following links, [`UserFile`] those that
//! the user named. [`open_or_create`]
//! opens Forge's own lock files with the same care. [`remove_tree`] and [`remove_stale`] remove this user's own files
//! and nothing that a hostile tree points to; [`PrivateDir`] holds temporary files where no other user can add entries.
//!
//! This crate knows nothing of runs, sandboxes or settings.

mod data;
mod directory;
mod enclosure;
mod error;
mod identity;
mod lock;
mod open;
mod presence;
mod private_dir;
mod read;
mod remove;
mod stale;
mod temporary_tree;
mod user_file;

pub use data::{NotOwnData, check_data_directory};
pub use directory::{Directory, OWNER_ONLY_MODE, find_symlink_below};
pub use enclosure::{EnclosedPlace, find_enclosed_place, list_links};
pub use error::{Error, SpecialFileKind};
pub use lock::{open_or_create, sync_directory};
pub use open::{open, open_below, open_within};
pub use presence::{is_present, may_be_present};
pub use private_dir::{NotPrivate, PrivateDir};
pub use read::{
    read, read_below, read_from, read_prefix, read_text, read_text_below, read_text_within, read_within,
};
pub use remove::{count_tree_bytes, remove_own_tree, remove_tree};
pub use stale::{find_stale, is_stale, owned_temp_name, remove_stale};
pub use temporary_tree::TemporaryTree;
pub use user_file::UserFile;
