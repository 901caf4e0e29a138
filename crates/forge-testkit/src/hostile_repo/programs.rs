//! Programs of the machine that make what the standard library can't make.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Runs a program to its end.
pub(super) fn run_program(program: &str, arguments: &[&OsStr]) -> io::Result<()> {
    run_to_end(&mut new_command(program), arguments)
}

/// Runs git in a repository, as a user whose own settings are none of it.
pub(super) fn run_git(repo: &Path, arguments: &[&str]) -> io::Result<()> {
    let mut git = new_command("git");
    git.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]);
    // The repository may belong to the user whom the tests of root act for.
    git.args(["-c", "safe.directory=*", "-c", "maintenance.auto=false"]).current_dir(repo);
    git.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
    run_to_end(&mut git, &arguments)
}

#[allow(clippy::disallowed_methods, reason = "a test makes what it needs, as a user would")]
fn new_command(program: &str) -> Command {
    Command::new(program)
}

fn run_to_end(command: &mut Command, arguments: &[&OsStr]) -> io::Result<()> {
    let output = command.args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let (program, said) = (command.get_program().display(), String::from_utf8_lossy(&output.stderr));
    Err(io::Error::other(format!("{program} {arguments:?}: {said}")))
}

/// Writes a file that can be started.
pub(super) fn write_executable(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}
