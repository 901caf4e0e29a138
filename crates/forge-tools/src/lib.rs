//! The tools that a model can call, one file each.
//!
//! A tool acts through [`forge_ports::Workspace`] only: it knows no host path, starts no process of its own and
//! reads no environment. Whatever goes wrong is an answer in words that the model can act on; an error is returned
//! only where the sandbox itself failed. Whether a call may run at all was decided before.

mod apply_patch;
mod arguments;
mod bytes;
mod create_file;
mod edit_file;
mod fault;
mod find_files;
mod list_directory;
mod matching;
mod patch;
mod path;
mod read_file;
mod registry;
mod run_shell;
mod search_code;
mod terminal;
mod write_file;

pub use registry::{RegisterError, Registry, Selection, UnknownTools};

use std::sync::Arc;

/// All tools that are part of Forge.
pub fn builtin() -> Registry {
    let tools: [Arc<dyn forge_ports::Tool>; 9] = [
        Arc::new(read_file::ReadFile),
        Arc::new(write_file::WriteFile),
        Arc::new(edit_file::EditFile),
        Arc::new(list_directory::ListDirectory),
        Arc::new(search_code::SearchCode),
        Arc::new(find_files::FindFiles),
        Arc::new(run_shell::RunShell),
        Arc::new(create_file::CreateFile),
        Arc::new(apply_patch::ApplyPatch),
    ];
    let mut registry = Registry::default();
    for tool in tools {
        registry.register(tool).expect("names of the tools of Forge are fixed, valid and differ");
    }
    registry
}
