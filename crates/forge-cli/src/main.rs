//! The program `forge`: arguments → one call → what people see of it.

mod args;
mod commands;
mod error;
mod exit;
mod logging;
mod request;
mod session;
mod ui;

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Inside a box this binary is started again under another name. That comes before anything else: no thread,
    // no environment, no arguments of ours.
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(code) = forge_runtime::helper_main(&words) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    commands::run_cli(args::Cli::parse()).into()
}
