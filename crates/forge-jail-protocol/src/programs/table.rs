//! Programs that other programs execute by themselves, so that a list need not name them. The user lists all others.

use super::WrittenCode;

/// The needs of a program in addition to its own file, its interpreter and the shell.
#[derive(Debug)]
pub struct ProgramRequirements {
    /// The names under which the program is listed.
    pub names: &'static [&'static str],
    /// Other programs, found like those of the list. One that does not exist is skipped.
    pub programs: &'static [&'static str],
    /// Directories of programs that belong to it. `$NAME/…` begins with a variable of the sandbox's environment; a name
    /// that ends in `*` matches all names with that prefix.
    pub directories: &'static [&'static str],
    /// The degree to which it turns files that commands can write into code.
    pub written: WrittenCode,
    /// The reason for this entry.
    pub why: &'static str,
}

const NO_REQUIREMENTS: ProgramRequirements =
    ProgramRequirements { names: &[], programs: &[], directories: &[], written: WrittenCode::None, why: "" };

pub(super) const PROGRAM_TABLE: &[ProgramRequirements] = &[
    ProgramRequirements {
        names: &["git"],
        directories: &[
            "/usr/lib/git-core",
            "/usr/libexec/git-core",
            "/usr/local/lib/git-core",
            "/usr/local/libexec/git-core",
        ],
        why: "its commands are programs of their own in its exec-path",
        ..NO_REQUIREMENTS
    },
    ProgramRequirements {
        names: &["cc", "gcc", "c++", "g++", "cpp", "c89", "c99", "clang", "clang++"],
        programs: &["as", "ld", "ld.bfd", "ld.gold", "ld.lld"],
        directories: &["/usr/lib/gcc", "/usr/libexec/gcc"],
        why: "a compiler's driver starts its passes, the assembler and the linker",
        ..NO_REQUIREMENTS
    },
    ProgramRequirements {
        names: &["rustc"],
        programs: &["cc"],
        directories: &["$RUSTUP_HOME/toolchains"],
        written: WrittenCode::Loaded,
        why: "it links through the C compiler, and loads macros that were built in the workspace",
    },
    ProgramRequirements {
        names: &["cargo", "rustdoc"],
        programs: &["rustc", "rustdoc", "cc"],
        directories: &["$RUSTUP_HOME/toolchains"],
        written: WrittenCode::Executed,
        why: "builds and tests start programs that they have just built",
    },
    ProgramRequirements {
        names: &["go"],
        directories: &["$GOROOT/pkg/tool", "/usr/local/go/pkg/tool", "/usr/lib/go", "/usr/lib/go-*"],
        written: WrittenCode::Executed,
        why: "it starts compiler and linker of its own, and tests that it has just built",
        ..NO_REQUIREMENTS
    },
    ProgramRequirements {
        names: &["python", "python3", "pytest", "pip", "pip3"],
        written: WrittenCode::Loaded,
        why: "packages of a virtual environment hold native modules",
        ..NO_REQUIREMENTS
    },
    ProgramRequirements {
        names: &["node"],
        written: WrittenCode::Loaded,
        why: "packages in node_modules hold native modules",
        ..NO_REQUIREMENTS
    },
    ProgramRequirements {
        names: &["npm", "npx", "yarn", "pnpm"],
        programs: &["node"],
        written: WrittenCode::Executed,
        why: "scripts of a package start programs in node_modules/.bin",
        ..NO_REQUIREMENTS
    },
];

/// Shells that may receive a command line, whatever the list contains.
pub const SHELLS: &[&str] = &["/bin/sh", "/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash"];

/// Files that contain many programs, selected by the name they are started under: there the name is checked as well.
pub const MULTI_CALL_BINARIES: &[&str] = &["busybox", "toybox", "coreutils"];
