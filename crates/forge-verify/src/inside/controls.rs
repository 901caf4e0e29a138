//! What must work in the box: a box in which nothing works would refuse every attempt.

use crate::attempts::{ChildEnd, Outcome, in_child};
use crate::scene::{Scene, absent, broke, held};
use forge_jail::WORKSPACE;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

fn works(result: std::io::Result<bool>) -> Outcome {
    match result {
        Ok(true) => held("works"),
        Ok(false) => broke("it gave a wrong answer"),
        Err(error) => broke(error),
    }
}

/// A program's output, or that it is not in the box.
#[allow(
    clippy::disallowed_methods,
    reason = "this program runs in the box, where commands may start commands"
)]
fn program(argv: &[&str]) -> Result<String, Outcome> {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).current_dir("/tmp");
    match command.output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => {
            Err(broke(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(absent(&format!("there is no {} in the box", argv[0])))
        }
        Err(error) => Err(broke(error)),
    }
}

/// What a program says that is started by this path alone.
#[allow(
    clippy::disallowed_methods,
    reason = "this program runs in the box, where commands may start commands"
)]
pub(super) fn says_of(path: &str) -> std::io::Result<String> {
    let output = Command::new(path).stdin(Stdio::null()).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn says(argv: &[&str], wanted: &str) -> Outcome {
    match program(argv) {
        Ok(text) if text.contains(wanted) => held(text.lines().next().unwrap_or_default()),
        Ok(text) => broke(format!("it said {text:?}")),
        Err(outcome) => outcome,
    }
}

fn writes(folder: &Path, scene: &Scene) -> Outcome {
    let path = folder.join(scene.name("written"));
    works((|| {
        fs::write(&path, "forge")?;
        let read = fs::read(&path)? == b"forge";
        fs::remove_file(&path)?;
        Ok(read)
    })())
}

pub(crate) fn workspace(scene: &Scene) -> Outcome {
    writes(Path::new(WORKSPACE), scene)
}

pub(crate) fn temporary(scene: &Scene) -> Outcome {
    // Images have a /var/tmp of their own, which is read-only as the rest of them.
    let more = if scene.backend == "native" { "/var/tmp" } else { "/tmp" };
    Outcome::worst(["/tmp", more, "/dev/shm"].map(|folder| writes(Path::new(folder), scene)))
}

pub(crate) fn home(scene: &Scene) -> Outcome {
    let environment = fs::read("/proc/self/environ").unwrap_or_default();
    let home = environment.split(|b| *b == 0).find_map(|pair| pair.strip_prefix(b"HOME="));
    match home.and_then(|home| std::str::from_utf8(home).ok()) {
        Some(home) => writes(Path::new(home), scene),
        None => broke("there is no HOME"),
    }
}

pub(crate) fn run_in_tmp(scene: &Scene) -> Outcome {
    let path = Path::new("/tmp").join(scene.name("tool"));
    let made = fs::write(&path, "#!/bin/sh\necho ran\n")
        .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)));
    match made {
        Ok(()) => says(&[&path.display().to_string()], "ran"),
        Err(error) => broke(error),
    }
}

pub(crate) fn symlink_inside(scene: &Scene) -> Outcome {
    let (file, link) =
        (Path::new(WORKSPACE).join(scene.name("target")), Path::new(WORKSPACE).join(scene.name("inside")));
    works((|| {
        fs::write(&file, "forge")?;
        symlink(&file, &link)?;
        let read = fs::read(&link)? == b"forge";
        fs::remove_file(&link)?;
        fs::remove_file(&file)?;
        Ok(read)
    })())
}

pub(crate) fn fork(_: &Scene) -> Outcome {
    match in_child(Duration::from_secs(5), || b"child".to_vec()) {
        Ok(answer) if answer == b"child" => held("works"),
        Ok(_) => broke("it gave a wrong answer"),
        Err(ChildEnd::NotStarted(errno)) => broke(std::io::Error::from_raw_os_error(errno)),
        Err(end) => broke(format!("{end:?}")),
    }
}

pub(crate) fn threads(_: &Scene) -> Outcome {
    let started = std::thread::Builder::new().spawn(|| 42);
    works(started.map(|thread| thread.join().is_ok_and(|answer| answer == 42)))
}

pub(crate) fn loopback(_: &Scene) -> Outcome {
    let exchanged = |address: &str| -> std::io::Result<bool> {
        let server = TcpListener::bind(address)?;
        let mut client = TcpStream::connect(server.local_addr()?)?;
        let (mut peer, _) = server.accept()?;
        client.write_all(b"x")?;
        let mut byte = [0];
        peer.read_exact(&mut byte)?;
        Ok(byte == *b"x")
    };
    Outcome::worst(["127.0.0.1:0", "[::1]:0"].map(|address| match exchanged(address) {
        Err(error) if address.contains("::1") && error.kind() == std::io::ErrorKind::AddrNotAvailable => {
            held("without IPv6, which this network does not have")
        }
        other => works(other),
    }))
}

pub(crate) fn watch_files(scene: &Scene) -> Outcome {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    let path = Path::new("/tmp").join(scene.name("watched"));
    works((|| {
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

pub(crate) fn memory_file(_: &Scene) -> Outcome {
    works((|| {
        let file = rustix::fs::memfd_create(c"forge-probe", rustix::fs::MemfdFlags::CLOEXEC)?;
        let mut file = fs::File::from(file);
        file.write_all(&vec![7; 1 << 20])?;
        let mut byte = [0];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut byte, 5000)?;
        Ok(byte == [7])
    })())
}

pub(crate) fn shared_memory(_: &Scene) -> Outcome {
    match crate::attempts::share_memory() {
        Ok(()) => held("works"),
        Err(error) => broke(error),
    }
}

pub(crate) fn socketpair(_: &Scene) -> Outcome {
    works((|| {
        let (mut here, mut there) = UnixStream::pair()?;
        here.write_all(b"x")?;
        let mut byte = [0];
        there.read_exact(&mut byte)?;
        Ok(byte == *b"x")
    })())
}

#[allow(
    clippy::disallowed_methods,
    reason = "this program runs in the box, where commands may start commands"
)]
pub(crate) fn signal_own(_: &Scene) -> Outcome {
    let child = Command::new("sleep").arg("100").spawn();
    match child {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => absent("there is no sleep in the box"),
        child => works(child.and_then(|mut child| {
            child.kill()?;
            Ok(std::os::unix::process::ExitStatusExt::signal(&child.wait()?) == Some(9))
        })),
    }
}

pub(crate) fn terminal(_: &Scene) -> Outcome {
    match fs::File::options().read(true).write(true).open("/dev/ptmx") {
        Ok(_) => held("works"),
        Err(error) => broke(error),
    }
}

pub(crate) fn devices(scene: &Scene) -> Outcome {
    let fifo = Path::new("/tmp").join(scene.name("fifo"));
    works((|| {
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

pub(crate) fn shell(_: &Scene) -> Outcome {
    says(&["sh", "-c", "echo from a shell; ls -la / >/dev/null"], "from a shell")
}

pub(crate) fn git(scene: &Scene) -> Outcome {
    let place = format!("{WORKSPACE}/{}", scene.name("git"));
    let script = format!(
        "git init -q {place} && cd {place} && echo x > f && git add f && \
         git -c user.name=a -c user.email=b@c commit -qm m && git log --format=%s; r=$?; rm -rf {place}; exit $r"
    );
    match program(&["git", "--version"]) {
        Ok(_) => says(&["sh", "-c", &script], "m"),
        Err(outcome) => outcome,
    }
}

pub(crate) fn python(_: &Scene) -> Outcome {
    says(&["python3", "-Sc", "import os, json; print('python', json.dumps(os.getpid() > 0))"], "python true")
}

pub(crate) fn cargo(_: &Scene) -> Outcome {
    says(&["cargo", "--version"], "cargo")
}

pub(crate) fn node(_: &Scene) -> Outcome {
    says(&["node", "-e", "console.log('node', 6 * 7)"], "node 42")
}
