//! Speed of the proxy: a download of 100 MB, and 1,000 small requests over one connection.
//!
//! `cargo run --release --package forge-egress --example proxy_speed` prints the medians of some rounds.

use forge_egress::{EgressProxy, TimeSource};
use forge_types::{EgressRules, Timestamp};
use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;

const DOWNLOAD_BYTES: usize = 100 << 20;
const PIECE_BYTES: usize = 64 << 10;
const ROUNDS: usize = 11;

/// Reads a head; returns its first line and the length that it states.
async fn read_head(stream: &mut BufReader<TcpStream>) -> io::Result<(String, usize)> {
    let (mut first, mut length) = (String::new(), 0);
    stream.read_line(&mut first).await?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? <= 2 {
            return Ok((first, length));
        }
        if let Some(digits) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = digits.trim().parse().map_err(io::Error::other)?;
        }
    }
}

async fn serve(stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut stream, piece) = (BufReader::new(stream), vec![7; PIECE_BYTES]);
    loop {
        let (first, _) = read_head(&mut stream).await?;
        if first.is_empty() {
            return Ok(());
        }
        let length = if first.contains("/large") { DOWNLOAD_BYTES } else { 3 };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        for at in (0..length).step_by(PIECE_BYTES) {
            stream.write_all(&piece[..PIECE_BYTES.min(length - at)]).await?;
        }
    }
}

async fn request(stream: &mut BufReader<TcpStream>, host: &str, path: &str) -> io::Result<()> {
    let request = format!("GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (_, length) = read_head(stream).await?;
    tokio::io::copy(&mut stream.take(length as u64), &mut tokio::io::sink()).await?;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a program that reports")]
fn main() -> Result<(), Box<dyn Error>> {
    // The host, the proxy and the program do not share threads.
    let far = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = far.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let host = listener.local_addr()?.to_string();
    far.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    let between = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let entered = between.enter();
    let rules = EgressRules::new(&["127.0.0.1".to_owned()], Vec::new())?;
    let clock: TimeSource = Arc::new(|| Timestamp::from_micros(0));
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let proxy = EgressProxy::new(listener, rules, BTreeMap::new(), clock).start()?;
    drop(entered);
    let (mut large, mut small) = (Vec::new(), Vec::new());
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        for _ in 0..ROUNDS {
            let mut stream = BufReader::new(TcpStream::connect(("127.0.0.1", proxy.port())).await?);
            stream.get_ref().set_nodelay(true)?;
            let started = Instant::now();
            request(&mut stream, &host, "/large").await?;
            large.push(started.elapsed());
            let started = Instant::now();
            for _ in 0..1000 {
                request(&mut stream, &host, "/").await?;
            }
            small.push(started.elapsed());
        }
        io::Result::Ok(())
    })?;
    large.sort();
    small.sort();
    println!("100 MB: {:?}, 1,000 requests: {:?}", large[ROUNDS / 2], small[ROUNDS / 2]);
    Ok(())
}
