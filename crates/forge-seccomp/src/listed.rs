//! Rules of a sandbox whose commands may execute only the programs of a list. Landlock holds the list; these rules
//! close what Landlock does not see.

use libc::*;

use super::{ArgumentTest, CallVerdict, Comparison, FixedVerdict, SyscallRule};

/// `MFD_NOEXEC_SEAL`: the memory file can never be executed.
const NOEXEC_SEAL_FLAG: u32 = 8;

/// What counts for every command. Landlock does not look at files that lie in no mounted file system.
pub const LISTED_PROGRAMS: &[SyscallRule] = &[
    SyscallRule {
        calls: &[("SYS_memfd_create", SYS_memfd_create)],
        verdict: CallVerdict::When(
            &[ArgumentTest {
                arg: 1,
                mask: NOEXEC_SEAL_FLAG,
                is: Comparison::AnySet,
                then: FixedVerdict::Allow,
            }],
            FixedVerdict::Errno(EACCES),
        ),
        why: "a memory file lies outside of every mount, so no rule about files holds for executing it",
    },
    SyscallRule {
        calls: &[("SYS_execveat", SYS_execveat)],
        verdict: CallVerdict::Errno(EACCES),
        why: "it executes what a descriptor is open on, which has no path to judge; programs use execve",
    },
];

/// What the init is asked about: a loader of programs is executed on behalf of others only, never by itself.
pub const ASK_BEFORE_EXECUTING: &[SyscallRule] = &[SyscallRule {
    calls: &[("SYS_execve", SYS_execve)],
    verdict: CallVerdict::When(&[], FixedVerdict::Ask),
    why: "a dynamic loader that is executed by itself maps and runs any file that can be read",
}];

/// What the init is asked about besides where files that commands write lie on mounts that allow code.
pub const ASK_BEFORE_MAPPING: &[SyscallRule] = &[SyscallRule {
    calls: &[("SYS_mmap", SYS_mmap)],
    verdict: CallVerdict::When(
        &[
            ArgumentTest {
                arg: 3,
                mask: MAP_ANONYMOUS.cast_unsigned(),
                is: Comparison::AnySet,
                then: FixedVerdict::Allow,
            },
            ArgumentTest {
                arg: 2,
                mask: PROT_EXEC.cast_unsigned(),
                is: Comparison::AnySet,
                then: FixedVerdict::Ask,
            },
        ],
        FixedVerdict::Allow,
    ),
    why: "a library that a command wrote would run in every listed program that is told to load it",
}];
