//! Limits on commands, and that nothing remains of a command.

use crate::as_both;
use crate::rig::{Rig, command, err, out};
use forge_ports::sandbox::{OutputSink, StdStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter of output bytes.
#[derive(Default)]
struct Counter(AtomicU64);

impl OutputSink for Counter {
    fn write_output(&self, _stream: StdStream, bytes: &[u8]) {
        self.0.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }
}

/// Returns the peak resident size of this process, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Returns the number of processes in the sandbox with this name.
async fn count(rig: &Rig, name: &str) -> usize {
    let comms = out(&rig.sh("cat /proc/[0-9]*/comm").await);
    comms.lines().filter(|line| *line == name).count()
}

as_both! {
    async fn a_flood_of_a_gigabyte_keeps_its_ends_in_bounded_memory() {
        let rig = Rig::new("native").await;
        let before = peak_kib();
        let seen = Counter::default();
        let mut flood = command(&["sh", "-c", "echo first; head -c 1073741824 /dev/zero; echo; echo last"]);
        flood.keep_bytes = 64 << 10;
        let ran = rig.room.exec(flood, &seen).await.unwrap();
        assert_eq!(ran.exit_code, 0);
        assert_eq!(ran.stdout.total, 1_073_741_824 + 12);
        assert_eq!(seen.0.load(Ordering::Relaxed), ran.stdout.total);
        assert!(ran.stdout.is_truncated() && ran.stdout.bytes.len() < (64 << 10) + 100);
        assert!(ran.stdout.bytes.starts_with(b"first\n") && ran.stdout.bytes.ends_with(b"last\n"));
        let grown = peak_kib() - before;
        assert!(grown < 16 << 10, "grew by {grown} KiB");
    }

    async fn a_fork_bomb_meets_the_process_limit() {
        let rig = Rig::with("native", |spec, _| spec.limits.pids = 100).await;
        let mut bomb = command(&["sh", "-c", "bomb() { bomb | bomb & }; (bomb) & while :; do :; done"]);
        bomb.timeout = Duration::from_secs(2);
        let ran = rig.exec(bomb).await.unwrap();
        assert!(ran.timed_out && ran.exit_code == 124);
        assert_eq!(out(&rig.sh("echo alive").await), "alive\n");
        // At most the counting shell itself.
        assert!(count(&rig, "sh").await <= 1);
    }

    async fn a_memory_bomb_meets_the_memory_limit() {
        let rig = Rig::with("native", |spec, _| spec.limits.memory_bytes = 128 << 20).await;
        let greedy = "
import os
pids = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        held = []
        while True: held.append(bytearray(b'x' * (1 << 20)))
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
import time; time.sleep(1)
print('ended')";
        let ran = rig.exec(command(&["python3", "-c", greedy])).await.unwrap();
        assert!(ran.out_of_memory || err(&ran).contains("MemoryError"), "{ran:?}");
        assert_eq!(out(&rig.sh("echo alive").await), "alive\n");
    }

    async fn descriptors_and_tmp_run_out_for_the_command_only() {
        let rig = Rig::with("native", |spec, _| spec.limits.tmp_bytes = 8 << 20).await;
        let ran = rig.exec(command(&["python3", "-c", "
l = []
try:
    while True: l.append(open('/dev/null'))
except OSError as e: print(e.errno)"])).await.unwrap();
        assert_eq!(out(&ran), "24\n");
        let full = rig.sh("head -c 50000000 /dev/zero > /tmp/big; stat -c %s /tmp/big").await;
        assert_eq!(out(&full), "8388608\n");
        assert_eq!(out(&rig.sh("rm /tmp/big; echo alive").await), "alive\n");
    }

    async fn a_command_that_ignores_term_and_spins_is_ended_in_time() {
        let rig = Rig::new("native").await;
        let mut spin = command(&["sh", "-c", "trap '' TERM; echo spinning; while :; do :; done"]);
        spin.timeout = Duration::from_millis(300);
        let ran = rig.exec(spin).await.unwrap();
        assert_eq!((ran.exit_code, ran.timed_out, out(&ran).as_str()), (124, true, "spinning\n"));
    }

    async fn no_command_gets_more_time_than_the_box_allows() {
        let rig = Rig::with("native", |spec, _| spec.limits.command_ms = 200).await;
        assert!(rig.sh("sleep 1000").await.timed_out);
    }

    async fn daemons_end_with_their_command_and_hold_nothing_up() {
        let rig = Rig::new("native").await;
        // Another session, twice removed, with the command's own streams.
        let ran = rig.sh("(setsid sh -c 'sleep 1000 & exec sleep 1000' &) ; (nohup sleep 1000 &) ; echo done").await;
        assert_eq!((ran.exit_code, out(&ran).as_str()), (0, "done\n"));
        assert_eq!(count(&rig, "sleep").await, 0);
    }

    async fn a_command_never_waits_for_input() {
        let rig = Rig::new("native").await;
        let ran = rig.sh("cat; read line; echo got:$line; tty < /dev/stdin; test -t 0 || echo no terminal").await;
        assert_eq!(out(&ran), "got:\nnot a tty\nno terminal\n");
    }

    async fn a_call_that_is_dropped_ends_its_command() {
        let rig = Rig::new("native").await;
        let begun = rig.path("begun");
        {
            let long = rig.exec(command(&["sh", "-c", "touch begun; exec sleep 1000"]));
            let mut long = std::pin::pin!(long);
            while !begun.exists() {
                let _ = tokio::time::timeout(Duration::from_millis(5), &mut long).await;
            }
            // The shell becomes the sleep a moment later.
            while count(&rig, "sleep").await == 0 {
                let _ = tokio::time::timeout(Duration::from_millis(5), &mut long).await;
            }
        }
        while count(&rig, "sleep").await > 0 {}
    }

    async fn commands_run_side_by_side() {
        let rig = Rig::new("native").await;
        let (a, b) = tokio::join!(
            rig.sh("until [ -e b ]; do :; done; touch a; echo a"),
            rig.sh("touch b; until [ -e a ]; do :; done; echo b")
        );
        assert_eq!((out(&a).as_str(), out(&b).as_str()), ("a\n", "b\n"));
    }

    async fn exit_codes_are_a_shells() {
        let rig = Rig::new("native").await;
        assert_eq!(rig.sh("exit 9").await.exit_code, 9);
        assert_eq!(rig.sh("kill -SEGV $$").await.exit_code, 139);
        let absent = rig.exec(command(&["no-such-program"])).await.unwrap();
        assert_eq!(absent.exit_code, 127);
        assert!(err(&absent).contains("no-such-program"));
        std::fs::write(rig.path("data"), "x").unwrap();
        assert_eq!(rig.exec(command(&["./data"])).await.unwrap().exit_code, 126);
    }
}
