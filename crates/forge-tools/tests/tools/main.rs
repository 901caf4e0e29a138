//! What the tools of Forge do to a folder, and what they say.

#![allow(clippy::unwrap_used, reason = "a test that can not go on fails")]

mod documents;
mod editing;
mod finding;
mod git;
mod github;
mod patching;
mod reading;
mod recalling;
mod registry;
mod shell;
mod writing;

use forge_ports::tool::ToolEnv;
use forge_testkit::directory_workspace::DirectoryWorkspace;
use forge_types::{ErrorKind, PullRequestRules, ToolOutput};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// A folder with tools that act on it.
struct Bench {
    folder: tempfile::TempDir,
    workspace: Arc<DirectoryWorkspace>,
    pull_requests: PullRequestRules,
}

impl Bench {
    fn new() -> Self {
        Self::with(|workspace| workspace)
    }

    fn with(change: impl FnOnce(DirectoryWorkspace) -> DirectoryWorkspace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("repo")).unwrap();
        let workspace = Arc::new(change(DirectoryWorkspace::new(&folder.path().join("repo"))));
        Self { folder, workspace, pull_requests: PullRequestRules::default() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join("repo").join(path)
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn get(&self, path: &str) -> String {
        String::from_utf8(std::fs::read(self.path(path)).unwrap()).unwrap()
    }

    fn env(&self) -> ToolEnv {
        ToolEnv {
            past: None,
            memory: None,
            pull_requests: self.pull_requests.clone(),
            workspace: self.workspace.clone(),
            output: Arc::new(()),
            idempotency_key: Some("key-of-this-call".to_owned()),
            default_timeout: Duration::from_secs(120),
            max_timeout: Duration::from_secs(300),
        }
    }

    /// Calls a tool whose sandbox works.
    fn call(&self, tool: &str, arguments: Value) -> ToolOutput {
        self.try_call(tool, arguments).unwrap()
    }

    fn try_call(&self, tool: &str, arguments: Value) -> Result<ToolOutput, forge_ports::tool::SandboxGone> {
        self.call_of(&forge_tools::builtin_tools(), tool, arguments)
    }

    /// Calls a tool of a registry.
    fn call_of(
        &self,
        registry: &forge_ports::ToolRegistry,
        tool: &str,
        arguments: Value,
    ) -> Result<ToolOutput, forge_ports::tool::SandboxGone> {
        let Value::Object(arguments) = arguments else { panic!("arguments are an object") };
        let tool = registry.get(tool).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tool.run(&arguments, &self.env()))
    }

    /// What a call says that must work.
    fn ok(&self, tool: &str, arguments: Value) -> String {
        let output = self.call(tool, arguments);
        assert_eq!(output.error, None, "{output:?}");
        said(&output)
    }

    /// What a call says that must fail in this way.
    fn fails(&self, tool: &str, arguments: Value, kind: ErrorKind) -> String {
        let output = self.call(tool, arguments);
        assert_eq!(output.error, Some(kind), "{output:?}");
        said(&output)
    }

    /// Runs a command on the host, for what tests can't make otherwise.
    fn host(&self, command: &str) {
        let output = self.call("run_shell", serde_json::json!({"command": command}));
        assert_eq!(output.exit_code, Some(0), "{output:?}");
    }

    /// All bytes that a command writes.
    fn host_bytes(&self, command: &str) -> Vec<u8> {
        self.host(&format!("{command} >../output"));
        std::fs::read(self.folder.path().join("output")).unwrap()
    }
}

fn said(output: &ToolOutput) -> String {
    output.content.inline_text().unwrap().to_owned()
}
