//! The registry of tools (TOOL-23).

use crate::Tool;
use forge_types::{ToolCategory, ToolSpec};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

/// The reason why a tool was not registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Another tool already has one of the names.
    #[error("the tool `{tool}` was not registered: the name `{name}` already belongs to `{holder}`")]
    Duplicate {
        /// The new tool.
        tool: String,
        /// The name or alias that is taken.
        name: String,
        /// The tool that has the name.
        holder: String,
    },
    /// One of the names is not accepted by every provider.
    #[error(
        "the tool `{tool}` was not registered: the name `{name}` must be 1 to 64 letters, digits, `_` or `-`"
    )]
    Name {
        /// The new tool.
        tool: String,
        /// The invalid name or alias.
        name: String,
    },
}

/// The error for names that no tool has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown tools: {}. There are: {}", names.join(", "), known.join(", "))]
pub struct UnknownTools {
    /// The unknown names.
    pub names: Vec<String>,
    /// The known names.
    pub known: Vec<String>,
}

/// The tools that are enabled for a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolSelection {
    /// The enabled tools in the order of their registration.
    pub enabled: Vec<ToolSpec>,
    /// Names of the disabled tools.
    pub disabled: Vec<String>,
}

/// Tools by name and alias.
#[derive(Clone, Default)]
pub struct ToolRegistry {
    tools: Vec<(ToolSpec, Arc<dyn Tool>)>,
    /// Every name and alias, with the position of its tool.
    names: BTreeMap<String, usize>,
    /// Names of tools that are enabled only on request.
    on_request: BTreeSet<String>,
}

impl ToolRegistry {
    /// Registers a tool; failures are also logged with the tool's name.
    ///
    /// # Errors
    /// [`RegisterError`] if a name or alias is taken or invalid; the registry is then unchanged.
    pub fn register(&mut self, tool: Arc<dyn Tool>) -> Result<(), RegisterError> {
        let spec = tool.spec();
        if let Err(error) = self.check_admissible(&spec) {
            tracing::error!(tool = %spec.name, %error, "a tool was not registered");
            return Err(error);
        }
        let at = self.tools.len();
        for name in std::iter::once(&spec.name).chain(&spec.aliases) {
            self.names.insert(name.clone(), at);
        }
        self.tools.push((spec, tool));
        Ok(())
    }

    /// Registers a tool that is enabled only if an allowlist names it, because its requirements are not met by default.
    ///
    /// # Errors
    /// [`RegisterError`] as for [`ToolRegistry::register`].
    pub fn register_on_request(&mut self, tool: Arc<dyn Tool>) -> Result<(), RegisterError> {
        let name = tool.spec().name;
        self.register(tool)?;
        self.on_request.insert(name);
        Ok(())
    }

    fn check_admissible(&self, spec: &ToolSpec) -> Result<(), RegisterError> {
        let mut own = BTreeSet::new();
        for name in std::iter::once(&spec.name).chain(&spec.aliases) {
            let sendable = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
            if name.is_empty() || name.len() > 64 || !name.bytes().all(sendable) {
                return Err(RegisterError::Name { tool: spec.name.clone(), name: name.clone() });
            }
            let holder = match self.names.get(name) {
                Some(&at) => &self.tools[at].0.name,
                None if !own.insert(name) => &spec.name,
                None => continue,
            };
            let (tool, name, holder) = (spec.name.clone(), name.clone(), holder.clone());
            return Err(RegisterError::Duplicate { tool, name, holder });
        }
        Ok(())
    }

    /// Returns the tool with this name or alias.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.names.get(name).map(|&at| Arc::clone(&self.tools[at].1))
    }

    /// Returns the description of the tool with this name or alias.
    pub fn find_spec(&self, name: &str) -> Option<&ToolSpec> {
        self.names.get(name).map(|&at| &self.tools[at].0)
    }

    /// Returns all tools in the order of their registration.
    pub fn list_specs(&self) -> impl Iterator<Item = &ToolSpec> {
        self.tools.iter().map(|(spec, _)| spec)
    }

    /// Splits the tools by an allowlist of names or aliases; `None` enables every tool that was not registered on
    /// request.
    ///
    /// # Errors
    /// [`UnknownTools`] with every entry that matches no tool.
    pub fn select_tools(&self, allow: Option<&[String]>) -> Result<ToolSelection, UnknownTools> {
        let names: Vec<String> =
            allow.unwrap_or_default().iter().filter(|name| self.find_spec(name).is_none()).cloned().collect();
        if !names.is_empty() {
            return Err(UnknownTools {
                names,
                known: self.list_specs().map(|spec| spec.name.clone()).collect(),
            });
        }
        let mut selection = ToolSelection::default();
        for spec in self.list_specs() {
            let enabled = match allow {
                Some(allow) => allow.iter().any(|name| spec.answers_to(name)),
                None => spec.category == ToolCategory::Builtin && !self.on_request.contains(&spec.name),
            };
            if enabled {
                selection.enabled.push(spec.clone());
            } else {
                selection.disabled.push(spec.name.clone());
            }
        }
        Ok(selection)
    }

    /// Describes a tool for people.
    pub fn describe_tool(&self, name: &str) -> Option<String> {
        let spec = self.find_spec(name)?;
        let mut text = format!("{}\n  {}\n", spec.name, spec.description);
        let category = match spec.category {
            ToolCategory::Builtin => "builtin",
            ToolCategory::Adapter => "adapter",
            ToolCategory::Dev => "dev",
            ToolCategory::Custom => "custom",
        };
        // Writing to a String can't fail.
        let _ = writeln!(text, "  category: {category}; access: {}", spec.access.name());
        if !spec.aliases.is_empty() {
            let _ = writeln!(text, "  also called: {}", spec.aliases.join(", "));
        }
        for param in &spec.params {
            let need = if param.required { "required" } else { "optional" };
            let _ = writeln!(text, "  {} ({}, {need}): {}", param.name, param.kind.name(), param.description);
        }
        Some(text)
    }
}

impl std::fmt::Debug for ToolRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.list_specs().map(|spec| &spec.name)).finish()
    }
}
