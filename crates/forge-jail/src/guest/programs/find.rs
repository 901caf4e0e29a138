//! Search for the files that the names of a list refer to, and for those they need.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, StatVfsMountFlags};

use crate::elf::read_interpreter;
use crate::protocol::helper_binary::LOADER_PATH;
use crate::protocol::names::CONTAINED_ARGV0;
use forge_jail_protocol::{
    HELPER_PATH, MULTI_CALL_BINARIES, RawBytes, SHELLS, collect_requirements, file_name,
};

/// Longest first line of a script that is read, in bytes; the kernel reads 256.
const MAX_LINE_BYTES: usize = 256;
/// Number of nested script interpreters that are followed, as in the kernel.
const MAX_INTERPRETERS: u32 = 5;

/// A file's device and inode.
pub(super) type DeviceInode = (u64, u64);

/// A file that may be executed.
pub(super) struct AllowedFile {
    pub(super) fd: OwnedFd,
    pub(super) identity: DeviceInode,
    /// The name under which it was listed.
    pub(super) name: String,
}

/// The files and directories that a list allows.
#[derive(Default)]
pub(super) struct AllowedPrograms {
    pub(super) files: Vec<AllowedFile>,
    pub(super) directories: Vec<OwnedFd>,
    /// Files that only the kernel and the init may execute: loaders, and the own binary.
    pub(super) inner: BTreeSet<DeviceInode>,
    /// Multi-call binaries.
    pub(super) multi_call: BTreeSet<DeviceInode>,
    /// Warnings about entries that allow nothing.
    pub(super) warnings: Vec<String>,
}

/// Finds programs by the environment of the sandbox.
pub(super) struct ProgramFinder<'a> {
    env: &'a [(RawBytes, RawBytes)],
    path: Vec<PathBuf>,
}

/// The result of looking up a program.
enum ProgramLookup {
    /// A program that commands cannot change.
    Program(File, OwnedFd, DeviceInode),
    /// A program that commands can change.
    Writable,
    /// No executable file.
    Nothing,
}

impl<'a> ProgramFinder<'a> {
    pub(super) fn new(env: &'a [(RawBytes, RawBytes)]) -> Self {
        let path = env_variable(env, "PATH").unwrap_or(b"/usr/bin:/bin");
        let path = path
            .split(|b| *b == b':')
            .filter(|directory| directory.starts_with(b"/"))
            .map(|directory| PathBuf::from(OsStr::from_bytes(directory)))
            .collect();
        Self { env, path }
    }

    /// Finds the programs of a list, and those of `also`.
    pub(super) fn find_programs(&self, list: &[String], also: &[String]) -> io::Result<AllowedPrograms> {
        let mut found = AllowedPrograms::default();
        for entry in list {
            self.add_entry(entry, &mut found, true)?;
        }
        for entry in also {
            self.add_entry(entry, &mut found, false)?;
        }
        for shell in SHELLS {
            self.add_file(Path::new(shell), file_name(shell), 0, &mut found)?;
        }
        for own in own_files() {
            if let ProgramLookup::Program(file, place, identity) = lookup_program(Path::new(&own))? {
                found.inner.insert(identity);
                add_loader(&file, &mut found)?;
                found.files.push(AllowedFile { fd: place, identity, name: own });
            }
        }
        let all: Vec<String> = list.iter().chain(also).cloned().collect();
        for needs in collect_requirements(&all) {
            for program in needs.programs {
                self.add_entry(program, &mut found, false)?;
            }
            for directory in needs.directories {
                self.add_directories(directory, &mut found)?;
            }
        }
        for name in MULTI_CALL_BINARIES {
            for directory in &self.path {
                if let ProgramLookup::Program(_, _, identity) = lookup_program(&directory.join(name))? {
                    found.multi_call.insert(identity);
                }
            }
        }
        Ok(found)
    }

    /// Adds one entry of the list: a name is looked up in the directories of `PATH`, a path is used unchanged.
    fn add_entry(&self, entry: &str, found: &mut AllowedPrograms, warn: bool) -> io::Result<()> {
        let candidates: Vec<PathBuf> = match entry {
            _ if entry.starts_with('/') => vec![PathBuf::from(entry)],
            _ if entry.is_empty() || entry.contains('/') => Vec::new(),
            name => self.path.iter().map(|directory| directory.join(name)).collect(),
        };
        let mut writable = false;
        for candidate in candidates {
            match self.add_file(&candidate, file_name(entry), 0, found)? {
                // A later program of the same name can only be executed by its path, which the list does not mean.
                ProgramLookup::Program(..) => return Ok(()),
                ProgramLookup::Writable => writable = true,
                ProgramLookup::Nothing => {}
            }
        }
        if warn {
            found.warnings.push(if writable {
                format!("`{entry}` of the program list lies where commands can write: it is not executed")
            } else {
                format!("`{entry}` of the program list is no program of this sandbox")
            });
        }
        Ok(())
    }

    /// Allows the program at a path, with its loader or its interpreter.
    fn add_file(
        &self,
        path: &Path,
        name: &str,
        depth: u32,
        found: &mut AllowedPrograms,
    ) -> io::Result<ProgramLookup> {
        let stands = lookup_program(path)?;
        if let ProgramLookup::Program(file, place, identity) = &stands {
            let real = real_name(path);
            if MULTI_CALL_BINARIES.contains(&real.as_str()) {
                found.multi_call.insert(*identity);
            }
            found.files.push(AllowedFile {
                fd: place.try_clone()?,
                identity: *identity,
                name: name.to_owned(),
            });
            match read_shebang(file) {
                Some((program, argument)) if depth < MAX_INTERPRETERS => {
                    self.add_file(&program, file_name(&program.to_string_lossy()), depth + 1, found)?;
                    // `#!/usr/bin/env python3`: the program that `env` starts is needed as well.
                    if let Some(named) = argument.filter(|_| file_name(&program.to_string_lossy()) == "env") {
                        let named = named.split_whitespace().find(|word| !word.starts_with('-'));
                        self.add_entry(named.unwrap_or_default(), found, false)?;
                    }
                }
                _ => add_loader(file, found)?,
            }
        }
        Ok(stands)
    }

    /// Allows directories with all their programs.
    fn add_directories(&self, pattern: &str, found: &mut AllowedPrograms) -> io::Result<()> {
        let Some(path) = self.expand_variable(pattern) else { return Ok(()) };
        let places = match pattern.strip_suffix('*') {
            None => vec![path],
            Some(_) => {
                let (parent, prefix) = (path.parent(), path.file_name().unwrap_or_default().as_bytes());
                let prefix = prefix.strip_suffix(b"*").unwrap_or(prefix);
                let entries = parent.map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
                entries.filter(|e| e.file_name().as_bytes().starts_with(prefix)).map(|e| e.path()).collect()
            }
        };
        for place in places {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            if let Ok(directory) = rustix::fs::open(&place, flags, Mode::empty())
                && is_read_only_mount(directory.as_fd())?
            {
                found.directories.push(directory);
            }
        }
        Ok(())
    }

    /// Expands a path that may begin with a variable.
    fn expand_variable(&self, pattern: &str) -> Option<PathBuf> {
        let Some(rest) = pattern.strip_prefix('$') else { return Some(PathBuf::from(pattern)) };
        let (name, below) = rest.split_once('/')?;
        let value = env_variable(self.env, name).filter(|value| value.starts_with(b"/"))?;
        Some(Path::new(OsStr::from_bytes(value)).join(below))
    }
}

/// Returns the paths of the own binary, under all its names, and of the loader that starts it in some sandboxes.
fn own_files() -> [String; 3] {
    [HELPER_PATH.to_owned(), LOADER_PATH.to_owned(), format!("/run/forge/{CONTAINED_ARGV0}")]
}

fn env_variable<'a>(env: &'a [(RawBytes, RawBytes)], name: &str) -> Option<&'a [u8]> {
    env.iter().find(|(key, _)| key.0 == name.as_bytes()).map(|(_, value)| value.0.as_slice())
}

fn real_name(path: &Path) -> String {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Looks up the program at a path. A path that cannot be opened is treated as nothing.
fn lookup_program(path: &Path) -> io::Result<ProgramLookup> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let Ok(place) = rustix::fs::open(path, flags, Mode::empty()) else { return Ok(ProgramLookup::Nothing) };
    let stat = rustix::fs::fstat(&place)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !regular || stat.st_mode & 0o111 == 0 {
        return Ok(ProgramLookup::Nothing);
    }
    if !is_read_only_mount(place.as_fd())? {
        return Ok(ProgramLookup::Writable);
    }
    // The file is regular, so opening it for reading has no effect; an execute-only file is not inspected further.
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty());
    let file = match file {
        Ok(file) => File::from(file),
        Err(_) => {
            File::from(rustix::fs::open(c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
        }
    };
    Ok(ProgramLookup::Program(file, place, (stat.st_dev, stat.st_ino)))
}

/// Returns whether the mount of an open file is read-only.
pub(super) fn is_read_only_mount(place: std::os::fd::BorrowedFd<'_>) -> io::Result<bool> {
    Ok(rustix::fs::fstatvfs(place)?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// Allows the loader that a binary names, for the kernel only.
fn add_loader(file: &File, found: &mut AllowedPrograms) -> io::Result<()> {
    let Ok(Some(path)) = read_interpreter(file) else { return Ok(()) };
    if let ProgramLookup::Program(_, place, identity) = lookup_program(&path)?
        && (found.inner.insert(identity) || !found.files.iter().any(|file| file.identity == identity))
    {
        found.files.push(AllowedFile { fd: place, identity, name: String::new() });
    }
    Ok(())
}

/// Returns the interpreter in a script's first line, and the argument after it.
fn read_shebang(file: &File) -> Option<(PathBuf, Option<String>)> {
    let mut line = [0u8; MAX_LINE_BYTES];
    let length = file.read_at(&mut line, 0).ok()?;
    let line = line.get(..length)?.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    let (program, argument) = match line.trim().split_once(char::is_whitespace) {
        Some((program, argument)) => (program, Some(argument.trim().to_owned())),
        None => (line.trim(), None),
    };
    program.starts_with('/').then(|| (PathBuf::from(program), argument))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        let read = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            read_shebang(&file)
        };
        let env = (PathBuf::from("/usr/bin/env"), Some("node --flag".to_owned()));
        assert_eq!(read("#! /usr/bin/env node --flag\nx"), Some(env));
        assert_eq!(read("#!/bin/sh"), Some((PathBuf::from("/bin/sh"), None)));
        assert_eq!(read("#!relative\n"), None);
        assert_eq!(read("\x7fELF"), None);
    }
}
