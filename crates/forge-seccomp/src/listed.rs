//! Rules for a sandbox with commands that may execute only listed programs. Landlock enforces the list; these rules
//! cover what Landlock does not check.

use libc::*;

use super::{ArgumentTest, CallVerdict, Comparison, FixedVerdict, SyscallRule};

/// `MFD_NOEXEC_SEAL`: the memory file can never be executed.
const NOEXEC_SEAL_FLAG: u32 = 8;

/// Rules for every command. Landlock does not check files outside of mounted file systems.
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
        why: "a memory file lies outside of every mount, so no file rule applies to executing it",
    },
    SyscallRule {
        calls: &[("SYS_execveat", SYS_execveat)],
        verdict: CallVerdict::Errno(EACCES),
        why: "it executes the file behind a descriptor, which has no path to check; programs use execve",
    },
];

/// Calls that the init must confirm: a dynamic loader may be executed only on behalf of another program, never by
/// itself.
pub const ASK_BEFORE_EXECUTING: &[SyscallRule] = &[SyscallRule {
    calls: &[("SYS_execve", SYS_execve)],
    verdict: CallVerdict::When(&[], FixedVerdict::Ask),
    why: "a dynamic loader that is executed by itself maps and runs any readable file",
}];

/// Additional calls that the init must confirm if files written by commands are on mounts that allow code.
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
