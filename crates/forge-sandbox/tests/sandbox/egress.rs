//! Egress of a sandbox, through the public interface and real sockets: reachable hosts, refusals, and the destinations
//! of keys.

#[path = "egress/forms.rs"]
mod forms;
#[path = "egress/inside.rs"]
mod inside;
#[path = "egress/kept.rs"]
mod kept;
#[path = "egress/stage.rs"]
mod stage;
#[path = "egress/streams.rs"]
mod streams;
#[path = "egress/tunnels.rs"]
mod tunnels;

use forge_sandbox::egress::{CA_BUNDLE_PATH, Error, ProxyLimits, TrustRoots, proxy_environment};
use forge_types::{EgressRecord, EgressRules, EgressVerdict};
use proptest::prelude::*;
use stage::{KEY, PLACEHOLDER, Program, Stage, host, secure_host, swap, unstarted};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn only(records: &[EgressRecord]) -> &EgressRecord {
    assert_eq!(records.len(), 1, "{records:?}");
    &records[0]
}

#[tokio::test]
async fn a_listed_host_is_reached_and_the_rest_of_the_world_is_not() {
    let (port, seen) = host().await;
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let answer = stage.get(&format!("A.TEST:{port}"), "/x?y=1").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body.starts_with(&format!("GET /x?y=1 HTTP/1.1\r\nHost: a.test:{port}\r\n")),
        "{}",
        answer.body
    );
    let records = stage.proxy.drain();
    let record = only(&records);
    assert_eq!((record.host.as_str(), record.port, record.verdict), ("a.test", port, EgressVerdict::Allowed));
    assert_eq!((record.count, record.why.as_str(), record.at.as_micros()), (1, "", 7));
    assert!(record.sent > 30 && record.received > 30, "{record:?}");

    let answer = stage.get(&format!("b.test:{port}"), "/").await;
    let refusal = "egress blocked: domain b.test not in allowlist (mode=allowlist)";
    assert_eq!(answer.status, 403);
    assert!(answer.head.starts_with(&format!("HTTP/1.1 403 {refusal}\r\n")), "{answer:?}");
    assert!(answer.body.contains(refusal) && answer.body.contains("egress.allowed_domains"), "{answer:?}");
    let (_, answer) = stage.tunnel(&format!("b.test:{port}")).await;
    assert_eq!(answer.status, 403);
    let records = stage.proxy.shutdown().await;
    let record = only(&records);
    assert_eq!((record.verdict, record.count, record.why.as_str()), (EgressVerdict::Refused, 2, refusal));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_inner_address_is_refused_after_resolution_unless_it_is_listed_itself() {
    let (port, _) = host().await;
    let stage = Stage::new(&["*.test", "127.0.0.1"]);
    for (name, why) in [
        ("private.test", "resolves to 10.0.0.5, a private address"),
        ("metadata.test", "a cloud's metadata service"),
        ("mapped.test", "a private address"),
        ("nat64.test", "a private address"),
        ("six.test", "a loopback address"),
    ] {
        let answer = stage.get(name, "/").await;
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains(why) && answer.body.contains("add the address itself"), "{answer:?}");
        assert_eq!(stage.tunnel(&format!("{name}:443")).await.1.status, 403);
    }
    // Of several addresses only the permitted ones are used.
    assert_eq!(stage.get(&format!("mixed.test:{port}"), "/").await.status, 200);
    let refused = stage.proxy.drain().into_iter().filter(|r| r.verdict == EgressVerdict::Refused);
    assert_eq!(refused.map(|r| r.count).sum::<u32>(), 10);
    for literal in
        ["10.0.0.5", "169.254.169.254", "[::1]", "[::ffff:10.0.0.5]", "2130706433", "127.1", "0x7f.1"]
    {
        assert_eq!(stage.get(literal, "/").await.status, 403, "{literal}");
    }
    assert_eq!(stage.get(&format!("[::ffff:127.0.0.1]:{port}"), "/").await.status, 200);
}

#[tokio::test]
async fn the_systems_names_are_resolved_outside() {
    let (port, _) = host().await;
    let mut proxy = unstarted(&["localhost"], Vec::new());
    proxy.names = forge_sandbox::egress::NameResolver::System;
    let stage = Stage::from(proxy);
    let answer = stage.get(&format!("localhost:{port}"), "/").await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("a loopback address"), "{answer:?}");
    let mut proxy = unstarted(&["localhost", "127.0.0.1"], Vec::new());
    proxy.names = forge_sandbox::egress::NameResolver::System;
    assert_eq!(Stage::from(proxy).get(&format!("localhost:{port}"), "/").await.status, 200);
}

#[tokio::test]
async fn a_listed_port_is_the_only_one() {
    let (port, _) = host().await;
    let stage = Stage::new(&[&format!("a.test:{port}"), "b.test", "127.0.0.1"]);
    assert_eq!(stage.get(&format!("a.test:{port}"), "/").await.status, 200);
    let answer = stage.get("a.test", "/").await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains(&format!("port {port} only")), "{answer:?}");
    for target in
        ["b.test", "b.test:", "b.test:0", "b.test:65536", "b.test:x", "b.test:+1", ":80", "u@b.test:80"]
    {
        let (_, answer) = stage.tunnel(target).await;
        assert_eq!(answer.status, 400, "{target}: {answer:?}");
    }
}

#[tokio::test]
async fn what_can_not_be_reached_is_a_failure_and_not_a_refusal() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let stage = Stage::new(&["*.test", "127.0.0.1"]);
    for (to, why) in [
        (format!("a.test:{closed}"), "Connection refused"),
        ("unknown.test".to_owned(), "could not be resolved"),
        ("empty.test".to_owned(), "no address"),
    ] {
        let answer = stage.get(&to, "/").await;
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains(why), "{answer:?}");
        let records = stage.proxy.drain();
        assert_eq!(only(&records).verdict, EgressVerdict::Failed);
    }
    let (port, _) = host().await;
    for path in ["/drop", "/both", "/upgrade"] {
        assert_eq!(stage.get(&format!("a.test:{port}"), path).await.status, 502, "{path}");
    }
    let stage = Stage::limited(&["a.test", "127.0.0.1"], |limits| limits.idle = Duration::from_millis(50));
    assert_eq!(stage.get(&format!("a.test:{port}"), "/silent").await.status, 504);
}

#[tokio::test]
async fn odd_requests_are_refused_before_anybody_hears_of_them() {
    let (port, seen) = host().await;
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let to = format!("http://a.test:{port}/");
    let host = format!("Host: a.test:{port}\r\n");
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET {to} HTTP/1.1\r\n\r\n"), 400),
        (format!("GET {to} HTTP/1.1\r\n{host}{host}\r\n"), 400),
        (format!("GET {to} HTTP/1.1\r\nHost: b.test\r\n\r\n"), 403),
        (format!("GET {to} HTTP/1.1\r\nHost: a.test:1\r\n\r\n"), 403),
        (format!("GET {to} HTTP/2.0\r\n{host}\r\n"), 400),
        (format!("GET {to} HTTP/1.1\n{host}\n"), 400),
        (format!("GET  {to} HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET {to}#x HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET https://a.test:{port}/ HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET http://u:p@a.test:{port}/ HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("POST {to} HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"), 400),
        (format!("POST {to} HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), 400),
        (format!("POST {to} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\nx\r\n"), 400),
        (format!("POST {to} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n"), 400),
        (format!("POST {to} HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n-1\r\n"), 400),
        (format!("GET {to} HTTP/1.1\r\n{host}X: a\r\n folded\r\n\r\n"), 400),
        (format!("GET {to} HTTP/1.1\r\n{host}X : a\r\n\r\n"), 400),
        (format!("GET {to} HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 501),
        (format!("CONNECT a.test:{port} HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabc"), 400),
        (format!("CONNECT a.test:{port} HTTP/1.1\r\nHost: b.test:443\r\n\r\n"), 403),
        (format!("GET {to} HTTP/1.1\r\n{host}X: {}\r\n\r\n", "x".repeat(70_000)), 431),
        (format!("GET {to} HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(250)), 400),
        ("\u{16}\u{3}\u{1} no http at all\r\n\r\n".to_owned(), 400),
    ] {
        let answer = stage.ask(&request).await;
        let start: String = request.chars().take(120).collect();
        assert_eq!(answer.status, status, "{start:?}: {answer:?}");
        assert!(answer.has("Connection: close"), "{answer:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
    assert!(stage.proxy.drain().iter().all(|r| r.verdict != EgressVerdict::Allowed || r.received == 0));
}

#[tokio::test]
async fn one_connection_asks_two_hosts_and_each_is_judged() {
    let ((one, _), (two, _)) = (host().await, host().await);
    let stage = Stage::new(&[&format!("a.test:{one}"), &format!("b.test:{two}"), "127.0.0.1"]);
    let mut program = stage.program().await;
    for (to, status) in [
        (format!("a.test:{one}"), 200),
        (format!("a.test:{one}"), 200),
        (format!("b.test:{two}"), 200),
        (format!("b.test:{one}"), 403),
        (format!("c.test:{two}"), 403),
        (format!("a.test:{one}"), 200),
    ] {
        program.send(format!("GET http://{to}/ HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await;
        let answer = program.answer().await.expect("the connection goes on");
        assert_eq!(answer.status, status, "{to}: {answer:?}");
    }
    // Requests sent all at once are answered in order.
    let get = |path: &str| format!("GET http://a.test:{one}{path} HTTP/1.1\r\nHost: a.test:{one}\r\n\r\n");
    program.send([get("/1"), get("/nothing"), get("/2")].concat().as_bytes()).await;
    assert!(program.answer().await.unwrap().body.starts_with("GET /1 "));
    assert_eq!(program.answer().await.unwrap().status, 204);
    assert!(program.answer().await.unwrap().body.starts_with("GET /2 "));
    let counts: Vec<(String, u32)> = stage.proxy.drain().into_iter().map(|r| (r.host, r.count)).collect();
    let expected = [("a.test", 2), ("b.test", 1), ("b.test", 1), ("c.test", 1), ("a.test", 4)];
    assert_eq!(counts, expected.map(|(h, n)| (h.to_owned(), n)));
}

#[tokio::test]
async fn bodies_go_through_whole_in_every_framing() {
    let (port, _) = host().await;
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let head = |method: &str, path: &str, more: &str| {
        format!("{method} http://a.test:{port}{path} HTTP/1.1\r\nHost: a.test:{port}\r\n{more}\r\n")
    };
    let chunks = "3;ext=1\r\nabc\r\n00a\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\n";
    let answer = stage.ask(&(head("POST", "/", "Transfer-Encoding: chunked\r\n") + chunks)).await;
    assert!(answer.body.ends_with("\r\n\r\nabc0123456789"), "{answer:?}");
    let big = "x".repeat(3 << 20);
    let sized = format!("Content-Length: {}\r\n", big.len());
    let answer = stage.ask(&(head("POST", "/", &sized) + &big)).await;
    assert!(answer.body.ends_with(&big), "{} bytes", answer.body.len());
    let answer =
        stage.ask(&(head("POST", "/", "Content-Length: 4\r\nExpect: 100-continue\r\n") + "body")).await;
    assert_eq!(answer.status, 100);
    for path in ["/pieces", "/close"] {
        let answer = stage.ask(&head("GET", path, "X-Mark: yes\r\n")).await;
        assert!(answer.body.ends_with("X-Mark: yes\r\n\r\n"), "{path}: {answer:?}");
        assert!(answer.has("Transfer-Encoding: chunked") && !answer.head.contains("X-Trailer"), "{answer:?}");
    }
    let old = format!("GET http://a.test:{port}/pieces HTTP/1.0\r\n\r\n");
    let answer = stage.ask(&old).await;
    assert!(answer.has("Connection: close") && !answer.has("Transfer-Encoding: chunked"), "{answer:?}");
    assert!(answer.body.starts_with("GET /pieces HTTP/1.1"), "{answer:?}");
    let mut program = stage.program().await;
    program.send(head("HEAD", "/", "").as_bytes()).await;
    let answer = program.head().await.unwrap();
    assert!(answer.head.contains("Content-Length: ") && program.stream.buffer().is_empty(), "{answer:?}");
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_through_arrives() {
    let (port, _) = host().await;
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let mut program = stage.program().await;
    let head = format!(
        "POST http://a.test:{port}/early HTTP/1.1\r\nHost: a.test:{port}\r\nContent-Length: 9999999\r\n\r\n"
    );
    program.send(head.as_bytes()).await;
    let answer = program.answer().await.unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (413, "big"));
    assert_eq!(program.rest().await, b"");
}

#[tokio::test]
async fn what_is_meant_for_the_proxy_goes_no_further() {
    let (port, seen) = host().await;
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let request = format!(
        "GET http://a.test:{port}/hop HTTP/1.1\r\nHost: a.test:{port}\r\nProxy-Authorization: Basic eA==\r\n\
         Proxy-Connection: keep-alive\r\nConnection: X-Mine, Upgrade\r\nX-Mine: 1\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: x\r\nTE: trailers\r\nAccept: */*\r\n\r\n"
    );
    let answer = stage.ask(&request).await;
    assert_eq!(
        seen.lock().unwrap()[0],
        format!("GET /hop HTTP/1.1\r\nHost: a.test:{port}\r\nAccept: */*\r\n\r\n")
    );
    assert_eq!(answer.head, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n");
}

#[tokio::test]
async fn a_tunnel_carries_anything_and_each_side_may_end_first() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let (mut program, answer) = stage.tunnel(&format!("a.test:{port}")).await;
    assert_eq!(answer.status, 200);
    let (mut far, _) = listener.accept().await.unwrap();
    program.send(b"\x00ping").await;
    let mut five = [0; 5];
    far.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"\x00ping");
    program.stream.shutdown().await.unwrap();
    assert_eq!(far.read(&mut five).await.unwrap(), 0);
    far.write_all(b"still here").await.unwrap();
    drop(far);
    assert_eq!(program.rest().await, b"still here");
    let records = stage.proxy.drain();
    let record = only(&records);
    assert_eq!((record.sent, record.received, record.count), (5, 10, 1));
}

#[tokio::test]
async fn a_tunnel_in_which_nothing_moves_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::limited(&["a.test", "127.0.0.1"], |limits| limits.idle = Duration::from_millis(50));
    let (mut program, _) = stage.tunnel(&format!("a.test:{port}")).await;
    let _far = listener.accept().await.unwrap();
    assert_eq!(program.rest().await, b"");
}

#[tokio::test]
async fn whoever_dawdles_over_a_request_is_sent_away() {
    let stage = Stage::limited(&["a.test"], |limits| limits.head = Duration::from_millis(50));
    let mut program = stage.program().await;
    program.send(b"GET http://a.te").await;
    assert_eq!(program.answer().await.unwrap().status, 408);
    let stage = Stage::limited(&["a.test"], |limits| limits.keep_alive = Duration::from_millis(50));
    assert_eq!(stage.program().await.rest().await, b"");
}

#[tokio::test]
async fn bytes_that_go_on_after_a_drain_are_not_lost() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let (mut program, _) = stage.tunnel(&format!("a.test:{port}")).await;
    let (mut far, _) = listener.accept().await.unwrap();
    assert_eq!(only(&stage.proxy.drain()).count, 1);
    program.send(b"later").await;
    let mut five = [0; 5];
    far.read_exact(&mut five).await.unwrap();
    far.write_all(b"ok").await.unwrap();
    drop(far);
    program.rest().await;
    let records = stage.proxy.drain();
    let record = only(&records);
    assert_eq!((record.count, record.sent, record.received), (0, 5, 2));
    assert_eq!(stage.proxy.drain(), []);
}

#[tokio::test]
async fn the_log_stays_small_however_many_hosts_are_tried() {
    let stage = Stage::limited(&["a.test"], |limits| limits.records = 10);
    let mut program = stage.program().await;
    for i in 0..50 {
        let host = format!("h{}.example", i % 25);
        program.send(format!("GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes()).await;
        assert_eq!(program.answer().await.unwrap().status, 403);
    }
    let records = stage.proxy.drain();
    assert_eq!(records.len(), 11);
    assert_eq!(records.iter().map(|r| r.count).sum::<u32>(), 50);
    assert_eq!(records[10].count, 30);
}

#[tokio::test]
async fn a_key_goes_to_its_host_alone() {
    let (port, seen) = host().await;
    let stage = Stage::from(unstarted(&["a.test", "b.test", "127.0.0.1"], vec![swap("a.test")]));
    let ask = |host: &str, path: &str, more: &str| {
        format!(
            "GET http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\
             X-Api-Key: {PLACEHOLDER}\r\n{more}\r\n"
        )
    };
    for path in ["/", "/pieces", "/close", "/head"] {
        let answer = stage.ask(&ask("a.test", path, "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n")).await;
        let said = seen.lock().unwrap().pop().unwrap();
        assert_eq!(said.matches(KEY).count(), 2, "{said}");
        assert!(said.contains("Accept-Encoding: identity") && !said.contains("Range"), "{said}");
        assert_eq!((answer.head.clone() + &answer.body).matches(PLACEHOLDER).count(), 2, "{answer:?}");
        assert!(!answer.head.contains(KEY) && !answer.body.contains(KEY), "{answer:?}");
    }
    let answer = stage.ask(&ask("b.test", "/", "")).await;
    let said = seen.lock().unwrap().pop().unwrap();
    assert!(!said.contains(KEY) && said.contains(PLACEHOLDER), "{said}");
    assert_eq!(answer.status, 200);
    let answer = stage.ask(&ask("a.test", "/gzip", "")).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    let shown = format!("{:?} {:?}", stage.proxy, stage.proxy.drain());
    assert!(!shown.contains(KEY), "{shown}");
}

#[tokio::test]
async fn a_key_in_basic_credentials_is_put_in_and_its_echo_taken_out() {
    let (port, seen) = host().await;
    let stage = Stage::from(unstarted(&["a.test", "127.0.0.1"], vec![swap("a.test")]));
    // user:forge-key-api-key
    let basic = "dXNlcjpmb3JnZS1rZXktYXBpLWtleQ==";
    let ask = format!(
        "GET http://a.test:{port}/ HTTP/1.1\r\nHost: a.test:{port}\r\nAuthorization: Basic {basic}\r\n\r\n"
    );
    let answer = stage.ask(&ask).await;
    // user:sk-live-0123456789abcdef
    let swapped = "dXNlcjpzay1saXZlLTAxMjM0NTY3ODlhYmNkZWY=";
    assert!(seen.lock().unwrap()[0].contains(swapped));
    assert!(answer.body.contains(basic) && !answer.body.contains(swapped), "{answer:?}");
}

#[tokio::test]
async fn a_key_goes_through_tls_that_ends_in_the_proxy_and_is_verified_beyond() {
    let (port, seen, root) = secure_host(&["a.test", "b.test"]).await;
    let mut proxy = unstarted(&["a.test", "b.test", "127.0.0.1"], vec![swap("a.test")]);
    proxy.roots = TrustRoots::Only(vec![root]);
    let stage = Stage::from(proxy);
    let ask = |host: &str| {
        format!("GET /pieces HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {PLACEHOLDER}\r\n\r\n")
    };
    let mut program = stage.secure("a.test", port).await.unwrap();
    for _ in 0..2 {
        program.send(ask("a.test").as_bytes()).await;
        let answer = program.answer().await.unwrap();
        assert!(answer.body.contains(PLACEHOLDER) && !answer.body.contains(KEY), "{answer:?}");
        assert!(seen.lock().unwrap().pop().unwrap().contains(KEY));
    }
    // A later request cannot reach another host than the one that was checked.
    program.send(ask("b.test").as_bytes()).await;
    assert_eq!(program.answer().await.unwrap().status, 403);
    let records = stage.proxy.drain();
    assert_eq!(
        (records[0].host.as_str(), records[0].count, records[0].verdict),
        ("a.test", 2, EgressVerdict::Allowed)
    );
    // Traffic to a host without a key is not inspected: the program sees the host's certificate, and the placeholder
    // stays.
    let mut program = stage.secure("b.test", port).await.unwrap();
    program.send(ask("b.test").as_bytes()).await;
    assert!(program.answer().await.unwrap().body.contains(PLACEHOLDER));
    assert!(!seen.lock().unwrap().pop().unwrap().contains(KEY));
}

#[tokio::test]
async fn a_tunnel_to_one_host_does_not_lead_to_another_behind_the_same_address() {
    let (port, seen, root) = secure_host(&["a.test", "hidden.test"]).await;
    let mut proxy = unstarted(&["a.test", "127.0.0.1"], vec![swap("127.0.0.1")]);
    proxy.roots = TrustRoots::Only(vec![root]);
    let stage = Stage::from(proxy);
    assert!(stage.secure("a.test", port).await.is_ok());
    let (program, _) = stage.tunnel(&format!("a.test:{port}")).await;
    assert!(stage.handshake(program, "hidden.test").await.is_err());
    let records = stage.proxy.drain();
    let refused = &records[1];
    assert_eq!(refused.verdict, EgressVerdict::Refused, "{records:?}");
    assert!(refused.why.contains("asks for hidden.test"), "{refused:?}");
    let (mut program, _) = stage.tunnel(&format!("a.test:{port}")).await;
    program.send(b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00").await;
    assert_eq!(program.rest().await, b"");
    assert!(seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_host_whose_certificate_is_not_its_own_gets_no_key() {
    for (names, trusted) in [(["other.test"], true), (["a.test"], false)] {
        let (port, seen, root) = secure_host(&names).await;
        let mut proxy = unstarted(&["a.test", "127.0.0.1"], vec![swap("a.test")]);
        proxy.roots = TrustRoots::Only(if trusted { vec![root] } else { Vec::new() });
        let stage = Stage::from(proxy);
        let mut program = stage.secure("a.test", port).await.unwrap();
        let ask = format!("GET / HTTP/1.1\r\nHost: a.test:{port}\r\nAuthorization: {PLACEHOLDER}\r\n\r\n");
        program.send(ask.as_bytes()).await;
        let answer = program.answer().await.unwrap();
        assert_eq!(answer.status, 502, "{answer:?}");
        assert!(answer.body.contains("TLS with a.test failed"), "{answer:?}");
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(stage.proxy.drain()[0].verdict, EgressVerdict::Failed);
    }
}

#[tokio::test]
async fn a_key_that_is_missing_or_can_not_be_used_is_said_before_anything_starts() {
    let mut proxy = unstarted(&["a.test"], vec![swap("a.test")]);
    proxy.keys.clear();
    let error = proxy.start().unwrap_err();
    assert!(matches!(&error, Error::NoKey { variable } if variable == "API_KEY"), "{error}");
    for key in ["", "abc", "two\nlines"] {
        let mut proxy = unstarted(&["a.test"], vec![swap("a.test")]);
        proxy.keys.insert("API_KEY".to_owned(), forge_sandbox::egress::EgressKey::new(key));
        let error = proxy.start().unwrap_err();
        assert!(matches!(error, Error::BadKey { .. }), "{error}");
        assert!(key.is_empty() || !error.to_string().contains(key), "{error}");
    }
}

#[tokio::test]
async fn programs_are_told_where_the_proxy_is_and_whom_to_trust() {
    let stage = Stage::from(unstarted(&["a.test", "127.0.0.1:8080"], vec![swap("a.test")]));
    let variables = stage.proxy.environment();
    let of = |name: &str| variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let proxy = format!("http://127.0.0.1:{}", stage.proxy.port());
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(of(name), Some(proxy.clone()), "{name}");
    }
    // A listed loopback address is the machine's, so it goes through the proxy.
    assert_eq!(of("NO_PROXY").as_deref(), Some("localhost,::1"));
    assert_eq!(of("API_KEY").as_deref(), Some(PLACEHOLDER));
    assert_eq!(of("SSL_CERT_FILE").as_deref(), Some(CA_BUNDLE_PATH));
    let files = stage.proxy.files();
    assert_eq!(files[0].0, CA_BUNDLE_PATH);
    assert!(files[0].1.starts_with(b"-----BEGIN CERTIFICATE-----\n"));
    assert!(!String::from_utf8_lossy(&files[0].1).contains("PRIVATE"));
    let plain = proxy_environment(&EgressRules::new(&["a.test".to_owned()], Vec::new()).unwrap(), 1);
    assert!(plain.contains(&("NO_PROXY".to_owned(), "127.0.0.1,localhost,::1".to_owned())));
    assert!(!plain.iter().any(|(name, _)| name == "SSL_CERT_FILE"));
    assert_eq!(Stage::new(&["a.test"]).proxy.files(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_connections_at_once_are_all_served() {
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: files.maximum, maximum: files.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let (port, seen) = host().await;
    // More programs than the limit: the rest waits for its turn.
    let stage = Stage::limited(&["a.test", "127.0.0.1"], |limits| limits.connections = 200);
    let mut programs = Vec::new();
    for i in 0..500 {
        let mut program: Program = stage.program().await;
        programs.push(tokio::spawn(async move {
            let ask = format!(
                "GET http://a.test:{port}/{i} HTTP/1.1\r\nHost: a.test:{port}\r\nConnection: close\r\n\r\n"
            );
            program.send(ask.as_bytes()).await;
            let answer = program.answer().await.unwrap();
            assert_eq!(answer.status, 200);
            assert!(answer.body.starts_with(&format!("GET /{i} ")));
        }));
    }
    for program in programs {
        program.await.unwrap();
    }
    assert_eq!(seen.lock().unwrap().len(), 500);
    let records = stage.proxy.shutdown().await;
    assert_eq!(only(&records).count, 500);
}

#[tokio::test]
async fn the_end_of_the_proxy_is_the_end_of_its_connections() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let (mut program, _) = stage.tunnel(&format!("a.test:{port}")).await;
    let (mut far, _) = listener.accept().await.unwrap();
    let at = stage.proxy.port();
    drop(stage);
    assert_eq!(program.rest().await, b"");
    assert_eq!(far.read(&mut [0; 1]).await.unwrap_or(0), 0);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", at)).await.is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any bytes lead to an answer or to the end of the connection, and the proxy serves the next one.
    #[test]
    fn no_bytes_stop_the_proxy(
        noise in proptest::collection::vec(any::<u8>(), 0..200),
        text in "(GET|CONNECT|POST) (http://)?[a-z.:/0-9]{0,20} HTTP/1.1\r\n(Host: a.test\r\n)?(Content-Length: [0-9]{1,20}\r\n)?",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let stage = Stage::limited(&["nobody.test"], |limits| {
                *limits = ProxyLimits { head: Duration::from_millis(500), ..limits.clone() };
            });
            let mut program = stage.program().await;
            program.send(text.as_bytes()).await;
            program.send(&noise).await;
            program.send(b"\r\n\r\n").await;
            program.stream.shutdown().await.ok();
            let answered = program.rest().await;
            prop_assert!(answered.is_empty() || answered.starts_with(b"HTTP/1.1 4"), "{answered:?}");
            prop_assert_eq!(stage.get("b.test", "/").await.status, 403);
            Ok(())
        })?;
    }
}
