//! Rules that count in addition for some sandboxes: those that write to directories of the host, and those whose memory
//! no control group counts.

use libc::ENOSYS;

use super::rules::{ALL_BITS, calls, creates_no_file, deny, no_setid_bits, refuse_if};
use super::{ArgumentTest, CallVerdict, Comparison, FixedVerdict, SyscallRule};

const SETID_REASON: &str = "a setuid or setgid file in a folder of the host would lend its owner's rights to whoever starts it there";

/// What counts besides for the commands of a box that writes to folders of the host itself and not to a private view.
/// On a folder the setgid bit would be harmless, but a mode does not say what it is for.
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

/// What counts besides in a box whose memory no control group counts, so that what its processes hold can be seen: in
/// each of them, by their descriptors.
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
        why: "a process that is not dumpable hides the memory files that it holds open",
    },
    refuse_if(
        calls![SYS_clone],
        &[deny(0, CLONE_THREAD | CLONE_FILES, Comparison::Equal(CLONE_THREAD))],
        "a thread with descriptors of its own hides them behind those of its process",
    ),
    refuse_if(
        calls![SYS_fcntl],
        &[deny(1, ALL_BITS, Comparison::Equal(F_SETPIPE_SZ))],
        "pipes stay at the size by which they are counted",
    ),
];
