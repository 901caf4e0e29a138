//! CONNECT tunnels. They relay bytes both ways; a tunnel to a host that gets a key carries only requests that can be
//! searched, with TLS that is terminated here or without TLS.

use super::ProxyState;
use super::dial::{describe_io_error, dial_host};
use super::head::Authority;
use super::log::ByteMeter;
use super::proxy_error::ProxyError;
use super::serve::{RequestSource, linger_close, send_refusal, serve_requests};
use super::wire::{ConnectionReader, SplitConnection};
use forge_types::{EgressRules, EgressVerdict};
use rustls::server::Acceptor;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

const READ_CHUNK_BYTES: usize = 16 << 10;
/// First byte of a TLS connection: a handshake record (RFC 8446, 5.1).
const TLS_HANDSHAKE_BYTE: u8 = 0x16;
/// TLS record with the fatal alert access_denied (RFC 8446, 6), the form of a refusal that a TLS client can read.
const ACCESS_DENIED_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 49];

/// Serves a CONNECT to `to` until it ends.
pub(super) async fn serve_connect(shared: &Arc<ProxyState>, mut client: SplitConnection, to: Authority) {
    let upstream = match dial_host(shared, &to).await {
        Ok(upstream) => upstream,
        Err(fault) => {
            send_refusal(shared, &mut client, Some(&to), &fault, "CONNECT", false).await;
            return linger_close(client).await;
        }
    };
    let answer = b"HTTP/1.1 200 Connection established\r\n\r\n";
    if client.writer.write_all(answer).await.is_err() || client.writer.flush().await.is_err() {
        return;
    }
    if shared.injectors.contains_key(&to.host) {
        return serve_key_tunnel(shared, client, upstream, to).await;
    }
    let meter = ByteMeter::new(&shared.log, &to.host, to.port, shared.limits.idle);
    relay_bytes(shared, client, upstream, &to, &meter).await;
}

/// The protocol with which a program starts a tunnel.
#[derive(Debug, PartialEq, Eq)]
enum TunnelProtocol {
    /// Not yet known.
    Open,
    Tls,
    Http,
    Other,
}

impl TunnelProtocol {
    /// Detects the protocol from all bytes received so far: at most `limit` of them, or a head that is too long.
    fn detect(bytes: &[u8], limit: usize) -> Self {
        if bytes.first() == Some(&TLS_HANDSHAKE_BYTE) {
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
async fn serve_key_tunnel(
    shared: &Arc<ProxyState>,
    mut client: SplitConnection,
    upstream: TcpStream,
    to: Authority,
) {
    let fault = match detect_protocol(shared, &mut client.reader).await {
        Ok(TunnelProtocol::Tls) => return serve_inside_tls(shared, client, upstream, to).await,
        Ok(TunnelProtocol::Http) => {
            let scope = RequestSource::Inside { to, first: Some(upstream), secure: false };
            return Box::pin(serve_requests(shared, client, scope)).await;
        }
        // The program closed the connection.
        Ok(TunnelProtocol::Open) => return linger_close(client).await,
        Ok(TunnelProtocol::Other) => http_only_error(501, "the program sent something else"),
        Err(waited) => {
            http_only_error(408, &format!("the program started neither within {} s", waited.as_secs_f32()))
        }
    };
    drop(upstream);
    send_refusal(shared, &mut client, Some(&to), &fault, "", false).await;
    linger_close(client).await;
}

fn http_only_error(status: u16, what: &str) -> ProxyError {
    let why = format!(
        "egress blocked: a tunnel to a host that gets a key carries only HTTP/1.1, with or without TLS; {what}"
    );
    let hint = "The host's responses are searched for the key, so only searchable protocols are supported. If the run \
                needs another protocol, list the host without a key.";
    ProxyError::refused(why, hint).with_status(status)
}

/// Detects the protocol of a tunnel. The error is the time spent waiting without enough input.
async fn detect_protocol(
    shared: &ProxyState,
    client: &mut ConnectionReader,
) -> Result<TunnelProtocol, Duration> {
    let limits = &shared.limits;
    let (mut waits, mut since) = (limits.keep_alive, Instant::now());
    loop {
        let silent = client.pending.is_empty();
        let beginning = TunnelProtocol::detect(&client.pending, limits.head_bytes);
        if beginning != TunnelProtocol::Open {
            return Ok(beginning);
        }
        match timeout_at(since + waits, client.fill_buffer()).await {
            Ok(Ok(1..)) if silent => (waits, since) = (limits.head, Instant::now()),
            Ok(Ok(1..)) => {}
            Ok(_) => return Ok(TunnelProtocol::Open),
            Err(_) => return Err(waits),
        }
    }
}

/// Serves the requests inside TLS.
async fn serve_inside_tls(
    shared: &Arc<ProxyState>,
    mut client: SplitConnection,
    upstream: TcpStream,
    to: Authority,
) {
    let late = || ProxyError::failed(408, "the program did not finish its TLS handshake in time");
    let greeted = timeout(shared.limits.head, check_client_hello(&mut client.reader, &to)).await;
    if let Err(fault) = greeted.unwrap_or_else(|_| Err(late())) {
        shared.log.record_attempt(&to.host, to.port, fault.verdict, &fault.why);
        // A program that does not read the alert has closed the connection.
        let _ = client.writer.write_all(&ACCESS_DENIED_ALERT).await;
        return linger_close(client).await;
    }
    let fault = match &shared.tls {
        None => ProxyError::failed(502, "TLS is not set up"),
        Some(tls) => {
            let accepting = tls.accept(&to.host, tokio::io::join(client.reader.into_rest(), client.writer));
            match timeout(shared.limits.head, accepting).await {
                Ok(Ok(stream)) => {
                    let scope = RequestSource::Inside { to, first: Some(upstream), secure: true };
                    return Box::pin(serve_requests(shared, SplitConnection::new(stream), scope)).await;
                }
                Ok(Err(error)) => ProxyError::failed(
                    502,
                    format!("TLS with the program failed: {}", describe_io_error(&error)),
                ),
                Err(_) => late(),
            }
        }
    };
    shared.log.record_attempt(&to.host, to.port, EgressVerdict::Failed, &fault.why);
}

/// Relays bytes both ways until both ends are reached, one fails, or the connection is idle for too long.
async fn relay_bytes(
    shared: &ProxyState,
    client: SplitConnection,
    upstream: TcpStream,
    to: &Authority,
    meter: &ByteMeter,
) {
    let SplitConnection { mut reader, writer } = client;
    let (upstream_in, upstream_out) = tokio::io::split(upstream);
    let out = async {
        if let Err(fault) = check_client_hello(&mut reader, to).await {
            shared.log.record_attempt(&to.host, to.port, fault.verdict, &fault.why);
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        copy_until_end(reader.into_rest(), upstream_out, |bytes| meter.add_sent(bytes)).await
    };
    let back = copy_until_end(upstream_in, writer, |bytes| meter.add_received(bytes));
    tokio::select! {
        _ = async { tokio::try_join!(out, back) } => {}
        () = meter.wait_idle() => {}
    }
}

/// Waits for the first bytes of a tunnel. A TLS client hello must name the permitted host: many hosts share one
/// address, and the allowlist would be worth little if one of them gave access to all. Other protocols are let through.
async fn check_client_hello(client: &mut ConnectionReader, to: &Authority) -> Result<(), ProxyError> {
    let mut hello = Acceptor::default();
    let mut used = 0;
    loop {
        let mut fresh = &client.pending[used..];
        if used == 0 && fresh.first().is_some_and(|&b| b != TLS_HANDSHAKE_BYTE) {
            return Ok(());
        }
        while !fresh.is_empty() {
            let unread = || {
                ProxyError::refused("egress blocked: the TLS client hello in the tunnel cannot be read", "")
            };
            used += hello.read_tls(&mut fresh).map_err(|_| unread())?;
            if let Some(accepted) = hello.accept().map_err(|_| unread())? {
                return check_server_name(accepted.client_hello().server_name(), to);
            }
        }
        // The relay also reports an end or an error.
        if !matches!(client.fill_buffer().await, Ok(1..)) {
            return Ok(());
        }
    }
}

fn check_server_name(name: Option<&str>, to: &Authority) -> Result<(), ProxyError> {
    match name {
        Some(name) if EgressRules::normalize_host(name).as_deref() != Some(to.host.as_str()) => {
            let why = format!("egress blocked: TLS in the tunnel to {} asks for {name}", to.host);
            Err(ProxyError::refused(why, ""))
        }
        _ => Ok(()),
    }
}

/// Relays bytes in one direction, including the end of the stream; the other direction may stay open.
async fn copy_until_end(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: impl Fn(usize),
) -> io::Result<()> {
    let mut piece = vec![0; READ_CHUNK_BYTES];
    loop {
        let count = from.read(&mut piece).await?;
        if count == 0 {
            // The other side may already be closed.
            let _ = to.shutdown().await;
            return Ok(());
        }
        to.write_all(&piece[..count]).await?;
        to.flush().await?;
        moved(count);
    }
}
