//! Spellings of hosts, targets and heads that two parsers could read differently: none reaches a host that is not on
//! the list.

use super::stage::{Seen, Stage, host};
use tokio::io::AsyncWriteExt as _;

/// Targets of `CONNECT`; `@` is the port of a server on the loopback that is not on the list.
const CONNECT: [&str; 48] = [
    // Numbers.
    "127.0.0.1:@",
    "2130706433:@",
    "0x7f000001:@",
    "0x7f.0.0.1:@",
    "0177.0.0.1:@",
    "017700000001:@",
    "127.1:@",
    "127.0.1:@",
    "127.0.0.1.:@",
    "0:@",
    "0.0.0.0:@",
    // Addresses in addresses.
    "[::1]:@",
    "[0:0:0:0:0:0:0:1]:@",
    "[::]:@",
    "[::ffff:127.0.0.1]:@",
    "[::ffff:7f00:1]:@",
    "[::ffff:0:127.0.0.1]:@",
    "[::127.0.0.1]:@",
    "[64:ff9b::7f00:1]:@",
    "[64:ff9b::127.0.0.1]:@",
    "[2002:7f00:1::]:@",
    "[fe80::1%25lo]:@",
    "[::1%lo]:@",
    "[::1:@",
    "::1:@",
    // Names of this machine.
    "localhost:@",
    "localhost.:@",
    "LOCALHOST:@",
    // Text before and after the host.
    "listed.test@127.0.0.1:@",
    "listed.test:443@127.0.0.1:@",
    "listed.test#@127.0.0.1:@",
    "127.0.0.1:@#listed.test",
    "127.0.0.1:@/listed.test",
    "127.0.0.1:@?listed.test",
    "listed.test\\@127.0.0.1:@",
    "listed.test%00.127.0.0.1:@",
    "127.0.0.1:@:443",
    "127.0.0.1:+@",
    "http://127.0.0.1:@",
    // Lookalike letters.
    "l\u{456}sted.test:@",
    "127\u{3002}0\u{3002}0\u{3002}1:@",
    "\u{2460}\u{2461}\u{2466}.0.0.1:@",
    // Edges of names.
    "xlisted.test:@",
    "listed.test.other.test:@",
    "below.test:@",
    ".below.test:@",
    // Cloud metadata services.
    "169.254.169.254:80",
    "[fd00:ec2::254]:80",
];

#[tokio::test]
async fn no_spelling_of_a_host_leads_to_one_that_is_not_listed() {
    let (port, seen) = host().await;
    let stage = Stage::new(&["listed.test", "*.below.test"]);
    for form in CONNECT {
        let to = form.replace('@', &port.to_string());
        // The `@` of a user name is not the place of the port.
        let to = if form.matches('@').count() > 1 { doubled(form, port) } else { to };
        let (_, answer) = stage.tunnel(&to).await;
        assert!([400, 403].contains(&answer.status), "{to}: {answer:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
    assert!(stage.proxy.drain().iter().all(|record| record.sent == 0));
    // The same server is reached by the listed name and address.
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    assert_eq!(stage.tunnel(&format!("a.test:{port}")).await.1.status, 200);
}

/// Replaces only the last `@` of a form with a user name by the port.
fn doubled(form: &str, port: u16) -> String {
    form.strip_suffix('@').map_or_else(|| form.to_owned(), |rest| format!("{rest}{port}"))
}

#[tokio::test]
async fn no_target_leads_to_a_host_that_is_not_listed() {
    let (port, seen) = host().await;
    let stage = Stage::new(&["listed.test"]);
    for (target, named) in [
        ("http://127.0.0.1:@/", "127.0.0.1:@"),
        ("http://127.0.0.1:@/", "listed.test"),
        ("http://listed.test/", "127.0.0.1:@"),
        ("HTTP://127.0.0.1:@/", "127.0.0.1:@"),
        ("http://[::1]:@/", "[::1]:@"),
        ("http://u:p~127.0.0.1:@/", "listed.test"),
        ("http://listed.test~127.0.0.1:@/", "listed.test"),
        ("http://127.0.0.1:@#listed.test/", "listed.test"),
        ("http://listed.test\\~127.0.0.1:@/", "listed.test"),
        ("http:/127.0.0.1:@/", "127.0.0.1:@"),
        ("http:///127.0.0.1:@/", "127.0.0.1:@"),
        ("//127.0.0.1:@/", "127.0.0.1:@"),
        ("/", "127.0.0.1:@"),
        ("*", "127.0.0.1:@"),
        ("https://127.0.0.1:@/", "127.0.0.1:@"),
        ("ftp://127.0.0.1:@/", "127.0.0.1:@"),
        ("gopher://127.0.0.1:@/", "127.0.0.1:@"),
        ("file:///etc/passwd", "listed.test"),
        ("127.0.0.1:@", "127.0.0.1:@"),
    ] {
        let put = |text: &str| text.replace('@', &port.to_string()).replace('~', "@");
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", put(target), put(named));
        let answer = stage.ask(&request).await;
        assert!([400, 403].contains(&answer.status), "{request:?}: {answer:?}");
    }
    assert_eq!(seen.lock().unwrap().len(), 0);
}

/// A request hidden in the body of another one.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a.test\r\n\r\n";

#[tokio::test]
async fn no_request_is_hidden_in_another_one() {
    let (port, seen) = host().await;
    let stage = Stage::new(&["a.test", "127.0.0.1"]);
    let to = format!("http://a.test:{port}/");
    let named = format!("Host: a.test:{port}\r\n");
    let length = HIDDEN.len() + 5;
    let with = |headers: &str, body: &str| format!("POST {to} HTTP/1.1\r\n{named}{headers}\r\n{body}");
    let whole = |headers: &str| with(headers, &format!("0\r\n\r\n{HIDDEN}"));
    let chunked = |chunks: &str| with("Transfer-Encoding: chunked\r\n", &format!("{chunks}{HIDDEN}"));
    for request in [
        whole(&format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")),
        whole(&format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("Content-Length: {length}\r\nContent-Length: 5\r\n")),
        whole("Content-Length: 5\r\nContent-Length: 5\r\n"),
        whole("Content-Length: 5, 5\r\n"),
        whole("Content-Length: +5\r\n"),
        whole("Content-Length: 0x5\r\n"),
        whole("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        whole("Transfer-Encoding: chunked, identity\r\n"),
        whole("Transfer-Encoding: identity, chunked\r\n"),
        whole(&format!("Transfer-Encoding : chunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("Transfer-Encoding:\tchunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("Transfer-Encoding:\u{b}chunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("X: a\r\n Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("X: a\nTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("X: a\rTransfer-Encoding: chunked\r\nContent-Length: {length}\r\n")),
        whole(&format!("X: a\0\r\nTransfer-Encoding: chunked\0\r\nContent-Length: {length}\r\n")),
        whole("Transfer-Encoding: chunked\r\n")
            .replace("HTTP/1.1\r\nHost: a.test:", "HTTP/1.0\r\nHost: a.test:"),
        chunked("0x0\r\n\r\n"),
        chunked("-0\r\n\r\n"),
        chunked("10000000000000000\r\n\r\n"),
        chunked("0\n\r\n"),
        chunked("0;\n\r\n\r\n"),
        chunked("1\r\naX0\r\n\r\n"),
        format!("GET {to}\r\n{HIDDEN}"),
        format!("GET {to} HTTP/2.0\r\n{named}\r\n{HIDDEN}"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{HIDDEN}"),
        format!(
            "GET {to} HTTP/1.1\r\n{named}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n{HIDDEN}"
        ),
        format!("GET {to} HTTP/1.1\r\n{named}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n{HIDDEN}"),
        format!("TRACE {to} HTTP/1.1\r\n{named}\r\n{HIDDEN}"),
        format!("GET {to} HTTP/1.1\r\n\r\n{HIDDEN}"),
        format!("GET {to} HTTP/1.1\r\n{named}{named}\r\n{HIDDEN}"),
    ] {
        let mut program = stage.program().await;
        program.send(request.as_bytes()).await;
        // Whatever the request states about its end: nothing more follows.
        let _ = program.stream.shutdown().await;
        let said = program.rest().await;
        assert!(!hidden(&seen), "{request:?} led to {}", String::from_utf8_lossy(&said));
    }
    let answer = stage.get(&format!("a.test:{port}"), "/hidden").await;
    assert!(answer.status == 200 && hidden(&seen), "a request for the same that is not hidden comes through");
}

/// Returns whether the server read the hidden text as a request.
fn hidden(seen: &Seen) -> bool {
    seen.lock().unwrap().iter().any(|said| said.starts_with("GET /hidden "))
}
