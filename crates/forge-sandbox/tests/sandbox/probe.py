"""Tries to get out of the box, in many ways. Prints one JSON object: what became of each probe and each control.

A probe passes when it is denied; it gives None then, or words for what it could do. A control passes when it works.
Numbers of system calls are those of x86-64.
"""
import ctypes, errno, json, mmap, os, platform, signal, socket, struct, subprocess, sys, tempfile

libc = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
probes, controls = {}, {}


def probe(function):
    probes[function.__name__] = function
    return function


def control(function):
    controls[function.__name__] = function
    return function


def call(number, *arguments):
    """A raw system call: what it returned, or -errno."""
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
    return -ctypes.get_errno() if result == -1 else result


def must_fail(number, *arguments):
    result = call(number, *arguments)
    if result == 0 and number in (56, 435):
        os._exit(0)  # the child of a clone that should not have worked
    return None if result < 0 and -result in (errno.EPERM, errno.ENOSYS, errno.EACCES) else f"returned {result}"


def unreadable(path):
    try:
        with open(path, "rb") as file:
            data = file.read(64)
        return f"read {len(data)} bytes: {data[:32]!r}" if data else None
    except OSError:
        return None


def unwritable(path, data=b"0"):
    try:
        with open(path, "r+b", buffering=0) as file:
            file.write(data)
        return "written"
    except OSError:
        return None


def first(*results):
    return next((r for r in results if r), None)


# ---- files -----------------------------------------------------------------------------------------------------
@probe
def host_files_outside():
    return first(*[unreadable(p) for p in CANARIES], *[f"{p} exists" for p in CANARIES if os.path.exists(p)])

@probe
def dot_dot_chain():
    return first(*[unreadable("/workspace/" + "../" * n + CANARIES[0].lstrip("/")) for n in (1, 2, 8)])

@probe
def shadow_and_other_etc():
    hosts = [f for f in ("/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh", "/etc/machine-id", "/root") if os.path.exists(f)]
    return f"there are {hosts}" if hosts else None

@probe
def write_system_folders():
    def make(folder):
        try:
            open(folder + "/forge-probe", "w").close()
            return f"wrote in {folder}"
        except OSError:
            return None
    return first(*[make(f) for f in ("/", "/etc", "/usr", "/usr/bin", "/bin", "/lib", "/dev", "/run", "/run/forge", "/proc", "/sys/devices/system/cpu", "/var")])

@probe
def replace_the_helper():
    return first(unwritable("/run/forge/forge"), unwritable("/proc/1/exe"))

@probe
def symlink_out():
    os.symlink(CANARIES[0], "/workspace/out-link")
    return unreadable("/workspace/out-link")

@probe
def hard_link_from_outside():
    for source in ("/usr/bin/env", "/etc/hosts", "/run/forge/forge"):
        try:
            os.link(source, "/workspace/hard")
            return f"linked {source}"
        except OSError:
            pass

@probe
def init_root_and_folders():
    return first(*[f"entered {p}" for p in ("/proc/1/root", "/proc/1/cwd", "/proc/1/fd") if can_list(p)])

def can_list(path):
    try:
        return bool(os.listdir(path + "/"))
    except OSError:
        return False

@probe
def init_environment_and_memory():
    return first(unreadable("/proc/1/environ"), unreadable("/proc/1/mem"), unreadable("/proc/1/maps"), unwritable("/proc/1/mem"))

@probe
def processes_of_others():
    inside = int(open("/proc/self/status").read().split("NSpid:")[1].split()[0])
    pids = [int(p) for p in os.listdir("/proc") if p.isdigit()]
    return f"sees {len(pids)} processes" if len(pids) > 16 or inside > 10000 or HOST_PID in pids else None

@probe
def self_mem_over_read_only_map():
    file = open("/usr/bin/env", "rb")
    view = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
    address = int([l for l in open("/proc/self/maps") if "/usr/bin/env" in l][0].split("-")[0], 16)
    before = view[:4]
    try:
        fd = os.open("/proc/self/mem", os.O_RDWR)
        os.pwrite(fd, b"XXXX", address)
    except OSError:
        return None
    return "changed the file" if open("/usr/bin/env", "rb").read(4) != before else None

@probe
def sysctls_and_triggers():
    files = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/overcommit_memory",
             "/proc/sys/kernel/modprobe", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger",
             "/sys/kernel/uevent_helper", "/proc/self/oom_score_adj", "/proc/1/oom_score_adj",
             "/sys/fs/cgroup/release_agent", "/proc/sys/fs/binfmt_misc/register", "/proc/self/uid_map")
    return first(*[f"{f} {r}" for f in files if (r := unwritable(f))])

@probe
def kernel_secrets():
    return first(*[unreadable(p) for p in ("/proc/kcore", "/proc/kmsg", "/proc/kallsyms", "/proc/keys", "/dev/mem", "/dev/kmsg", "/dev/port", "/proc/slabinfo")])

@probe
def devices():
    found = sorted(os.listdir("/dev"))
    allowed = {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm"}
    extra = set(found) - allowed
    return f"there are {extra}" if extra else first(*[unreadable(f"/dev/{d}") for d in ("sda", "vda", "nvme0n1", "kvm", "fuse", "net/tun", "loop-control")])

@probe
def make_devices():
    for mode, device in ((0o020666, os.makedev(1, 1)), (0o060666, os.makedev(254, 0)), (0o020666, 0)):
        for folder in ("/workspace", "/tmp"):
            try:
                os.mknod(f"{folder}/node", mode, device)
                return f"made a device in {folder}"
            except OSError:
                pass

@probe
def open_by_handle():
    buffer = ctypes.create_string_buffer(struct.pack("Ii", 8, 1) + b"\0" * 8, 128)
    return first(must_fail(303, -100, ctypes.c_char_p(b"/workspace"), buffer, ctypes.byref(ctypes.c_int()), 0), must_fail(304, 3, buffer, 0))

@probe
def host_paths_in_mountinfo():
    # The place of the workspace is known to its owner; nothing else of the host should be named.
    text = open("/proc/self/mountinfo").read()
    return "names the host's home" if "/root/." in text or "/home/" in text else None

@probe
def setuid_programs():
    before = os.geteuid()
    for tool in ("/usr/bin/su", "/usr/bin/passwd", "/usr/bin/sudo", "/usr/bin/mount"):
        if os.path.exists(tool):
            out = subprocess.run(["/bin/sh", "-c", f"exec {tool} --help >/dev/null 2>&1; id -u"], capture_output=True, text=True).stdout
            if out.strip() not in ("", str(before)):
                return out
    path = "/tmp/suid"
    subprocess.run(["cp", "/usr/bin/id", path], check=True)
    os.chmod(path, 0o6755)
    try:
        os.chown(path, 0, 0)
        return "gave a file to root"
    except OSError:
        return None

@probe
def inherited_descriptors():
    child = "import os; print(sorted(int(f) for f in os.listdir('/proc/self/fd')))"
    out = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, close_fds=False).stdout
    extra = [fd for fd in eval(out) if fd > 3]
    return f"has {extra}" if extra else None

@probe
def masked_files():
    for name in (".env", "keys/id_rsa"):
        seen = first(unreadable(f"/workspace/{name}"))
        if seen:
            return seen
        for trick in (lambda: os.rename(f"/workspace/{name}", "/workspace/moved"), lambda: os.unlink(f"/workspace/{name}"),
                      lambda: os.link(f"/workspace/{name}", "/workspace/linked"), lambda: os.chmod(f"/workspace/{name}", 0o644)):
            try:
                trick()
                return f"a trick with {name} worked"
            except OSError:
                pass
    os.rename("/workspace/keys", "/workspace/keys2")
    seen = unreadable("/workspace/keys2/id_rsa")
    os.rename("/workspace/keys2", "/workspace/keys")
    return seen


# ---- namespaces ------------------------------------------------------------------------------------------------
@probe
def unshare_namespaces():
    return first(*[must_fail(272, flag) for flag in (0x10000000, 0x00020000, 0x40000000, 0x20000000, 0x04000000, 0x08000000, 0x02000000)])

@probe
def clone_into_a_new_user_namespace():
    return first(must_fail(56, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0), must_fail(435, ctypes.create_string_buffer(88), 88))

@probe
def setns():
    fd = os.open("/proc/self/ns/net", os.O_RDONLY)
    return first(must_fail(308, fd, 0), *[must_fail(308, call(434, 1, 0), 0x20000)])

@probe
def mount_and_umount():
    return first(must_fail(165, ctypes.c_char_p(b"none"), ctypes.c_char_p(b"/tmp"), ctypes.c_char_p(b"tmpfs"), 0, 0),
                 must_fail(165, ctypes.c_char_p(b"/"), ctypes.c_char_p(b"/tmp"), 0, 4096, 0),
                 must_fail(166, ctypes.c_char_p(b"/proc"), 2), must_fail(166, ctypes.c_char_p(b"/workspace/.env"), 2))

@probe
def new_mount_api():
    return first(must_fail(430, ctypes.c_char_p(b"tmpfs"), 0), must_fail(428, -100, ctypes.c_char_p(b"/"), 1),
                 must_fail(429, -1, ctypes.c_char_p(b""), -1, ctypes.c_char_p(b""), 0), must_fail(442, -100, ctypes.c_char_p(b"/"), 0, ctypes.create_string_buffer(32), 32))

@probe
def chroot_and_pivot_root():
    os.makedirs("/tmp/new/old", exist_ok=True)
    return first(must_fail(161, ctypes.c_char_p(b"/tmp/new")), must_fail(155, ctypes.c_char_p(b"/tmp/new"), ctypes.c_char_p(b"/tmp/new/old")))


# ---- kernel ----------------------------------------------------------------------------------------------------
@probe
def ptrace():
    return first(must_fail(101, 0, 0, 0, 0), must_fail(101, 16, 1, 0, 0), must_fail(101, 0x4206, os.getppid(), 0, 0))

@probe
def memory_of_other_processes():
    vector = struct.pack("PP", 0, 0)
    return first(must_fail(310, 1, vector, 1, vector, 1, 0), must_fail(311, os.getppid(), vector, 1, vector, 1, 0))

@probe
def descriptors_of_other_processes():
    fd = call(434, 1, 0)
    return first(must_fail(438, fd, 10, 0), must_fail(312, 1, os.getpid(), 0, 0, 0))

@probe
def bpf():
    return must_fail(321, 0, ctypes.create_string_buffer(128), 128)

@probe
def perf_events():
    return must_fail(298, ctypes.create_string_buffer(struct.pack("IIQ", 1, 128, 0), 128), 0, -1, -1, 0)

@probe
def userfaultfd():
    return first(must_fail(323, 0), must_fail(323, 1))

@probe
def io_uring():
    return first(must_fail(425, 8, ctypes.create_string_buffer(120)), must_fail(426, 0, 0, 0, 0, 0, 0), must_fail(427, 0, 0, 0, 0))

@probe
def keyrings():
    return first(must_fail(248, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), ctypes.c_char_p(b"y"), 1, -3),
                 must_fail(250, 0, -3, 0, 0, 0), must_fail(249, ctypes.c_char_p(b"user"), ctypes.c_char_p(b"x"), 0, 0))

@probe
def modules_kexec_and_reboot():
    return first(must_fail(175, 0, 0, ctypes.c_char_p(b"")), must_fail(313, 0, ctypes.c_char_p(b""), 0), must_fail(246, 0, 0, 0, 0),
                 must_fail(320, 0, 0, 0, 0, 0), must_fail(169, 0xFEE1DEAD, 672274793, 0, 0))

@probe
def clock_hostname_swap_syslog():
    return first(must_fail(227, 0, struct.pack("qq", 0, 0)), must_fail(164, struct.pack("qq", 0, 0), 0),
                 must_fail(170, ctypes.c_char_p(b"x"), 1), must_fail(171, ctypes.c_char_p(b"x"), 1),
                 must_fail(167, ctypes.c_char_p(b"/tmp/x"), 0), must_fail(103, 3, ctypes.create_string_buffer(64), 64), must_fail(163, 0))

@probe
def fanotify():
    return first(must_fail(300, 0, 0), must_fail(300, 0x200, 0))

@probe
def secret_memory():
    return must_fail(447, 0)

@probe
def personality_bits():
    return first(must_fail(135, 0x0040000), must_fail(135, 0x0400000))

@probe
def io_ports():
    return first(must_fail(172, 3), must_fail(173, 0, 8, 1))

@probe
def typing_into_a_terminal():
    import pty, fcntl
    leader, follower = pty.openpty()
    for request, argument in ((0x5412, b"x"), (0x541C, b"\x03")):
        try:
            fcntl.ioctl(follower, request, argument)
            return f"ioctl {request:#x} worked"
        except OSError:
            pass
    try:
        os.open("/dev/tty", os.O_RDWR)
        return "has a terminal"
    except OSError:
        return None

@probe
def foreign_system_calls():
    # mmap a page with: mov eax, 20 (getpid of the 32-bit table); int 0x80; ret
    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"
    pid = os.fork()
    if pid == 0:
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        os._exit(7 if result > 0 else 8)
    status = os.waitpid(pid, 0)[1]
    x32 = call(0x40000000 + 39)
    return "int 0x80 worked" if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 7 else ("x32 worked" if x32 > 0 else None)

@probe
def limits_of_the_init():
    return first(must_fail(302, 1, 7, struct.pack("QQ", 0, 0), 0), must_fail(203, 1, 8, ctypes.create_string_buffer(8)), must_fail(141, 0, 1, 19))


# ---- network and ipc -------------------------------------------------------------------------------------------
@probe
def socket_families():
    def open_one(family, kind, protocol=0):
        try:
            socket.socket(family, kind, protocol).close()
            return f"family {family} kind {kind} opened"
        except OSError:
            return None
    return first(open_one(40, socket.SOCK_STREAM), open_one(17, socket.SOCK_RAW), open_one(17, socket.SOCK_DGRAM),
                 open_one(16, socket.SOCK_RAW), open_one(16, socket.SOCK_DGRAM, 15), open_one(socket.AF_INET, socket.SOCK_RAW, 1),
                 open_one(38, socket.SOCK_SEQPACKET), open_one(29, socket.SOCK_RAW), open_one(31, socket.SOCK_RAW), open_one(44, socket.SOCK_RAW))

@probe
def network_outside():
    for family, address in ((socket.AF_INET, ("1.1.1.1", 443)), (socket.AF_INET, ("169.254.169.254", 80)), (socket.AF_INET, ("172.17.0.1", 2375)), (socket.AF_INET6, ("2606:4700:4700::1111", 443))):
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.settimeout(2)
            try:
                s.connect(address)
                return f"reached {address}"
            except OSError:
                pass
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.sendto(b"x", ("8.8.8.8", 53))
            return "sent a datagram"
        except OSError:
            pass
    try:
        socket.getaddrinfo("example.com", 80)
        return "resolved a name"
    except OSError:
        return None

@probe
def loopback_of_the_host():
    with socket.socket() as s:
        s.settimeout(2)
        try:
            s.connect(("127.0.0.1", HOST_PORT))
            return "reached a service of the host"
        except OSError:
            return None

@probe
def sockets_of_the_host():
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.connect("\0" + HOST_ABSTRACT)
            return "reached an abstract socket of the host"
        except OSError:
            pass
    found = [p for p in ("/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket", "/run/systemd") if os.path.exists(p)]
    return f"there are {found}" if found else None

@probe
def shared_memory_of_the_host():
    rows = open("/proc/sysvipc/shm").read().splitlines()[1:]
    return f"sees {len(rows)} segments" if rows or os.path.exists("/dev/shm/forge-canary") else None


# ---- processes -------------------------------------------------------------------------------------------------
@probe
def environment_of_the_host():
    leaked = [k for k in os.environ if "SECRET" in k or "KEY" in k or "TOKEN" in k]
    return f"has {leaked}" if leaked or "CANARY" in "".join(os.environ.values()) else None

@probe
def rights_of_the_process():
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\t" in line)
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        if int(status[name], 16):
            return f"{name} {status[name]}"
    if status["NoNewPrivs"].strip() != "1" or status["Seccomp"].strip() != "2":
        return "no filter"
    if os.geteuid() == 0 or open("/proc/self/uid_map").read().split()[2] != "1":
        return "more than one user id"

@probe
def becoming_another_user():
    for act in (lambda: os.setuid(0), lambda: os.setgid(0), lambda: os.setgroups([0]), lambda: os.setresuid(0, 0, 0)):
        try:
            act()
            return "changed its identity"
        except OSError:
            pass

@probe
def signals_to_the_init():
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP, signal.SIGSEGV, signal.SIGHUP):
        try:
            os.kill(1, number)
        except OSError:
            pass
    return None if os.path.exists("/proc/1") else "killed it"

@probe
def signals_to_the_host():
    try:
        os.kill(HOST_PID, 0)
        return "reached a process of the host"
    except OSError:
        return None


# ---- controls --------------------------------------------------------------------------------------------------
@control
def write_and_run_in_tmp():
    path = "/tmp/tool.sh"
    open(path, "w").write("#!/bin/sh\necho ran")
    os.chmod(path, 0o755)
    return subprocess.check_output([path], text=True) == "ran\n"

@control
def write_in_workspace_and_home():
    for folder in ("/workspace", os.environ["HOME"], "/dev/shm", "/var/tmp"):
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"x")
    return True

@control
def loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
        client.sendall(b"x")
        return peer.recv(1) == b"x"

@control
def loopback_v6():
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        socket.create_connection(server.getsockname()[:2]).close()
        return True

@control
def unix_sockets():
    a, b = socket.socketpair()
    a.sendall(b"x")
    return b.recv(1) == b"x"

@control
def threads_and_processes():
    import threading, multiprocessing
    t = threading.Thread(target=lambda: None)
    t.start()
    t.join()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2]) == [1, 2]

@control
def own_processes_can_be_signalled():
    child = subprocess.Popen(["sleep", "100"])
    child.terminate()
    return child.wait() == -signal.SIGTERM

@control
def pseudo_terminals():
    import pty
    leader, follower = pty.openpty()
    os.write(follower, b"x")
    return os.read(leader, 1) == b"x"

@control
def fifos_and_random():
    os.mkfifo("/tmp/fifo")
    return len(open("/dev/urandom", "rb").read(8)) == 8 and open("/dev/zero", "rb").read(1) == b"\0"

@control
def programs():
    for argv in (["git", "--version"], ["sh", "-c", "echo $HOME | grep -q /tmp"], ["id", "-un"], ["ls", "-la", "/workspace"]):
        subprocess.run(argv, check=True, capture_output=True)
    return subprocess.check_output(["id", "-un"], text=True).strip() == "forge"

@control
def git_works():
    subprocess.run("cd /workspace && git init -q repo && cd repo && echo x > f && git add f && "
                   "git -c user.name=a -c user.email=b@c commit -qm m && git status --porcelain", shell=True, check=True, capture_output=True)
    return True


setup = json.loads(sys.argv[1])
CANARIES, HOST_PID, HOST_PORT, HOST_ABSTRACT = setup["files"], setup["pid"], setup["port"], setup["abstract"]
results = {"probes": {}, "controls": {}}
for name, function in probes.items():
    try:
        results["probes"][name] = function()
    except Exception as error:
        results["probes"][name] = f"could not be tested: {error!r}"
for name, function in controls.items():
    try:
        results["controls"][name] = None if function() else "gave the wrong answer"
    except Exception as error:
        results["controls"][name] = repr(error)
print(json.dumps(results))
