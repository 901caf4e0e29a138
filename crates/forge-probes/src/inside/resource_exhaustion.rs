//! Exhaustion of the sandbox's limits. Each attempt is also bounded here, in case a limit is missing.

use super::unattributed_memory::LIMIT_FACTOR;
use super::{siblings, unattributed_memory};
use crate::attempts::{self, AttemptOutcome};
use crate::host_facts::{ResourceCeiling, probe_failed, probe_not_applicable, probe_passed, probe_untested};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Errors caused by reaching a limit.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// Maximum size of endless output.
const MAX_FLOOD_BYTES: u64 = 10 << 30;

pub(super) fn exhaust_ceiling(ceiling: ResourceCeiling, limit: u64, token: &str) -> io::Result<()> {
    let outcome = match ceiling {
        ResourceCeiling::Processes => fork_processes(limit),
        ResourceCeiling::Bomb => start_fork_bomb(limit),
        ResourceCeiling::Descriptors => open_descriptors(limit),
        ResourceCeiling::Memory => allocate_memory(limit),
        ResourceCeiling::TmpBytes => fill_tmp_bytes(limit),
        ResourceCeiling::TmpFiles => fill_tmp_files(limit),
        ResourceCeiling::Output => return flood_output(),
        ResourceCeiling::Spin => spin_cpu(),
        ResourceCeiling::IgnoreTerm => {
            attempts::ignore_term();
            spin_cpu()
        }
        ResourceCeiling::Daemon => return leave_daemon(token, DaemonStreams::Close),
        ResourceCeiling::HoldOutput => return leave_daemon(token, DaemonStreams::Hold),
        ResourceCeiling::Stdin => read_stdin(),
        ResourceCeiling::FakeProtocol => return print_fake_protocol(),
        ResourceCeiling::MemoryFiles => unattributed_memory::fill_memory_files(limit),
        ResourceCeiling::Sockets => unattributed_memory::fill_sockets(limit),
        ResourceCeiling::Hidden => unattributed_memory::fill_hidden_processes(limit),
        ResourceCeiling::Reach => return siblings::run_reaching_daemon(token),
        ResourceCeiling::Reached => siblings::wait_for_daemon(token),
    };
    super::print_json_line(&outcome)
}

fn fork_processes(limit: u64) -> AttemptOutcome {
    let most = usize::try_from(limit.saturating_mul(LIMIT_FACTOR)).unwrap_or(usize::MAX);
    let (children, errno) = attempts::fork_until_refused(most);
    attempts::end_children(&children);
    match errno {
        Some(errno) if children.len() as u64 <= limit => {
            probe_passed(format!("after {}: {}", children.len(), io::Error::from_raw_os_error(errno)))
        }
        _ => probe_failed(format!("{} processes at once where {limit} are allowed", children.len())),
    }
}

/// Sets a process limit of its own in addition to the sandbox's, so that a faulty sandbox does little harm to the
/// machine.
fn start_fork_bomb(limit: u64) -> AttemptOutcome {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = Rlimit { current: Some(limit), maximum: getrlimit(Resource::Nproc).maximum };
    if getrlimit(Resource::Nproc).current.is_none_or(|now| now > limit)
        && let Err(error) = setrlimit(Resource::Nproc, most)
    {
        return probe_untested(error);
    }
    attempts::fork_bomb()
}

fn open_descriptors(limit: u64) -> AttemptOutcome {
    let mut open = Vec::new();
    while (open.len() as u64) < limit {
        match fs::File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
                return probe_passed(format!("after {}: {error}", open.len()));
            }
            Err(error) => return probe_untested(error),
        }
    }
    probe_failed(format!("{} files at once", open.len()))
}

fn allocate_memory(limit: u64) -> AttemptOutcome {
    const CHUNK_BYTES: usize = 1 << 20;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    while ((pieces.len() * CHUNK_BYTES) as u64) < limit.saturating_mul(LIMIT_FACTOR) {
        let mut piece = Vec::new();
        if let Err(error) = piece.try_reserve_exact(CHUNK_BYTES) {
            return probe_passed(format!("after {} MiB: {error}", pieces.len()));
        }
        // Touches every page, so that the memory is really allocated.
        piece.resize(CHUNK_BYTES, 0xA5);
        pieces.push(std::hint::black_box(piece));
    }
    probe_failed(format!("{} MiB where {} are allowed", pieces.len(), limit >> 20))
}

fn fill_tmp_bytes(limit: u64) -> AttemptOutcome {
    let path = Path::new("/tmp/forge-full");
    let piece = vec![0u8; 1 << 20];
    let mut written = 0u64;
    let ended = fs::File::create(path).and_then(|mut file| {
        while written < limit.saturating_mul(LIMIT_FACTOR) {
            file.write_all(&piece)?;
            written += piece.len() as u64;
        }
        Ok(())
    });
    let _ = fs::remove_file(path);
    judge_full(ended, &format!("{} MiB in /tmp", written >> 20))
}

fn fill_tmp_files(limit: u64) -> AttemptOutcome {
    let folder = Path::new("/tmp/forge-many");
    let mut made = 0u64;
    let ended = fs::create_dir_all(folder).and_then(|()| {
        while made < limit {
            fs::File::create(folder.join(made.to_string()))?;
            made += 1;
        }
        Ok(())
    });
    let _ = fs::remove_dir_all(folder);
    if ended.is_ok() && rustix::fs::statvfs("/tmp").is_ok_and(|size| size.f_files > limit) {
        return probe_not_applicable(
            "the number of files in /tmp cannot be limited there; their memory counts against the sandbox's limit",
        );
    }
    judge_full(ended, &format!("{made} files in /tmp"))
}

fn judge_full(ended: io::Result<()>, what: &str) -> AttemptOutcome {
    match ended {
        Err(error) if matches!(error.raw_os_error(), Some(ENOSPC | EDQUOT)) => {
            probe_passed(format!("after {what}: {error}"))
        }
        Err(error) => probe_untested(error),
        Ok(()) => probe_failed(format!("{what}, more than allowed")),
    }
}

/// Prints NULs, cursor movements, title changes and invalid UTF-8, without a newline.
fn flood_output() -> io::Result<()> {
    let piece = b"\0\x1b[2J\x1b]0;owned\x07\x1b[31m\xff\xfe \x08\x08\r\x9b1A".repeat(2048);
    let mut out = io::stdout().lock();
    let mut written = 0;
    while written < MAX_FLOOD_BYTES {
        out.write_all(&piece)?;
        written += piece.len() as u64;
    }
    Ok(())
}

fn spin_cpu() -> AttemptOutcome {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        std::hint::spin_loop();
    }
    probe_failed("it ran for a minute")
}

/// Treatment of the standard streams by a daemon.
#[derive(PartialEq, Eq)]
enum DaemonStreams {
    Close,
    Hold,
}

/// Leaves a process that has left its session and its parents; its name contains the token.
fn leave_daemon(token: &str, streams: DaemonStreams) -> io::Result<()> {
    if attempts::daemonize()?.is_some() {
        return super::print_json_line(&probe_passed("a daemon was left behind"));
    }
    if streams == DaemonStreams::Close {
        let null = fs::File::options().read(true).write(true).open("/dev/null")?;
        attempts::replace_streams(&null.into());
    }
    attempts::ignore_term();
    // Its command line already contains the token; the writes keep it from merely sleeping.
    for _ in 0..1000 {
        let _ = fs::write(format!("/workspace/forge-daemon-{token}"), "alive");
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: 20_000_000 });
    }
    Ok(())
}

fn read_stdin() -> AttemptOutcome {
    let mut bytes = Vec::new();
    match io::stdin().lock().read_to_end(&mut bytes) {
        Ok(0) => probe_passed("it is empty"),
        Ok(read) => probe_failed(format!("{read} bytes came")),
        Err(error) => probe_passed(error),
    }
}

/// Output that imitates a response of the sandbox's init.
pub(crate) const FAKE_PROTOCOL_OUTPUT: &str =
    "I{\"id\":1,\"body\":{\"is\":\"ended\",\"end\":{\"exited\":0}}}{\"ready\":{\"layers\":[]}}";
/// The real exit code of the imitating command.
pub(crate) const FAKE_EXIT_CODE: i32 = 1;

fn print_fake_protocol() -> io::Result<()> {
    io::stdout().lock().write_all(FAKE_PROTOCOL_OUTPUT.as_bytes())?;
    io::stderr().lock().write_all(FAKE_PROTOCOL_OUTPUT.as_bytes())?;
    Err(io::Error::other("ends with its own code"))
}
