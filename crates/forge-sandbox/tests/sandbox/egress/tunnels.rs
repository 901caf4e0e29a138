//! Tunnels to a host that gets a key: their traffic is searched, or nothing passes through.

use super::stage::{KEY, PLACEHOLDER, Program, Stage, host, swap, unstarted};
use forge_sandbox::egress::ProxyLimits;
use forge_types::{EgressRecord, EgressVerdict};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Starts a proxy with a host `a.test` that gets a key and a host `b.test` that gets none.
fn keyed(change: impl FnOnce(&mut ProxyLimits)) -> Stage {
    let mut proxy = unstarted(&["a.test", "b.test", "127.0.0.1"], vec![swap("a.test")]);
    change(&mut proxy.limits);
    Stage::from(proxy)
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Opens a tunnel to a host that speaks first and sends the key that it kept.
async fn greeted(stage: &Stage, host: &str) -> (Program, TcpStream) {
    let (listener, port) = listen().await;
    let (program, answer) = stage.tunnel(&format!("{host}:{port}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (mut far, _) = listener.accept().await.unwrap();
    far.write_all(format!("220 {KEY}\r\n").as_bytes()).await.unwrap();
    (program, far)
}

/// Returns everything that the host received until its connection ended.
async fn heard(mut far: TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = far.read_to_end(&mut heard).await;
    heard
}

fn refused(records: &[EgressRecord]) -> &EgressRecord {
    let [record] = records else { panic!("{records:?}") };
    assert_eq!((record.verdict, record.host.as_str()), (EgressVerdict::Refused, "a.test"), "{record:?}");
    record
}

#[tokio::test]
async fn plain_requests_in_a_tunnel_to_a_host_with_a_key_are_handled_like_those_outside() {
    let (port, seen) = host().await;
    let stage = keyed(|_| {});
    let (mut program, answer) = stage.tunnel(&format!("a.test:{port}")).await;
    assert_eq!(answer.status, 200);
    let ask = |path: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a.test:{port}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\
             Range: bytes=0-4\r\nAccept-Encoding: gzip\r\n\r\n"
        )
    };
    for path in ["/pieces", "/kept", "/head", "/"] {
        program.send(ask(path).as_bytes()).await;
        let answer = program.answer().await.expect("the tunnel goes on");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let all = format!("{}{}", answer.head, answer.body);
        assert!(all.contains(PLACEHOLDER) && !all.contains(&KEY[8..]), "{path}: {all:?}");
        let said = seen.lock().unwrap().pop().unwrap();
        assert!(said.contains(&format!("Bearer {KEY}")) && !said.contains("Range"), "{said}");
        assert!(said.contains("Accept-Encoding: identity"), "{said}");
    }
    for (request, status) in [
        (ask("/gzip"), 502),
        (ask("/part"), 502),
        (ask("/upgrade"), 502),
        (ask("/").replace(&format!("Host: a.test:{port}"), "Host: b.test"), 403),
        (ask(&format!("http://a.test:{port}/")), 400),
        (ask("/").replace("GET / ", &format!("CONNECT b.test:{port} ")), 405),
        (ask("/").replace("Range: bytes=0-4", "Connection: Upgrade\r\nUpgrade: websocket"), 501),
        (ask("/").replace("Range: bytes=0-4", "Transfer-Encoding: chunked\r\nContent-Length: 1"), 400),
        (ask("/").replace(" HTTP/1.1\r\n", " HTTP/1.1\n"), 400),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)), 431),
    ] {
        let (mut program, _) = stage.tunnel(&format!("a.test:{port}")).await;
        program.send(request.as_bytes()).await;
        let said = String::from_utf8_lossy(&program.rest().await).into_owned();
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")) && !said.contains(&KEY[..5]),
            "{request}: {said}"
        );
    }
}

#[tokio::test]
async fn nothing_but_tls_and_requests_goes_through_a_tunnel_to_a_host_with_a_key() {
    let stage = keyed(|_| {});
    for words in [
        &b"\x00ping"[..],
        b"SSH-2.0-client\r\n",
        b"EHLO a.test\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"GET /\r\n",
        b"\x80\x2e\x01\x00\x02",
        b"\x15\x03\x01\x00\x02",
        "h\u{e9}".as_bytes(),
    ] {
        let (mut program, far) = greeted(&stage, "a.test").await;
        program.send(words).await;
        let said = String::from_utf8_lossy(&program.rest().await).into_owned();
        assert!(said.starts_with("HTTP/1.1 501 egress blocked: "), "{words:?}: {said}");
        assert!(said.contains("list the host without a key") && !said.contains(KEY), "{words:?}: {said}");
        assert_eq!(heard(far).await, b"", "{words:?}");
        refused(&stage.proxy.drain());
    }
    // Bytes that begin like TLS but are not.
    for words in [&b"\x16GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"] {
        let (mut program, far) = greeted(&stage, "a.test").await;
        program.send(words).await;
        // A TLS alert.
        assert_eq!(program.rest().await, b"\x15\x03\x03\x00\x02\x02\x31", "{words:?}");
        assert_eq!(heard(far).await, b"", "{words:?}");
        assert!(refused(&stage.proxy.drain()).why.contains("cannot be read"), "{words:?}");
    }
}

#[tokio::test]
async fn no_waiting_opens_a_tunnel_to_a_host_with_a_key() {
    let short = Duration::from_millis(50);
    for (words, answer) in [
        (&b""[..], &b"HTTP/1.1 408 egress blocked: "[..]),
        (b"G", b"HTTP/1.1 408 egress blocked: "),
        (b"GET /kept HTTP/1.1", b"HTTP/1.1 408 egress blocked: "),
        (b"GET /kept HTTP/1.1\r\nHost:", b"HTTP/1.1 408 "),
        (b"\x16", b"\x15\x03\x03\x00\x02\x02\x31"),
        (b"\x16\x03\x01\x02\x00\x01", b"\x15\x03\x03\x00\x02\x02\x31"),
    ] {
        let stage = keyed(|limits| (limits.keep_alive, limits.head) = (short, short));
        let (mut program, far) = greeted(&stage, "a.test").await;
        program.send(words).await;
        let said = program.rest().await;
        assert!(said.starts_with(answer), "{words:?}: {}", String::from_utf8_lossy(&said));
        assert!(!String::from_utf8_lossy(&said).contains(KEY), "{words:?}");
        assert_eq!(heard(far).await, b"", "{words:?}");
        assert_eq!(stage.proxy.drain().len(), 1, "{words:?}");
    }
}

#[tokio::test]
async fn tls_in_a_tunnel_to_a_host_with_a_key_asks_for_that_host() {
    let stage = keyed(|_| {});
    let (program, far) = greeted(&stage, "a.test").await;
    assert!(stage.handshake(program, "b.test").await.is_err());
    assert_eq!(heard(far).await, b"");
    assert!(refused(&stage.proxy.drain()).why.contains("asks for b.test"));
}

#[tokio::test]
async fn a_host_without_a_key_may_speak_first() {
    let stage = keyed(|_| {});
    let (mut program, mut far) = greeted(&stage, "b.test").await;
    let mut greeting = vec![0; KEY.len() + 6];
    program.stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(greeting, format!("220 {KEY}\r\n").as_bytes());
    program.send(b"EHLO a.test\r\n").await;
    let mut words = [0; 13];
    far.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"EHLO a.test\r\n");
}
