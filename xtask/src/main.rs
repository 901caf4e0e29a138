//! Command line of the repository's own checks and documents: `cargo run -p xtask -- tidy`, `figures` and `docs`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints its findings")]

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use xtask::{Figures, Rules, Tree, check_all, write_settings_docs};

const USAGE: &str = "usage: cargo run -p xtask -- COMMAND
  tidy      check layers, sizes, documents and sources of the whole repository
  figures   print metrics of the sources: names, comments, import cycles, sizes
  docs      write the reference of settings and its examples, from their schema";

fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let outcome = match argument.as_deref() {
        Some("tidy") => tidy(),
        Some("figures") => figures(),
        Some("docs") => docs(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}

/// Returns the root of the repository that contains this program.
fn root() -> anyhow::Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask is inside the repository")
}

fn load() -> anyhow::Result<(Tree, Rules)> {
    let tree = Tree::load(root()?)?;
    let rules = Rules::from_tree(&tree)?;
    Ok((tree, rules))
}

fn figures() -> anyhow::Result<ExitCode> {
    let (tree, rules) = load()?;
    print!("{}", Figures::count(&tree, &rules));
    Ok(ExitCode::SUCCESS)
}

fn docs() -> anyhow::Result<ExitCode> {
    write_settings_docs(root()?).context("cannot write the documents")?;
    Ok(ExitCode::SUCCESS)
}

fn tidy() -> anyhow::Result<ExitCode> {
    let (tree, rules) = load()?;
    let found = check_all(&tree, &rules);
    for violation in &found {
        println!("{violation}");
    }
    if found.is_empty() {
        println!("tidy: {} files in {} crates, no findings", tree.files().count(), tree.packages().len());
        return Ok(ExitCode::SUCCESS);
    }
    println!("tidy: {} findings", found.len());
    Ok(ExitCode::FAILURE)
}
