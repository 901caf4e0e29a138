//! `forge tool`: shows the tools available to a model.

use crate::args::{ToolAction, ToolArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::Session;
use forge_terminal::StdoutFormat;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::wrap_words;
use forge_types::ToolSpec;
use serde_json::{Value, json};

/// Lists tools, or describes one.
pub(crate) fn tool(session: &Session, args: ToolArgs) -> Result<CliExit, CliError> {
    let tools = forge_runtime::Forge::list_tools();
    match args.action {
        ToolAction::List => list_tools(session, &tools),
        ToolAction::Describe { name } => {
            let Some(tool) = tools.iter().find(|tool| tool.answers_to(&name)) else {
                let names: Vec<_> = tools.iter().map(|tool| tool.name.as_str()).collect();
                return Err(CliError::usage(format!("there is no tool `{name}`"))
                    .with_hint(format!("available tools: {}", names.join(", "))));
            };
            describe_tool(session, tool);
        }
    }
    Ok(CliExit::Done)
}

fn tool_json(tool: &ToolSpec) -> Value {
    json!({
        "name": tool.name,
        "aliases": tool.aliases,
        "description": tool.description,
        "access": tool.access,
        "category": tool.category,
        "parameters": tool.json_schema(),
    })
}

fn list_tools(session: &Session, tools: &[ToolSpec]) {
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&tools.iter().map(tool_json).collect::<Vec<_>>());
        return;
    }
    let row = |tool: &ToolSpec| {
        let first = tool.description.split_inclusive(". ").next().unwrap_or_default().trim();
        vec![tool.name.clone(), tool.access.name().to_owned(), tool.aliases.join(", "), first.to_owned()]
    };
    let head = [
        fixed_column("TOOL"),
        fixed_column("ACCESS"),
        flexible_column("ALIASES"),
        flexible_column("DESCRIPTION"),
    ];
    let rows: Vec<_> = tools.iter().map(row).collect();
    ui.print_lines(table::render_table(&head, &rows, ui.out_width()));
}

fn describe_tool(session: &Session, tool: &ToolSpec) {
    let ui = &session.ui;
    if ui.format == StdoutFormat::Json {
        ui.print_json(&tool_json(tool));
        return;
    }
    let width = ui.out_width().min(100);
    ui.print_line(&ui.out.bold(&tool.name));
    ui.print_lines(wrap_words(&tool.description, width));
    ui.print_line(&format!("access   {}", tool.access.name()));
    if !tool.aliases.is_empty() {
        ui.print_line(&format!("aliases  {}", tool.aliases.join(", ")));
    }
    if tool.params.is_empty() {
        return;
    }
    ui.print_line("");
    let row = |param: &forge_types::ParamSpec| {
        let wanted = if param.required { "required" } else { "optional" };
        let kind = param.kind.name().to_owned();
        vec![param.name.clone(), kind, wanted.to_owned(), param.description.clone()]
    };
    let rows: Vec<_> = tool.params.iter().map(row).collect();
    let head =
        [fixed_column("PARAMETER"), fixed_column("TYPE"), fixed_column(""), flexible_column("DESCRIPTION")];
    ui.print_lines(table::render_table(&head, &rows, ui.out_width()));
}
