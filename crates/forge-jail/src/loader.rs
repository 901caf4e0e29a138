//! The own binary inside an image of another system, which lacks its libraries.
//!
//! A binary linked against the host's C library is started there through the host's own dynamic loader, which is bound
//! with the libraries at [`LIBRARY_DIR`]. A static binary needs none of this.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::init::CONTAINED_ARGV0;
use forge_jail_protocol::{HELPER_PATH, HostBind, MissingSource};

/// The directory of the host's loader and libraries in the sandbox.
const LIBRARY_DIR: &str = "/run/forge/lib";
/// The path of the loader there.
pub(crate) const LOADER_PATH: &str = "/run/forge/lib/ld.so";
/// Program header type of the path to the loader (`PT_INTERP`), as in elf(5).
const PT_INTERP: u32 = 3;

/// The files and the start method with which the own binary runs inside any image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HelperBinary {
    files: Vec<HostBind>,
    start: HelperStart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum HelperStart {
    /// Directly: the binary is static.
    Itself,
    /// Through the loader next to it.
    Loader,
}

impl HelperBinary {
    /// Examines a binary of this machine, normally `/proc/self/exe`.
    ///
    /// # Errors
    /// When it cannot be read, is not a 64-bit ELF binary, or its loader does not list its libraries.
    pub fn of_binary(exe: &Path) -> io::Result<Self> {
        let exe = fs::canonicalize(exe)?;
        let bind = |source: PathBuf, target: &str| HostBind {
            source,
            target: target.into(),
            missing: MissingSource::Fail,
        };
        let mut files = vec![bind(exe.clone(), HELPER_PATH)];
        let Some(loader) = read_interpreter(&File::open(&exe)?)? else {
            files.push(bind(exe, &format!("/run/forge/{CONTAINED_ARGV0}")));
            return Ok(Self { files, start: HelperStart::Itself });
        };
        files.push(bind(fs::canonicalize(&loader)?, LOADER_PATH));
        for (name, path) in list_libraries(&loader, &exe)? {
            files.push(bind(fs::canonicalize(path)?, &format!("{LIBRARY_DIR}/{name}")));
        }
        Ok(Self { files, start: HelperStart::Loader })
    }

    /// Returns the files that must be bound read-only into the sandbox.
    #[must_use]
    pub fn required_binds(&self) -> &[HostBind] {
        &self.files
    }

    /// Returns the program to execute to start the binary under a name, and its `argv`; arguments follow.
    #[must_use]
    pub fn start_command(&self, name: &str) -> (String, Vec<String>) {
        match self.start {
            HelperStart::Itself => (HELPER_PATH.to_owned(), vec![name.to_owned()]),
            HelperStart::Loader => (LOADER_PATH.to_owned(), loader_argv(name)),
        }
    }

    /// Returns the command of a container that starts as [`CONTAINED_ARGV0`], for engines that cannot set `argv[0]`.
    #[must_use]
    pub fn container_command(&self) -> Vec<String> {
        match self.start {
            HelperStart::Itself => vec![format!("/run/forge/{CONTAINED_ARGV0}")],
            HelperStart::Loader => loader_argv(CONTAINED_ARGV0),
        }
    }
}

fn loader_argv(name: &str) -> Vec<String> {
    [LOADER_PATH, "--argv0", name, "--library-path", LIBRARY_DIR, HELPER_PATH].map(str::to_owned).into()
}

/// Returns the path of the loader that a binary names, unless it is static.
pub(crate) fn read_interpreter(file: &File) -> io::Result<Option<PathBuf>> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "not a 64-bit ELF binary of this machine");
    let mut head = [0u8; 64];
    file.read_exact_at(&mut head, 0)?;
    if !head.starts_with(&[0x7f, b'E', b'L', b'F', 2]) {
        return Err(odd());
    }
    let half = |at: usize| Some(u16::from_ne_bytes(head.get(at..at + 2)?.try_into().ok()?));
    let table = head.get(32..40).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes).ok_or_else(odd)?;
    let (size, count) = (half(54).ok_or_else(odd)?, half(56).ok_or_else(odd)?);
    for number in 0..count {
        let mut entry = [0u8; 56];
        file.read_exact_at(&mut entry, table + u64::from(number) * u64::from(size))?;
        let kind = entry.get(0..4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
        let word = |at: usize| entry.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_ne_bytes);
        if kind == Some(PT_INTERP) {
            let (offset, length) = (word(8).ok_or_else(odd)?, word(32).ok_or_else(odd)?);
            let mut path = vec![0u8; usize::try_from(length.min(4096)).map_err(io::Error::other)?];
            file.read_exact_at(&mut path, offset)?;
            let text = path.split(|b| *b == 0).next().unwrap_or_default();
            return Ok(Some(PathBuf::from(OsStr::from_bytes(text))));
        }
    }
    Ok(None)
}

/// Lists the libraries a binary is started with, by the names it uses for them, as reported by its own loader.
#[allow(clippy::disallowed_methods, reason = "the loader only looks at the own binary here")]
fn list_libraries(loader: &Path, exe: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let said = Command::new(loader)
        .arg("--list")
        .arg(exe)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .output()?;
    if !said.status.success() {
        let why = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(io::Error::other(format!("{} does not tell the libraries: {why}", loader.display())));
    }
    Ok(parse_library_list(&String::from_utf8_lossy(&said.stdout)))
}

/// Parses lines `NAME => PATH (ADDRESS)`; those of the loader itself and the vDSO have no arrow or no path.
fn parse_library_list(text: &str) -> Vec<(String, PathBuf)> {
    let line = |line: &str| {
        let (name, rest) = line.trim().split_once(" => ")?;
        let path = rest.rsplit_once(" (").map_or(rest, |(path, _)| path);
        (path.starts_with('/') && !name.contains('/')).then(|| (name.to_owned(), PathBuf::from(path)))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_the_loaders_list() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x/libgcc_s.so.1 (0x7f)\n\
                    \tlibc.so.6 => /lib/x/libc.so.6 (0x7f)\n\t/lib64/ld-linux-x86-64.so.2 (0x7f)\n";
        let names: Vec<_> = parse_library_list(text).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["libgcc_s.so.1", "libc.so.6"]);
    }

    #[test]
    fn the_own_binary_is_understood() {
        let own = HelperBinary::of_binary(Path::new("/proc/self/exe")).unwrap();
        assert_eq!(own.required_binds()[0].target, Path::new(HELPER_PATH));
        assert!(own.required_binds().iter().all(|f| f.source.is_file()));
        let (program, argv) = own.start_command("role");
        assert!(program.starts_with("/run/forge/") && argv.iter().any(|a| a == "role"));
        assert!(own.container_command().iter().any(|a| a.contains(CONTAINED_ARGV0)));
    }
}
