//! The registry and what all tools have in common.

use forge_ports::tool::{SandboxGone, ToolEnv};
use forge_ports::tool_registry::{RegisterError, ToolRegistry};
use forge_ports::{Tool, async_trait};
use forge_tools::{GitHubOptions, GitHubToken, ToolOptions, builtin_tools};
use forge_types::{ToolAccess, ToolCategory, ToolOutput, ToolSpec};
use serde_json::{Map, Value, json};
use std::sync::Arc;

struct Fake {
    name: &'static str,
    aliases: &'static [&'static str],
    category: ToolCategory,
}

#[async_trait]
impl Tool for Fake {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: self.name.into(),
            aliases: self.aliases.iter().map(|&alias| alias.into()).collect(),
            description: "does nothing".into(),
            params: Vec::new(),
            access: ToolAccess::Read,
            category: self.category,
        }
    }

    async fn run(&self, _: &Map<String, Value>, _: &ToolEnv) -> Result<ToolOutput, SandboxGone> {
        Ok(ToolOutput::ok("nothing"))
    }
}

fn fake(name: &'static str, aliases: &'static [&'static str], category: ToolCategory) -> Arc<dyn Tool> {
    Arc::new(Fake { name, aliases, category })
}

#[test]
fn the_tools_of_forge_have_their_names_and_aliases() {
    let table: String = builtin_tools()
        .list_specs()
        .map(|spec| format!("{} [{}] {}\n", spec.name, spec.aliases.join(" "), spec.access.name()))
        .collect();
    assert_eq!(
        table,
        "read_file [file_read] read\n\
         write_file [file_write] write\n\
         edit_file [file_edit] write\n\
         list_directory [directory_tree] read\n\
         search_code [search_codebase search search_content grep_search] read\n\
         find_files [search_files glob_search] read\n\
         run_shell [shell_exec run_command] exec\n\
         create_file [file_create] write\n\
         apply_patch [file_patch] write\n\
         git_diff [] write\n\
         git_commit [] write\n\
         git_create_branch [] write\n\
         create_pr [] network\n\
         chat [] nothing\n\
         code [generate_code] nothing\n\
         remember [] nothing\n\
         recall [] nothing\n"
    );
}

#[test]
fn parameters_are_those_of_the_specification() {
    let table: String = builtin_tools()
        .list_specs()
        .map(|spec| {
            let signature = spec.prompt_signature();
            signature.split(" - ").next().unwrap_or_default().to_owned() + "\n"
        })
        .collect();
    assert_eq!(
        table,
        "read_file(path: string, offset?: integer, limit?: integer)\n\
         write_file(path: string, content: string)\n\
         edit_file(path: string, old_text: string, new_text: string, replace_all?: boolean)\n\
         list_directory(path?: string, recursive?: boolean, max_depth?: integer)\n\
         search_code(pattern: string, path?: string, file_glob?: string, max_results?: integer)\n\
         find_files(glob: string)\n\
         run_shell(command: string, working_dir?: string, timeout_seconds?: integer, keep_background?: boolean)\n\
         create_file(filename: string, content: string)\n\
         apply_patch(patch: string)\n\
         git_diff(path?: string, staged?: boolean, base_ref?: string)\n\
         git_commit(message: string)\n\
         git_create_branch(branch_name: string, base_ref?: string)\n\
         create_pr(title: string, body: string, base?: string, head?: string, repo?: string)\n\
         chat(content: string)\n\
         code(content: string)\n\
         remember(key: string, value: string)\n\
         recall(query: string)\n"
    );
}

/// Every request to a model holds all of it.
#[test]
fn the_specs_are_small() {
    let specs: Vec<Value> = builtin_tools()
        .select_tools(None)
        .unwrap()
        .enabled
        .iter()
        .map(|spec| json!({"name": spec.name, "description": spec.description, "parameters": spec.json_schema()}))
        .collect();
    let size = serde_json::to_string(&specs).unwrap().len();
    assert!(size <= 3750, "{size} bytes");
}

#[test]
fn names_and_aliases_belong_to_one_tool() {
    let mut registry = ToolRegistry::default();
    registry.register(fake("a", &["b"], ToolCategory::Custom)).unwrap();
    for (name, aliases, taken) in [
        ("a", &[][..], "a"),
        ("b", &[], "b"),
        ("c", &["a"], "a"),
        ("c", &["d", "d"], "d"),
        ("c", &["c"], "c"),
    ] {
        let error = registry.register(fake(name, aliases, ToolCategory::Custom)).unwrap_err();
        assert!(matches!(&error, RegisterError::Duplicate { name, .. } if name == taken), "{error}");
        assert!(error.to_string().contains(&format!("`{name}`")), "{error}");
    }
    for name in ["", "a b", "é"] {
        let error = registry.register(fake(name, &[], ToolCategory::Custom)).unwrap_err();
        assert!(matches!(error, RegisterError::Name { .. }));
    }
    // A refused tool leaves nothing behind.
    assert_eq!(registry.list_specs().count(), 1);
    assert!(registry.get("c").is_none() && registry.get("d").is_none());
    assert_eq!(registry.get("b").unwrap().spec().name, "a");
}

#[test]
fn tools_are_chosen_by_an_allowlist() {
    let mut registry = builtin_tools();
    registry.register(fake("probe", &[], ToolCategory::Dev)).unwrap();
    let all = registry.select_tools(None).unwrap();
    // Without a token no pull request can be opened.
    let others = ["create_pr", "chat", "code", "remember", "recall", "probe"].map(str::to_owned);
    assert_eq!((all.enabled.len(), all.disabled.as_slice()), (12, &others[..]));
    let asked = registry.select_tools(Some(&["create_pr".into()])).unwrap();
    assert_eq!(asked.enabled[0].name, "create_pr");
    let github = GitHubOptions { token: Some(GitHubToken::new("t")), ..GitHubOptions::default() };
    let with_token = forge_tools::builtin_tools_with(&ToolOptions { github, ..ToolOptions::default() });
    assert_eq!(
        with_token.select_tools(None).unwrap().disabled,
        others[1..5],
        "what is for conversations is asked for"
    );
    let some = registry.select_tools(Some(&["shell_exec".into(), "read_file".into()])).unwrap();
    let names: Vec<_> = some.enabled.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["read_file", "run_shell"]);
    assert_eq!(some.disabled.len(), 16);
    let error = registry.select_tools(Some(&["nope".into(), "read_file".into()])).unwrap_err();
    assert!(error.to_string().starts_with("unknown tools: nope. There are: read_file, "), "{error}");
}

#[test]
fn a_tool_describes_itself() {
    let text = builtin_tools().describe_tool("grep_search").unwrap();
    assert!(text.starts_with("search_code\n"), "{text}");
    assert!(text.contains("also called: search_codebase, search"), "{text}");
    assert!(text.contains("  pattern (string, required): regular expression\n"), "{text}");
    assert_eq!(builtin_tools().describe_tool("nope"), None);
}

#[test]
fn wrong_arguments_are_answered_by_every_tool() {
    let bench = crate::Bench::new();
    for spec in builtin_tools().list_specs() {
        for param in &spec.params {
            let mut arguments = json!({});
            for other in spec.params.iter().filter(|p| p.required) {
                arguments[other.name.as_str()] = json!("x.md");
            }
            arguments[param.name.as_str()] = json!([1]);
            let output = bench.call(&spec.name, arguments);
            assert_eq!(
                output.error,
                Some(forge_types::ErrorKind::BadArguments),
                "{} {}",
                spec.name,
                param.name
            );
        }
    }
}
