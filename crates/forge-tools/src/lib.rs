//! The tools that a model can call, one file each.
//!
//! A tool acts only through [`forge_ports::Workspace`]: it knows no host path, starts no process of its own and reads
//! no environment. Only `create_pr` contacts the outside, at a single host, and it touches no file. Failures are
//! answers in words that the model can act on; an error is returned only if the sandbox itself failed. Whether a call
//! may run was decided before.

mod apply_patch;
mod arguments;
mod bytes;
mod chat;
mod code;
mod create_file;
mod create_pr;
mod edit_file;
mod find_files;
mod git;
mod git_commit;
mod git_create_branch;
mod git_diff;
mod github;
mod list_directory;
mod matching;
mod options;
mod origin;
mod patch;
mod path;
mod read_file;
mod recall;
mod remember;
mod run_shell;
mod search_code;
mod terminal;
mod tool_error;
mod workspace_error;
mod write_file;

pub use options::{GitAccess, GitHubOptions, GitHubToken, ToolOptions};
pub use origin::{origin_repository, work_tree};

use forge_ports::ToolRegistry;
use std::sync::Arc;

/// Returns all built-in tools with default options.
pub fn builtin_tools() -> ToolRegistry {
    builtin_tools_with(&ToolOptions::default())
}

/// Returns all built-in tools that `options` permit. `create_pr` is enabled by default only with a token.
pub fn builtin_tools_with(options: &ToolOptions) -> ToolRegistry {
    let mut tools: Vec<Arc<dyn forge_ports::Tool>> = vec![
        Arc::new(read_file::ReadFile),
        Arc::new(write_file::WriteFile),
        Arc::new(edit_file::EditFile),
        Arc::new(list_directory::ListDirectory),
        Arc::new(search_code::SearchCode),
        Arc::new(find_files::FindFiles),
        Arc::new(run_shell::RunShell),
        Arc::new(create_file::CreateFile),
        Arc::new(apply_patch::ApplyPatch),
        Arc::new(git_diff::GitDiff),
    ];
    if options.git == GitAccess::Full {
        tools.push(Arc::new(git_commit::GitCommit));
        tools.push(Arc::new(git_create_branch::GitCreateBranch));
    }
    const FIXED_NAMES_REASON: &str = "names of the tools of Forge are fixed, valid and differ";
    let mut registry = ToolRegistry::default();
    for tool in tools {
        registry.register(tool).expect(FIXED_NAMES_REASON);
    }
    if options.git == GitAccess::Full {
        let tool = Arc::new(create_pr::CreatePullRequest::new(options.github.clone()));
        // Useless without a token, and every request to a model would include it.
        match options.github.token {
            Some(_) => registry.register(tool),
            None => registry.register_on_request(tool),
        }
        .expect(FIXED_NAMES_REASON);
    }
    // For routers and conversations, which enable them explicitly.
    let talking: [Arc<dyn forge_ports::Tool>; 4] = [
        Arc::new(chat::ChatTool),
        Arc::new(code::CodeTool),
        Arc::new(remember::Remember),
        // Offered once there are passages to search.
        Arc::new(recall::Recall),
    ];
    for tool in talking {
        registry.register_on_request(tool).expect(FIXED_NAMES_REASON);
    }
    registry
}
