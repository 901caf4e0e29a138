//! What waits in the sockets of a box: the kernel tells it over a socket of its own (sock_diag), which the init opens
//! before its call filter forbids such sockets.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `SOCK_DIAG_BY_FAMILY`, and the end of a list.
const BY_FAMILY: u16 = 20;
const DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const LIST: u16 = 0x301;
const HEADER: usize = 16;
/// Attributes of a unix socket: its peer, its queues' lengths, its memory.
const PEER: u16 = 2;
const QUEUES: u16 = 4;
const UNIX_MEMORY: u16 = 5;
/// The memory of an internet socket.
const INTERNET_MEMORY: u16 = 7;
/// What the kernel may need for one byte that waits alone.
const BYTE_COST: u64 = 1024;
/// At most so much waits in a socket whose sender is gone.
const ORPHANED_BYTES: u64 = 8 << 20;
/// A queue of datagrams tells only the length of its first one.
const DATAGRAMS_BYTES: u64 = 4 << 20;
/// Kind of a datagram socket.
const DATAGRAM: u8 = 2;

/// The way to ask.
#[derive(Debug)]
pub struct Sockets {
    netlink: OwnedFd,
    network: Network,
}

/// Whose sockets the kernel tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The box's alone.
    Own,
    /// Those of others as well.
    Shared,
}

/// What the kernel said about one socket.
#[derive(Debug, Default, PartialEq, Eq)]
struct Entry {
    inode: u64,
    bytes: u64,
}

impl Sockets {
    /// Opens the way; `None` where the kernel has none.
    pub fn open(network: Network) -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(rustix::net::netlink::SOCK_DIAG);
        let netlink =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).ok()?;
        Some(Self { netlink, network })
    }

    /// Bytes that wait in sockets, by `of`, which says whose a socket with this inode is if a process has it open.
    pub fn queued(&self, of: impl Fn(u64) -> Option<Option<u64>>) -> Vec<(Option<u64>, u64)> {
        let mut all = self.list(&unix_request(), unix).unwrap_or_default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                all.extend(self.list(&internet_request(family, protocol), internet).unwrap_or_default());
            }
        }
        all.into_iter()
            .filter(|entry| entry.bytes > 0)
            .filter_map(|entry| match (of(entry.inode), self.network) {
                (Some(mark), _) => Some((mark, entry.bytes)),
                // On its way from one process to another, or not accepted yet.
                (None, Network::Own) => Some((None, entry.bytes)),
                (None, Network::Shared) => None,
            })
            .collect()
    }

    fn list(&self, request: &[u8], read: fn(&[u8]) -> Option<Entry>) -> io::Result<Vec<Entry>> {
        rustix::net::send(&self.netlink, request, SendFlags::empty())?;
        let (mut found, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
        loop {
            let (length, _) = rustix::net::recv(&self.netlink, &mut *buffer, RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let (Some(size), Some(kind)) = (word(rest, 0), half(rest, 4)) {
                let size = size as usize;
                let Some(message) = rest.get(HEADER..size) else { return Ok(found) };
                match kind {
                    BY_FAMILY => found.extend(read(message)),
                    DONE => return Ok(found),
                    _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// A request is its header and what is asked for.
fn request(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(HEADER + body.len()).unwrap_or(0);
    let mut all = size.to_ne_bytes().to_vec();
    all.extend(BY_FAMILY.to_ne_bytes());
    all.extend(LIST.to_ne_bytes());
    all.extend([0; 8]);
    all.extend(body);
    all
}

/// All unix sockets in every state, with peer, queues and memory (`struct unix_diag_req`).
fn unix_request() -> Vec<u8> {
    const PEER_QUEUES_MEMORY: u32 = 0x4 | 0x10 | 0x20;
    let mut body = vec![1, 0, 0, 0];
    for word in [u32::MAX, 0, PEER_QUEUES_MEMORY, u32::MAX, u32::MAX] {
        body.extend(word.to_ne_bytes());
    }
    request(&body)
}

/// All sockets of a family and a protocol, with their memory (`struct inet_diag_req_v2`).
fn internet_request(family: i32, protocol: i32) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(0);
    let mut body = vec![byte(family), byte(protocol), 1 << (INTERNET_MEMORY - 1), 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend([0; 48]);
    request(&body)
}

/// `struct unix_diag_msg`: family, kind, state, padding, inode, cookie; then attributes.
fn unix(message: &[u8]) -> Option<Entry> {
    let (kind, inode) = (*message.get(1)?, word(message, 4)?);
    let attributes = message.get(16..)?;
    let waiting = attribute(attributes, QUEUES).and_then(|queues| word(queues, 0)).unwrap_or(0);
    let sent = attribute(attributes, UNIX_MEMORY).map_or(0, memory);
    let peer = attribute(attributes, PEER).and_then(|peer| word(peer, 0)).filter(|inode| *inode != 0);
    let received = match (u64::from(waiting), peer) {
        (0, _) => 0,
        (_, _) if kind == DATAGRAM => DATAGRAMS_BYTES,
        // Who sent it is gone, and with it the count of what that took.
        (bytes, None) => (bytes * BYTE_COST).min(ORPHANED_BYTES),
        (bytes, Some(_)) => bytes,
    };
    Some(Entry { inode: inode.into(), bytes: sent + received })
}

/// `struct inet_diag_msg`, with the inode as its last word; then attributes.
fn internet(message: &[u8]) -> Option<Entry> {
    let inode = word(message, 68)?;
    let bytes = attribute(message.get(72..)?, INTERNET_MEMORY).map_or(0, memory);
    Some(Entry { inode: inode.into(), bytes })
}

/// Of the kernel's list of a socket's memory: received, sent or queued for sending, and what waits for its owner.
fn memory(list: &[u8]) -> u64 {
    let number = |nth: usize| word(list, nth * 4).map_or(0, u64::from);
    let (received, sent, queued, waiting) = (number(0), number(2), number(5), number(7));
    received + sent.max(queued) + waiting
}

/// The content of an attribute.
fn attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (size, kind) = (usize::from(half(list, 0)?), half(list, 2)?);
        if kind == wanted {
            return list.get(4..size);
        }
        list = list.get(size.max(4).next_multiple_of(4)..)?;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_waits_in_a_socket_is_told_also_when_its_sender_is_gone() {
        let sockets = Sockets::open(Network::Shared).expect("this kernel tells of its sockets");
        let (mut near, far) = UnixStream::pair().unwrap();
        let inode = |socket: &UnixStream| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let (here, there) = (inode(&near), inode(&far));
        let of = |asked: u64| {
            let all = sockets.queued(|inode| (inode == asked).then_some(Some(7)));
            all.iter().map(|(mark, bytes)| (*mark, *bytes)).collect::<Vec<_>>()
        };
        assert_eq!(of(here), []);
        near.write_all(&[0; 50_000]).unwrap();
        assert!(of(here).iter().all(|(mark, bytes)| *mark == Some(7) && *bytes >= 50_000));
        assert_eq!(of(there), [(Some(7), 50_000)]);
        drop(near);
        assert!(of(there)[0].1 > 1 << 20);
    }

    #[test]
    fn broken_messages_are_nothing() {
        assert_eq!(unix(&[0; 7]), None);
        assert_eq!(internet(&[0; 71]), None);
        assert_eq!(attribute(&[0; 40], 9), None);
        assert_eq!(attribute(&[200, 0, 9, 0], 9), None);
    }
}
