//! `forge tool`: what a model can call.

use crate::args::{Tool, ToolAction};
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::Session;
use crate::ui::Format;
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::wrap;
use forge_types::ToolSpec;
use serde_json::{Value, json};

/// Lists tools, or describes one.
pub(crate) fn tool(session: &Session, args: Tool) -> Result<Exit, CliError> {
    let tools = forge_runtime::tools();
    match args.action {
        ToolAction::List => list(session, &tools),
        ToolAction::Describe { name } => {
            let Some(tool) = tools.iter().find(|tool| tool.answers_to(&name)) else {
                let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
                return Err(CliError::usage(format!("there is no tool `{name}`"))
                    .hint(format!("there are: {}", names.join(", "))));
            };
            describe(session, tool);
        }
    }
    Ok(Exit::Done)
}

fn as_json(tool: &ToolSpec) -> Value {
    json!({
        "name": tool.name,
        "aliases": tool.aliases,
        "description": tool.description,
        "access": tool.access,
        "category": tool.category,
        "parameters": tool.schema(),
    })
}

fn list(session: &Session, tools: &[ToolSpec]) {
    let ui = &session.ui;
    if ui.format == Format::Json {
        ui.json(&tools.iter().map(as_json).collect::<Vec<_>>());
        return;
    }
    let row = |tool: &ToolSpec| {
        let first = tool.description.split_inclusive(". ").next().unwrap_or_default().trim();
        vec![tool.name.clone(), tool.access.name().to_owned(), tool.aliases.join(", "), first.to_owned()]
    };
    let head = [fixed("TOOL"), fixed("ACCESS"), flexible("ALSO"), flexible("WHAT IT DOES")];
    let rows: Vec<_> = tools.iter().map(row).collect();
    ui.lines(&table::lines(&head, &rows, ui.out_width()));
}

fn describe(session: &Session, tool: &ToolSpec) {
    let ui = &session.ui;
    if ui.format == Format::Json {
        ui.json(&as_json(tool));
        return;
    }
    let width = ui.out_width().min(100);
    ui.line(&ui.out.bold(&tool.name));
    ui.lines(&wrap(&tool.description, width));
    ui.line(&format!("access   {}", tool.access.name()));
    if !tool.aliases.is_empty() {
        ui.line(&format!("aliases  {}", tool.aliases.join(", ")));
    }
    if tool.params.is_empty() {
        return;
    }
    ui.line("");
    let row = |param: &forge_types::ParamSpec| {
        let wanted = if param.required { "required" } else { "optional" };
        let kind = param.kind.name().to_owned();
        vec![param.name.clone(), kind, wanted.to_owned(), param.description.clone()]
    };
    let rows: Vec<_> = tool.params.iter().map(row).collect();
    let head = [fixed("PARAMETER"), fixed("TYPE"), fixed(""), flexible("MEANING")];
    ui.lines(&table::lines(&head, &rows, ui.out_width()));
}
