//! Bytes queued in the sockets of a sandbox. The kernel reports them over a socket of its own kind (sock_diag), which
//! the init opens before its system call filter forbids such sockets.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `SOCK_DIAG_BY_FAMILY`, and the end of a list.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_DONE: u16 = 3;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP_REQUEST_FLAGS: u16 = 0x301;
const NLMSG_HEADER_BYTES: usize = 16;
/// Attributes of a unix socket: its peer, its queue lengths, its memory.
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_RQLEN: u16 = 4;
const UNIX_DIAG_MEMINFO: u16 = 5;
/// The memory of an internet socket.
const INET_DIAG_SKMEMINFO: u16 = 7;
/// Kernel memory that a single queued byte may need.
const LONE_BYTE_COST_BYTES: u64 = 1024;
/// Largest amount queued in a socket after its sender is gone.
const MAX_ORPHANED_BYTES: u64 = 8 << 20;
/// Size assumed for a queue of datagrams, which reports only the length of its first one.
const MAX_DATAGRAM_QUEUE_BYTES: u64 = 4 << 20;
/// Kind of a datagram socket.
const SOCK_DGRAM: u8 = 2;

/// A netlink socket for queries about sockets.
#[derive(Debug)]
pub struct SocketDiag {
    netlink: OwnedFd,
    network: SocketScope,
}

/// The sockets that the kernel reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SocketScope {
    /// Only those of the sandbox.
    Own,
    /// Those of other users as well.
    Shared,
}

/// The kernel's report about one socket.
#[derive(Debug, Default, PartialEq, Eq)]
struct SocketEntry {
    inode: u64,
    bytes: u64,
}

impl SocketDiag {
    /// Opens the netlink socket; `None` where the kernel lacks sock_diag.
    pub fn open(network: SocketScope) -> Option<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(rustix::net::netlink::SOCK_DIAG);
        let netlink =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol).ok()?;
        Some(Self { netlink, network })
    }

    /// Returns the bytes queued in sockets, by command. `of` returns the command of the process that has the socket
    /// with this inode open, if any.
    pub fn queued_bytes(&self, of: impl Fn(u64) -> Option<Option<u64>>) -> Vec<(Option<u64>, u64)> {
        let mut all = self.dump_sockets(&unix_request(), parse_unix).unwrap_or_default();
        for family in [libc::AF_INET, libc::AF_INET6] {
            for protocol in [libc::IPPROTO_TCP, libc::IPPROTO_UDP] {
                all.extend(
                    self.dump_sockets(&internet_request(family, protocol), parse_internet)
                        .unwrap_or_default(),
                );
            }
        }
        all.into_iter()
            .filter(|entry| entry.bytes > 0)
            .filter_map(|entry| match (of(entry.inode), self.network) {
                (Some(mark), _) => Some((mark, entry.bytes)),
                // In transit between processes, or not accepted yet.
                (None, SocketScope::Own) => Some((None, entry.bytes)),
                (None, SocketScope::Shared) => None,
            })
            .collect()
    }

    fn dump_sockets(
        &self,
        request: &[u8],
        read: fn(&[u8]) -> Option<SocketEntry>,
    ) -> io::Result<Vec<SocketEntry>> {
        rustix::net::send(&self.netlink, request, SendFlags::empty())?;
        let (mut found, mut buffer) = (Vec::new(), vec![0; 32 << 10]);
        loop {
            let (length, _) = rustix::net::recv(&self.netlink, &mut *buffer, RecvFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let (Some(size), Some(kind)) = (read_u32(rest, 0), read_u16(rest, 4)) {
                let size = size as usize;
                let Some(message) = rest.get(NLMSG_HEADER_BYTES..size) else { return Ok(found) };
                match kind {
                    SOCK_DIAG_BY_FAMILY => found.extend(read(message)),
                    NLMSG_DONE => return Ok(found),
                    _ => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
                }
                rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Builds a request from its header and body.
fn netlink_request(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(NLMSG_HEADER_BYTES + body.len()).unwrap_or(0);
    let mut all = size.to_ne_bytes().to_vec();
    all.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    all.extend(DUMP_REQUEST_FLAGS.to_ne_bytes());
    all.extend([0; 8]);
    all.extend(body);
    all
}

/// Requests all unix sockets in every state, with peer, queues and memory (`struct unix_diag_req`).
fn unix_request() -> Vec<u8> {
    const PEER_QUEUES_MEMORY: u32 = 0x4 | 0x10 | 0x20;
    let mut body = vec![1, 0, 0, 0];
    for word in [u32::MAX, 0, PEER_QUEUES_MEMORY, u32::MAX, u32::MAX] {
        body.extend(word.to_ne_bytes());
    }
    netlink_request(&body)
}

/// Requests all sockets of a family and a protocol, with their memory (`struct inet_diag_req_v2`).
fn internet_request(family: i32, protocol: i32) -> Vec<u8> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(0);
    let mut body = vec![byte(family), byte(protocol), 1 << (INET_DIAG_SKMEMINFO - 1), 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend([0; 48]);
    netlink_request(&body)
}

/// Parses a `struct unix_diag_msg`: family, kind, state, padding, inode, cookie; then attributes.
fn parse_unix(message: &[u8]) -> Option<SocketEntry> {
    let (kind, inode) = (*message.get(1)?, read_u32(message, 4)?);
    let attributes = message.get(16..)?;
    let waiting =
        find_attribute(attributes, UNIX_DIAG_RQLEN).and_then(|queues| read_u32(queues, 0)).unwrap_or(0);
    let sent = find_attribute(attributes, UNIX_DIAG_MEMINFO).map_or(0, queued_memory);
    let peer = find_attribute(attributes, UNIX_DIAG_PEER)
        .and_then(|peer| read_u32(peer, 0))
        .filter(|inode| *inode != 0);
    let received = match (u64::from(waiting), peer) {
        (0, _) => 0,
        (_, _) if kind == SOCK_DGRAM => MAX_DATAGRAM_QUEUE_BYTES,
        // The sender is gone, and with it the record of the memory it used.
        (bytes, None) => (bytes * LONE_BYTE_COST_BYTES).min(MAX_ORPHANED_BYTES),
        (bytes, Some(_)) => bytes,
    };
    Some(SocketEntry { inode: inode.into(), bytes: sent + received })
}

/// Parses a `struct inet_diag_msg`, with the inode as its last word; then attributes.
fn parse_internet(message: &[u8]) -> Option<SocketEntry> {
    let inode = read_u32(message, 68)?;
    let bytes = find_attribute(message.get(72..)?, INET_DIAG_SKMEMINFO).map_or(0, queued_memory);
    Some(SocketEntry { inode: inode.into(), bytes })
}

/// Sums a socket's memory in the kernel's list: received, sent or queued for sending, and the backlog.
fn queued_memory(list: &[u8]) -> u64 {
    let number = |nth: usize| read_u32(list, nth * 4).map_or(0, u64::from);
    let (received, sent, queued, waiting) = (number(0), number(2), number(5), number(7));
    received + sent.max(queued) + waiting
}

/// Returns the content of an attribute.
fn find_attribute(mut list: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let (size, kind) = (usize::from(read_u16(list, 0)?), read_u16(list, 2)?);
        if kind == wanted {
            return list.get(4..size);
        }
        list = list.get(size.max(4).next_multiple_of(4)..)?;
    }
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
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
        let sockets = SocketDiag::open(SocketScope::Shared).expect("this kernel tells of its sockets");
        let (mut near, far) = UnixStream::pair().unwrap();
        let inode = |socket: &UnixStream| rustix::fs::fstat(socket.as_fd()).unwrap().st_ino;
        let (here, there) = (inode(&near), inode(&far));
        let of = |asked: u64| {
            let all = sockets.queued_bytes(|inode| (inode == asked).then_some(Some(7)));
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
        assert_eq!(parse_unix(&[0; 7]), None);
        assert_eq!(parse_internet(&[0; 71]), None);
        assert_eq!(find_attribute(&[0; 40], 9), None);
        assert_eq!(find_attribute(&[200, 0, 9, 0], 9), None);
    }
}
