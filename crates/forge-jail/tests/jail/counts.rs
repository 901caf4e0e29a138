//! Resources that the kernel counts per user, or uses on behalf of a sandbox: no single sandbox exhausts them.

use std::fs;

use forge_jail::BackgroundProcesses;

use crate::both;
use crate::rig::{Boxed, exec};

fn number(text: &str) -> u64 {
    text.trim().parse().unwrap_or_else(|_| panic!("not a number: {text}"))
}

both! {
    fn a_box_leaves_its_user_something_of_what_is_counted_by_user() {
        let b = Boxed::new();
        let script = "
import ctypes, os, time
libc = ctypes.CDLL(None)
n = 0
while libc.inotify_init() >= 0: n += 1
print(n, flush=True)
if os.fork() == 0:
    null = os.open('/dev/null', os.O_RDWR)
    for fd in (1, 2): os.dup2(null, fd)
    time.sleep(1000)";
        let mut all = exec(&["python3", "-c", script]);
        all.background = BackgroundProcesses::LeaveRunning;
        let made = number(&b.exec(all).unwrap().out);
        assert!(made >= 8, "{made} are too few for a build");
        // Another process of the same user, outside.
        rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::empty()).expect("one is left on the host");
        // Limits that count for the user as a whole: the sandbox has a part of them.
        let inside = b.sh("cat /proc/self/limits").out;
        let outside = fs::read_to_string("/proc/self/limits").unwrap();
        for name in ["Max pending signals", "Max msgqueue size"] {
            let hard = |text: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.split_whitespace().nth(1).unwrap().parse().unwrap_or(u64::MAX)
            };
            assert!(hard(&inside) > 0 && hard(&inside) <= hard(&outside) / 2, "{name}: {inside}");
        }
    }

    fn watching_files_works() {
        let b = Boxed::new();
        let script = "
import ctypes, os
libc = ctypes.CDLL(None)
fd = libc.inotify_init()
assert fd >= 0
for n in range(200):
    os.mkdir(f'd{n}')
    assert libc.inotify_add_watch(fd, f'd{n}'.encode(), 0x100) > 0
open('d7/made', 'w').close()
print(len(os.read(fd, 4096)) > 0)";
        assert_eq!(b.exec(exec(&["python3", "-c", script])).unwrap().out, "True\n");
    }

    fn no_way_makes_a_device() {
        let b = Boxed::new();
        let script = "
import ctypes, os, stat
libc = ctypes.CDLL(None, use_errno=True)
for place in ('/workspace', '/tmp', '/dev/shm'):
    os.chdir(place)
    for flags in (4, 5, 4 | 1 << 32):
        open('file', 'w').close(); open('other', 'w').close()
        got = libc.renameat2(-100, b'file', -100, b'new', flags & 0xffffffff)
        print(got, ctypes.get_errno())
        libc.syscall(316, -100, b'file', -100, b'new', ctypes.c_long(flags))
    for mode in (0o020644, 0o060644):
        for device in (0, 0x103):
            assert libc.mknod(b'node', mode, device) < 0
    for name in os.listdir('.'):
        mode = os.lstat(name).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode): print('a device', place, name)
    open('a', 'w').write('a'); open('b', 'w').write('b')
    assert libc.renameat2(-100, b'a', -100, b'b', 2) == 0 and open('a').read() == 'b'
    assert libc.renameat2(-100, b'a', -100, b'b', 1) < 0
    assert libc.renameat2(-100, b'a', -100, b'c', 1) == 0";
        let ran = b.exec(exec(&["python3", "-c", script])).unwrap();
        assert_eq!((ran.out.as_str(), ran.err.as_str()), ("-1 1\n".repeat(9).as_str(), ""));
    }

    fn sockets_are_of_the_usual_protocols() {
        let b = Boxed::new();
        let script = "
import socket
usual = {(1, 1, 0), (1, 2, 0), (1, 5, 0)} | {(f, k, p) for f in (2, 10) for k, p in ((1, 0), (1, 6), (2, 0), (2, 17))}
for family in range(0, 46):
    for kind in range(1, 11):
        for protocol in list(range(0, 265)) if family in (2, 10) else (0, 1):
            try: socket.socket(family, kind, protocol).close()
            except (OSError, OverflowError): usual.discard((family, kind, -1)); continue
            if (family, kind, protocol) in usual: usual.discard((family, kind, protocol))
            elif not (family == 1 and protocol == 1 or kind == 2 and protocol in (1, 58)): print(family, kind, protocol)
print('missing', usual)";
        let ran = b.exec(exec(&["python3", "-c", script])).unwrap();
        let without_ipv6 = "missing {(10, ";
        assert!(ran.out == "missing set()\n" || ran.out.starts_with(without_ipv6), "{} {}", ran.out, ran.err);
    }
}
