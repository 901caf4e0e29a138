//! The system call filter: rules (data, in `rules`) compiled to a classic BPF program.
//!
//! The program checks the architecture and then finds the call's number by binary search over ranges, so that even the
//! last call costs about nine comparisons; the kernel also caches calls that are allowed without checking arguments.
//! Instruction and return codes are those of the kernel's `linux/filter.h` and `linux/seccomp.h`.

mod extra_rules;
mod listed;
mod marks;
mod profile;
mod rules;

use libc::sock_filter;

pub use extra_rules::{HOST_DIRECTORY_RULES, UNCOUNTED_COMMAND_RULES, UNCOUNTED_MEMORY_RULES};
pub use listed::{ASK_BEFORE_EXECUTING, ASK_BEFORE_MAPPING, LISTED_PROGRAMS};
pub use marks::compile_marking;
pub use profile::docker_seccomp_profile;
pub use rules::JAIL_RULES;

/// The decision about a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallVerdict {
    /// The call runs.
    Allow,
    /// The call fails with this error number.
    Errno(i32),
    /// The arguments decide: the first matching test applies, otherwise the verdict at the end.
    When(&'static [ArgumentTest], FixedVerdict),
}

/// A verdict that does not depend on arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FixedVerdict {
    /// The call runs.
    Allow,
    /// The call fails with this error number.
    Errno(i32),
    /// The call waits until the filter's listener answers.
    Ask,
}

/// A test of the low 32 bits of an argument (all arguments tested here are ints or flags below 2^32).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgumentTest {
    /// Index of the argument, from 0.
    pub arg: u32,
    /// Bits of the argument to compare.
    pub mask: u32,
    /// Comparison applied to them.
    pub is: Comparison,
    /// Verdict if the test matches.
    pub then: FixedVerdict,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equal to the value.
    Equal(u32),
    /// At least one bit of the mask is set.
    AnySet,
    /// None of the values.
    NoneOf(&'static [u32]),
}

/// A system call: `SYS_` and its name, and its number on this architecture.
pub type SyscallEntry = (&'static str, libc::c_long);

/// A group of calls with one verdict and one reason.
pub struct SyscallRule {
    /// The calls.
    pub calls: &'static [SyscallEntry],
    /// Verdict for the calls.
    pub verdict: CallVerdict,
    /// Reason for the verdict.
    pub why: &'static str,
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

const BPF_LOAD: u16 = 0x20;
const BPF_AND: u16 = 0x54;
const BPF_JUMP: u16 = 0x05;
const BPF_JUMP_EQUAL: u16 = 0x15;
const BPF_JUMP_NOT_BELOW: u16 = 0x35;
const BPF_RETURN: u16 = 0x06;
const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7FFF_0000;
const RET_USER_NOTIF: u32 = 0x7FC0_0000;
const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

const fn bpf_step(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

const fn return_verdict(verdict: FixedVerdict) -> sock_filter {
    match verdict {
        FixedVerdict::Allow => bpf_step(BPF_RETURN, RET_ALLOW, 0, 0),
        FixedVerdict::Errno(errno) => bpf_step(BPF_RETURN, RET_ERRNO | errno.cast_unsigned(), 0, 0),
        FixedVerdict::Ask => bpf_step(BPF_RETURN, RET_USER_NOTIF, 0, 0),
    }
}

/// Compiles the rules. A call that no rule names fails with `ENOSYS`, so that programs use a fallback.
pub fn compile_filter(rules: &[SyscallRule]) -> Vec<sock_filter> {
    build_program(&[rules], CallVerdict::Errno(libc::ENOSYS))
}

/// Compiles lists of rules for use in addition to another filter, which decides about calls that these rules do not
/// name. No call may be in two of the lists.
pub fn compile_additional(lists: &[&[SyscallRule]]) -> Vec<sock_filter> {
    build_program(lists, CallVerdict::Allow)
}

fn build_program(lists: &[&[SyscallRule]], unknown: CallVerdict) -> Vec<sock_filter> {
    let mut named: Vec<(u32, CallVerdict)> = lists
        .iter()
        .copied()
        .flatten()
        .flat_map(|r| r.calls.iter().filter_map(|(_, nr)| Some((u32::try_from(*nr).ok()?, r.verdict))))
        .collect();
    named.sort_by_key(|(nr, _)| *nr);
    let mut ranges: Vec<(u32, CallVerdict)> = vec![(0, unknown)];
    for (nr, verdict) in named {
        open_range(&mut ranges, nr, verdict);
        open_range(&mut ranges, nr + 1, unknown);
    }
    let mut merged: Vec<(u32, CallVerdict)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if merged.last().is_none_or(|last| last.1 != range.1) {
            merged.push(range);
        }
    }
    let mut program = vec![
        bpf_step(BPF_LOAD, OFFSET_ARCH, 0, 0),
        bpf_step(BPF_JUMP_EQUAL, AUDIT_ARCH, 1, 0),
        bpf_step(BPF_RETURN, RET_KILL_PROCESS, 0, 0),
        bpf_step(BPF_LOAD, OFFSET_NR, 0, 0),
    ];
    program.extend(compile_search(&merged));
    program
}

/// Starts a range at `nr`, replacing one that starts at the same number.
fn open_range(ranges: &mut Vec<(u32, CallVerdict)>, nr: u32, verdict: CallVerdict) {
    if ranges.last().is_some_and(|last| last.0 == nr) {
        ranges.pop();
    }
    ranges.push((nr, verdict));
}

fn compile_search(ranges: &[(u32, CallVerdict)]) -> Vec<sock_filter> {
    if let [(_, verdict)] = ranges {
        return compile_verdict(*verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let left = compile_search(low);
    let from = high.first().map_or(0, |r| r.0);
    // A conditional jump reaches at most 255 steps, hence the jump over the left half.
    let over = u32::try_from(left.len()).unwrap_or(u32::MAX);
    let mut out = vec![bpf_step(BPF_JUMP_NOT_BELOW, from, 0, 1), bpf_step(BPF_JUMP, over, 0, 0)];
    out.extend(left);
    out.extend(compile_search(high));
    out
}

fn compile_verdict(verdict: CallVerdict) -> Vec<sock_filter> {
    match verdict {
        CallVerdict::Allow => vec![return_verdict(FixedVerdict::Allow)],
        CallVerdict::Errno(errno) => vec![return_verdict(FixedVerdict::Errno(errno))],
        CallVerdict::When(tests, otherwise) => {
            let mut out: Vec<sock_filter> = tests.iter().flat_map(compile_test).collect();
            out.push(return_verdict(otherwise));
            out
        }
    }
}

fn compile_test(test: &ArgumentTest) -> Vec<sock_filter> {
    let mut out = vec![bpf_step(BPF_LOAD, OFFSET_ARGS + 8 * test.arg, 0, 0)];
    if test.mask != u32::MAX {
        out.push(bpf_step(BPF_AND, test.mask, 0, 0));
    }
    match test.is {
        Comparison::Equal(value) => out.push(bpf_step(BPF_JUMP_EQUAL, value, 0, 1)),
        Comparison::AnySet => out.push(bpf_step(BPF_JUMP_EQUAL, 0, 1, 0)),
        Comparison::NoneOf(values) => {
            // Each matching value jumps past the verdict below; lists are far shorter than 255.
            for (at, value) in values.iter().enumerate() {
                let past = u8::try_from(values.len() - at).unwrap_or(u8::MAX);
                out.push(bpf_step(BPF_JUMP_EQUAL, *value, past, 0));
            }
        }
    }
    out.push(return_verdict(test.then));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program on a made-up call, as the kernel would.
    fn run(program: &[sock_filter], arch: u32, nr: u32, args: [u32; 6]) -> u32 {
        run_wide(program, arch, nr, args.map(u64::from))
    }

    /// Runs a program with full 64-bit arguments.
    pub(crate) fn run_wide(program: &[sock_filter], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let (mut at, mut acc) = (0usize, 0u32);
        loop {
            let s = program[at];
            at += 1;
            match s.code {
                BPF_LOAD if s.k == OFFSET_NR => acc = nr,
                BPF_LOAD if s.k == OFFSET_ARCH => acc = arch,
                BPF_LOAD if s.k == OFFSET_ARCH => acc = arch,
                BPF_LOAD => {
                    let half = (s.k - OFFSET_ARGS) / 4;
                    let bytes = args[(half / 2) as usize].to_le_bytes();
                    let from = 4 * (half % 2) as usize;
                    acc = u32::from_le_bytes(std::array::from_fn(|at| bytes[from + at]));
                }
                BPF_AND => acc &= s.k,
                BPF_JUMP => at += s.k as usize,
                BPF_JUMP_EQUAL => at += usize::from(if acc == s.k { s.jt } else { s.jf }),
                BPF_JUMP_NOT_BELOW => at += usize::from(if acc >= s.k { s.jt } else { s.jf }),
                BPF_RETURN => return s.k,
                other => panic!("unknown code {other}"),
            }
        }
    }

    fn verdict(nr: libc::c_long, args: [u32; 6]) -> u32 {
        run(&compile_filter(JAIL_RULES), AUDIT_ARCH, u32::try_from(nr).unwrap(), args)
    }

    const fn errno(e: i32) -> u32 {
        RET_ERRNO | e.cast_unsigned()
    }

    #[test]
    fn every_named_call_gets_the_verdict_of_its_rule() {
        let program = compile_filter(JAIL_RULES);
        for rule in JAIL_RULES {
            for (_, nr) in rule.calls {
                let got = run(&program, AUDIT_ARCH, u32::try_from(*nr).unwrap(), [0; 6]);
                match rule.verdict {
                    CallVerdict::Allow => assert_eq!(got, RET_ALLOW, "call {nr}"),
                    CallVerdict::Errno(e) => assert_eq!(got, errno(e), "call {nr}"),
                    CallVerdict::When(..) => {}
                }
            }
        }
        assert!(program.len() < 4096, "the kernel takes at most 4096 steps");
    }

    #[test]
    fn no_call_stands_in_two_rules_and_each_rule_has_a_reason() {
        for rules in
            [JAIL_RULES, HOST_DIRECTORY_RULES, LISTED_PROGRAMS, ASK_BEFORE_EXECUTING, ASK_BEFORE_MAPPING]
        {
            let mut all: Vec<_> = rules.iter().flat_map(|r| r.calls.iter().copied()).collect();
            let before = all.len();
            all.sort_unstable();
            all.dedup();
            assert_eq!(before, all.len());
            assert!(rules.iter().all(|r| r.why.len() > 10));
        }
    }

    #[test]
    fn foreign_architectures_are_killed_and_unknown_calls_absent() {
        let program = compile_filter(JAIL_RULES);
        assert_eq!(run(&program, 0x4000_0003, 11, [0; 6]), RET_KILL_PROCESS);
        assert_eq!(run(&program, AUDIT_ARCH, 100_000, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(run(&program, AUDIT_ARCH, 0x4000_0000, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(run(&program, AUDIT_ARCH, u32::MAX, [0; 6]), errno(libc::ENOSYS));
    }

    #[test]
    fn arguments_decide_where_they_must() {
        let socket = |family: i32, kind: i32| {
            verdict(libc::SYS_socket, [family.cast_unsigned(), kind.cast_unsigned(), 0, 0, 0, 0])
        };
        let of_protocol = |family: i32, kind: i32, protocol: i32| {
            let args = [family, kind, protocol].map(i32::cast_unsigned);
            verdict(libc::SYS_socket, [args[0], args[1], args[2], 0, 0, 0])
        };
        for family in [libc::AF_INET, libc::AF_INET6] {
            assert_eq!(of_protocol(family, libc::SOCK_STREAM, libc::IPPROTO_TCP), RET_ALLOW);
            assert_eq!(
                of_protocol(family, libc::SOCK_DGRAM | libc::SOCK_NONBLOCK, libc::IPPROTO_UDP),
                RET_ALLOW
            );
            assert_eq!(of_protocol(family, libc::SOCK_SEQPACKET, 0), errno(libc::ESOCKTNOSUPPORT));
            // UDP-Lite, DCCP, SCTP, L2TP, SMC, MPTCP, and an unassigned protocol.
            for protocol in [136, 33, 132, 115, 256, 262, 77] {
                for kind in [libc::SOCK_STREAM, libc::SOCK_DGRAM] {
                    assert_eq!(of_protocol(family, kind, protocol), errno(libc::EPROTONOSUPPORT));
                }
            }
        }
        assert_eq!(of_protocol(libc::AF_UNIX, libc::SOCK_SEQPACKET, 0), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_renameat2, [0, 0, 0, 0, 1 | 2, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_renameat2, [0, 0, 0, 0, 1 | 4, 0]), errno(libc::EPERM));
        assert_eq!(socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC), RET_ALLOW);
        assert_eq!(socket(libc::AF_INET, libc::SOCK_STREAM), RET_ALLOW);
        assert_eq!(socket(libc::AF_INET6, libc::SOCK_DGRAM), RET_ALLOW);
        assert_eq!(socket(libc::AF_INET, libc::SOCK_RAW), errno(libc::EPERM));
        for family in [libc::AF_VSOCK, libc::AF_NETLINK, libc::AF_PACKET, libc::AF_ALG, 0] {
            assert_eq!(socket(family, libc::SOCK_DGRAM), errno(libc::EAFNOSUPPORT));
        }
        let clone = |flags: i32| verdict(libc::SYS_clone, [flags.cast_unsigned(), 0, 0, 0, 0, 0]);
        assert_eq!(clone(libc::SIGCHLD | libc::CLONE_VM | libc::CLONE_VFORK), RET_ALLOW);
        assert_eq!(clone(libc::SIGCHLD | libc::CLONE_NEWUSER), errno(libc::EPERM));
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0, 0]), errno(libc::EPERM));
        assert_eq!(verdict(libc::SYS_ioctl, [0, 0x5413, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_mknodat, [0, 0, 0o010_644, 0, 0, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_mknodat, [0, 0, 0o020_644, 0, 0, 0]), errno(libc::EPERM));
        assert_eq!(verdict(libc::SYS_prlimit64, [0, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0]), errno(libc::EPERM));
        assert_eq!(verdict(libc::SYS_personality, [u32::MAX, 0, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(verdict(libc::SYS_personality, [0x0004_0000, 0, 0, 0, 0, 0]), errno(libc::EPERM));
    }

    #[test]
    fn what_maps_code_of_a_file_is_asked_about_and_no_other_map() {
        let program = compile_additional(&[ASK_BEFORE_EXECUTING, ASK_BEFORE_MAPPING]);
        let call =
            |nr: libc::c_long, args: [u32; 6]| run(&program, AUDIT_ARCH, u32::try_from(nr).unwrap(), args);
        let mmap = |protection: i32, flags: i32| {
            call(libc::SYS_mmap, [0, 4096, protection.cast_unsigned(), flags.cast_unsigned(), 3, 0])
        };
        let code = libc::PROT_READ | libc::PROT_EXEC;
        assert_eq!(mmap(code, libc::MAP_PRIVATE), RET_USER_NOTIF);
        assert_eq!(mmap(code, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS), RET_ALLOW);
        assert_eq!(mmap(libc::PROT_READ, libc::MAP_PRIVATE), RET_ALLOW);
        assert_eq!(call(libc::SYS_execve, [0; 6]), RET_USER_NOTIF);
        assert_eq!(call(libc::SYS_read, [0; 6]), RET_ALLOW);
        let program = compile_additional(&[HOST_DIRECTORY_RULES, LISTED_PROGRAMS]);
        let call =
            |nr: libc::c_long, args: [u32; 6]| run(&program, AUDIT_ARCH, u32::try_from(nr).unwrap(), args);
        assert_eq!(call(libc::SYS_execveat, [0; 6]), errno(libc::EACCES));
        assert_eq!(call(libc::SYS_memfd_create, [0, 1, 0, 0, 0, 0]), errno(libc::EACCES));
        assert_eq!(call(libc::SYS_memfd_create, [0, 1 | 8, 0, 0, 0, 0]), RET_ALLOW);
        assert_eq!(call(libc::SYS_fchmod, [3, 0o4755, 0, 0, 0, 0]), errno(libc::EPERM));
    }

    #[test]
    fn where_host_folders_are_written_to_no_file_can_give_its_starter_rights() {
        let program = compile_additional(&[HOST_DIRECTORY_RULES]);
        let call =
            |nr: libc::c_long, args: [u32; 6]| run(&program, AUDIT_ARCH, u32::try_from(nr).unwrap(), args);
        for bits in [0o4755, 0o2755, 0o6000] {
            assert_eq!(call(libc::SYS_fchmod, [3, bits, 0, 0, 0, 0]), errno(libc::EPERM));
            assert_eq!(call(libc::SYS_fchmodat, [3, 0, bits, 0, 0, 0]), errno(libc::EPERM));
            assert_eq!(call(libc::SYS_mknodat, [3, 0, 0o100_000 | bits, 0, 0, 0]), errno(libc::EPERM));
            for flag in [libc::O_CREAT, libc::O_TMPFILE] {
                let flag = (flag | libc::O_WRONLY).cast_unsigned();
                assert_eq!(call(libc::SYS_openat, [3, 0, flag, bits, 0, 0]), errno(libc::EPERM));
                assert_eq!(call(libc::SYS_openat, [3, 0, flag, 0o1777, 0, 0]), RET_ALLOW);
            }
            // If no file is created, the mode is an arbitrary register value.
            let folder = libc::O_DIRECTORY.cast_unsigned();
            assert_eq!(call(libc::SYS_openat, [3, 0, folder, bits, 0, 0]), RET_ALLOW);
            assert_eq!(verdict(libc::SYS_fchmod, [3, bits, 0, 0, 0, 0]), RET_ALLOW);
        }
        assert_eq!(call(libc::SYS_fchmodat, [3, 0, 0o1777, 0, 0, 0]), RET_ALLOW);
        assert_eq!(call(libc::SYS_openat2, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(call(libc::SYS_bpf, [0; 6]), RET_ALLOW, "left to the other rules");
    }
}
