//! Additional rules for some sandboxes: those that write to host directories, and those without memory accounting by a
//! control group.

use libc::{ENOSYS, EOPNOTSUPP};

use super::rules::{ALL_BITS, calls, creates_no_file, deny, no_setid_bits, refuse_if};
use super::{ArgumentTest, CallVerdict, Comparison, FixedVerdict, SyscallRule};

const SETID_REASON: &str =
    "a setuid or setgid file in a host directory would lend its owner's privileges to any user who starts it";

/// Additional rules for commands of a sandbox that writes to host directories instead of a private workspace. The
/// setgid bit would be harmless on a directory, but a mode does not tell what it is applied to.
pub const HOST_DIRECTORY_RULES: &[SyscallRule] = &[
    refuse_if(calls![SYS_fchmod], &[no_setid_bits(1)], SETID_REASON),
    refuse_if(calls![SYS_fchmodat, SYS_mknodat], &[no_setid_bits(2)], SETID_REASON),
    refuse_if(calls![SYS_openat], &[creates_no_file(2), no_setid_bits(3)], SETID_REASON),
    #[cfg(target_arch = "x86_64")]
    refuse_if(calls![SYS_chmod, SYS_creat, SYS_mknod], &[no_setid_bits(1)], SETID_REASON),
    #[cfg(target_arch = "x86_64")]
    refuse_if(calls![SYS_open], &[creates_no_file(1), no_setid_bits(2)], SETID_REASON),
    SyscallRule {
        calls: calls![SYS_openat2],
        verdict: CallVerdict::Errno(ENOSYS),
        why: "its mode is behind a pointer and cannot be checked; programs fall back to openat",
    },
];

/// `PR_SET_DUMPABLE`.
const PR_SET_DUMPABLE: u32 = 4;
/// `CLONE_FILES` and `CLONE_THREAD`.
const CLONE_FILES: u32 = 0x400;
const CLONE_THREAD: u32 = 0x1_0000;
/// `F_SETPIPE_SZ`.
const F_SETPIPE_SZ: u32 = 1031;

/// Additional rules for a sandbox without memory accounting by a control group. They keep the memory that a process
/// holds visible through its descriptors.
pub const UNCOUNTED_MEMORY_RULES: &[SyscallRule] = &[
    SyscallRule {
        calls: calls![SYS_prctl],
        verdict: CallVerdict::When(
            &[
                ArgumentTest {
                    arg: 0,
                    mask: ALL_BITS,
                    is: Comparison::NoneOf(&[PR_SET_DUMPABLE]),
                    then: FixedVerdict::Allow,
                },
                deny(1, ALL_BITS, Comparison::NoneOf(&[1])),
            ],
            FixedVerdict::Allow,
        ),
        why: "a process that is not dumpable hides its open memory files",
    },
    refuse_if(
        calls![SYS_clone],
        &[deny(0, CLONE_THREAD | CLONE_FILES, Comparison::Equal(CLONE_THREAD))],
        "a thread with its own descriptors hides them behind those of its process",
    ),
    refuse_if(
        calls![SYS_fcntl],
        &[deny(1, ALL_BITS, Comparison::Equal(F_SETPIPE_SZ))],
        "pipes must keep the size that is accounted for them",
    ),
];

/// Further additional rules for the commands of a sandbox without memory accounting by a control group. The init itself
/// needs these calls.
pub const UNCOUNTED_COMMAND_RULES: &[SyscallRule] = &[
    SyscallRule {
        calls: calls![SYS_landlock_add_rule],
        verdict: CallVerdict::Errno(EOPNOTSUPP),
        why: "the kernel reports neither the size of a Landlock ruleset nor that of the domains made from it",
    },
    SyscallRule {
        calls: calls![SYS_landlock_create_ruleset],
        verdict: CallVerdict::When(
            &[ArgumentTest {
                arg: 2,
                mask: ALL_BITS,
                is: Comparison::NoneOf(&[0]),
                then: FixedVerdict::Errno(EOPNOTSUPP),
            }],
            FixedVerdict::Allow,
        ),
        why: "programs ask for the version first and go on without rules, as on a kernel that does not enable Landlock",
    },
];
