//! CONNECT: bytes both ways, or for a host that gets a key, requests that are searched: inside TLS that ends here, or as
//! they are. Nothing else goes through to such a host, however long a program waits.

use super::Shared;
use super::dial::{dial, words};
use super::fault::Fault;
use super::head::Authority;
use super::log::Meter;
use super::serve::{Scope, close, refuse, requests};
use super::wire::{Reader, Wire};
use forge_types::{EgressRules, EgressVerdict};
use rustls::server::Acceptor;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

const PIECE: usize = 16 << 10;
/// First byte of a TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// A record with a fatal alert, access_denied (RFC 8446, 6): what a program that speaks TLS can read of a refusal.
const DENIED: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Serves a CONNECT for `to` until it ends.
pub(super) async fn open(shared: &Arc<Shared>, mut client: Wire, to: Authority) {
    let upstream = match dial(shared, &to).await {
        Ok(upstream) => upstream,
        Err(fault) => {
            refuse(shared, &mut client, Some(&to), &fault, "CONNECT", false).await;
            return close(client).await;
        }
    };
    let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
    if client.writer.write_all(answer).await.is_err() || client.writer.flush().await.is_err() {
        return;
    }
    if shared.swaps.contains_key(&to.host) {
        return searched(shared, client, upstream, to).await;
    }
    let meter = Meter::new(&shared.log, &to.host, to.port, shared.limits.idle);
    relay(shared, client, upstream, &to, &meter).await;
}

/// What a program begins a tunnel with.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// Not enough to tell.
    Open,
    Tls,
    Http,
    Other,
}

impl Beginning {
    /// Tells from all that has come so far, which is at most `limit` bytes or a head that is too long.
    fn of(bytes: &[u8], limit: usize) -> Self {
        if bytes.first() == Some(&HANDSHAKE) {
            return Self::Tls;
        }
        let line = bytes.iter().position(|&b| b == b'\n').map(|end| bytes[..end].trim_ascii_end());
        match line {
            Some(line) if line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") => Self::Http,
            Some(_) => Self::Other,
            None if !bytes.iter().all(|&b| b == b' ' || b == b'\r' || b.is_ascii_graphic()) => Self::Other,
            None if bytes.len() > limit => Self::Http,
            None => Self::Open,
        }
    }
}

/// Serves a tunnel to a host that gets a key.
async fn searched(shared: &Arc<Shared>, mut client: Wire, upstream: TcpStream, to: Authority) {
    let fault = match beginning(shared, &mut client.reader).await {
        Ok(Beginning::Tls) => return inside(shared, client, upstream, to).await,
        Ok(Beginning::Http) => {
            let scope = Scope::Inside { to, first: Some(upstream), secure: false };
            return Box::pin(requests(shared, client, scope)).await;
        }
        // The program has gone.
        Ok(Beginning::Open) => return close(client).await,
        Ok(Beginning::Other) => only_http(501, "the program sent something else"),
        Err(waited) => {
            only_http(408, &format!("the program did not begin either within {} s", waited.as_secs_f32()))
        }
    };
    drop(upstream);
    refuse(shared, &mut client, Some(&to), &fault, "", false).await;
    close(client).await;
}

fn only_http(status: u16, what: &str) -> Fault {
    let why = format!(
        "egress blocked: a tunnel to a host that gets a key carries HTTP/1.1, with or without TLS; {what}"
    );
    let hint = "The host's answers are searched for the key, so nothing that can't be searched is carried. If the run \
                needs another protocol, list the host without a key.";
    Fault::refused(why, hint).with_status(status)
}

/// What the program begins with; an error is the time for which nothing came that would have told.
async fn beginning(shared: &Shared, client: &mut Reader) -> Result<Beginning, Duration> {
    let limits = &shared.limits;
    let (mut waits, mut since) = (limits.keep_alive, Instant::now());
    loop {
        let silent = client.held().is_empty();
        let beginning = Beginning::of(client.held(), limits.head_bytes);
        if beginning != Beginning::Open {
            return Ok(beginning);
        }
        match timeout_at(since + waits, client.fill()).await {
            Ok(Ok(1..)) if silent => (waits, since) = (limits.head, Instant::now()),
            Ok(Ok(1..)) => {}
            Ok(_) => return Ok(Beginning::Open),
            Err(_) => return Err(waits),
        }
    }
}

/// Serves the requests inside TLS.
async fn inside(shared: &Arc<Shared>, mut client: Wire, upstream: TcpStream, to: Authority) {
    let late = || Fault::failed(408, "the program did not finish its TLS handshake in time");
    let greeted = timeout(shared.limits.head, greeting(&mut client.reader, &to)).await;
    if let Err(fault) = greeted.unwrap_or_else(|_| Err(late())) {
        shared.log.note(&to.host, to.port, fault.verdict, &fault.why);
        // Whoever does not read it has gone.
        let _ = client.writer.write_all(&DENIED).await;
        return close(client).await;
    }
    let fault = match &shared.tls {
        None => Fault::failed(502, "there is no TLS here"),
        Some(tls) => {
            let accepting = tls.accept(&to.host, tokio::io::join(client.reader.rest(), client.writer));
            match timeout(shared.limits.head, accepting).await {
                Ok(Ok(stream)) => {
                    let scope = Scope::Inside { to, first: Some(upstream), secure: true };
                    return Box::pin(requests(shared, Wire::new(stream), scope)).await;
                }
                Ok(Err(error)) => {
                    Fault::failed(502, format!("the program ended TLS with the proxy: {}", words(&error)))
                }
                Err(_) => late(),
            }
        }
    };
    shared.log.note(&to.host, to.port, EgressVerdict::Failed, &fault.why);
}

/// Both ways until both ends are reached, one fails, or nothing moves any more.
async fn relay(shared: &Shared, client: Wire, upstream: TcpStream, to: &Authority, meter: &Meter) {
    let Wire { mut reader, writer } = client;
    let (upstream_in, upstream_out) = tokio::io::split(upstream);
    let out = async {
        if let Err(fault) = greeting(&mut reader, to).await {
            shared.log.note(&to.host, to.port, fault.verdict, &fault.why);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        pump(reader.rest(), upstream_out, |bytes| meter.sent(bytes)).await
    };
    let back = pump(upstream_in, writer, |bytes| meter.received(bytes));
    tokio::select! {
        _ = async { tokio::try_join!(out, back) } => {}
        () = meter.idle() => {}
    }
}

/// Waits for the first words of a tunnel. If they begin TLS, they must ask for the host that was judged: many hosts
/// stand behind one address, and the list would be worth little if one of them let in to all. What is not TLS passes.
async fn greeting(client: &mut Reader, to: &Authority) -> Result<(), Fault> {
    let mut hello = Acceptor::default();
    let mut used = 0;
    loop {
        let mut fresh = &client.held()[used..];
        if used == 0 && fresh.first().is_some_and(|&b| b != HANDSHAKE) {
            return Ok(());
        }
        while !fresh.is_empty() {
            let unread =
                || Fault::refused("egress blocked: the TLS greeting in the tunnel can't be read", "");
            used += hello.read_tls(&mut fresh).map_err(|_| unread())?;
            if let Some(accepted) = hello.accept().map_err(|_| unread())? {
                return named(accepted.client_hello().server_name(), to);
            }
        }
        // An end or an error shows in the relay too.
        if !matches!(client.fill().await, Ok(1..)) {
            return Ok(());
        }
    }
}

fn named(name: Option<&str>, to: &Authority) -> Result<(), Fault> {
    match name {
        Some(name) if EgressRules::plain_host(name).as_deref() != Some(to.host.as_str()) => {
            let why = format!("egress blocked: TLS in the tunnel to {} asks for {name}", to.host);
            Err(Fault::refused(why, ""))
        }
        _ => Ok(()),
    }
}

/// Passes on until the end, and the end too: the other direction may go on.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: impl Fn(usize),
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            // The other side may be gone already.
            let _ = to.shutdown().await;
            return Ok(());
        }
        to.write_all(&piece[..count]).await?;
        to.flush().await?;
        moved(count);
    }
}
