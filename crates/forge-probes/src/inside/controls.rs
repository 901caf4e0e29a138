//! Operations that must work in the sandbox: one in which nothing works would refuse every attempt.

use crate::attempts::{AttemptOutcome, ChildEnd, in_child};
use crate::host_facts::{HostFacts, probe_failed, probe_not_applicable, probe_passed};
use forge_jail_protocol::WORKSPACE_PATH;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn judge_control(result: std::io::Result<bool>) -> AttemptOutcome {
    match result {
        Ok(true) => probe_passed("works"),
        Ok(false) => probe_failed("it returned a wrong result"),
        Err(error) => probe_failed(error),
    }
}

/// Returns a program's output, or an outcome if the sandbox does not have it.
#[allow(
    clippy::disallowed_methods,
    reason = "this program runs in the sandbox, where commands may start commands"
)]
fn run_program(argv: &[&str]) -> Result<String, AttemptOutcome> {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).current_dir("/tmp");
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => Err(probe_failed(format!(
            "{}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        ))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(probe_not_applicable(&format!("the sandbox has no {}", argv[0])))
        }
        Err(error) => Err(probe_failed(error)),
    }
}

/// Returns the output of a program started by path without arguments.
#[allow(
    clippy::disallowed_methods,
    reason = "this program runs in the sandbox, where commands may start commands"
)]
pub(super) fn program_output(path: &str) -> std::io::Result<String> {
    let output = Command::new(path).stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn expect_output(argv: &[&str], wanted: &str) -> AttemptOutcome {
    match run_program(argv) {
        Ok(text) if text.contains(wanted) => probe_passed(text.lines().next().unwrap_or_default()),
        Ok(text) => probe_failed(format!("it printed {text:?}")),
        Err(outcome) => outcome,
    }
}

fn write_and_read_back(folder: &Path, scene: &HostFacts) -> AttemptOutcome {
    let path = folder.join(scene.attempt_name("written"));
    judge_control((|| {
        fs::write(&path, "forge")?;
        let read = fs::read(&path)? == b"forge";
        fs::remove_file(&path)?;
        Ok(read)
    })())
}

pub(crate) fn write_workspace(scene: &HostFacts) -> AttemptOutcome {
    write_and_read_back(Path::new(WORKSPACE_PATH), scene)
}

pub(crate) fn write_temp_dirs(scene: &HostFacts) -> AttemptOutcome {
    // Images have their own /var/tmp, which is read-only like the rest of them.
    let more = if scene.backend == "native" { "/var/tmp" } else { "/tmp" };
    AttemptOutcome::worst(
        ["/tmp", more, "/dev/shm"].map(|folder| write_and_read_back(Path::new(folder), scene)),
    )
}

pub(crate) fn write_home(scene: &HostFacts) -> AttemptOutcome {
    let environment = fs::read("/proc/self/environ").unwrap_or_default();
    let home = environment.split(|b| *b == 0).find_map(|pair| pair.strip_prefix(b"HOME="));
    match home.and_then(|home| std::str::from_utf8(home).ok()) {
        Some(home) => write_and_read_back(Path::new(home), scene),
        None => probe_failed("HOME is not set"),
    }
}

pub(crate) fn run_in_tmp(scene: &HostFacts) -> AttemptOutcome {
    let path = Path::new("/tmp").join(scene.attempt_name("tool"));
    let made = fs::write(&path, "#!/bin/sh\necho ran\n")
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    match made {
        Ok(()) => expect_output(&[&path.display().to_string()], "ran"),
        Err(error) => probe_failed(error),
    }
}

pub(crate) fn symlink_inside(scene: &HostFacts) -> AttemptOutcome {
    let (file, link) = (
        Path::new(WORKSPACE_PATH).join(scene.attempt_name("target")),
        Path::new(WORKSPACE_PATH).join(scene.attempt_name("inside")),
    );
    judge_control((|| {
        fs::write(&file, "forge")?;
        symlink(&file, &link)?;
        let read = fs::read(&link)? == b"forge";
        fs::remove_file(&link)?;
        fs::remove_file(&file)?;
        Ok(read)
    })())
}

pub(crate) fn fork_child(_: &HostFacts) -> AttemptOutcome {
    match in_child(Duration::from_secs(5), || b"child".to_vec()) {
        Ok(answer) if answer == b"child" => probe_passed("works"),
        Ok(_) => probe_failed("it returned a wrong result"),
        Err(ChildEnd::NotStarted(errno)) => probe_failed(std::io::Error::from_raw_os_error(errno)),
        Err(end) => probe_failed(format!("{end:?}")),
    }
}

pub(crate) fn start_threads(_: &HostFacts) -> AttemptOutcome {
    let started = std::thread::Builder::new().spawn(|| 42);
    judge_control(started.map(|thread| thread.join().is_ok_and(|answer| answer == 42)))
}

pub(crate) fn loopback_connection(_: &HostFacts) -> AttemptOutcome {
    let exchanged = |address: &str| -> std::io::Result<bool> {
        let server = TcpListener::bind(address)?;
        let mut client = TcpStream::connect(server.local_addr()?)?;
        let (mut peer, _) = server.accept()?;
        client.write_all(b"x")?;
        let mut byte = [0];
        peer.read_exact(&mut byte)?;
        Ok(byte == *b"x")
    };
    AttemptOutcome::worst(["127.0.0.1:0", "[::1]:0"].map(|address| match exchanged(address) {
        Err(error) if address.contains("::1") && error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            probe_passed("without IPv6, which this network does not have")
        }
        other => judge_control(other),
    }))
}

pub(crate) fn watch_files(scene: &HostFacts) -> AttemptOutcome {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let path = Path::new("/tmp").join(scene.attempt_name("watched"));
    judge_control((|| {
        fs::create_dir(&path)?;
        let watcher = init(CreateFlags::CLOEXEC)?;
        add_watch(&watcher, &path, WatchFlags::CREATE)?;
        fs::write(path.join("made"), "")?;
        let mut event = [0u8; 512];
        let came = rustix::io::read(&watcher, &mut event)?;
        fs::remove_dir_all(&path)?;
        Ok(came > 0)
    })())
}

pub(crate) fn memory_file(_: &HostFacts) -> AttemptOutcome {
    judge_control((|| {
        let file = rustix::fs::memfd_create(c"forge-probe", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = fs::File::from(file);
        file.write_all(&vec![7; 1 << 20])?;
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 5000)?;
        Ok(byte == [7])
    })())
}

pub(crate) fn shared_memory(_: &HostFacts) -> AttemptOutcome {
    match crate::attempts::share_memory() {
        Ok(()) => probe_passed("works"),
        Err(error) => probe_failed(error),
    }
}

pub(crate) fn socket_pair(_: &HostFacts) -> AttemptOutcome {
    judge_control((|| {
        let (mut here, mut there) = UnixStream::pair()?;
        here.write_all(b"x")?;
        let mut byte = [0];
        there.read_exact(&mut byte)?;
        Ok(byte == *b"x")
    })())
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program runs in the sandbox, where commands may start commands"
)]
pub(crate) fn signal_own(_: &HostFacts) -> AttemptOutcome {
    let child = Command::new("sleep").arg("100").spawn();
    match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            probe_not_applicable("the sandbox has no sleep")
        }
        child => judge_control(child.and_then(|mut child| {
            child.kill()?;
            Ok(std::os::unix::process::ExitStatusExt::signal(&child.wait()?) == Some(9))
        })),
    }
}

pub(crate) fn pseudo_terminal(_: &HostFacts) -> AttemptOutcome {
    match fs::File::options().read(true).write(true).open("/dev/ptmx") {
        Ok(_) => probe_passed("works"),
        Err(error) => probe_failed(error),
    }
}

pub(crate) fn read_devices(scene: &HostFacts) -> AttemptOutcome {
    let fifo = Path::new("/tmp").join(scene.attempt_name("fifo"));
    judge_control((|| {
        let mut bytes = [1u8; 8];
        fs::File::open("/dev/zero")?.read_exact(&mut bytes)?;
        fs::File::open("/dev/urandom")?.read_exact(&mut [0; 8])?;
        fs::write("/dev/null", "x")?;
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &fifo,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )?;
        Ok(bytes == [0; 8])
    })())
}

pub(crate) fn run_shell(_: &HostFacts) -> AttemptOutcome {
    expect_output(&["sh", "-c", "echo from a shell; ls -la / >/dev/null"], "from a shell")
}

pub(crate) fn run_git(scene: &HostFacts) -> AttemptOutcome {
    let place = format!("{WORKSPACE_PATH}/{}", scene.attempt_name("git"));
    let script = format!(
        "git init -q {place} && cd {place} && echo x > f && git add f && \
         git -c user.name=a -c user.email=b@c commit -qm m && git log --format=%s; r=$?; rm -rf {place}; exit $r"
    );
    match run_program(&["git", "--version"]) {
        Ok(_) => expect_output(&["sh", "-c", &script], "m"),
        Err(outcome) => outcome,
    }
}

pub(crate) fn run_python(_: &HostFacts) -> AttemptOutcome {
    expect_output(
        &["python3", "-Sc", "import os, json; print('python', json.dumps(os.getpid() > 0))"],
        "python true",
    )
}

pub(crate) fn run_cargo(_: &HostFacts) -> AttemptOutcome {
    expect_output(&["cargo", "--version"], "cargo")
}

pub(crate) fn run_node(_: &HostFacts) -> AttemptOutcome {
    expect_output(&["node", "-e", "console.log('node', 6 * 7)"], "node 42")
}
