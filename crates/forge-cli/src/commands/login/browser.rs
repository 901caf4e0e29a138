//! Opening an address in the user's browser.

use forge_config::Environment;
use std::process::Stdio;

/// What opens addresses on this kind of machine.
const OPEN_PROGRAM: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Tries to open an address; says whether something was started. On a machine without a screen nothing is.
pub(super) fn open_browser(env: &Environment, url: &str) -> bool {
    let screen = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"].iter().any(|name| env.get(name).is_some());
    if !screen {
        return false;
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the user asked for the browser, which is theirs and in no box"
    )]
    let mut opener = std::process::Command::new(OPEN_PROGRAM);
    // The address holds nothing secret: whoever sees it among the processes can't finish this login.
    opener.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    opener.spawn().is_ok()
}
