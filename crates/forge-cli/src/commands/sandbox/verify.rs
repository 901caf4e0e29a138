//! `forge sandbox verify`: tries to escape from a sandbox.

use crate::args::SandboxVerifyArgs;
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_config::FlagSetting;
use forge_runtime::{ProbeResult, ProbeScope, ProbeState, ProbeVerdict, Project};
use forge_terminal::StdoutFormat;
use forge_terminal::table::{self, fixed_column, flexible_column};
use forge_terminal::text::{one_line, pluralize};
use std::path::Path;

/// Runs the probes and prints the verdict; exits with 1 if the isolation failed a probe.
pub(crate) async fn verify(session: &Session, args: SandboxVerifyArgs) -> Result<CliExit, CliError> {
    let flag = args.backend.map(|value| FlagSetting {
        key: "sandbox.backend".to_owned(),
        value,
        name: "--backend".to_owned(),
    });
    let overlay = ConfigOverrides { flags: flag.into_iter().collect(), env_file: None };
    let loaded = session.load_config(Path::new("."), &overlay)?;
    let scope = if args.required { ProbeScope::Required } else { ProbeScope::All };
    let verdict = Project::open(loaded)?.verify_sandbox(scope).await?;
    if session.ui.format == StdoutFormat::Json {
        session.ui.print_json(&verdict);
    } else {
        print_verdict(session, &verdict);
    }
    Ok(if verdict.passed { CliExit::Done } else { CliExit::Failed })
}

/// Returns the name of the probe's group, as in the JSON output.
fn group_name(probe: &ProbeResult) -> String {
    serde_json::to_value(probe.group)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn print_verdict(session: &Session, verdict: &ProbeVerdict) {
    let ui = &session.ui;
    let rows: Vec<_> = verdict
        .probes
        .iter()
        .map(|probe| {
            let (state, why) = match &probe.state {
                ProbeState::Passed => ("held", &probe.detail),
                ProbeState::Failed => ("FAILED", &probe.detail),
                ProbeState::NotApplicable(why) => ("n/a", why),
            };
            let required = if probe.required { "yes" } else { "" };
            vec![state.to_owned(), group_name(probe), probe.name.clone(), required.to_owned(), one_line(why)]
        })
        .collect();
    let head = [
        fixed_column("STATE"),
        fixed_column("GROUP"),
        fixed_column("PROBE"),
        fixed_column("REQUIRED"),
        flexible_column("DETAIL"),
    ];
    ui.print_lines(table::render_table(&head, &rows, ui.out_width()));
    let count = |wanted: fn(&ProbeState) -> bool| verdict.probes.iter().filter(|p| wanted(&p.state)).count();
    let held = count(|state| matches!(state, ProbeState::Passed));
    let failed = count(|state| matches!(state, ProbeState::Failed));
    let none = count(|state| matches!(state, ProbeState::NotApplicable(_)));
    let line = format!(
        "{} on {}: {} held, {failed} failed, {none} not applicable here",
        verdict.backend,
        verdict.host.kernel,
        pluralize(held, "probe", "probes")
    );
    ui.print_line(&if verdict.passed { ui.out.green(&line) } else { ui.out.red(&line) });
}
