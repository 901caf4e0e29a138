//! The protocol between a [`crate::Jail`] and its init: JSON messages over a `SOCK_SEQPACKET` socket pair, one message
//! per packet, with descriptors passed alongside. A message that does not fit a packet travels in a memory file.
//! Command output never uses this socket, so it cannot pose as a reply.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

/// Largest message sent inside a packet; larger ones go through a memory file.
const MAX_INLINE_BYTES: usize = 60 * 1024;
/// Largest message accepted at all: a command line has at most 2 MiB or so, masked paths a little more.
const MAX_MESSAGE_BYTES: u64 = 64 << 20;
/// Most descriptors passed with one message.
const MAX_FDS: usize = 4;

/// A message with its number; a reply carries the number of its request.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct WireFrame<T> {
    /// The request's number.
    pub(crate) id: u64,
    /// The message.
    pub(crate) body: T,
}

/// Sends one message with its descriptors.
pub(crate) fn send_message<T: Serialize>(
    to: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let mut bytes = vec![b'I'];
    serde_json::to_writer(&mut bytes, message).map_err(io::Error::other)?;
    if bytes.len() <= MAX_INLINE_BYTES {
        return send_packet(to, &bytes, fds);
    }
    let memory = create_memory_file(&bytes[1..])?;
    let mut all = vec![memory.as_fd()];
    all.extend_from_slice(fds);
    send_packet(to, b"M", &all)
}

fn send_packet(to: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(to, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
    })?;
    Ok(())
}

/// Receives one message with its descriptors; `None` when the other side is gone.
pub(crate) fn receive_message<T: for<'de> Deserialize<'de>>(
    from: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    buffer.resize(MAX_INLINE_BYTES + 1, 0);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut receive = || {
        rustix::io::retry_on_intr(|| {
            let pieces = &mut [IoSliceMut::new(buffer)];
            rustix::net::recvmsg(from, pieces, &mut ancillary, RecvFlags::CMSG_CLOEXEC)
        })
    };
    // A peer that closes with unread messages causes one ECONNRESET before the messages it sent can be read.
    let got = match receive() {
        Err(rustix::io::Errno::CONNRESET) => receive(),
        other => other,
    };
    let got = match got {
        Ok(got) => got,
        Err(rustix::io::Errno::CONNRESET) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut fds: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            fds.extend(passed);
        }
    }
    match buffer.get(..got.bytes).and_then(|b| b.split_first()) {
        None => Ok(None),
        Some((b'I', json)) => Ok(Some((serde_json::from_slice(json).map_err(io::Error::other)?, fds))),
        Some((b'M', _)) if !fds.is_empty() => {
            let json = read_memory_file(File::from(fds.remove(0)))?;
            Ok(Some((serde_json::from_slice(&json).map_err(io::Error::other)?, fds)))
        }
        Some(_) => Err(io::Error::other("unknown kind of message")),
    }
}

/// Creates a memory file that contains `bytes`, positioned at its start.
pub(crate) fn create_memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("forge-message", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    Ok(file.into())
}

/// Reads the contents of a memory file, up to the largest message.
pub(crate) fn read_memory_file(file: File) -> io::Result<Vec<u8>> {
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(MAX_MESSAGE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}
