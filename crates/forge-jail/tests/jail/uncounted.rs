//! Memory that is in no process's resident size: a sandbox still limits it, with control groups and, as an ordinary
//! user, without.

use forge_jail::{ExecEnd, JailCommand};

use crate::both;
use crate::rig::{Boxed, Ran, exec};

/// Memory limit of the sandboxes in these tests, in MiB.
const LIMIT_MIB: u64 = 128;

/// Calls that Python lacks, and pieces of memory.
const PRELUDE: &str = "
import ctypes, mmap, os, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p
libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
libc.shmdt.argtypes = [ctypes.c_void_p]
MIB = 1 << 20
held = []
def hold():
    print('held', flush=True)
    while True: time.sleep(60)
def fork_all(count, work):
    for n in range(count):
        if os.fork() == 0: work(n); hold()
    # Until one of them is ended.
    os.wait()
";

fn small() -> Boxed {
    Boxed::with(|spec, _| spec.limits.memory_bytes = LIMIT_MIB << 20)
}

fn python(script: &str) -> JailCommand {
    let script = format!("{PRELUDE}{script}");
    exec(&["python3", "-c", &script])
}

/// Asserts that a command was ended for its memory and not for its time, or that it reports being refused the memory.
fn ended_for_memory(what: &str, script: &str) {
    let b = small();
    let ran: Ran = b.exec(python(script)).unwrap();
    let bounded = ran.out.contains("bounded\n") || ran.end.oom;
    assert!(bounded && ran.end.end != ExecEnd::TimedOut, "{what}: {:?} {} {}", ran.end, ran.out, ran.err);
    assert_eq!(b.sh("echo alive").out, "alive\n", "{what}");
}

/// Returns a script with eight processes that run `first` and then hold 60 MiB each.
fn hidden(first: &str) -> String {
    format!(
        "
def work(n):
    {first}
    held.append(bytearray(60 * MIB))
fork_all(8, work)"
    )
}

both! {
    fn memory_files_count_although_nobody_maps_them() {
        ended_for_memory("written", "
for n in range(64):
    fd = os.memfd_create('x'); held.append(fd)
    os.write(fd, bytes(8 * MIB)); time.sleep(0.01)
hold()");
        ended_for_memory("in several processes, which share some", "
def work(n):
    for _ in range(8): held.append(os.memfd_create('x')); os.write(held[-1], bytes(8 * MIB))
work(0)
fork_all(8, work)");
        ended_for_memory("allocated", "
fd = os.memfd_create('x')
os.posix_fallocate(fd, 0, 512 * MIB)
hold()");
    }

    fn shared_memory_that_no_process_reports_counts() {
        // Written by a process that ends, held by one that never touches it.
        let in_pieces = |fill: &str, count: u32| format!("
for n in range({count}):
    {fill}
    time.sleep(0.01)
hold()");
        ended_for_memory("mapped by its writer's parent", &in_pieces("
    m = mmap.mmap(-1, 8 * MIB); held.append(m)
    if os.fork() == 0:
        m[:] = bytes(8 * MIB); os._exit(0)
    os.wait()", 64));
        ended_for_memory("in one piece", "
m = mmap.mmap(-1, 600 * MIB)
for n in range(75):
    if os.fork() == 0:
        m[n * 8 * MIB:(n + 1) * 8 * MIB] = bytes(8 * MIB); os._exit(0)
    os.wait()
hold()");
        ended_for_memory("dropped from the page tables", &in_pieces("
    m = mmap.mmap(-1, 8 * MIB); held.append(m)
    m[:] = bytes(8 * MIB); m.madvise(mmap.MADV_DONTNEED)", 64));
        ended_for_memory("of memory files that are closed", &in_pieces("
    fd = os.memfd_create('x'); os.ftruncate(fd, 8 * MIB)
    m = mmap.mmap(fd, 8 * MIB, mmap.MAP_SHARED); held.append(m)
    os.pwrite(fd, bytes(8 * MIB), 0); os.close(fd)", 64));
        ended_for_memory("of System V, attached", &in_pieces("
    id = libc.shmget(0, 8 * MIB, 0o1600)
    if id < 0: print('bounded'); sys.exit()
    at = libc.shmat(id, None, 0)
    if os.fork() == 0:
        ctypes.memset(at, 1, 8 * MIB); os._exit(0)
    os.wait()", 64));
        ended_for_memory("on its way in a socket", &in_pieces("
    fd = os.memfd_create('x'); os.write(fd, bytes(8 * MIB))
    a, b = socket.socketpair(); held.append((a, b))
    socket.send_fds(a, [b'x'], [fd]); os.close(fd)", 64));
    }

    fn objects_that_belong_to_no_process_are_bounded() {
        // Bytes in the objects, as the kernel lists them; read by a later command, after the supervisor had time.
        let bytes = "
def column(name, n): return sum(int(line.split()[n]) for line in open(f'/proc/sysvipc/{name}').readlines()[1:])
def total(): return column('shm', 14) + column('msg', 3) + column('msg', 4) * 64 + column('sem', 3) * 64
until = time.monotonic() + 15
while total() > LIMIT // 2 and time.monotonic() < until: time.sleep(0.01)
print('total', total() // MIB)".replace("LIMIT", &(LIMIT_MIB << 20).to_string());
        let segments = "
for n in range(64):
    id = libc.shmget(0, 8 * MIB, 0o1600)
    if id < 0: break
    at = libc.shmat(id, None, 0)
    ctypes.memset(at, 1, 8 * MIB)
    libc.shmdt(at)";
        let queues = "
message = ctypes.create_string_buffer(b'\\1' + bytes(8200))
libc.msgsnd.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
for n in range(8000):
    id = libc.msgget(0, 0o1600)
    if id < 0: break
    libc.msgsnd(id, message, 8000, 0o4000); libc.msgsnd(id, message, 8000, 0o4000)";
        let semaphores = "
for n in range(200):
    if libc.semget(0, 32000, 0o1600) < 0: break";
        for make in [segments, queues, semaphores] {
            let b = small();
            let made = b.exec(python(make)).unwrap();
            assert!(made.end.oom || made.end.end == ExecEnd::Exited(0), "{:?} {}", made.end, made.err);
            let ran = b.exec(python(&bytes)).unwrap();
            let total = ran.out.trim().strip_prefix("total ").and_then(|text| text.parse::<u64>().ok());
            assert!(total.is_some_and(|mib| mib <= LIMIT_MIB / 2), "{make}: {:?} {} {}", ran.end, ran.out, ran.err);
        }
        let b = small();
        let few = b.exec(python("
print(libc.shmget(1, MIB, 0o1600) >= 0, libc.semget(2, 100, 0o1600) >= 0, libc.msgget(3, 0o1600) >= 0)
time.sleep(0.3)"));
        assert_eq!(few.unwrap().out, "True True True\n");
        // The objects stay for later commands.
        assert_eq!(b.exec(python("print(libc.shmget(1, MIB, 0) >= 0, libc.msgget(3, 0) >= 0)")).unwrap().out, "True True\n");
    }

    fn what_waits_in_sockets_counts() {
        let fill = |kind: &str, after: &str| format!("
for n in range(2000):
    a, b = socket.socketpair(socket.AF_UNIX, socket.{kind})
    a.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * MIB)
    a.setblocking(False)
    try:
        for _ in range(64): a.send(bytes(60000))
    except BlockingIOError: pass
    held.append(({after}))
hold()");
        ended_for_memory("streams", &fill("SOCK_STREAM", "a, b"));
        ended_for_memory("streams whose senders are gone", &fill("SOCK_STREAM", "b"));
        ended_for_memory("datagrams", &fill("SOCK_DGRAM", "a, b"));
        ended_for_memory("connections", "
sent = 0
server = socket.create_server(('127.0.0.1', 0))
for n in range(400):
    a = socket.create_connection(server.getsockname()); b, _ = server.accept()
    a.setblocking(False)
    try:
        while True: sent += a.send(bytes(60000))
    except BlockingIOError: pass
    held.append((a, b))
if sent < 256 * MIB: print('bounded'); sys.exit()
hold()");
    }

    fn a_process_that_hides_counts() {
        ended_for_memory("a name that is no text", &hidden("libc.prctl(15, b'\\xff\\xfe')"));
        ended_for_memory("not dumpable", &hidden("libc.prctl(4, 0)"));
        ended_for_memory("both", &hidden("libc.prctl(15, b'\\xff) Z'); libc.prctl(4, 0)"));
        // The process's first thread is dead, another one continues.
        ended_for_memory("a dead first thread", "
import threading
def keep():
    held.append(bytearray(60 * MIB)); hold()
for n in range(8):
    if os.fork() == 0:
        threading.Thread(target=keep).start()
        libc.syscall(60, 0)
os.wait()");
        // A process of an unreadable program cannot be inspected.
        let b = small();
        b.sh("cp $(python3 -c 'import sys; print(sys.executable)') hidden && chmod 0111 hidden");
        let script = format!("{PRELUDE}
for n in range(64):
    fd = os.memfd_create('x'); held.append(fd)
    os.write(fd, bytes(8 * MIB)); time.sleep(0.01)
hold()");
        let ran = b.exec(exec(&["./hidden", "-c", &script])).unwrap();
        assert!(ran.end.oom && ran.end.end != ExecEnd::TimedOut, "{:?} {} {}", ran.end, ran.out, ran.err);
    }

    fn what_the_kernel_keeps_for_a_process_counts() {
        // Reads single pages far apart, so that there is little memory but page tables.
        ended_for_memory("page tables", "
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
def work(n):
    size = 24 << 30
    at = libc.mmap(None, size, 1, 0x4022, -1, 0)
    assert at != ctypes.c_void_p(-1).value
    for page in range(0, size, 2 * MIB): ctypes.string_at(at + page, 1)
fork_all(12, work)");
    }

    fn rules_and_filters_of_programs_count() {
        // Each ruleset of 65,536 ports takes 4.6 MB; without control groups, no rule can be added.
        ended_for_memory("Landlock rulesets", "
import struct
def work(n):
    for _ in range(20):
        fd = libc.syscall(444, struct.pack('QQQ', 0, 3, 0), 16, 0)
        if fd < 0: print('bounded', flush=True); os._exit(0)
        for port in range(65536):
            rule = struct.pack('QQ', 1 + port % 2, port)
            if libc.syscall(445, fd, 2, rule, 0): print('bounded', flush=True); os._exit(0)
work(0)
fork_all(4, work)");
        // System call filters of the greatest length, as many as the kernel accepts, in processes and in threads.
        let filters = "
import threading
body = b''.join((0x15).to_bytes(2, 'little') + bytes([0, 0]) + n.to_bytes(4, 'little') for n in range(4094))
code = (0x20).to_bytes(2, 'little') + bytes(6) + body + (0x06).to_bytes(2, 'little') + bytes(2) + (0x7fff0000).to_bytes(4, 'little')
code = ctypes.create_string_buffer(code, len(code))
class Program(ctypes.Structure): _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
program = Program(4096, ctypes.addressof(code))
def work(n):
    for _ in range(8):
        if libc.prctl(22, 2, ctypes.byref(program), 0, 0):
            # A control group can refuse the memory.
            if ctypes.get_errno() == 12: print('bounded', flush=True); os._exit(0)
            break
";
        ended_for_memory("in processes", &format!("{filters}fork_all(200, work)"));
        ended_for_memory("in threads", &format!("{filters}
def thread(): work(0); hold()
def threads(n):
    for _ in range(4): threading.Thread(target=thread).start()
fork_all(50, threads)"));
    }

    fn objects_behind_descriptors_count() {
        for (what, make) in [("sockets", "socket.socket(socket.AF_UNIX)"), ("memory files", "os.memfd_create('x')")] {
            ended_for_memory(what, &format!("
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
def work(n):
    try:
        while True: held.append({make})
    except OSError: pass
fork_all(28, work)"));
        }
    }

    fn what_programs_need_works_within_the_limit() {
        let b = small();
        let ran = b.exec(python("
fd = os.memfd_create('x', os.MFD_ALLOW_SEALING)
os.write(fd, bytes(MIB)); m = mmap.mmap(fd, MIB); m[5] = 1
shared = mmap.mmap(-1, 20 * MIB); shared[0] = 1
reserved = mmap.mmap(-1, 2048 * MIB); reserved[0] = 1
a, b = socket.socketpair(); a.sendall(bytes(100000)); assert len(b.recv(1000)) == 1000
r, w = os.pipe(); os.write(w, bytes(60000))
if os.fork() == 0: held.append(bytearray(20 * MIB)); os._exit(0)
os.wait()
id = libc.shmget(0, MIB, 0o1600); assert libc.shmat(id, None, 0)
assert libc.semget(0, 100, 0o1600) >= 0 and libc.msgget(0, 0o1600) >= 0
assert libc.syscall(444, None, 0, 1) > 0 or ctypes.get_errno() in (38, 95)
import threading; threading.Thread(target=print, args=('thread',)).start()
# Longer than the supervisor looks away.
time.sleep(0.3)
print('fine')")).unwrap();
        assert_eq!((ran.out.as_str(), ran.end.oom), ("thread\nfine\n", false), "{}", ran.err);
        let node = b.sh("command -v node >/dev/null || { echo fine; exit; }; node -e 'console.log(\"fine\")'");
        // However much it needs, it is not ended for memory it does not hold.
        assert!(node.out == "fine\n" || node.end.oom, "{:?} {}", node.end, node.err);
    }
}
