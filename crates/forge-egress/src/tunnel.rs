//! CONNECT: bytes both ways, or for a host that gets a key, TLS that ends here.

use super::dial::{dial, words};
use super::fault::Fault;
use super::head::Authority;
use super::log::Meter;
use super::serve::{Scope, close, refuse, requests};
use super::wire::{Reader, Wire};
use super::{Shared, Tls};
use forge_types::{EgressRules, EgressVerdict};
use rustls::server::Acceptor;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PIECE: usize = 16 << 10;
/// First byte of a TLS connection: a handshake record (RFC 8446, 5.1).
const HANDSHAKE: u8 = 0x16;
/// How long a program may take to begin TLS before it is taken for one that speaks something else.
const FIRST_WORD: Duration = Duration::from_secs(5);

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
    if let Some(tls) = shared.tls.as_ref().filter(|_| shared.swaps.contains_key(&to.host)) {
        if client.reader.held().is_empty() {
            // Whatever became of it shows in the bytes that are there.
            let _ = tokio::time::timeout(FIRST_WORD, client.reader.fill()).await;
        }
        if client.reader.held().first() == Some(&HANDSHAKE) {
            return inside(shared, tls, client, upstream, to).await;
        }
    }
    let meter = Meter::new(&shared.log, &to.host, to.port, shared.limits.idle);
    relay(shared, client, upstream, &to, &meter).await;
}

/// Serves the requests inside TLS.
async fn inside(shared: &Arc<Shared>, tls: &Tls, client: Wire, upstream: TcpStream, to: Authority) {
    let accepting = tls.accept(&to.host, tokio::io::join(client.reader.rest(), client.writer));
    let fault = match tokio::time::timeout(shared.limits.head, accepting).await {
        Ok(Ok(stream)) => {
            let scope = Scope::Inside { to, first: Some(upstream) };
            return Box::pin(requests(shared, Wire::new(stream), scope)).await;
        }
        Ok(Err(error)) => format!("the program ended TLS with the box's proxy: {}", words(&error)),
        Err(_) => "the program did not finish its TLS handshake in time".to_owned(),
    };
    shared.log.note(&to.host, to.port, EgressVerdict::Failed, &Fault::failed(502, fault).why);
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
