//! Tools: names, parameters and used resources.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// The resources that a tool uses. Determines which tools may run concurrently and which may be repeated after a
/// crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolAccess {
    /// Only reads: may run concurrently with other reads, may be repeated.
    Read,
    /// Modifies files of the workspace.
    Write,
    /// Runs commands.
    Exec,
    /// Connects to hosts outside of the sandbox.
    Network,
    /// Uses neither files nor the network: needs no sandbox and may be repeated.
    Nothing,
}

impl ToolAccess {
    /// Returns whether a repetition is harmless.
    pub const fn repeatable(self) -> bool {
        matches!(self, Self::Read | Self::Nothing)
    }

    /// Returns whether the tool may modify files of the workspace.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Exec)
    }

    /// Returns the name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Exec => "exec",
            Self::Network => "network",
            Self::Nothing => "nothing",
        }
    }
}

/// The origin of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCategory {
    /// Part of Forge.
    Builtin,
    /// From an adapter (MCP, webhook).
    Adapter,
    /// For development only; absent if `build.prod`.
    Dev,
    /// Defined by the project.
    Custom,
}

/// The type of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamType {
    /// A text.
    String,
    /// A whole number.
    Integer,
    /// True or false.
    Boolean,
}

impl ParamType {
    /// Returns the JSON Schema name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        }
    }
}

/// A parameter of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// The parameter's name.
    pub name: String,
    /// The parameter's type.
    pub kind: ParamType,
    /// Whether the parameter is required.
    pub required: bool,
    /// The parameter's meaning, for the model.
    pub description: String,
}

impl ParamSpec {
    /// Creates a required parameter.
    pub fn required(name: &str, kind: ParamType, description: &str) -> Self {
        Self { name: name.into(), kind, required: true, description: description.into() }
    }

    /// Creates an optional parameter.
    pub fn optional(name: &str, kind: ParamType, description: &str) -> Self {
        Self { name: name.into(), kind, required: false, description: description.into() }
    }
}

/// The description of a tool for the model and for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The canonical name.
    pub name: String,
    /// Further names of the tool.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The purpose of the tool, in one sentence.
    pub description: String,
    /// The parameters in order.
    pub params: Vec<ParamSpec>,
    /// The resources that the tool uses.
    pub access: ToolAccess,
    /// The origin of the tool.
    pub category: ToolCategory,
}

/// Parameters that serialize as a JSON Schema object: an object of strings, integers and booleans in their order.
#[derive(Clone, Copy, Debug)]
pub struct ParameterSchema<'a>(&'a [ParamSpec]);

impl Serialize for ParameterSchema<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let required: Vec<&str> = self.0.iter().filter(|p| p.required).map(|p| p.name.as_str()).collect();
        let mut object = serializer.serialize_map(Some(3))?;
        object.serialize_entry("type", "object")?;
        object.serialize_entry("properties", &PropertySchema(self.0))?;
        object.serialize_entry("required", &required)?;
        object.end()
    }
}

struct PropertySchema<'a>(&'a [ParamSpec]);

impl Serialize for PropertySchema<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct About<'a> {
            r#type: &'static str,
            // A self-explanatory name has no description, because each word costs tokens in every request.
            #[serde(skip_serializing_if = "str::is_empty")]
            description: &'a str,
        }
        serializer.collect_map(
            self.0.iter().map(|p| (&p.name, About { r#type: p.kind.name(), description: &p.description })),
        )
    }
}

impl ToolSpec {
    /// Returns whether `name` is the tool's name or one of its aliases.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// Returns the parameters as a JSON Schema object.
    pub fn parameters(&self) -> ParameterSchema<'_> {
        ParameterSchema(&self.params)
    }

    /// Returns [`Self::parameters`] as a value.
    pub fn json_schema(&self) -> Value {
        serde_json::to_value(self.parameters()).unwrap_or_default()
    }

    /// Returns one line for a prompt: `name(param: type, other?: type) - purpose`.
    pub fn prompt_signature(&self) -> String {
        let params: Vec<_> = self
            .params
            .iter()
            .map(|p| format!("{}{}: {}", p.name, if p.required { "" } else { "?" }, p.kind.name()))
            .collect();
        format!("{}({}) - {}", self.name, params.join(", "), self.description)
    }

    /// Checks arguments against the parameters: required ones present, none unknown, types as declared.
    ///
    /// # Errors
    /// Returns a message with every fault, from which the model can correct its call.
    pub fn check_arguments(&self, arguments: &Map<String, Value>) -> Result<(), String> {
        let mut faults = Vec::new();
        for param in &self.params {
            match arguments.get(&param.name) {
                None | Some(Value::Null) if param.required => {
                    faults.push(format!("`{}` ({}) is missing", param.name, param.kind.name()));
                }
                None | Some(Value::Null) => {}
                Some(value) => {
                    let fits = match param.kind {
                        ParamType::String => value.is_string(),
                        ParamType::Integer => value.is_i64() || value.is_u64(),
                        ParamType::Boolean => value.is_boolean(),
                    };
                    if !fits {
                        faults.push(format!("`{}` must be of type {}", param.name, param.kind.name()));
                    }
                }
            }
        }
        for name in arguments.keys().filter(|name| self.params.iter().all(|p| p.name != **name)) {
            let known: Vec<_> = self.params.iter().map(|p| p.name.as_str()).collect();
            faults.push(format!("`{name}` is not a parameter (parameters: {})", known.join(", ")));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

/// The result of a tool. A failure is a value too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// The text that the model sees.
    pub content: crate::Payload,
    /// The kind of the failure; `None` on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ErrorKind>,
    /// The exit code, if a command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether a timeout ended the command.
    #[serde(default)]
    pub timed_out: bool,
    /// Whether the output is truncated.
    #[serde(default)]
    pub truncated: bool,
    /// Characters of the complete output.
    pub output_chars: u64,
    /// Duration in milliseconds.
    pub duration_ms: u64,
}

impl ToolOutput {
    /// Creates a successful result.
    pub fn ok(content: impl Into<String>) -> Self {
        Self::from_parts(content.into(), None)
    }

    /// Creates a failed result with a message for the model.
    pub fn failed(kind: crate::ErrorKind, content: impl Into<String>) -> Self {
        Self::from_parts(content.into(), Some(kind))
    }

    fn from_parts(content: String, error: Option<crate::ErrorKind>) -> Self {
        let output_chars = content.chars().count() as u64;
        Self {
            content: content.into(),
            error,
            exit_code: None,
            timed_out: false,
            truncated: false,
            output_chars,
            duration_ms: 0,
        }
    }

    /// Returns whether the tool succeeded.
    pub const fn is_ok(&self) -> bool {
        self.error.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec() -> ToolSpec {
        ToolSpec {
            name: "read_file".into(),
            aliases: vec!["file_read".into()],
            description: "reads".into(),
            params: vec![
                ParamSpec::required("path", ParamType::String, "which"),
                ParamSpec::optional("limit", ParamType::Integer, "lines"),
            ],
            access: ToolAccess::Read,
            category: ToolCategory::Builtin,
        }
    }

    #[test]
    fn arguments_are_checked_all_at_once() {
        let arguments = |json: Value| json.as_object().unwrap().clone();
        assert_eq!(spec().check_arguments(&arguments(json!({"path": "a", "limit": 3}))), Ok(()));
        let fault = spec().check_arguments(&arguments(json!({"limit": "x", "file": 1}))).unwrap_err();
        assert_eq!(
            fault,
            "`path` (string) is missing; `limit` must be of type integer; \
             `file` is not a parameter (parameters: path, limit)"
        );
    }

    #[test]
    fn a_spec_shows_itself_to_prompts_and_providers() {
        assert_eq!(spec().prompt_signature(), "read_file(path: string, limit?: integer) - reads");
        assert_eq!(spec().json_schema()["required"], json!(["path"]));
        assert!(spec().answers_to("file_read"));
    }
}
