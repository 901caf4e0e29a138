//! Settings of workspaces and of the tools for git.

use super::definition::settings;
use crate::schema::kind::KeyKind;
use forge_types::{ApplyPolicy, WorkspaceMode};

const WORKSPACE_MODES: KeyKind =
    KeyKind::Choice(&[("transaction", &[]), ("branch", &["worktree"]), ("inplace", &[])]);
const APPLY_POLICIES: KeyKind = KeyKind::Choice(&[("auto", &[]), ("ask", &[]), ("never", &[])]);

settings! {
    /// Settings of `[workspace]`.
    #[derive(Eq)]
    pub struct WorkspaceSettings in "workspace." {
        keys WORKSPACE_KEYS:
        /// Workspace of a run: a private one with a result that is applied (`transaction`) or becomes a branch
        /// (`branch`), or the repository itself (`inplace`).
        mode: WorkspaceMode = Text("transaction"), WORKSPACE_MODES, Towards(&["transaction", "branch", "inplace"]),
            with_flags("--workspace");
        /// Policy for applying the result of a completed run: at once unless the same files have changed in the
        /// repository, after a prompt, or only with `forge apply`.
        apply: ApplyPolicy = Text("auto"), APPLY_POLICIES, Towards(&["never", "ask", "auto"]), with_flags("--apply");
        /// Disk space for the snapshots of all runs. The oldest ones beyond it are removed by `forge gc` and, at most
        /// once an hour, at the end of a run.
        snapshot_limit: u64 = Int(10 * GIB), bytes_kind(MIB, 64 * TIB), Ask, with_flags("--max-size");
        /// Days after which the snapshots of a finished run may be removed.
        snapshot_days: u64 = Int(30), int_kind(1, 36_500), Ask, with_flags("--older-than");
        /// Largest number of files, directories and links in a repository or workspace.
        max_paths: u64 = Int(1_000_000), int_kind(100, 100_000_000), Lower;
        /// Largest number of paths in which a workspace may differ from its baseline.
        max_changed_paths: u64 = Int(100_000), int_kind(100, 100_000_000), Lower;
        /// Largest total length of names and link targets: names for the files of a repository, whole paths for
        /// differences.
        max_path_bytes: u64 = Int(32 * MIB), bytes_kind(MIB, 64 * GIB), Lower;
        /// Deepest nesting of directories.
        max_depth: u64 = Int(256), int_kind(16, 4096), Lower;
        /// Largest file that a snapshot, a copy or an apply reads. Holes in sparse files count in full.
        max_file_size: u64 = Int(64 * GIB), bytes_kind(MIB, 64 * TIB), Lower;

        keys MASKING_KEYS:
        /// Paths in the repository that tools may read although they look like credentials.
        reveal: Vec<String> = Empty, KeyKind::List(ListElement::Inside), Fewer;
    }
}

settings! {
    /// Settings of `[git]`.
    #[derive(Eq)]
    pub struct GitSettings in "git." {
        keys GIT_KEYS:
        /// Whether the tools that commit, branch and open pull requests are excluded.
        read_only: bool = Bool(false), KeyKind::Bool, Ask;
        /// Variable of your environment that holds the token for pull requests; it never enters a sandbox.
        token_env: String = Text("GITHUB_TOKEN"), KeyKind::Variable, Ask;
        /// API address of the server that receives pull requests. Unset: GitHub's.
        api_url: Option<String> = Unset, KeyKind::Url, Ask;
    }
}
