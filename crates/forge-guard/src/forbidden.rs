//! Commands that are always refused, because no run needs them.

use super::shell::{ShellScript, SimpleCommand};
use std::collections::BTreeSet;

/// Files under `/dev` that are safe to write to.
const HARMLESS_DEVICES: [&str; 8] = ["null", "zero", "full", "stdin", "stdout", "stderr", "tty", "random"];
const HARMLESS_DIRECTORIES: [&str; 5] = ["fd", "pts", "shm", "tcp", "udp"];

/// Returns why this program with these arguments is forbidden; a `None` in `argv` is an unknown argument.
///
/// `at_root`: whether the working directory is `/`.
pub(super) fn forbidden_reason(argv: &[Option<String>], at_root: bool) -> Option<&'static str> {
    let program = basename(argv.first()?.as_deref()?);
    let arguments: Vec<&str> = argv[1..].iter().flatten().map(String::as_str).collect();
    match program {
        "rm" if removes_root(&arguments, at_root) => Some("it removes the whole file system"),
        "dd" if arguments.iter().any(|a| a.strip_prefix("of=").is_some_and(is_device)) => {
            Some("it writes to a device")
        }
        "tee" if arguments.iter().any(|a| is_device(a)) => Some("it writes to a device"),
        "shutdown" | "reboot" | "halt" | "poweroff" => Some("it stops the machine"),
        "systemctl" | "loginctl"
            if arguments.iter().any(|a| matches!(*a, "poweroff" | "reboot" | "halt" | "kexec")) =>
        {
            Some("it stops the machine")
        }
        "init" | "telinit" if matches!(arguments.first(), Some(&("0" | "6"))) => Some("it stops the machine"),
        "mke2fs" => Some("it formats a device"),
        _ if program == "mkfs" || program.starts_with("mkfs.") => Some("it formats a device"),
        _ => None,
    }
}

/// Returns the last part of a program's path.
pub(super) fn basename(program: &str) -> &str {
    program.rsplit('/').next().unwrap_or(program)
}

fn removes_root(arguments: &[&str], at_root: bool) -> bool {
    let mut recursive = false;
    let mut root = false;
    let mut options = true;
    for argument in arguments {
        if options && *argument == "--" {
            options = false;
        } else if options && argument.starts_with("--") {
            recursive |= argument.len() > 3 && "--recursive".starts_with(argument);
            // This option has no other use.
            root |= argument.len() > 5 && "--no-preserve-root".starts_with(argument);
        } else if options && argument.starts_with('-') && argument.len() > 1 {
            recursive |= argument.contains(['r', 'R']);
        } else {
            root |= is_root(argument, at_root);
        }
    }
    recursive && root
}

/// Returns whether a path is the root directory or a pattern for its entries.
fn is_root(path: &str, at_root: bool) -> bool {
    if !path.starts_with('/') && !at_root {
        return false;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    match parts.as_slice() {
        [] => true,
        [first, ..] => first.contains('*') && first.chars().all(|c| "*?.[]!^{},".contains(c)),
    }
}

/// Returns whether a path names a device, or another file under `/dev` that must not be overwritten.
pub(super) fn is_device(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if !path.starts_with('/') || parts.first() != Some(&"dev") {
        return false;
    }
    match &parts[1..] {
        [] => false,
        ["..", ..] => false,
        [file] => !(HARMLESS_DEVICES.contains(file) || *file == "urandom"),
        [folder, rest @ ..] => !HARMLESS_DIRECTORIES.contains(folder) || rest.contains(&".."),
    }
}

/// Returns whether a function multiplies itself: it runs itself in the background, or twice in one pipeline.
pub(super) fn is_fork_bomb(script: &ShellScript) -> bool {
    let callee = |command: &SimpleCommand| {
        let name = command.words.first()?.literal_text()?;
        script.functions.iter().position(|function| *function == name)
    };
    let calls: Vec<(usize, usize, &SimpleCommand)> = script
        .commands
        .iter()
        .filter_map(|command| Some((command.function?, callee(command)?, command)))
        .collect();
    let returns_to = |from: usize, to: usize| {
        let mut seen = BTreeSet::from([from]);
        let mut open = vec![from];
        while let Some(at) = open.pop() {
            if at == to {
                return true;
            }
            open.extend(calls.iter().filter(|c| c.0 == at).map(|c| c.1).filter(|&next| seen.insert(next)));
        }
        false
    };
    let cyclic: Vec<_> = calls.iter().filter(|call| returns_to(call.1, call.0)).collect();
    let mut pipelines = BTreeSet::new();
    cyclic.iter().any(|(_, _, command)| {
        command.background || (command.pipeline > 0 && !pipelines.insert(command.pipeline))
    })
}
