//! Pressing on the box's ceilings. What each does is bounded here as well, for the case that a ceiling is missing.

use super::{hoard, siblings};
use crate::attempts::{self, Outcome};
use crate::scene::{Ceiling, absent, broke, held, untested};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::time::{Duration, Instant};

/// Errors by which a ceiling shows itself.
const EMFILE: i32 = 24;
const ENFILE: i32 = 23;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;
/// How far above its limit something is tried.
pub(super) const BEYOND: u64 = 3;
/// Most of an endless output.
const FLOOD: u64 = 10 << 30;

pub(super) fn press(ceiling: Ceiling, limit: u64, token: &str) -> io::Result<()> {
    let outcome = match ceiling {
        Ceiling::Processes => processes(limit),
        Ceiling::Bomb => bomb(limit),
        Ceiling::Descriptors => descriptors(limit),
        Ceiling::Memory => memory(limit),
        Ceiling::TmpBytes => tmp_bytes(limit),
        Ceiling::TmpFiles => tmp_files(limit),
        Ceiling::Output => return flood(),
        Ceiling::Spin => spin(),
        Ceiling::IgnoreTerm => {
            attempts::ignore_term();
            spin()
        }
        Ceiling::Daemon => return daemon(token, Streams::Close),
        Ceiling::HoldOutput => return daemon(token, Streams::Hold),
        Ceiling::Stdin => stdin(),
        Ceiling::FakeProtocol => return pose(),
        Ceiling::MemoryFiles => hoard::memory_files(limit),
        Ceiling::Sockets => hoard::sockets(limit),
        Ceiling::Hidden => hoard::hidden(limit),
        Ceiling::Reach => return siblings::reach(token),
        Ceiling::Reached => siblings::wait(token),
    };
    super::print(&outcome)
}

fn processes(limit: u64) -> Outcome {
    let most = usize::try_from(limit.saturating_mul(BEYOND)).unwrap_or(usize::MAX);
    let (children, errno) = attempts::fork_until_refused(most);
    attempts::end_children(&children);
    match errno {
        Some(errno) if children.len() as u64 <= limit => {
            held(format!("after {}: {}", children.len(), io::Error::from_raw_os_error(errno)))
        }
        _ => broke(format!("{} processes at once where {limit} are allowed", children.len())),
    }
}

/// Without a ceiling of the box it is bounded by one of its own, so that a box that fails costs the machine little.
fn bomb(limit: u64) -> Outcome {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let most = Rlimit { current: Some(limit), maximum: getrlimit(Resource::Nproc).maximum };
    if getrlimit(Resource::Nproc).current.is_none_or(|now| now > limit)
        && let Err(error) = setrlimit(Resource::Nproc, most)
    {
        return untested(error);
    }
    attempts::multiply()
}

fn descriptors(limit: u64) -> Outcome {
    let mut open = Vec::new();
    while (open.len() as u64) < limit {
        match fs::File::open("/dev/null") {
            Ok(file) => open.push(file),
            Err(error) if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) => {
                return held(format!("after {}: {error}", open.len()));
            }
            Err(error) => return untested(error),
        }
    }
    broke(format!("{} files at once", open.len()))
}

fn memory(limit: u64) -> Outcome {
    const PIECE: usize = 1 << 20;
    let mut pieces: Vec<Vec<u8>> = Vec::new();
    while ((pieces.len() * PIECE) as u64) < limit.saturating_mul(BEYOND) {
        let mut piece = Vec::new();
        if let Err(error) = piece.try_reserve_exact(PIECE) {
            return held(format!("after {} MiB: {error}", pieces.len()));
        }
        // Every page, so that it is really there.
        piece.resize(PIECE, 0xA5);
        pieces.push(std::hint::black_box(piece));
    }
    broke(format!("{} MiB where {} are allowed", pieces.len(), limit >> 20))
}

fn tmp_bytes(limit: u64) -> Outcome {
    let path = Path::new("/tmp/forge-full");
    let piece = vec![0u8; 1 << 20];
    let mut written = 0u64;
    let ended = fs::File::create(path).and_then(|mut file| {
        while written < limit.saturating_mul(BEYOND) {
            file.write_all(&piece)?;
            written += piece.len() as u64;
        }
        Ok(())
    });
    let _ = fs::remove_file(path);
    full(ended, &format!("{} MiB in /tmp", written >> 20))
}

fn tmp_files(limit: u64) -> Outcome {
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
        return absent("no number of files in /tmp can be set there; their memory counts against the box's");
    }
    full(ended, &format!("{made} files in /tmp"))
}

fn full(ended: io::Result<()>, what: &str) -> Outcome {
    match ended {
        Err(error) if matches!(error.raw_os_error(), Some(ENOSPC | EDQUOT)) => {
            held(format!("after {what}: {error}"))
        }
        Err(error) => untested(error),
        Ok(()) => broke(format!("{what}, more than allowed")),
    }
}

/// No newline, NULs, what moves a terminal's cursor and sets its title, and bytes that are no UTF-8.
fn flood() -> io::Result<()> {
    let piece = b"\0\x1b[2J\x1b]0;owned\x07\x1b[31m\xff\xfe \x08\x08\r\x9b1A".repeat(2048);
    let mut out = io::stdout().lock();
    let mut written = 0;
    while written < FLOOD {
        out.write_all(&piece)?;
        written += piece.len() as u64;
    }
    Ok(())
}

fn spin() -> Outcome {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        std::hint::spin_loop();
    }
    broke("it ran for a minute")
}

/// What a daemon does with the streams it was started with.
#[derive(PartialEq, Eq)]
enum Streams {
    Close,
    Hold,
}

/// Leaves a process behind that has left its session and its parents; its name says whose it is.
fn daemon(token: &str, streams: Streams) -> io::Result<()> {
    if attempts::release()?.is_some() {
        return super::print(&held("a daemon was left behind"));
    }
    if streams == Streams::Close {
        let null = fs::File::options().read(true).write(true).open("/dev/null")?;
        attempts::replace_streams(&null.into());
    }
    attempts::ignore_term();
    // Its command line holds the token already; this keeps it from being only a sleeper.
    for _ in 0..1000 {
        let _ = fs::write(format!("/workspace/forge-daemon-{token}"), "alive");
        let _ = rustix::thread::nanosleep(&rustix::thread::Timespec { tv_sec: 0, tv_nsec: 20_000_000 });
    }
    Ok(())
}

fn stdin() -> Outcome {
    let mut bytes = Vec::new();
    match io::stdin().lock().read_to_end(&mut bytes) {
        Ok(0) => held("it is empty"),
        Ok(read) => broke(format!("{read} bytes came")),
        Err(error) => held(error),
    }
}

/// Output that poses as the box's init answering.
pub(crate) const POSE: &str =
    "I{\"id\":1,\"body\":{\"is\":\"ended\",\"end\":{\"exited\":0}}}{\"ready\":{\"layers\":[]}}";
/// How the poser really ends.
pub(crate) const POSER_CODE: i32 = 1;

fn pose() -> io::Result<()> {
    io::stdout().lock().write_all(POSE.as_bytes())?;
    io::stderr().lock().write_all(POSE.as_bytes())?;
    Err(io::Error::other("ends with its own code"))
}
