//! Documents rendered from the schema of settings: the page of keys and the two examples.

use std::fmt::Write as _;
use std::path::Path;

use forge_config::schema::{
    AliasReading, DefaultValue, KEYS, KeyKind, SchemaKey, SettingValue, section_names,
};

use crate::{Rules, Tree, Violation};

/// A path in the repository, and the function that renders the document there.
type RenderedDocument = (&'static str, fn() -> String);

/// The rendered documents by their paths.
const RENDERED: [RenderedDocument; 3] = [
    ("docs/configuration.md", configuration_page),
    ("forge.yaml.example", yaml_example),
    (".env.example", env_example),
];

/// Checks that the committed documents are those that the schema yields.
pub(crate) fn rendered(tree: &Tree, _: &Rules) -> Vec<Violation> {
    let mut found = Vec::new();
    for (path, render) in RENDERED {
        if tree.text(path).is_some_and(|text| text != render()) {
            let message = "does not match the schema of settings: run `cargo run -p xtask -- docs`";
            found.push(Violation::new(path, 0, "rendered-docs", message));
        }
    }
    found
}

/// Writes the documents.
///
/// # Errors
/// If a file can't be written.
pub fn write_settings_docs(root: &Path) -> std::io::Result<()> {
    RENDERED.iter().try_for_each(|(path, render)| std::fs::write(root.join(path), render()))
}

/// Variables of providers' API keys, for the example. The schema's defaults name the others.
const KEY_VARIABLES: [(&str, &str); 4] = [
    ("OPENAI_API_KEY", "OpenAI"),
    ("ANTHROPIC_API_KEY", "Anthropic"),
    ("GEMINI_API_KEY", "Google Gemini (GOOGLE_API_KEY works too)"),
    ("OPENROUTER_API_KEY", "OpenRouter"),
];

const DOC_INTRO: &str = "\
# Configuration

<!-- Rendered from the schema; `cargo run -p xtask -- docs` rewrites it. Do not edit. -->

Forge needs no configuration: with an API key such as `OPENAI_API_KEY` in the environment, or a local model server, it
runs with the defaults below. `forge init` writes a commented file for a project, `forge config show` prints every value
with its origin, and `forge config validate` checks the files.

## Sources

From highest to lowest precedence:

1. **Flags** of the command.
2. **The environment**: `FORGE_<SECTION>_<KEY>`, then `AGENT_FORGE_<SECTION>_<KEY>`, then the other names listed below.
   An empty variable counts as unset. Lists are separated by commas.
3. **A file given with `--env`**, with `NAME=value` lines, for variables that are not set. A `.env` is never read
   automatically.
4. **The project file**: `forge.toml` or `forge.yaml` in the repository, or the file given with `--config`.
5. **Your own file**: `forge.toml` or `forge.yaml` in `$XDG_CONFIG_HOME/forge` (`~/.config/forge`).
6. **Defaults.**

Both files in one directory are an error. So are unknown keys, values of the wrong type and values out of range. All
errors are reported at once, each with file, line, key, the expected and the actual value, and the nearest known key.

API keys of providers are never read from a configuration file. They come from the secret stores (`forge secret`) or from
the environment: `OPENAI_API_KEY`, `ANTHROPIC_API_KEY`, `GEMINI_API_KEY` (or `GOOGLE_API_KEY`) and `OPENROUTER_API_KEY`,
or the variable in `providers.<p>.api_key_env`. They are never shown and never enter the sandbox.

A size is a number of bytes or a text such as `512m` or `2g` (powers of 1024). A time is a number in the key's unit or a
text such as `90s` or `1h30m`. Relative paths start at the directory of the file that contains them, or at the current
directory for flags and variables; `~/` is your home directory.

## Trust

A cloned repository may contain its own configuration. Until you accept it with `forge trust`, it can only tighten
limits: the column *untrusted* lists the changes that it may make to a key. All its other settings have no effect, and
each one is reported. The repository is the whole git repository around the directory that a command works on, and around
the current directory, however a path is written: `--repo sub --config ../forge.toml` names a file of the clone. A git
repository that contains your home directory is your own.

`forge trust` shows every file that requires trust (`forge.toml`, `forge.yaml`, `.env`, `.forge/agents/`,
`.forge/pipelines/`, `.forge/memory/memory.json`, and files given with `--config`) and records their hashes in your data
directory, `$XDG_DATA_HOME/forge/trust` (`~/.local/share/forge/trust`). Any change requires a new confirmation. After
`forge init` and `forge config set`, your own project stays trusted.

## Keys
";

const DOC_OUTRO: &str = "\
## Examples

A project file:

```yaml
name: shop
language: python
agent:
  max_iterations: 40
  max_cost_usd: 2.5
model:
  provider: anthropic
sandbox:
  memory_limit: 4g
  env_vars: [PYTHONPATH]
```

A setting in the environment, and as your own default for all projects:

```console
$ FORGE_MODEL_PROVIDER=ollama forge run \"Fix the failing test\"
$ forge config set --user model.provider ollama
```

Your own server with OpenAI's chat format:

```toml
[model]
provider = \"custom\"
base_url = \"http://127.0.0.1:8000/v1\"
name = \"my-model\"

[providers.custom]
api_key_env = \"MY_SERVER_KEY\"
```

Complete files with all defaults: [forge.yaml.example](../forge.yaml.example) and [.env.example](../.env.example).
";

/// Renders `docs/configuration.md`.
fn configuration_page() -> String {
    let mut out = DOC_INTRO.to_owned();
    for group in section_groups() {
        let title = match group {
            "" => "Top level".to_owned(),
            group => format!("`[{group}]`"),
        };
        let _ = writeln!(out, "\n### {title}\n");
        out.push_str(
            "| key | default | values | other names | untrusted | description |\n|---|---|---|---|---|---|\n",
        );
        for key in KEYS.iter().filter(|key| group_of(key) == group) {
            let name = key.path.strip_prefix(group).unwrap_or(key.path).trim_start_matches('.');
            let _ = writeln!(
                out,
                "| `{name}` | {} | {} | {} | {} | {} |",
                default_cell(key),
                values_cell(key),
                names_cell(key),
                key.trust.describe(),
                key.doc
            );
        }
    }
    out.push('\n');
    out.push_str(DOC_OUTRO);
    out
}

/// Renders `forge.yaml.example`: keys with a default have it as their value, the others are comments.
fn yaml_example() -> String {
    let mut out = "# All keys with their defaults. Copy the ones you change into forge.yaml; see docs/configuration.md.\n\
                   # Rendered from the schema; `cargo run -p xtask -- docs` rewrites it.\n"
        .to_owned();
    let mut open: Vec<&str> = Vec::new();
    for section in section_names() {
        let parts: Vec<&str> = section.split('.').filter(|part| !part.is_empty()).collect();
        let same = parts.iter().zip(&open).take_while(|(a, b)| a == b).count();
        if same == 0 {
            out.push('\n');
        }
        for (depth, part) in parts.iter().enumerate().skip(same) {
            let _ = writeln!(out, "{}{part}:", "  ".repeat(depth));
        }
        let indent = "  ".repeat(parts.len());
        let provider = parts.first() == Some(&"providers");
        for key in KEYS.iter().filter(|key| key.section_name() == section) {
            let name = key.path.rsplit('.').next().unwrap_or(key.path);
            if !provider {
                let _ = writeln!(out, "{indent}# {}", key.doc);
            }
            match key.default_value() {
                Some(value) => {
                    let _ = writeln!(out, "{indent}{name}: {}", yaml_literal(key, &value));
                }
                None => {
                    let _ = writeln!(out, "{indent}# {name}: {}", sample_value(key));
                }
            }
        }
        open = parts;
    }
    out
}

/// Renders `.env.example`: every variable, as a comment.
fn env_example() -> String {
    let mut out = "# Variables that Forge reads. Pass this file with `--env`, or set them in your shell.\n\
                   # Rendered from the schema; `cargo run -p xtask -- docs` rewrites it.\n\n\
                   # API keys of providers; one is enough, and a local server needs none.\n"
        .to_owned();
    for (variable, vendor) in KEY_VARIABLES {
        let _ = writeln!(out, "# {vendor}\n#{variable}=");
    }
    for group in section_groups() {
        let _ = writeln!(out, "\n# {}", if group.is_empty() { "The project" } else { group });
        for key in KEYS.iter().filter(|key| group_of(key) == group) {
            let value = match key.default_value() {
                Some(SettingValue::List(_)) | None => String::new(),
                Some(value) => key.kind.format_value(&value),
            };
            let _ = writeln!(out, "#{}={value}", key.variable_name());
        }
    }
    out
}

/// Returns the sections as the page groups them: all providers in one.
fn section_groups() -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for key in KEYS {
        if !out.contains(&group_of(key)) {
            out.push(group_of(key));
        }
    }
    out
}

fn group_of(key: &SchemaKey) -> &'static str {
    let section = key.section_name();
    match section.split_once('.') {
        Some(("providers", _)) => "providers",
        Some(("agents", _)) => "agents",
        _ => section,
    }
}

fn default_cell(key: &SchemaKey) -> String {
    match (key.default, key.default_value()) {
        (DefaultValue::Unset, _) | (_, None) => "not set".to_owned(),
        (DefaultValue::Empty, _) => "`[]`".to_owned(),
        (_, Some(value)) => format!("`{}`", key.kind.format_value(&value)),
    }
}

fn values_cell(key: &SchemaKey) -> String {
    let words = key.kind.expected_text().replace('|', "\\|");
    match key.kind {
        KeyKind::Choice(choices) => {
            let also: Vec<_> = choices
                .iter()
                .flat_map(|(name, also)| also.iter().map(move |other| format!("`{other}` means `{name}`")))
                .collect();
            if also.is_empty() { words } else { format!("{words} ({})", also.join(", ")) }
        }
        _ => words,
    }
}

fn names_cell(key: &SchemaKey) -> String {
    let mut names = vec![format!("`{}`", key.variable_name())];
    names.extend(key.aliases.iter().map(|alias| match alias.reading {
        AliasReading::Negated => format!("`{}` (negated)", alias.name),
        AliasReading::AsIs | AliasReading::Foreign => format!("`{}`", alias.name),
    }));
    names.extend(key.other_paths.iter().map(|path| format!("`{path}` in files")));
    names.join(", ")
}

/// Formats a value as YAML.
fn yaml_literal(key: &SchemaKey, value: &SettingValue) -> String {
    match value {
        SettingValue::Text(text) if text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            text.clone()
        }
        SettingValue::Text(text) => format!("{text:?}"),
        SettingValue::List(items) => format!("[{}]", items.join(", ")),
        SettingValue::Bool(_) | SettingValue::Int(_) | SettingValue::Number(_) => {
            key.kind.format_value(value)
        }
    }
}

/// Returns an example value for a key without a default.
fn sample_value(key: &SchemaKey) -> &'static str {
    match key.kind {
        KeyKind::Choice([(first, _), ..]) => first,
        KeyKind::Number(_) => "0.5",
        KeyKind::Url => "\"http://127.0.0.1:8000/v1\"",
        KeyKind::Variable => "MY_SERVER_KEY",
        KeyKind::Path => "path/to/file",
        KeyKind::Model => "openai/gpt-4o",
        _ => "\"…\"",
    }
}
