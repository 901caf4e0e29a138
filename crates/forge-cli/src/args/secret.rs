//! Arguments for secrets and logins.

use clap::{Args, Subcommand};

/// `forge secret`
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) action: SecretAction,
}

/// Actions of `forge secret`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretAction {
    /// Store a secret; the value is prompted for, or read from stdin
    Set {
        /// Name, such as OPENAI_API_KEY
        name: String,
        /// Value. Better omitted: other programs on this machine can see arguments
        #[arg(hide = true, allow_hyphen_values = true)]
        value: Option<String>,
        /// Use this project's store instead of your own
        #[arg(long)]
        local: bool,
    },
    /// Print the value of a secret
    Get {
        /// Name
        name: String,
        /// Look only in this project's store
        #[arg(long)]
        local: bool,
        /// Show only the first three and last four characters
        #[arg(long)]
        masked: bool,
    },
    /// List secrets and their stores; values are redacted
    List {
        /// List only this project's store
        #[arg(long)]
        local: bool,
    },
    /// Delete a secret
    Delete {
        /// Name
        name: String,
        /// Use this project's store instead of your own
        #[arg(long)]
        local: bool,
    },
}

/// `forge login`
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Provider, such as openai, or `status` to list logins
    #[arg(value_name = "PROVIDER|status")]
    pub(crate) what: String,
    /// Print the address without opening a browser
    #[arg(long)]
    pub(crate) no_browser: bool,
}

/// `forge logout`
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// Provider
    #[arg(value_name = "PROVIDER")]
    pub(crate) provider: String,
}
