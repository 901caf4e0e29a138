//! Executors from the settings: their choice, their tools, their need for a sandbox, and their prompts.

use crate::Error;
use forge_config::{ExecutorName, ProjectFramework, ResolvedConfig, memories};
use forge_engine::{PROGRAM_TOOL, REQUEST_PARAMETER};
use forge_memory::{FileMemory, RepoMemoryGuard};
use forge_policy::{context, router};
use forge_ports::tool_registry::{ToolRegistry, ToolSelection, UnknownTools};
use forge_ports::{Clock, Memory};
use forge_types::{
    AgentPlan, Executor, MemoryFact, MemoryGuard, ModelFacts, ModelRoute, ParamSpec, ParamType, Price,
    SandboxSpec, ToolAccess, ToolCategory, ToolSpec,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The default reply of the executor `stub`.
const STUB_REPLY: &str = "This is a canned reply: the executor is `stub`.";
/// The tool that saves facts.
pub(crate) const REMEMBER_TOOL: &str = "remember";
/// The tool that searches compacted messages.
const RECALL_TOOL: &str = "recall";
/// The backend name for a sandbox that is never opened.
const NO_SANDBOX: &str = "none";

/// Returns the executor that the settings choose. A framework implies `subprocess` if no executor is set.
///
/// # Errors
/// If the executor is `subprocess` and no program is set.
pub(crate) fn select_executor(loaded: &ResolvedConfig) -> Result<Executor, Error> {
    let settings = &loaded.settings;
    Ok(match executor_name(loaded) {
        ExecutorName::React => Executor::React,
        ExecutorName::Router => {
            Executor::Router { max_steps: settings.router.max_steps, debug: settings.router.debug }
        }
        ExecutorName::Subprocess => Executor::Subprocess {
            argv: program_argv(settings.entrypoint.as_deref().unwrap_or_default())?,
            passthrough: settings.sandbox.env_vars.clone(),
        },
        ExecutorName::Stub => {
            let lines = settings.agent.stub_replies.as_deref().unwrap_or(STUB_REPLY).lines();
            let replies = lines.filter(|line| !line.trim().is_empty()).map(|line| line.replace("\\n", "\n"));
            Executor::Stub { replies: replies.collect() }
        }
    })
}

fn executor_name(loaded: &ResolvedConfig) -> ExecutorName {
    let settings = &loaded.settings;
    match settings.framework {
        ProjectFramework::Crewai | ProjectFramework::Langchain if !loaded.is_set("executor") => {
            ExecutorName::Subprocess
        }
        _ => settings.executor,
    }
}

/// Returns whether the settings choose the router.
pub(crate) fn uses_router(loaded: &ResolvedConfig) -> bool {
    executor_name(loaded) == ExecutorName::Router
}

/// Splits an entry point into program and arguments.
fn program_argv(entry: &str) -> Result<Vec<String>, Error> {
    let mut argv = split_shell_words(entry)
        .ok_or_else(|| Error::Invalid { what: "entrypoint: it contains an unclosed quote".to_owned() })?;
    let Some(first) = argv.first() else {
        let what = "the executor `subprocess` needs a program to run: set entrypoint, for example \
                    entrypoint = \"agent.py\"";
        return Err(Error::Invalid { what: what.to_owned() });
    };
    if Path::new(first).extension().is_some_and(|end| end.eq_ignore_ascii_case("py")) {
        argv.insert(0, "python3".to_owned());
    } else if first.contains('/') && !first.starts_with('/') && !first.starts_with("./") {
        argv[0] = format!("./{first}");
    }
    Ok(argv)
}

/// Splits a text into words as a shell would, without any expansion; `None` if a quote is not closed.
fn split_shell_words(text: &str) -> Option<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word.take());
    quote.is_none().then_some(words)
}

/// Selects the tools of an executor.
///
/// # Errors
/// If a tool to be enabled does not exist.
pub(crate) fn select_tools(
    executor: &Executor,
    loaded: &ResolvedConfig,
    registry: &ToolRegistry,
) -> Result<ToolSelection, Error> {
    let enabled = &loaded.settings.tools.enabled;
    let invalid = |error: UnknownTools| Error::Invalid { what: format!("tools.enabled: {error}") };
    if let Executor::Subprocess { .. } = executor {
        let program = ToolSpec {
            name: PROGRAM_TOOL.to_owned(),
            aliases: Vec::new(),
            description: "The program that does the work".to_owned(),
            params: vec![ParamSpec::required(REQUEST_PARAMETER, ParamType::String, "JSON")],
            access: ToolAccess::Write,
            category: ToolCategory::Custom,
        };
        return Ok(ToolSelection { enabled: vec![program], disabled: Vec::new() });
    }
    if !matches!(executor, Executor::Router { .. }) {
        return registry.select_tools((!enabled.is_empty()).then_some(enabled.as_slice())).map_err(invalid);
    }
    let mut names = enabled.clone();
    if names.is_empty() {
        names.push(router::CODE_TOOL.to_owned());
        names.extend(loaded.settings.memory.enabled.then(|| REMEMBER_TOOL.to_owned()));
    }
    names.push(router::CHAT_TOOL.to_owned());
    let mut selection = registry.select_tools(Some(&names)).map_err(invalid)?;
    let all: Vec<_> = selection.enabled.iter().map(|tool| tool.name.clone()).collect();
    selection.enabled = router::offered_tools(selection.enabled);
    let left_out = |name: &String| !selection.enabled.iter().any(|tool| tool.name == *name);
    let left_out: Vec<_> = all.into_iter().filter(left_out).collect();
    if !left_out.is_empty() {
        tracing::warn!(
            tools = left_out.join(", "),
            "left out: a router passes a single text to a tool, and these need more"
        );
    }
    selection.disabled.extend(left_out);
    Ok(selection)
}

/// Returns the tool that searches compacted messages, which is neither in the first request nor among the
/// disabled tools.
pub(crate) fn recall_tool(
    executor: &Executor,
    loaded: &ResolvedConfig,
    tools: &mut ToolSelection,
    registry: &ToolRegistry,
) -> Option<ToolSpec> {
    let spec = registry.find_spec(RECALL_TOOL).filter(|_| matches!(executor, Executor::React))?.clone();
    let enabled = &loaded.settings.tools.enabled;
    if !enabled.is_empty() && !enabled.iter().any(|name| spec.answers_to(name)) {
        return None;
    }
    tools.enabled.retain(|tool| tool.name != RECALL_TOOL);
    tools.disabled.retain(|name| name != RECALL_TOOL);
    Some(spec)
}

/// Returns whether runs with these settings may need a sandbox, as far as that is known before there is a plan.
pub(crate) fn may_need_sandbox(loaded: &ResolvedConfig) -> bool {
    let tools = &loaded.settings.tools;
    match executor_name(loaded) {
        ExecutorName::Subprocess => true,
        _ if tools.mock => false,
        ExecutorName::Router => !tools.enabled.is_empty(),
        ExecutorName::React | ExecutorName::Stub => true,
    }
}

/// Returns the specification of a sandbox that is never opened.
pub(crate) fn no_sandbox_spec(repo: &Path) -> SandboxSpec {
    SandboxSpec::new(NO_SANDBOX, repo)
}

/// Returns the route of an executor that calls no provider; it is free of charge.
pub(crate) fn synthetic_route(executor: &Executor) -> (ModelRoute, ModelFacts) {
    let route = ModelRoute { provider: executor.name().to_owned(), model: executor.name().to_owned() };
    let price = Some(Price { input: 0, output: 0, cached_input: 0, cache_write: 0 });
    (route, ModelFacts { price, window: 1_000_000, max_output: None })
}

/// Builds the system prompt of an agent.
pub(crate) fn system_prompt(
    plan: &AgentPlan,
    sandbox: &SandboxSpec,
    own: Option<&str>,
    facts: &[MemoryFact],
) -> String {
    let prompt = match &plan.executor {
        Executor::Router { max_steps, .. } => router::system_prompt(&plan.tools, *max_steps, own),
        _ => context::system_prompt(&plan.tools, sandbox, own),
    };
    context::with_facts(prompt, facts)
}

/// Returns the memory's file, if memory is enabled, and its guard if the file is in a repository. Adopts the
/// repository's own memory as far as the user accepted it.
pub(crate) fn memory_file(
    loaded: &ResolvedConfig,
    repo: &Path,
    clock: &Arc<dyn Clock>,
) -> (Option<PathBuf>, Option<MemoryGuard>) {
    if !loaded.settings.memory.enabled {
        return (None, None);
    }
    let (path, guard) = match memories::memory_location(loaded, repo) {
        memories::MemoryLocation::Own(path) => (path, None),
        memories::MemoryLocation::InRepository { root, relative, record } => {
            (root.join(&relative), Some(MemoryGuard { root, relative, record }))
        }
    };
    let taken = match &guard {
        Some(guard) => memories::accepted_digest_at(&loaded.dirs, repo, &guard.root, &guard.relative)
            .map(|content| repo_guard(guard).accept(content).map_err(|error| error.to_string())),
        None if loaded.settings.memory.file.is_none() => {
            memories::accepted_memory(&loaded.dirs, repo).map(|bytes| {
                let memory = FileMemory::new(path.clone(), clock.clone());
                memory.adopt(&bytes).map(drop).map_err(|error| error.to_string())
            })
        }
        None => None,
    };
    if let Some(Err(error)) = taken {
        tracing::warn!(error, "can't adopt the repository's memory, which you accepted");
    }
    (Some(path), guard)
}

fn repo_guard(guard: &MemoryGuard) -> RepoMemoryGuard {
    let MemoryGuard { root, relative, record } = guard.clone();
    RepoMemoryGuard { root, relative, record }
}

/// Opens the memory of an agent.
pub(crate) fn open_memory(plan: &AgentPlan, clock: &Arc<dyn Clock>) -> Option<Arc<dyn Memory>> {
    let path = plan.memory.clone()?;
    Some(match &plan.memory_guard {
        Some(guard) => Arc::new(FileMemory::new_guarded(repo_guard(guard), clock.clone())),
        // A plan of an earlier version, which kept the memory where a run can write.
        None if path.ends_with(memories::REPOSITORY_MEMORY_PATH) => return None,
        None => Arc::new(FileMemory::new(path, clock.clone())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_point_is_a_program_with_its_arguments() {
        let argv = |entry| program_argv(entry).map_err(|error| error.to_string());
        assert_eq!(argv("agent.py --fast").unwrap(), ["python3", "agent.py", "--fast"]);
        assert_eq!(argv("bin/agent 'a b' \"\"").unwrap(), ["./bin/agent", "a b", ""]);
        assert_eq!(argv("node agent.js").unwrap(), ["node", "agent.js"]);
        assert!(argv("  ").unwrap_err().contains("set entrypoint"));
        assert!(argv("a 'b").unwrap_err().contains("unclosed quote"));
    }
}
