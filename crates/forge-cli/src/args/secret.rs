//! What can be typed about secrets and logins.

use clap::{Args, Subcommand};

/// `forge secret`
#[derive(Debug, Args)]
pub(crate) struct SecretArgs {
    #[command(subcommand)]
    pub(crate) action: SecretAction,
}

/// What to do with secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretAction {
    /// Keep a secret; its value is asked for, or read from stdin
    Set {
        /// Its name, such as OPENAI_API_KEY
        name: String,
        /// Its value. Better left out: other programs of this machine can see arguments
        #[arg(hide = true, allow_hyphen_values = true)]
        value: Option<String>,
        /// In this project's store instead of your own
        #[arg(long)]
        local: bool,
    },
    /// Print a secret's value and nothing else
    Get {
        /// Its name
        name: String,
        /// Only from this project's store
        #[arg(long)]
        local: bool,
        /// Show only the first three and the last four characters
        #[arg(long)]
        masked: bool,
    },
    /// Names of secrets and where they are kept; values are masked
    List {
        /// Only this project's store
        #[arg(long)]
        local: bool,
    },
    /// Remove a secret
    Delete {
        /// Its name
        name: String,
        /// From this project's store instead of your own
        #[arg(long)]
        local: bool,
    },
}

/// `forge login`
#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// The provider, such as openai; `status` shows the logins there are
    #[arg(value_name = "PROVIDER|status")]
    pub(crate) what: String,
    /// Only print the address, open no browser
    #[arg(long)]
    pub(crate) no_browser: bool,
}

/// `forge logout`
#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    /// The provider
    #[arg(value_name = "PROVIDER")]
    pub(crate) provider: String,
}
