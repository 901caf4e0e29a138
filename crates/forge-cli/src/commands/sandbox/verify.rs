//! `forge sandbox verify`: tries to break out of a box.

use crate::args::Verify;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::table::{self, fixed, flexible};
use crate::ui::text::{one_line, plural};
use forge_config::Flag;
use forge_runtime::{Forge, ProbeResult, ProbeState, Scope, Verdict};
use std::path::Path;

/// Runs the probes and shows the verdict; exit code 1 if something did not hold.
pub(crate) async fn verify(session: &Session, args: Verify) -> Result<Exit, CliError> {
    let flag = args.backend.map(|value| Flag {
        key: "sandbox.backend".to_owned(),
        value,
        name: "--backend".to_owned(),
    });
    let overlay = Overlay { flags: flag.into_iter().collect(), env_file: None };
    let loaded = session.load(Path::new("."), &overlay)?;
    let scope = if args.required { Scope::Required } else { Scope::All };
    let verdict = Forge::open(&loaded)?.verify(&loaded, scope).await?;
    if session.ui.format == Format::Json {
        session.ui.json(&verdict);
    } else {
        show(session, &verdict);
    }
    Ok(if verdict.passed { Exit::Done } else { Exit::Failed })
}

/// The group's name as it stands in the JSON form.
fn group_name(probe: &ProbeResult) -> String {
    serde_json::to_value(probe.group)
        .ok()
        .and_then(|name| name.as_str().map(str::to_owned))
        .unwrap_or_default()
}

fn show(session: &Session, verdict: &Verdict) {
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
    let head = [fixed("STATE"), fixed("GROUP"), fixed("PROBE"), fixed("REQUIRED"), flexible("WHAT WAS SEEN")];
    ui.lines(&table::lines(&head, &rows, ui.out_width()));
    let count = |wanted: fn(&ProbeState) -> bool| verdict.probes.iter().filter(|p| wanted(&p.state)).count();
    let held = count(|state| matches!(state, ProbeState::Passed));
    let failed = count(|state| matches!(state, ProbeState::Failed));
    let none = count(|state| matches!(state, ProbeState::NotApplicable(_)));
    let line = format!(
        "{} on {}: {} held, {failed} failed, {none} not applicable here",
        verdict.backend,
        verdict.host.kernel,
        plural(held, "probe", "probes")
    );
    ui.line(&if verdict.passed { ui.out.green(&line) } else { ui.out.red(&line) });
}
