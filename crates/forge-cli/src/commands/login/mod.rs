//! `forge login`, `forge logout`: an account in the browser instead of a key.

mod browser;

use crate::args::{LoginArgs, LogoutArgs};
use crate::error::CliError;
use crate::exit::CliExit;
use crate::session::{ConfigOverrides, Session};
use forge_runtime::{LoginError, LoginState, LoginStatus};
use forge_terminal::StdoutFormat;
use forge_terminal::text::one_line;
use forge_types::ErrorClass;
use std::path::Path;

/// Logs in, or lists the logins.
pub(crate) async fn login(session: &Session, args: LoginArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_config(Path::new("."), &ConfigOverrides::default())?;
    if args.what == "status" {
        return Ok(print_logins(session, &forge_runtime::logins(&loaded)));
    }
    let provider = args.what.as_str();
    let under_way = forge_runtime::start_provider_login(&loaded, provider).await?;
    let url = under_way.url();
    let opened = !args.no_browser && browser::open_browser(&session.env, url);
    let words = if opened {
        "Opening your browser. If nothing happens, open this address:"
    } else {
        "Open this address in a browser on this machine:"
    };
    session.ui.print_notice(&format!("{words}\n\n  {url}\n\nWaiting for the login (Ctrl-C to abort)…"));
    let done = tokio::select! {
        done = under_way.finish_login() => done?,
        _ = tokio::signal::ctrl_c() => {
            session.ui.print_notice("aborted; nothing was changed");
            return Ok(CliExit::Signal);
        }
    };
    match session.ui.format {
        StdoutFormat::Json => session.ui.print_json(&done),
        StdoutFormat::Text => session.ui.print_line(&format!(
            "logged in {}; stored in {}",
            account_label(&done),
            done.path.display()
        )),
    }
    if let (Some(variable), Some(origin)) =
        (loaded.secrets.variable_of(provider), loaded.secrets.origin_of(provider))
    {
        session.ui.print_warning(&format!(
            "{variable} is also set ({origin}): a key takes precedence over a login"
        ));
    }
    Ok(CliExit::Done)
}

/// Logs out of a provider.
pub(crate) fn logout(session: &Session, args: &LogoutArgs) -> Result<CliExit, CliError> {
    let loaded = session.load_config(Path::new("."), &ConfigOverrides::default())?;
    let known = forge_runtime::login_providers();
    if !known.contains(&args.provider.as_str()) {
        return Err(CliError::usage(format!("{} does not support logins", one_line(&args.provider)))
            .with_hint(format!("providers with logins: {}", known.join(", "))));
    }
    let was = forge_runtime::logout(&loaded, &args.provider)?;
    match (session.ui.format, was) {
        (StdoutFormat::Json, was) => {
            session.ui.print_json(&serde_json::json!({"provider": args.provider, "logged_out": was}));
        }
        (StdoutFormat::Text, true) => session.ui.print_line(&format!("logged out of {}", args.provider)),
        (StdoutFormat::Text, false) => {
            session.ui.print_line(&format!("you were not logged in to {}", args.provider))
        }
    }
    Ok(CliExit::Done)
}

fn print_logins(session: &Session, logins: &[LoginStatus]) -> CliExit {
    if session.ui.format == StdoutFormat::Json {
        session.ui.print_json(&logins);
        return CliExit::Done;
    }
    for login in logins {
        let line = match login.state {
            LoginState::None => {
                format!("not logged in to {0}. Log in: forge login {0}", login.provider)
            }
            LoginState::Valid => {
                let until = login.expires.map_or_else(String::new, |time| format!(", token until {time}"));
                format!("logged in {}{until} (renewed automatically)", account_label(login))
            }
            LoginState::Renewable => {
                format!("logged in {}; the token is renewed on its next use", account_label(login))
            }
            LoginState::Expired => {
                format!(
                    "the login {} has expired. Log in again: forge login {}",
                    account_label(login),
                    login.provider
                )
            }
            LoginState::Broken => login.problem.clone().unwrap_or_default(),
        };
        session.ui.print_line(&forge_terminal::text::sanitize_text(&line));
    }
    CliExit::Done
}

fn account_label(login: &LoginStatus) -> String {
    match &login.account {
        Some(account) => format!("to {} as {}", login.provider, one_line(account)),
        None => format!("to {}", login.provider),
    }
}

impl From<LoginError> for CliError {
    fn from(error: LoginError) -> Self {
        let shown = match error.class() {
            ErrorClass::Invalid => Self::usage(error.to_string()),
            _ => Self::failed(error.to_string()),
        };
        shown.with_next_steps(&error.next_steps())
    }
}
