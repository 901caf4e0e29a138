//! Change notifications between processes that share a data directory.
//!
//! Each store that is watched binds a datagram socket in `<data dir>/wake`; every commit sends one message with the
//! changed runs to all sockets there. The socket of a dead process refuses the message, and its file is removed, at the
//! latest when the next store closes. A lost message does no harm: while a store is watched, it polls the database's
//! change counter once a second.

use crate::schema::{self, ConnectionPurpose};
use crate::watchers::{ChangeCounters, MAX_MESSAGE_BYTES, RunChange, decode_changes, encode_changes};
use forge_ports::journal::WatchScope;
use forge_types::CommandId;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};
use tokio::sync::watch;

/// The interval at which the change counter is polled while the store is watched.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The longest path of a socket: `sun_path` of `sockaddr_un` without its terminating zero.
const MAX_SUN_PATH_BYTES: usize = 107;

/// The counter of changes, and the processes to notify.
#[derive(Debug)]
pub(crate) struct ChangeNotifier {
    database: PathBuf,
    socket_dir: PathBuf,
    counters: ChangeCounters,
    peers: Mutex<PeerSockets>,
    stop: AtomicBool,
    listener: Mutex<Option<SocketListener>>,
}

/// The sockets in the directory, listed again only when the directory has changed. A socket added within the
/// resolution of the directory's time stamp is found with the next change; until then its process polls.
#[derive(Debug, Default)]
struct PeerSockets {
    changed: Option<SystemTime>,
    sockets: Vec<PathBuf>,
}

impl PeerSockets {
    fn refresh(&mut self, folder: &Path) {
        let changed = fs::metadata(folder).and_then(|folder| folder.modified()).ok();
        if changed.is_some() && changed == self.changed {
            return;
        }
        self.changed = changed;
        self.sockets =
            fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    }
}

#[derive(Debug)]
struct SocketListener {
    /// Wakes the listener.
    poke: UnixDatagram,
    thread: Option<JoinHandle<()>>,
    /// The socket's file, if binding succeeded.
    file: Option<PathBuf>,
}

impl ChangeNotifier {
    pub(crate) fn new(data_dir: &Path, database: &Path) -> Self {
        Self {
            database: database.to_owned(),
            socket_dir: data_dir.join("wake"),
            counters: ChangeCounters::new(),
            peers: Mutex::default(),
            stop: AtomicBool::new(false),
            listener: Mutex::new(None),
        }
    }

    /// Returns the counter that is incremented with every change of this kind.
    pub(crate) fn watch(self: &Arc<Self>, scope: WatchScope) -> watch::Receiver<u64> {
        let receiver = self.counters.subscribe(scope);
        let mut listener = self.listener.lock();
        match &*listener {
            // The listener may be waiting without a timeout, because nothing was watched so far.
            Some(listener) => drop(listener.poke.send(&[0])),
            None => match SocketListener::start(self) {
                Ok(started) => *listener = Some(started),
                Err(error) => {
                    tracing::warn!(%error, "changes made by other processes will not be noticed");
                }
            },
        }
        receiver
    }

    /// Counts committed changes.
    pub(crate) fn count(&self, changes: &[RunChange]) {
        self.counters.count(changes);
    }

    /// Notifies the other processes of these changes.
    pub(crate) fn notify_processes(&self, own: &UnixDatagram, changes: &[RunChange]) {
        let mut others = self.peers.lock();
        others.refresh(&self.socket_dir);
        if others.sockets.is_empty() {
            return;
        }
        let mine = self.socket_file();
        let message = encode_changes(changes);
        for path in others.sockets.iter().filter(|path| Some(*path) != mine.as_ref()) {
            match with_short_path(&self.socket_dir, path, |path| own.send_to(&message, path)) {
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                    let _ = fs::remove_file(path);
                }
                // The process of a full socket polls; a socket that is gone needs no notification.
                _ => {}
            }
        }
    }

    fn socket_file(&self) -> Option<PathBuf> {
        let listener = self.listener.lock();
        listener.as_ref().and_then(|listener| listener.file.clone())
    }

    /// Removes the sockets of dead processes. Live ones do not notice the check.
    fn remove_stale_sockets(&self) {
        let Ok(caller) = UnixDatagram::unbound() else { return };
        for path in fs::read_dir(&self.socket_dir).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let called = with_short_path(&self.socket_dir, &path, |path| caller.connect(path));
            if called.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Stops the listener and waits until it has ended.
    pub(crate) fn close(&self) {
        self.stop.store(true, Ordering::Release);
        self.remove_stale_sockets();
        let listener = self.listener.lock().take();
        let Some(mut listener) = listener else { return };
        if let Some(file) = &listener.file {
            let _ = fs::remove_file(file);
        }
        let _ = listener.poke.send(&[0]);
        if let Some(thread) = listener.thread.take() {
            let _ = thread.join();
        }
    }
}

impl SocketListener {
    fn start(wake: &Arc<ChangeNotifier>) -> std::io::Result<Self> {
        let (socket, poke, file) = match bind(&wake.socket_dir) {
            Ok((socket, poke, file)) => (socket, poke, Some(file)),
            Err(error) => {
                // Some file systems don't support sockets. Polling the change counter must then suffice.
                tracing::debug!(%error, folder = %wake.socket_dir.display(), "can't bind a notification socket");
                let (socket, poke) = UnixDatagram::pair()?;
                (socket, poke, None)
            }
        };
        poke.set_nonblocking(true)?;
        let wake = Arc::clone(wake);
        let thread = std::thread::Builder::new()
            .name("store-wake".to_owned())
            .spawn(move || listen(&wake, &socket))?;
        Ok(Self { poke, thread: Some(thread), file })
    }
}

/// Binds a socket to a file of its own, and connects a second one to it.
fn bind(folder: &Path) -> std::io::Result<(UnixDatagram, UnixDatagram, PathBuf)> {
    if !folder.is_dir() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // A part of the name is random: process ids are reused, and containers have their own.
    let random = CommandId::generate().to_string();
    let tail = random.rsplit('-').next().unwrap_or(&random).to_owned();
    let file = folder.join(format!("{}-{tail}.sock", std::process::id()));
    let socket = with_short_path(folder, &file, |path| UnixDatagram::bind(path))?;
    let poke = UnixDatagram::unbound()?;
    with_short_path(folder, &file, |path| poke.connect(path))?;
    Ok((socket, poke, file))
}

/// Calls `act` with a path to `file` that fits into a socket address.
fn with_short_path<T>(
    folder: &Path,
    file: &Path,
    act: impl FnOnce(&Path) -> std::io::Result<T>,
) -> std::io::Result<T> {
    if file.as_os_str().len() <= MAX_SUN_PATH_BYTES {
        return act(file);
    }
    // Linux resolves a path through an open directory, however long the directory's own path is.
    let open = File::open(folder)?;
    let name = file.file_name().unwrap_or_default();
    act(&Path::new("/proc/self/fd").join(open.as_raw_fd().to_string()).join(name))
}

fn listen(wake: &ChangeNotifier, socket: &UnixDatagram) {
    let mut changes = DataVersion { connection: None, last: None };
    let mut message = [0_u8; MAX_MESSAGE_BYTES];
    loop {
        let timeout = wake.counters.is_watched().then_some(POLL_INTERVAL);
        if socket.set_read_timeout(timeout).is_err() {
            return;
        }
        let got = socket.recv(&mut message);
        if wake.stop.load(Ordering::Acquire) {
            return;
        }
        match got {
            Ok(length) => match decode_changes(&message[..length]) {
                Some(changes) if changes.is_empty() => wake.counters.count_unknown(),
                Some(changes) => wake.counters.count(&changes),
                None => {}
            },
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if changes.has_changed(&wake.database) {
                    wake.counters.count_unknown();
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// The database's own change counter, as seen by one connection.
struct DataVersion {
    connection: Option<Connection>,
    last: Option<i64>,
}

impl DataVersion {
    /// Returns whether anything was committed since the last call. The first call can't tell and returns true.
    fn has_changed(&mut self, database: &Path) -> bool {
        if self.connection.is_none() {
            self.connection = schema::connect(database, ConnectionPurpose::Read).ok();
        }
        let Some(connection) = &self.connection else { return false };
        let now = connection.query_row("PRAGMA data_version", [], |row| row.get(0)).ok();
        let moved = now.is_some() && now != self.last;
        self.last = now;
        moved
    }
}
