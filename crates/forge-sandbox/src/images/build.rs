//! Building an image from Debian packages, with `debootstrap`.

use super::{ImageFlavor, ProgressFn, step_error};
use forge_ports::sandbox::{Error, MissingPart};
use forge_types::NextStep;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Maximum number of output lines that are reported when a step fails.
const MAX_ERROR_LINES: usize = 12;
/// Search path that includes administrators' programs, whatever the caller's own contains.
const ADMIN_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Path in the image of the host's certificates while Python packages are downloaded.
const CERT_BUNDLE_PATH: &str = "tmp/forge-certificates.pem";

/// Fills `root` with an image built from packages.
pub(super) async fn build_from_packages(
    kind: ImageFlavor,
    root: &Path,
    say: ProgressFn<'_>,
) -> Result<(), Error> {
    let missing =
        |why| Error::missing(MissingPart::with_next_step(why, NextStep::ImportImage { image: None }));
    let Some(debootstrap) = find_program("debootstrap") else {
        return Err(missing(
            "building an image needs debootstrap, which is not installed: apt-get install debootstrap; or use an \
             image from docker or podman",
        ));
    };
    if !rustix::process::geteuid().is_root() {
        return Err(missing(
            "only root can build an image from packages (its files belong to the system's users): run it with \
             sudo, or use an image from docker or podman",
        ));
    }
    let mut bootstrap = system_command(&debootstrap);
    bootstrap.arg("--variant=minbase").arg(format!("--include={}", kind.debian_packages().join(",")));
    bootstrap.arg(debian_suite()).arg(root);
    if let Some(mirror) = debian_mirror().await {
        bootstrap.arg(mirror);
    }
    say(&format!("building the image `{}` from Debian packages (takes several minutes)", kind.name()));
    run_step("debootstrap", bootstrap, say).await?;
    install_python_packages(kind, root, say).await?;
    remove_build_files(root).map_err(|error| step_error("cleaning up the image", &error))
}

/// Installs Python packages with the image's own pip.
async fn install_python_packages(kind: ImageFlavor, root: &Path, say: ProgressFn<'_>) -> Result<(), Error> {
    if kind.python_packages().is_empty() {
        return Ok(());
    }
    let Some(chroot) = find_program("chroot") else {
        return Err(Error::missing("chroot is not installed (coreutils)"));
    };
    say(&format!("installing {}", kind.python_packages().join(", ")));
    let certificates = root.join(CERT_BUNDLE_PATH);
    let mut pip = system_command(&chroot);
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
    // The machine may trust authorities unknown to the image, such as those of its own network.
    if fs::copy("/etc/ssl/certs/ca-certificates.crt", &certificates).is_ok() {
        // The caller's variables would override pip's, and name a file that the image does not have.
        for name in ["PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"] {
            pip.env(name, format!("/{CERT_BUNDLE_PATH}"));
        }
        pip.env_remove("SSL_CERT_DIR");
    }
    let done = run_step("pip", pip, say).await;
    let _ = fs::remove_file(&certificates);
    done
}

/// Removes what was only needed for the build.
fn remove_build_files(root: &Path) -> std::io::Result<()> {
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
    // The machine's own names do not belong in the image.
    for file in ["etc/resolv.conf", "etc/hostname"] {
        fs::write(root.join(file), "")?;
    }
    fs::set_permissions(root, fs::Permissions::from_mode(0o755))
}

/// Returns the machine's release if it is Debian, and otherwise Debian's stable one.
fn debian_suite() -> String {
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

/// Returns the mirror of this machine's packages if it is Debian; otherwise debootstrap chooses one.
async fn debian_mirror() -> Option<String> {
    let mut asked = system_command(&find_program("apt-get")?);
    asked.args(["indextargets", "--format", "$(ORIGIN) $(SITE)", "Created-By: Packages"]);
    let said = asked.stdin(Stdio::null()).output().await.ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("Debian ")).map(str::to_owned)
}

/// Returns the path of a system program.
pub(super) fn find_program(name: &str) -> Option<PathBuf> {
    ADMIN_PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

/// Creates a command that runs a host program without a shell. It keeps the caller's environment, which may name
/// proxies and package mirrors.
#[allow(
    clippy::disallowed_methods,
    reason = "images are built by the system's own tools, started by the user"
)]
pub(super) fn system_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", ADMIN_PATH).env("LC_ALL", "C.UTF-8").env("DEBIAN_FRONTEND", "noninteractive");
    command.current_dir("/").kill_on_drop(true);
    forge_sys::kill_on_thread_exit(command.as_std_mut());
    command
}

/// Runs a step to its end and reports its progress.
async fn run_step(name: &str, mut command: Command, say: ProgressFn<'_>) -> Result<(), Error> {
    let start = |error: std::io::Error| step_error(&format!("starting {name}"), &error);
    // One stream, to keep the order.
    let (read, write) = std::io::pipe().map_err(start)?;
    let second = write.try_clone().map_err(start)?;
    let mut child = command.stdin(Stdio::null()).stdout(write).stderr(second).spawn().map_err(start)?;
    drop(command);
    let receiver = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into()).map_err(start)?;
    let mut lines = BufReader::new(receiver).split(b'\n');
    let mut last = std::collections::VecDeque::with_capacity(MAX_ERROR_LINES);
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        let telling = |step: &&str| {
            ["Retrieving", "Configuring", "Unpacking"].iter().any(|word| step.starts_with(word))
        };
        if let Some(step) = line.strip_prefix("I: ").filter(telling) {
            say(step);
        }
        if last.len() == MAX_ERROR_LINES {
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
