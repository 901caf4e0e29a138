//! Messages that are relayed while they are being sent, and those that parsers read in different ways.

use super::stage::{Program, Stage, swap, unstarted};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A proxy with a host `a.test`, the program's connection, and the listener of the host.
struct Exchange {
    stage: Stage,
    program: Program,
    host: TcpListener,
    port: u16,
}

impl Exchange {
    async fn with(stage: Stage) -> Self {
        let host = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = host.local_addr().unwrap().port();
        Self { program: stage.program().await, stage, host, port }
    }

    /// Sends a request and returns the host's end of its connection.
    async fn send(&mut self, method: &str, rest: &str) -> TcpStream {
        let to = format!("a.test:{}", self.port);
        let request = format!("{method} http://{to}/ HTTP/1.1\r\nHost: {to}\r\n{rest}");
        self.program.send(request.as_bytes()).await;
        self.host.accept().await.unwrap().0
    }
}

async fn until(from: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut heard = Vec::new();
    while !heard.ends_with(end.as_bytes()) {
        assert_ne!(from.read_buf(&mut heard).await.unwrap(), 0, "{:?}", String::from_utf8_lossy(&heard));
    }
    String::from_utf8(heard).unwrap()
}

#[tokio::test]
async fn each_piece_arrives_before_the_next_one_is_sent() {
    for keys in [Vec::new(), vec![swap("a.test")]] {
        let mut exchange = Exchange::with(Stage::from(unstarted(&["a.test", "127.0.0.1"], keys))).await;
        // Also in a GET, in which few programs send a body.
        let mut host = exchange.send("GET", "Transfer-Encoding: chunked\r\n\r\n").await;
        until(&mut host, "\r\n\r\n").await;
        for piece in ["one", "two"] {
            exchange.program.send(format!("3\r\n{piece}\r\n").as_bytes()).await;
            until(&mut host, &format!("3\r\n{piece}\r\n")).await;
        }
        exchange.program.send(b"0\r\n\r\n").await;
        until(&mut host, "0\r\n\r\n").await;
        host.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.unwrap();
        until(&mut exchange.program.stream, "\r\n\r\n").await;
        for piece in ["one", "two"] {
            host.write_all(format!("3\r\n{piece}\r\n").as_bytes()).await.unwrap();
            until(&mut exchange.program.stream, &format!("3\r\n{piece}\r\n")).await;
        }
        drop(host);
        // A response that ends in the middle has no end for the program either.
        assert_eq!(exchange.program.rest().await, b"");
        let records = exchange.stage.proxy.drain();
        assert!(records.iter().any(|r| r.why.contains("connection to the host failed")), "{records:?}");
    }
}

#[tokio::test]
async fn a_repeated_length_of_an_answer_is_passed_on_once_and_a_contradictory_one_not_at_all() {
    for (lengths, status) in [(["3", "3"], 200), (["3", "4"], 502)] {
        let mut exchange = Exchange::with(Stage::new(&["a.test", "127.0.0.1"])).await;
        let mut host = exchange.send("GET", "\r\n").await;
        let [one, two] = lengths;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {one}\r\nContent-Length: {two}\r\n\r\nabc");
        host.write_all(answer.as_bytes()).await.unwrap();
        let answer = exchange.program.answer().await.unwrap();
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.head.matches("\nContent-Length: ").count(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_key_in_the_name_of_a_header_is_replaced_in_either_case() {
    // `sk-live-0123456789abcdef`, also in base64, in hex and with escapes.
    for name in [
        "X-SK-Live-0123456789abcDEF",
        "X-c2stbGl2ZS0wMTIzNDU2Nzg5YWJjZGVm",
        "X-736B2D6C6976652D303132333435363738396162636465663",
        "X-%73k%2DLIVE-0123456789%61bcdef",
    ] {
        let mut exchange =
            Exchange::with(Stage::from(unstarted(&["a.test", "127.0.0.1"], vec![swap("a.test")]))).await;
        let mut host = exchange.send("HEAD", "\r\n").await;
        host.write_all(format!("HTTP/1.1 200 OK\r\n{name}: 1\r\nContent-Length: 9\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let answer = exchange.program.head().await.unwrap();
        assert!(answer.head.contains("x-forge-key-api-key"), "{name}: {answer:?}");
        assert!(!answer.head.to_ascii_lowercase().contains("content-length"), "{answer:?}");
    }
}
