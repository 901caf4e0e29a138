//! Commands: how they start, run and end.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::sync::mpsc;

use forge_jail::{BackgroundProcesses, Error, ExecEnd, JailCommand, JailReply, JailRequest, RawBytes};

use crate::both;
use crate::rig::{Boxed, exec};

const ENOENT: i32 = 2;
const EACCES: i32 = 13;

both! {
    fn a_command_runs_and_says_how_it_ended() {
        let b = Boxed::new();
        let done = b.sh("echo out; echo err >&2; exit 7");
        assert_eq!((done.out.as_str(), done.err.as_str()), ("out\n", "err\n"));
        assert_eq!(done.end.end, ExecEnd::Exited(7));
        assert_eq!(b.sh("kill -9 $$").end.end, ExecEnd::Signaled(9));
        assert!(!done.end.oom);
        assert!(done.end.max_rss_kib > 100);
        println!("{:#?}", b.jail.layers());
    }

    fn a_command_that_takes_too_long_is_ended_with_all_it_started() {
        let b = Boxed::new();
        let mut slow = exec(&["sh", "-c", "trap '' TERM; (setsid sleep 1000 &) ; echo started; while :; do sleep 1; done"]);
        slow.timeout_ms = Some(300);
        let done = b.exec(slow).unwrap();
        assert_eq!((done.end.end, done.out.as_str()), (ExecEnd::TimedOut, "started\n"));
        assert_eq!(b.sh("cat /proc/[0-9]*/comm").out.matches("sleep").count(), 0);
    }

    fn nothing_outlives_its_command_unless_asked_for() {
        let b = Boxed::new();
        // Holds stdout open in a process of another session, two forks away.
        let done = b.sh("(setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo first");
        assert_eq!(done.out, "first\n");
        assert_eq!(b.sh("cat /proc/[0-9]*/comm").out.matches("sleep").count(), 0);
        let mut server = exec(&["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo kept"]);
        server.background = BackgroundProcesses::LeaveRunning;
        assert_eq!(b.exec(server).unwrap().out, "kept\n");
        let seen = b.sh("until grep -qsx sleep /proc/[0-9]*/comm; do :; done; echo seen");
        assert_eq!(seen.out, "seen\n");
    }

    fn a_daemon_ends_with_its_command_although_others_run() {
        let b = Boxed::new();
        let mut server = exec(&["sh", "-c", "exec sleep 2000 >/dev/null 2>&1 & echo kept"]);
        server.background = BackgroundProcesses::LeaveRunning;
        assert_eq!(b.exec(server).unwrap().out, "kept\n");
        assert_eq!(b.sh("(setsid sh -c 'exec sleep 1000' &) ; echo done").out, "done\n");
        let left = b.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out;
        assert!(left.contains("sleep 2000") && !left.contains("sleep 1000"), "{left}");
    }

    fn kept_processes_outlive_later_commands_and_die_with_the_box() {
        let b = Boxed::new();
        let mut server = exec(&["sh", "-c", "setsid sh -c 'exec sleep 3000' >/dev/null 2>&1 & echo $!"]);
        server.background = BackgroundProcesses::LeaveRunning;
        b.exec(server).unwrap();
        b.sh("until grep -qsx sleep /proc/[0-9]*/comm; do :; done");
        // One after the other, each with daemons, one of which tries to remove its mark.
        for _ in 0..3 {
            assert_eq!(b.sh("(setsid sleep 1000 &); (ulimit -R 1 2>/dev/null; setsid sleep 1001 &); echo x").out, "x\n");
        }
        let left = b.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '").out;
        assert!(left.contains("sleep 3000") && !left.contains("sleep 100"), "{left}");
        // A process of the sandbox holds this until it is gone.
        let (mut read, write) = std::io::pipe().unwrap();
        let mut holder = exec(&["sh", "-c", "exec sleep 4000 &"]);
        holder.background = BackgroundProcesses::LeaveRunning;
        let (give, take) = mpsc::channel();
        b.jail.submit(JailRequest::Exec(holder), &[write.as_fd(), write.as_fd()], move |a| give.send(a).unwrap());
        drop(write);
        take.recv().unwrap().unwrap();
        drop(b);
        assert_eq!(std::io::Read::read(&mut read, &mut [0]).unwrap(), 0);
    }

    fn a_frozen_box_does_nothing_until_it_may_go_on() {
        let b = Boxed::new();
        let (give, take) = mpsc::channel();
        let null = File::create("/dev/null").unwrap();
        let script = "import os, subprocess, threading
stop = False
def work(n):
    i = 0
    while not os.path.exists(\"stop\"):
        i += 1
        open(f\"count{n}\", \"w\").write(str(i))
        subprocess.run([\"true\"])
[threading.Thread(target=work, args=(n,)).start() for n in range(3)]";
        let busy = exec(&["python3", "-c", script]);
        b.jail.submit(JailRequest::Exec(busy), &[null.as_fd(), null.as_fd()], move |a| give.send(a).unwrap());
        assert_eq!(b.sh("until [ -s count0 ] && [ -s count1 ] && [ -s count2 ]; do :; done; echo on").out, "on\n");
        let counts = || (0..3).map(|n| fs::read(b.path(&format!("count{n}"))).unwrap()).collect::<Vec<_>>();
        for _ in 0..3 {
            b.jail.call(JailRequest::Freeze, &[]).unwrap();
            let before = counts();
            // Other requests are answered meanwhile.
            b.write("while", "x").unwrap();
            assert_eq!(b.sh("echo still here").out, "still here\n");
            assert_eq!(counts(), before);
            b.jail.call(JailRequest::Freeze, &[]).unwrap();
            assert_eq!(counts(), before);
            b.jail.call(JailRequest::Thaw, &[]).unwrap();
            b.jail.call(JailRequest::Thaw, &[]).unwrap();
            let again = b.sh("a=$(cat count0); until [ \"$(cat count0)\" != \"$a\" ]; do :; done; echo on");
            assert_eq!(again.out, "on\n");
        }
        b.sh("touch stop");
        let JailReply::Ended(ended) = take.recv().unwrap().unwrap().reply else { panic!("no end") };
        assert_eq!(ended.end, ExecEnd::Exited(0));
    }

    fn the_memory_of_a_command_is_told() {
        let b = Boxed::new();
        let large = b.sh("python3 -c 'x = bytearray(200 << 20)'").end;
        assert!(large.peak_memory_bytes > 200 << 20 && large.peak_memory_bytes < 400 << 20, "{large:?}");
        let small = b.sh("true").end;
        assert!(small.peak_memory_bytes > 100 << 10 && small.peak_memory_bytes < 60 << 20, "{small:?}");
        if rustix::process::geteuid().is_root() {
            // Several processes count together where control groups count memory.
            let two = "import os, time
r, w = os.pipe()
x = bytearray(60 << 20)
if os.fork() == 0:
    y = bytearray(60 << 20); os.write(w, b\"x\"); time.sleep(1000)
os.read(r, 1)";
            let both = b.exec(exec(&["python3", "-c", two])).unwrap().end;
            assert!(both.peak_memory_bytes > 120 << 20, "{both:?}");
        }
    }

    fn commands_run_side_by_side_and_can_be_cancelled() {
        let b = Boxed::new();
        let (give, take) = mpsc::channel();
        let null = File::create("/dev/null").unwrap();
        let long = exec(&["sh", "-c", "touch running; exec sleep 1000"]);
        let id = b.jail.submit(JailRequest::Exec(long), &[null.as_fd(), null.as_fd()], move |a| give.send(a).unwrap());
        assert_eq!(b.sh("until [ -e running ]; do :; done; echo beside").out, "beside\n");
        b.jail.call(JailRequest::Cancel { target: id }, &[]).unwrap();
        let JailReply::Ended(ended) = take.recv().unwrap().unwrap().reply else { panic!("no end") };
        assert_eq!(ended.end, ExecEnd::Cancelled);
    }

    fn what_cannot_be_started_is_said() {
        let b = Boxed::new();
        fs::write(b.path("data"), "x").unwrap();
        let errno = |argv: &[&str]| match b.exec(exec(argv)) {
            Err(Error::Start(fault)) => fault.errno,
            other => panic!("started: {}", other.is_ok()),
        };
        assert_eq!(errno(&["no-such-program"]), ENOENT);
        assert_eq!(errno(&["./data"]), EACCES);
        assert_eq!(errno(&[]), ENOENT);
        let mut outside = exec(&["true"]);
        outside.cwd = "../..".into();
        assert!(matches!(b.exec(outside), Err(Error::Start(_))));
    }

    fn environment_and_arguments_are_what_was_given() {
        let b = Boxed::with(|spec, _| spec.env.push(("NAMED".into(), "yes".into())));
        let mut show = exec(&["env"]);
        show.env = vec![("EXTRA".into(), "1".into()), ("HOME".into(), "/tmp".into())];
        let out = b.exec(show).unwrap().out;
        let mut names: Vec<_> = out.lines().filter_map(|l| l.split('=').next()).collect();
        names.sort_unstable();
        assert_eq!(names, ["EXTRA", "HOME", "LANG", "LOGNAME", "NAMED", "PATH", "SHELL", "TMPDIR", "USER"]);
        assert!(out.contains("HOME=/tmp\n"));
        // Larger than a packet: sent through a memory file.
        let long = "x".repeat(100_000);
        assert_eq!(b.exec(exec(&["printf", "%s", &long])).unwrap().out.len(), 100_000);
        let odd = JailCommand { argv: vec!["printf".into(), "%s".into(), RawBytes(vec![0xff, b'a'])], ..exec(&[]) };
        assert_eq!(b.exec(odd).unwrap().out, "\u{fffd}a");
    }

    fn memory_and_processes_are_limited() {
        let b = Boxed::with(|spec, _| {
            spec.limits.memory_bytes = 96 << 20;
            spec.limits.pids = 64;
        });
        let hog = b.sh("python3 -c '
l = []
while True: l.append(bytearray(1 << 20))' || true");
        assert!(!hog.out.contains("x"));
        let shared = b.sh("python3 -c '
import mmap, time
m = mmap.mmap(-1, 512 << 20)
for i in range(0, 512 << 20, 4096): m[i] = 1
print(\"got it all\")
time.sleep(5)
print(\"kept it\")'");
        assert!(shared.end.oom && !shared.out.contains("kept"), "{:?} {}", shared.end, shared.out);
        let bomb = b.sh("python3 -c '
import os, time
n = 0
try:
    while True:
        if os.fork() == 0: time.sleep(60); os._exit(0)
        n += 1
except OSError: print(n)'");
        let forks: u32 = bomb.out.trim().parse().unwrap_or_else(|_| panic!("{} {}", bomb.out, bomb.err));
        assert!((5..64).contains(&forks), "{forks}");
        assert_eq!(b.sh("echo alive").out, "alive\n");
    }
}
