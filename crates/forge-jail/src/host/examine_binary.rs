//! The files that the own binary needs inside an image of another system, as its own loader lists them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::elf::read_interpreter;
use crate::protocol::helper_binary::{HelperBinary, HelperStart, LIBRARY_DIR, LOADER_PATH};
use crate::protocol::names::CONTAINED_ARGV0;
use forge_jail_protocol::{HELPER_PATH, HostBind, MissingSource};

impl HelperBinary {
    /// Examines a binary of this machine, normally `/proc/self/exe`.
    ///
    /// # Errors
    /// When it cannot be read, is not a 64-bit ELF binary, or its loader does not list its libraries.
    pub fn of_binary(exe: &Path) -> io::Result<Self> {
        let exe = fs::canonicalize(exe)?;
        let bind = |source: PathBuf, target: &str| HostBind {
            examined: None,
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
