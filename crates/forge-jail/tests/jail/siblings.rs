//! Concurrent commands of one sandbox: none reaches into another, and none outlives its end.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::mpsc;

use forge_jail::{BackgroundProcesses, ExecEnd, JailCommand, JailReply, JailRequest};

use crate::both;
use crate::rig::{Boxed, exec};

/// Repeatedly accesses every process that is not its own, and notes what succeeded. A test can wait for its rounds.
const ATTACKER: &str = "
import os, signal, sys
own = {1, os.getpid()}
def note(what):
    with open('reached', 'a') as file: file.write(what + '\\n')
def reach(pid):
    for fd in (0, 1, 2):
        try:
            with open(f'/proc/{pid}/fd/{fd}', 'wb', buffering=0) as out: out.write(b'FORGED\\n')
            note(f'stream {fd}')
        except OSError: pass
    # Those of one that is just ending are empty.
    for name in ('environ', 'maps', 'auxv'):
        try:
            with open(f'/proc/{pid}/{name}', 'rb') as file:
                if file.read(1): note(name)
        except OSError: pass
    try: os.readlink(f'/proc/{pid}/cwd'); note('cwd')
    except OSError: pass
    if 'kill' in sys.argv:
        try: os.kill(pid, signal.SIGKILL); note('kill')
        except OSError: pass
rounds = 0
while True:
    for name in os.listdir('/proc'):
        if name.isdigit() and int(name) not in own: reach(int(name))
    rounds += 1
    with open('rounds.new', 'w') as file: file.write(str(rounds))
    os.rename('rounds.new', 'rounds')
";

/// Runs until the attacker has tried every process three times.
const VICTIM: &str = "until [ -s rounds ]; do :; done; a=$(cat rounds); echo real
    until [ \"$(cat rounds)\" -gt $((a + 3)) ]; do :; done; echo real >&2";

/// Numbers of the sandbox's processes except the init and the asking shell, which starts none for it.
const PIDS: &str = "for p in /proc/[0-9]*; do p=${p#/proc/}; [ $p = 1 ] || [ $p = $$ ] || echo $p; done";

fn kept(argv: &[&str]) -> JailCommand {
    JailCommand { background: BackgroundProcesses::LeaveRunning, ..exec(argv) }
}

fn attack(b: &Boxed, how: &str) {
    let line = format!("python3 -c \"$0\" {how} >/dev/null 2>&1 & echo $! > attacker");
    assert_eq!(b.exec(kept(&["sh", "-c", &line, ATTACKER])).unwrap().end.end, ExecEnd::Exited(0));
}

/// Starts a process that stays.
fn server(b: &Boxed) -> String {
    let line = "setsid sleep 5000 >/dev/null 2>&1 & echo $!";
    b.exec(kept(&["sh", "-c", line])).unwrap().out.trim().to_owned()
}

both! {
    fn a_process_that_was_kept_reaches_no_later_command() {
        for how in ["", "kill"] {
            let b = Boxed::new();
            attack(&b, how);
            for _ in 0..2 {
                let ran = b.sh(VICTIM);
                let seen = std::fs::read_to_string(b.path("reached")).unwrap_or_default();
                assert_eq!((ran.out.as_str(), ran.err.as_str(), seen.as_str()), ("real\n", "real\n", ""), "{how}");
                assert_eq!(ran.end.end, ExecEnd::Exited(0), "{how}");
            }
            // A later command can still end it.
            let ended = b.sh("p=$(cat attacker); kill -9 $p && while [ -e /proc/$p ]; do :; done; echo ended");
            assert_eq!(ended.out, "ended\n", "{}", ended.err);
        }
    }

    fn commands_beside_each_other_do_not_look_into_one_another() {
        let b = Boxed::new();
        let (give, take) = mpsc::channel();
        let null = File::create("/dev/null").unwrap();
        let attacker = exec(&["python3", "-c", ATTACKER]);
        let id = b.jail.submit(JailRequest::Exec(attacker), &[null.as_fd(), null.as_fd()], move |a| give.send(a).unwrap());
        let ran = b.sh(VICTIM);
        b.jail.call(JailRequest::Cancel { target: id }, &[]).unwrap();
        let JailReply::Ended(_) = take.recv().unwrap().unwrap().reply else { panic!("no end") };
        let seen = std::fs::read_to_string(b.path("reached")).unwrap_or_default();
        assert_eq!((ran.out.as_str(), ran.err.as_str(), seen.as_str()), ("real\n", "real\n", ""));
    }

    fn a_command_still_reaches_what_is_its_own() {
        let b = Boxed::new();
        // The streams belong to their creator: root's sandboxes can write to them but not reopen them.
        let streams = if rustix::process::geteuid().is_root() {
            "echo out; echo err >&2; echo own"
        } else {
            "echo out > /dev/stdout; echo err > /dev/stderr; echo own > /proc/self/fd/1"
        };
        let nested = if rustix::process::geteuid().is_root() { "&2" } else { " /dev/stderr" };
        let line = "set -e
            STREAMS
            sleep 1000 & p=$!
            test \"$(readlink /proc/$p/cwd)\" = /workspace; ls /proc/$p/fd >/dev/null; tr '\\0' ' ' </proc/$p/environ >/dev/null
            kill $p; wait $p 2>/dev/null || true
            mkdir -p from to; echo moved > from/file; mv from/file to/file; ln to/file from/link; cat from/link
            sh -c 'echo nested >NESTED'; echo sub $(echo stitution) | cat";
        let line = &line.replace("STREAMS", streams).replace("NESTED", nested);
        for command in [exec(&["sh", "-c", line]), kept(&["sh", "-c", line])] {
            let ran = b.exec(command).unwrap();
            assert_eq!(ran.out, "out\nown\nmoved\nsub stitution\n", "{}", ran.err);
            assert_eq!((ran.err.as_str(), ran.end.end), ("err\nnested\n", ExecEnd::Exited(0)));
            b.sh("rm -r from to");
        }
    }

    fn nothing_outlives_its_command_by_a_mark_or_by_its_looks() {
        let b = Boxed::new();
        let kept = server(&b);
        let ways = [
            // The mark of the process that stays, set with every call that sets limits.
            format!("import ctypes, re, resource
text = open('/proc/{kept}/limits').read()
mark = int(re.search('Max realtime timeout +([0-9]+)', text).group(1))
for limits in ((mark, mark), (1, 1), (1, mark), (resource.RLIM_INFINITY,) * 2):
    try: resource.setrlimit(15, limits)
    except (OSError, ValueError): pass
    pair = (ctypes.c_ulong * 2)(*[n & (2**64 - 1) for n in limits])
    for call, args in ((160, (15, pair)), (302, (0, 15, pair, None, 0, 0)), (302, (os.getpid(), 15, pair, None))):
        ctypes.CDLL(None).syscall(call, *args)"),
            "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff\\xfe')".to_owned(),
            "import ctypes; ctypes.CDLL(None).prctl(15, b') Z 1 ('); ctypes.CDLL(None).prctl(4, 0)".to_owned(),
            // A process with a dead first thread.
            "import ctypes, threading, time
threading.Thread(target=lambda: time.sleep(1000)).start()
ctypes.CDLL(None).syscall(60, 0)".to_owned(),
            // A chain of processes that each live only briefly.
            "while True:
    if os.fork(): os._exit(0)
    os.setsid()".to_owned(),
        ];
        for way in ways {
            let script = format!("import os, time
r, w = os.pipe()
if os.fork() == 0:
    os.setsid()
    null = os.open('/dev/null', os.O_RDWR)
    for fd in (0, 1, 2): os.dup2(null, fd)
    if os.fork(): os._exit(0)
    os.write(w, b'x')
    open('left', 'w').write('x')
    {}
    time.sleep(1000)
os.read(r, 1)
time.sleep(0.2)
print('done')", way.replace('\n', "\n    "));
            let ran = b.exec(exec(&["python3", "-c", &script])).unwrap();
            assert_eq!(ran.out, "done\n", "{}", ran.err);
            assert_eq!(b.sh(PIDS).out.trim(), kept, "after {way}");
        }
    }

    fn the_limit_that_marks_can_be_read() {
        let b = Boxed::new();
        let ran = b.sh("bash -c 'ulimit -a' >/dev/null && python3 -c 'import resource; resource.getrlimit(15); resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100)); print(1)'");
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("1\n", ""));
    }

    fn a_thread_with_a_name_that_is_no_text_stands_still_as_well() {
        let b = Boxed::new();
        let script = "import ctypes
ctypes.CDLL(None).prctl(15, b'\\xff\\xfe)')
n = 0
while True:
    n += 1
    open('count', 'w').write(str(n))";
        b.exec(kept(&["sh", "-c", "python3 -c \"$0\" >/dev/null 2>&1 &", script])).unwrap();
        b.sh("until [ -s count ]; do :; done");
        for _ in 0..5 {
            b.jail.call(JailRequest::Freeze, &[]).unwrap();
            let before = std::fs::read(b.path("count")).unwrap();
            b.sh("true");
            assert_eq!(std::fs::read(b.path("count")).unwrap(), before);
            b.jail.call(JailRequest::Thaw, &[]).unwrap();
        }
    }
}
