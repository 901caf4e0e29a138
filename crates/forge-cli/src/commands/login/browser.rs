//! Opening an address in the user's browser.

use forge_config::Environment;
use std::process::Stdio;

/// Program that opens addresses on this platform.
const OPEN_PROGRAM: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };

/// Tries to open an address; returns whether a program was started. Without a display, none is.
pub(super) fn open_browser(env: &Environment, url: &str) -> bool {
    let screen = cfg!(target_os = "macos")
        || ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"].iter().any(|name| env.get(name).is_some());
    if !screen {
        return false;
    }
    #[allow(
        clippy::disallowed_methods,
        reason = "the user asked for their own browser, which runs outside any sandbox"
    )]
    let mut opener = std::process::Command::new(OPEN_PROGRAM);
    // The address is not secret: a user who sees it in the process list can't finish this login.
    opener.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    opener.spawn().is_ok()
}
