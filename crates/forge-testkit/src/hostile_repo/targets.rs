//! What Forge, or a git that it starts, may read of a repository on the host.

/// A path in the repository that something reads there.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostileTarget {
    /// Where it lies in the repository.
    pub(super) path: &'static str,
    /// What reads its text, if a text is what it is.
    pub(super) syntax: TargetSyntax,
}

/// In what form the text of a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetSyntax {
    /// Whatever stands there is fine, or it is a directory.
    Any,
    /// A path that leads on, with these words before it.
    Path(&'static str),
    /// A tree of values: JSON, YAML or TOML.
    Values,
}

const fn any(path: &'static str) -> HostileTarget {
    HostileTarget { path, syntax: TargetSyntax::Any }
}

const fn leads(path: &'static str, before: &'static str) -> HostileTarget {
    HostileTarget { path, syntax: TargetSyntax::Path(before) }
}

const fn values(path: &'static str) -> HostileTarget {
    HostileTarget { path, syntax: TargetSyntax::Values }
}

/// All of them.
pub(super) static TARGETS: &[HostileTarget] = &[
    // Git's own data.
    leads(".git", "gitdir: "),
    leads(".git/HEAD", "ref: "),
    any(".git/config"),
    any(".git/config.worktree"),
    any(".git/index"),
    any(".git/packed-refs"),
    any(".git/refs"),
    any(".git/refs/heads"),
    leads(".git/refs/heads/main", "ref: "),
    any(".git/refs/heads/forge"),
    any(".git/refs/remotes/origin/main"),
    any(".git/refs/replace"),
    any(".git/logs"),
    any(".git/logs/HEAD"),
    any(".git/objects"),
    any(".git/objects/info"),
    leads(".git/objects/info/alternates", ""),
    leads(".git/objects/info/http-alternates", ""),
    any(".git/objects/info/commit-graph"),
    any(".git/objects/info/packs"),
    any(".git/objects/pack"),
    any(".git/objects/pack/multi-pack-index"),
    any(".git/info"),
    any(".git/info/attributes"),
    any(".git/info/exclude"),
    any(".git/info/grafts"),
    any(".git/info/sparse-checkout"),
    leads(".git/commondir", ""),
    leads(".git/gitdir", ""),
    any(".git/shallow"),
    any(".git/worktrees"),
    any(".git/worktrees/w"),
    leads(".git/worktrees/w/commondir", ""),
    leads(".git/worktrees/w/gitdir", ""),
    leads(".git/worktrees/w/HEAD", "ref: "),
    any(".git/modules"),
    any(".git/modules/sub/config"),
    any(".git/hooks"),
    any(".git/hooks/reference-transaction"),
    any(".git/FETCH_HEAD"),
    any(".git/MERGE_HEAD"),
    any(".git/index.lock"),
    any(".git/HEAD.lock"),
    any(".git/packed-refs.lock"),
    // What git reads beside its data.
    any(".gitignore"),
    any(".gitattributes"),
    any(".gitmodules"),
    any(".mailmap"),
    leads("sub/.git", "gitdir: "),
    // Settings of Forge.
    values("forge.toml"),
    values("forge.yaml"),
    any("forge.yml"),
    any(".env"),
    any(".forge"),
    any(".forge/.gitignore"),
    any(".forge/agents"),
    any(".forge/agents/coder"),
    any(".forge/agents/coder/prompt.md"),
    values(".forge/agents/coder/agent.toml"),
    any(".forge/pipelines"),
    values(".forge/pipelines/solo.toml"),
    any(".forge/memory"),
    values(".forge/memory/memory.json"),
    any(".forge/memory/.memory.json.lock"),
    any(".forge/memory/.gitignore"),
    any(".forge/secrets.enc"),
    any(".forge/.secrets.enc.lock"),
    values(".forge/tools.toml"),
    // What looks like credentials.
    any(".env.local"),
    any(".envrc"),
    any("deploy/.env"),
    any("target/.env"),
    any("server.pem"),
    any("id_rsa"),
    any("server.key"),
    any("store.p12"),
    any(".npmrc"),
    any(".netrc"),
    any(".git-credentials"),
    any(".aws"),
    any(".aws/credentials"),
    any("credentials.json"),
    any("deploy/service-account.json"),
    // Files that say what a project is, or what an agent should do.
    any("AGENTS.md"),
    any("CLAUDE.md"),
    any("README.md"),
    values("package.json"),
    values("Cargo.toml"),
    values("pyproject.toml"),
    any("Makefile"),
    // The workspace itself, with what the job touches in it.
    any("a.txt"),
    any("log.txt"),
    any("written.txt"),
    any("src"),
    any("src/b.txt"),
    any("src/.gitignore"),
    any("deploy"),
];
