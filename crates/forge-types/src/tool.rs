//! Tools: what they are called, what they take, what they touch.

use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// What a tool touches; decides what may run beside what and what may be repeated after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolAccess {
    /// Only reads: may run beside other reads, may be repeated.
    Read,
    /// Changes files of the workspace.
    Write,
    /// Runs commands.
    Exec,
    /// Reaches out of the sandbox.
    Network,
    /// Touches neither files nor the network: needs no box and may be repeated.
    Nothing,
}

impl ToolAccess {
    /// Whether doing it twice does no harm.
    pub const fn repeatable(self) -> bool {
        matches!(self, Self::Read | Self::Nothing)
    }

    /// Whether it may change files of the workspace.
    pub const fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Exec)
    }

    /// The name on the wire.
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

/// Where a tool comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolCategory {
    /// Part of Forge.
    Builtin,
    /// From an adapter (MCP, webhook).
    Adapter,
    /// For development only; absent when `build.prod`.
    Dev,
    /// The project's own.
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
    /// The JSON Schema name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
        }
    }
}

/// One parameter of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ParamType,
    /// Whether it must be given.
    pub required: bool,
    /// What it means, for the model.
    pub description: String,
}

impl ParamSpec {
    /// A parameter that must be given.
    pub fn required(name: &str, kind: ParamType, description: &str) -> Self {
        Self { name: name.into(), kind, required: true, description: description.into() }
    }

    /// A parameter that may be left out.
    pub fn optional(name: &str, kind: ParamType, description: &str) -> Self {
        Self { name: name.into(), kind, required: false, description: description.into() }
    }
}

/// What the model and people are told about a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// The canonical name.
    pub name: String,
    /// Other names under which it can be called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// What it is for, in a sentence.
    pub description: String,
    /// Its parameters in order.
    pub params: Vec<ParamSpec>,
    /// What it touches.
    pub access: ToolAccess,
    /// Where it comes from.
    pub category: ToolCategory,
}

/// Parameters, written as a JSON Schema object: an object of strings, integers and booleans in their order.
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
            // A name that says it all is not explained: each word is paid for in every request.
            #[serde(skip_serializing_if = "str::is_empty")]
            description: &'a str,
        }
        serializer.collect_map(
            self.0.iter().map(|p| (&p.name, About { r#type: p.kind.name(), description: &p.description })),
        )
    }
}

impl ToolSpec {
    /// Whether `name` is its name or one of its aliases.
    pub fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.iter().any(|alias| alias == name)
    }

    /// The parameters as a JSON Schema object.
    pub fn parameters(&self) -> ParameterSchema<'_> {
        ParameterSchema(&self.params)
    }

    /// [`Self::parameters`] as a value.
    pub fn json_schema(&self) -> Value {
        serde_json::to_value(self.parameters()).unwrap_or_default()
    }

    /// One line for a prompt: `name(param: type, other?: type) - purpose`.
    pub fn prompt_signature(&self) -> String {
        let params: Vec<_> = self
            .params
            .iter()
            .map(|p| format!("{}{}: {}", p.name, if p.required { "" } else { "?" }, p.kind.name()))
            .collect();
        format!("{}({}) - {}", self.name, params.join(", "), self.description)
    }

    /// Checks arguments against the parameters: all required ones there, none unknown, types as declared.
    ///
    /// # Errors
    /// Names every fault in words that let the model correct itself.
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
                        faults.push(format!("`{}` must be a {}", param.name, param.kind.name()));
                    }
                }
            }
        }
        for name in arguments.keys().filter(|name| self.params.iter().all(|p| p.name != **name)) {
            let known: Vec<_> = self.params.iter().map(|p| p.name.as_str()).collect();
            faults.push(format!("`{name}` is not a parameter (there are: {})", known.join(", ")));
        }
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

/// What a tool gave back. A failure is a value too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolOutput {
    /// What the model sees.
    pub content: crate::Payload,
    /// Why it did not work; `None` if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<crate::ErrorKind>,
    /// The exit code, if a command ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether a time limit ended it.
    #[serde(default)]
    pub timed_out: bool,
    /// Whether something of the output is missing here.
    #[serde(default)]
    pub truncated: bool,
    /// Characters of the whole output.
    pub output_chars: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

impl ToolOutput {
    /// A result that worked.
    pub fn ok(content: impl Into<String>) -> Self {
        Self::from_parts(content.into(), None)
    }

    /// A result that did not work, with words for the model.
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

    /// Whether it worked.
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
            "`path` (string) is missing; `limit` must be a integer; \
             `file` is not a parameter (there are: path, limit)"
        );
    }

    #[test]
    fn a_spec_shows_itself_to_prompts_and_providers() {
        assert_eq!(spec().prompt_signature(), "read_file(path: string, limit?: integer) - reads");
        assert_eq!(spec().json_schema()["required"], json!(["path"]));
        assert!(spec().answers_to("file_read"));
    }
}
