//! Entry point of the program `forge`: parses arguments, makes one call and prints the result.

mod args;
mod commands;
mod error;
mod exit;
mod hints;
mod logging;
mod request;
mod session;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Inside a sandbox this binary runs again under another name. This check comes first, before any thread is started
    // and before the environment and arguments are read.
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(code) = forge_runtime::helper_main(&words) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    commands::run_cli(args::Cli::parse()).into()
}
