//! The sandbox's own `/etc`: a few generated files, and harmless ones of the host. The host's directory itself is never
//! visible.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

use super::mounts;
use crate::image;
use forge_jail_protocol::{HOME_PATH, JailSpec, NetworkAccess};

/// Entries of the host's /etc that programs need and that contain no secrets: bound read-only where they exist. A name
/// that ends in `*` matches all entries with that prefix.
const HOST_ETC_ENTRIES: &[&str] = &[
    // Dynamic loader.
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "ld-musl-*",
    // Choices between alternative programs of the same name.
    "alternatives",
    // Certificates of authorities; private keys are in sibling directories and are not included.
    "ssl/certs",
    "ssl/cert.pem",
    "ssl/openssl.cnf",
    "pki/tls/certs",
    "pki/tls/openssl.cnf",
    "pki/ca-trust/extracted",
    "ca-certificates",
    // Time zone, names of services and protocols, file types, release.
    "localtime",
    "services",
    "protocols",
    "mime.types",
    "magic",
    "os-release",
    "debian_version",
    "alpine-release",
    // Configuration that language runtimes read from here.
    "python3*",
    "java-*",
    "fonts",
];

/// Size, in bytes, up to which files are copied into the root directory's memory.
const MAX_COPIED_BYTES: usize = 128 << 10;

/// Fills `/etc` below the current directory; host entries come from the image if there is one.
pub(super) fn populate_etc(spec: &JailSpec, inside: (u32, u32), image: Option<&OwnedFd>) -> io::Result<()> {
    mounts::make_dirs(Path::new("etc"))?;
    let (uid, gid) = inside;
    let root_user = if uid == 0 { "" } else { "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n" };
    let root_group = if gid == 0 { "" } else { "root:x:0:\n" };
    let host = &spec.hostname;
    let files = [
        (
            "passwd",
            format!(
                "{root_user}forge:x:{uid}:{gid}:forge:{HOME_PATH}:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("{root_group}forge:x:{gid}:\nnogroup:x:65534:\n")),
        ("hosts", format!("127.0.0.1 localhost {host}\n::1 localhost ip6-localhost ip6-loopback\n")),
        ("hostname", format!("{host}\n")),
        ("nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n".to_owned()),
        ("shells", "/bin/sh\n/bin/bash\n".to_owned()),
        ("resolv.conf", resolv_conf(spec.network)),
    ];
    for (name, text) in files {
        std::fs::write(Path::new("etc").join(name), text)?;
    }
    let names = list_etc_entries(image)?;
    for wanted in HOST_ETC_ENTRIES {
        // A name with a slash is inside a directory; if the host lacks its first part, it is skipped.
        let top = wanted.split('/').next().unwrap_or(wanted);
        match wanted.strip_suffix('*') {
            Some(prefix) => {
                names
                    .iter()
                    .filter(|name| name.starts_with(prefix))
                    .try_for_each(|name| bind_entry(name, image))?;
            }
            None if names.iter().any(|name| name == top) => bind_entry(wanted, image)?,
            None => {}
        }
    }
    Ok(())
}

/// Returns the name servers: none without network, the host's with it.
fn resolv_conf(network: NetworkAccess) -> String {
    match network {
        NetworkAccess::Off => String::new(),
        NetworkAccess::Host => std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
    }
}

fn bind_entry(name: &str, image: Option<&OwnedFd>) -> io::Result<()> {
    let source = Path::new("/etc").join(name);
    let bound = match image {
        // Copying a small file is faster than binding it.
        None if copy_small_file(&source)? => return Ok(()),
        None => mounts::bind_read_only(&source, &source),
        Some(image) => {
            let path = CString::new(format!("etc/{name}"))?;
            mounts::bind_inside(image.as_fd(), &path, &source)
        }
    };
    match bound {
        // The sandbox does without entries that do not exist or that an ordinary user may not enter.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
        other => other,
    }
}

/// Copies a small, world-readable host file to the same path; returns whether it did.
fn copy_small_file(source: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(source, flags, Mode::empty()) else { return Ok(false) };
    let stat = rustix::fs::fstat(&file)?;
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || size > MAX_COPIED_BYTES
        || stat.st_mode & 0o004 == 0
    {
        return Ok(false);
    }
    // One more byte reveals whether the file has grown meanwhile.
    let mut bytes = vec![0; size + 1];
    let read = rustix::io::read(&file, &mut bytes)?;
    if read != size {
        return Ok(false);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
    let target = mounts::below_root(source);
    let made = match rustix::fs::open(target, flags, Mode::from_raw_mode(0o644)) {
        Err(rustix::io::Errno::NOENT) => {
            mounts::make_dirs(target.parent().unwrap_or(target))?;
            rustix::fs::open(target, flags, Mode::from_raw_mode(0o644))
        }
        other => other,
    };
    let written = rustix::io::write(&made?, bytes.get(..read).unwrap_or_default())?;
    if written == read { Ok(true) } else { Err(io::Error::from_raw_os_error(libc::ENOSPC)) }
}

/// Lists the entries of the host's or the image's /etc.
fn list_etc_entries(image: Option<&OwnedFd>) -> io::Result<Vec<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let opened = match image {
        None => rustix::fs::open(c"/etc", flags | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from),
        Some(image) => image::open_inside(image, c"etc", flags),
    };
    let folder = match opened {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    let mut entries = rustix::fs::Dir::read_from(&folder)?;
    while let Some(entry) = entries.read() {
        if let Ok(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
