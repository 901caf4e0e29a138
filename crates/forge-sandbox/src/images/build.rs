//! An image out of Debian's packages, by `debootstrap`.

use super::{Kind, Say, failed};
use forge_ports::sandbox::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Lines of a step's output that are told when it fails.
const TOLD: usize = 12;
/// Where administrators' programs are, whatever the caller's own search path says.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The host's certificates, while Python's packages are fetched.
const CERTIFICATES: &str = "tmp/forge-certificates.pem";

/// Fills `root`.
pub(super) async fn from_packages(kind: Kind, root: &Path, say: Say<'_>) -> Result<(), Error> {
    let missing = |why: &str| Error::Missing { missing: vec![why.to_owned()] };
    let Some(debootstrap) = program("debootstrap") else {
        return Err(missing(
            "debootstrap is not installed, and images are made with it: apt-get install debootstrap; or take an \
             image that docker or podman has: forge sandbox build --from IMAGE",
        ));
    };
    if !rustix::process::geteuid().is_root() {
        return Err(missing(
            "only root can make an image out of packages (its files belong to the system's users): run it with \
             sudo, or take an image that docker or podman has: forge sandbox build --from IMAGE",
        ));
    }
    let mut bootstrap = command(&debootstrap);
    bootstrap.arg("--variant=minbase").arg(format!("--include={}", kind.packages().join(",")));
    bootstrap.arg(suite()).arg(root);
    if let Some(mirror) = mirror().await {
        bootstrap.arg(mirror);
    }
    say(&format!("making the image `{}` out of Debian's packages (some minutes)", kind.name()));
    run("debootstrap", bootstrap, say).await?;
    python(kind, root, say).await?;
    tidy(root).map_err(|error| failed("tidying the image up", &error))
}

/// Python's own packages, installed by the image's own pip.
async fn python(kind: Kind, root: &Path, say: Say<'_>) -> Result<(), Error> {
    if kind.python_packages().is_empty() {
        return Ok(());
    }
    let Some(chroot) = program("chroot") else {
        return Err(Error::Missing { missing: vec!["chroot is not installed (coreutils)".to_owned()] });
    };
    say(&format!("installing {}", kind.python_packages().join(", ")));
    let certificates = root.join(CERTIFICATES);
    let mut pip = command(&chroot);
    pip.arg(root).args([
        "/usr/bin/python3",
        "-m",
        "pip",
        "install",
        "--no-cache-dir",
        "--break-system-packages",
    ]);
    pip.args(["--root-user-action=ignore", "--no-warn-script-location"]).args(kind.python_packages());
    pip.env("HOME", "/root");
    // The machine may trust authorities that the image does not know, such as those of its own network.
    if fs::copy("/etc/ssl/certs/ca-certificates.crt", &certificates).is_ok() {
        // A caller's own variables would win over pip's, and name a file that the image does not have.
        for name in ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            pip.env(name, format!("/{CERTIFICATES}"));
        }
        pip.env_remove("SSL_CERT_DIR");
    }
    let done = run("pip", pip, say).await;
    let _ = fs::remove_file(&certificates);
    done
}

/// What was only needed for the making.
fn tidy(root: &Path) -> std::io::Result<()> {
    for (folder, ending) in
        [("var/cache/apt/archives", ".deb"), ("var/lib/apt/lists", ""), ("var/cache/apt", ".bin")]
    {
        for entry in fs::read_dir(root.join(folder)).into_iter().flatten().flatten() {
            let named = entry.file_name().to_string_lossy().ends_with(ending);
            if named && entry.file_type()?.is_file() {
                fs::remove_file(entry.path())?;
            }
        }
    }
    // The machine's own names have no place in it.
    for file in ["etc/resolv.conf", "etc/hostname"] {
        fs::write(root.join(file), "")?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
}

/// The machine's release where it is Debian, else its stable one.
fn suite() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
        Some(line.trim_matches('"').to_owned())
    };
    match (field("ID").as_deref(), field("VERSION_CODENAME")) {
        (Some("debian"), Some(name)) => name,
        _ => "stable".to_owned(),
    }
}

/// Where this machine's own packages come from, if it is Debian; else debootstrap knows.
async fn mirror() -> Option<String> {
    let mut asked = command(&program("apt-get")?);
    asked.args(["indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"]);
    let said = asked.stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("Debian ")).map(str::to_owned)
}

/// A program of the system.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    PROGRAMS.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// A program of the host that runs without a shell. It keeps the caller's environment: proxies and package mirrors
/// are named there.
#[allow(
    clippy::disallowed_methods,
    reason = "images are made by the system's own tools, started by a person"
)]
pub(super) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", PROGRAMS).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command.current_dir("/").kill_on_drop(true);
    command
}

/// Runs a step to its end and passes on what it says of its progress.
async fn run(name: &str, mut command: Command, say: Say<'_>) -> Result<(), Error> {
    let start = |error: std::io::Error| failed(&format!("starting {name}"), &error);
    // One stream, in order.
    let (read, write) = std::io::pipe().map_err(start)?;
    let second = write.try_clone().map_err(start)?;
    let mut child = command.stdin(Stdio::null()).stdout(write).stderr(second).spawn().map_err(start)?;
    drop(command);
    let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into()).map_err(start)?;
    let mut lines = BufReader::new(receiver).split(b'\n');
    let mut last = std::collections::VecDeque::with_capacity(TOLD);
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let telling = |step: &&str| {
            ["Retrieving", "Configuring", "Unpacking"].iter().any(|word| step.starts_with(word))
        };
        if let Some(step) = line.strip_prefix("I: ").filter(telling) {
            say(step);
        }
        if last.len() == TOLD {
            last.pop_front();
        }
        last.push_back(line);
    }
    let ended = child.wait().await.map_err(start)?;
    if ended.success() {
        return Ok(());
    }
    let told: Vec<String> = last.into();
    Err(Error::Startup { why: format!("{name} failed ({ended}):\n{}", told.join("\n")) })
}
