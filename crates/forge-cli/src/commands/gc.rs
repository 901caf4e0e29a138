//! `forge gc`: old snapshots go.

use crate::args::Gc;
use crate::error::CliError;
use crate::exit::Exit;
use crate::session::{Overlay, Session};
use crate::ui::Format;
use crate::ui::text::plural;
use forge_config::Flag;
use forge_runtime::{Forge, GcLimits};
use serde_json::json;
use std::path::Path;

/// Removes what the limits allow to be removed.
pub(crate) async fn gc(session: &Session, args: Gc) -> Result<Exit, CliError> {
    let mut overlay = Overlay::default();
    let mut flag = |key: &str, name: &str, value: Option<String>| {
        if let Some(value) = value {
            overlay.flags.push(Flag { key: key.to_owned(), value, name: name.to_owned() });
        }
    };
    flag("workspace.snapshot_limit", "--max-size", args.max_size);
    flag(
        "workspace.snapshot_days",
        "--older-than",
        args.older_than.map(|days| days.trim_end_matches('d').to_owned()),
    );
    let loaded = session.load(Path::new("."), &overlay)?;
    let limits = GcLimits {
        bytes: loaded.settings.workspace.snapshot_limit,
        days: loaded.settings.workspace.snapshot_days,
    };
    let freed = Forge::open(&loaded)?.gc(limits, args.dry_run).await?;
    let bytes: u64 = freed.iter().map(|freed| freed.bytes).sum();
    let ui = &session.ui;
    if ui.format == Format::Json {
        let runs: Vec<_> = freed
            .iter()
            .map(|f| json!({ "run_id": f.run, "bytes": f.bytes, "last_written": f.at }))
            .collect();
        ui.json(&json!({ "dry_run": args.dry_run, "bytes": bytes, "runs": runs }));
        return Ok(Exit::Done);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    for one in &freed {
        ui.line(&format!(
            "{verb} the snapshots of run {} ({}, last written {})",
            one.run,
            size(one.bytes),
            one.at
        ));
    }
    ui.line(&format!("{verb} the snapshots of {}, {}", plural(freed.len(), "run", "runs"), size(bytes)));
    Ok(Exit::Done)
}

/// Bytes as people say them.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for larger in UNITS {
        if value < 1000.0 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_said_in_the_unit_that_fits() {
        assert_eq!(
            [size(0), size(999), size(1_500), size(2_000_000_000)],
            ["0 bytes", "999 bytes", "1.5 kB", "2.0 GB"]
        );
    }
}
