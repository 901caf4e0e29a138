//! The mark of a command, which its processes cannot change.
//!
//! The init distinguishes commands by a limit that every process inherits: that of real-time processor time, which no
//! process in a sandbox can use. A program could lower the limit or set it to the mark of another command, so only the
//! init may set it, just before a command starts. The filter is already active at that time, so the init passes a
//! secret number in a register that the kernel ignores.

use libc::sock_filter;

use super::{
    BPF_JUMP_EQUAL, BPF_LOAD, FixedVerdict, OFFSET_ARGS, OFFSET_NR, SyscallRule, bpf_step, compile_filter,
    return_verdict,
};

/// `RLIMIT_RTTIME`.
const RLIMIT_RTTIME: u32 = 15;
/// Index of the `prlimit64` argument with the key; the kernel uses only the four before it.
const KEY_ARGUMENT: u32 = 4;
/// Number of steps at the beginning of a program that check the architecture.
const ARCH_STEPS: usize = 3;

/// Compiles a filter like [`compile_filter`] that allows the limit of real-time processor time to be set only with
/// `key` in the fifth argument of `prlimit64`. Reading the limit is always allowed.
pub fn compile_marking(rules: &[SyscallRule], key: u64) -> Vec<sock_filter> {
    let mut program = compile_filter(rules);
    program.splice(ARCH_STEPS..ARCH_STEPS, mark_guard(key));
    program
}

/// Returns the steps that precede the others, which start by loading the call's number again.
fn mark_guard(key: u64) -> Vec<sock_filter> {
    let load = |offset: u32| bpf_step(BPF_LOAD, offset, 0, 0);
    // Loads of the two halves of an argument.
    let low = |arg: u32| load(OFFSET_ARGS + 8 * arg);
    let high = |arg: u32| load(OFFSET_ARGS + 8 * arg + 4);
    let bytes = key.to_le_bytes();
    let half = |from: usize| u32::from_le_bytes(std::array::from_fn(|at| bytes[from + at]));
    let refuse = return_verdict(FixedVerdict::Errno(libc::EPERM));
    let mut steps = vec![
        load(OFFSET_NR),
        bpf_step(BPF_JUMP_EQUAL, syscall_number(libc::SYS_prlimit64), 0, 11),
        low(1),
        bpf_step(BPF_JUMP_EQUAL, RLIMIT_RTTIME, 0, 9),
        // Checks whether there is a new value.
        low(2),
        bpf_step(BPF_JUMP_EQUAL, 0, 0, 2),
        high(2),
        bpf_step(BPF_JUMP_EQUAL, 0, 5, 0),
        low(KEY_ARGUMENT),
        bpf_step(BPF_JUMP_EQUAL, half(0), 0, 2),
        high(KEY_ARGUMENT),
        bpf_step(BPF_JUMP_EQUAL, half(4), 1, 0),
        refuse,
    ];
    #[cfg(target_arch = "x86_64")]
    steps.extend([
        load(OFFSET_NR),
        bpf_step(BPF_JUMP_EQUAL, syscall_number(libc::SYS_setrlimit), 0, 3),
        low(0),
        bpf_step(BPF_JUMP_EQUAL, RLIMIT_RTTIME, 0, 1),
        refuse,
    ]);
    steps
}

fn syscall_number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::run_wide;
    use crate::{AUDIT_ARCH, JAIL_RULES, RET_ALLOW, RET_ERRNO};

    const SECRET: u64 = 0x0123_4567_89AB_CDEF;
    const REFUSED: u32 = RET_ERRNO | libc::EPERM.cast_unsigned();

    fn verdict(call: libc::c_long, args: [u64; 6]) -> u32 {
        run_wide(&compile_marking(JAIL_RULES, SECRET), AUDIT_ARCH, syscall_number(call), args)
    }

    #[test]
    fn only_who_knows_the_key_sets_a_mark() {
        let set = |limit: u64, new: u64, key: u64| verdict(libc::SYS_prlimit64, [0, limit, new, 0, key, 0]);
        assert_eq!(set(15, 0x7000, SECRET), RET_ALLOW);
        // Wrong in either half, or absent; and a pointer with a lower half of zero.
        for wrong in [0, SECRET ^ 1, SECRET ^ 1 << 40, SECRET << 32, SECRET >> 32] {
            for new in [0x7000, 1 << 32] {
                assert_eq!(set(15, new, wrong), REFUSED, "{wrong:x}");
                assert_eq!(set(15 | 1 << 32, new, wrong), REFUSED, "the kernel takes the lower half");
            }
            assert_eq!(set(15, 0, wrong), RET_ALLOW, "reading");
            assert_eq!(set(7, 0x7000, wrong), RET_ALLOW, "another limit");
        }
        assert_eq!(verdict(libc::SYS_prlimit64, [1, 15, 0x7000, 0, SECRET, 0]), REFUSED, "another process");
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_older_call_sets_other_limits_only() {
        assert_eq!(verdict(libc::SYS_setrlimit, [15, 0x7000, 0, 0, SECRET, 0]), REFUSED);
        assert_eq!(verdict(libc::SYS_setrlimit, [7, 0x7000, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_getrlimit, [15, 0x7000, 0, 0, 0, 0]), RET_ALLOW);
    }

    #[test]
    fn other_calls_have_the_verdict_of_the_rules() {
        let (plain, marking) = (compile_filter(JAIL_RULES), compile_marking(JAIL_RULES, SECRET));
        for call in 0..600 {
            let run = |program: &[sock_filter]| run_wide(program, AUDIT_ARCH, call, [0; 6]);
            assert_eq!(run(&plain), run(&marking), "call {call}");
        }
        assert_ne!(run_wide(&marking, 1, 0, [0; 6]), RET_ALLOW, "another processor");
    }
}
