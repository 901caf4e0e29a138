//! Special and huge files in place of repository files that the host reads before a sandbox opens.

use crate::as_both;
use crate::rig::{folder, options};
use crate::run::transaction;
use forge_ports::Sandbox as _;
use forge_ports::sandbox::Error;
use forge_sandbox::Backends;
use forge_types::RunId;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Opens a sandbox on a repository after `prepare` has made its `.git/config`; returns warnings or the error.
async fn opened(prepare: impl FnOnce(&Path)) -> Result<Vec<String>, String> {
    let (repo, data) = (folder(), folder());
    fs::create_dir(repo.path().join(".git")).unwrap();
    fs::write(repo.path().join(".git/HEAD"), "ref: refs/heads/main\n").unwrap();
    prepare(repo.path());
    let backends = Backends::new(options(data.path()));
    let opened = backends.open(&transaction(repo.path()), RunId::generate(), None).await;
    match opened {
        Ok(workspace) => Ok(workspace.report().warnings.clone()),
        Err(Error::View { why }) => Err(why.replace(&repo.path().display().to_string(), "REPO")),
        Err(other) => panic!("refused for another reason: {other}"),
    }
}

fn sparse(path: &Path) {
    fs::File::create(path).unwrap().set_len(20 << 30).unwrap();
}

as_both! {
async fn a_git_configuration_that_is_no_file_refuses_the_repository() {
    let refused = |words: &str| {
        Err(format!(
            "REPO/.git/config is {words}, not a regular file, so git can't work in this repository; remove it, or \
             restore the file"
        ))
    };
    let pipe = |repo: &Path| {
        assert!(Command::new("mkfifo").arg(repo.join(".git/config")).status().unwrap().success());
    };
    assert_eq!(opened(pipe).await, refused("a named pipe"));
    let zero = |repo: &Path| symlink("/dev/zero", repo.join(".git/config")).unwrap();
    assert_eq!(opened(zero).await, refused("a device"));
    let directory = |repo: &Path| fs::create_dir(repo.join(".git/config")).unwrap();
    assert_eq!(opened(directory).await, refused("a directory"));
}

async fn files_of_any_size_are_not_read_whole() {
    let config = opened(|repo| sparse(&repo.join(".git/config"))).await.unwrap();
    let told = ".git/config was not checked for passwords: larger than 4194304 bytes";
    assert!(config.iter().any(|warning| warning == told), "{config:?}");
    opened(|repo| {
        sparse(&repo.join(".env"));
        sparse(&repo.join("key.pem"));
        sparse(&repo.join(".npmrc"));
    })
    .await
    .unwrap();
    // Peak memory includes memory that was freed since.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak_kib < 300 << 10, "{peak_kib} KiB");
}
}
