//! A proxy, hosts behind it, and a program in front of it, over real sockets.

use forge_sandbox::egress::{EgressKey, EgressProxy, NameResolver, ProxyHandle, ProxyLimits, TrustRoots};
use forge_types::{EgressRules, KeySwap, Timestamp};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpStream;

pub(super) const KEY: &str = "sk-live-0123456789abcdef";
pub(super) const PLACEHOLDER: &str = "forge-key-api-key";

pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Heads and bodies that a host received.
pub(super) type Seen = Arc<Mutex<Vec<String>>>;

pub(super) fn ring() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A proxy with a table for the names `*.test`: all but a few odd ones lead to 127.0.0.1.
pub(super) struct Stage {
    pub(super) proxy: ProxyHandle,
}

pub(super) fn swap(host: &str) -> KeySwap {
    KeySwap { host: host.to_owned(), variable: "API_KEY".to_owned() }
}

pub(super) fn unstarted(allow: &[&str], keys: Vec<KeySwap>) -> EgressProxy {
    let allow: Vec<String> = allow.iter().map(|&a| a.to_owned()).collect();
    let rules = EgressRules::new(&allow, keys).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let secrets = BTreeMap::from([("API_KEY".to_owned(), EgressKey::new(KEY))]);
    let mut proxy = EgressProxy::new(listener, rules, secrets, Arc::new(|| Timestamp::from_micros(7)));
    let ip = |text: &str| text.parse().unwrap();
    let table = [
        ("a.test", vec![ip("127.0.0.1")]),
        ("b.test", vec![ip("127.0.0.1")]),
        ("private.test", vec![ip("10.0.0.5")]),
        ("metadata.test", vec![ip("169.254.169.254")]),
        ("mapped.test", vec![ip("::ffff:10.0.0.5")]),
        ("nat64.test", vec![ip("64:ff9b::a00:5")]),
        ("mixed.test", vec![ip("10.0.0.5"), ip("127.0.0.1")]),
        ("six.test", vec![ip("::1")]),
        ("empty.test", vec![]),
    ];
    proxy.names = NameResolver::Table(table.into_iter().map(|(n, ips)| (n.to_owned(), ips)).collect());
    proxy.roots = TrustRoots::Only(Vec::new());
    proxy
}

impl Stage {
    pub(super) fn new(allow: &[&str]) -> Self {
        Self::from(unstarted(allow, Vec::new()))
    }

    pub(super) fn from(proxy: EgressProxy) -> Self {
        Self { proxy: proxy.start().unwrap() }
    }

    pub(super) fn limited(allow: &[&str], change: impl FnOnce(&mut ProxyLimits)) -> Self {
        let mut proxy = unstarted(allow, Vec::new());
        change(&mut proxy.limits);
        Self::from(proxy)
    }

    pub(super) async fn program(&self) -> Program {
        Program::over(TcpStream::connect(("127.0.0.1", self.proxy.port())).await.unwrap())
    }

    /// Sends one request on a separate connection.
    pub(super) async fn ask(&self, request: &str) -> Answer {
        let mut program = self.program().await;
        program.send(request.as_bytes()).await;
        program.answer().await.expect("an answer")
    }

    pub(super) async fn get(&self, authority: &str, path: &str) -> Answer {
        self.ask(&format!("GET http://{authority}{path} HTTP/1.1\r\nHost: {authority}\r\n\r\n")).await
    }

    /// Opens a tunnel; the answer is the one to CONNECT.
    pub(super) async fn tunnel(&self, to: &str) -> (Program, Answer) {
        let mut program = self.program().await;
        program.send(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await;
        let answer = program.head().await.unwrap();
        (program, answer)
    }

    /// Opens a tunnel with TLS in it; the program trusts what the sandbox is to trust.
    pub(super) async fn secure(&self, host: &str, port: u16) -> std::io::Result<Program> {
        let (program, answer) = self.tunnel(&format!("{host}:{port}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        self.handshake(program, host).await
    }

    /// Performs a TLS handshake in a tunnel for the server name `host`.
    pub(super) async fn handshake(&self, program: Program, host: &str) -> std::io::Result<Program> {
        let mut roots = rustls::RootCertStore::empty();
        for (_, pem) in self.proxy.files() {
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                roots.add(certificate.unwrap()).unwrap();
            }
        }
        let config = rustls::ClientConfig::builder_with_provider(ring())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let stream = program.stream.into_inner();
        tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map(Program::over)
    }
}

/// A program in the sandbox.
pub(super) struct Program {
    pub(super) stream: BufReader<Box<dyn Stream>>,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn has(&self, header: &str) -> bool {
        self.head.lines().any(|line| line.eq_ignore_ascii_case(header))
    }
}

impl Program {
    pub(super) fn over(stream: impl Stream + 'static) -> Self {
        let stream: Box<dyn Stream> = Box::new(stream);
        Self { stream: BufReader::new(stream) }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        // The proxy may have closed already; its answer shows the reason.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads only a head; `None` if the connection ended.
    pub(super) async fn head(&mut self) -> Option<Answer> {
        let head = lines(&mut self.stream).await?;
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: String::new() })
    }

    pub(super) async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        let bodiless = matches!(answer.status, 100..=199 | 204 | 304);
        if !bodiless {
            answer.body = content(&mut self.stream, &answer.head, true).await?;
        }
        Some(answer)
    }

    pub(super) async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest).await;
        rest
    }
}

async fn lines(stream: &mut BufReader<Box<dyn Stream>>) -> Option<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    Some(head)
}

/// Reads the body after a head. Without a length, an answer extends to the end of the connection and a request has no
/// body.
async fn content(stream: &mut BufReader<Box<dyn Stream>>, head: &str, to_end: bool) -> Option<String> {
    let head = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            stream.read_line(&mut size).await.ok()?;
            let size = usize::from_str_radix(size.trim().split(';').next()?, 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else if let Some(length) = head.lines().find_map(|l| l.strip_prefix("content-length: ")) {
        body = vec![0; length.parse().ok()?];
        stream.read_exact(&mut body).await.ok()?;
    } else if to_end {
        stream.read_to_end(&mut body).await.ok()?;
    }
    Some(String::from_utf8_lossy(&body).into_owned())
}

/// Starts a host on 127.0.0.1 that echoes what it receives; the path selects the form.
pub(super) async fn host() -> (u16, Seen) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(Box::new(stream), Arc::clone(&log)));
        }
    });
    (port, seen)
}

/// Starts such a host with TLS for these names; also returns its root certificate.
pub(super) async fn secure_host(names: &[&str]) -> (u16, Seen, Vec<u8>) {
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = rcgen::CertifiedIssuer::self_signed(params, rcgen::KeyPair::generate().unwrap()).unwrap();
    let names: Vec<String> = names.iter().map(|&n| n.to_owned()).collect();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(names).unwrap().signed_by(&key, &root).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(ring())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, seen) = (listener.local_addr().unwrap().port(), Seen::default());
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, log) = (acceptor.clone(), Arc::clone(&log));
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    converse(Box::new(stream), log).await;
                }
            });
        }
    });
    (port, seen, root.der().to_vec())
}

async fn converse(stream: Box<dyn Stream>, seen: Seen) {
    let mut stream = BufReader::new(stream);
    while let Some(head) = lines(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        if path == "/early" {
            let _ = stream
                .write_all(b"HTTP/1.1 413 No\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
                .await;
            let _ = stream.flush().await;
            return;
        }
        if head.to_ascii_lowercase().contains("expect: 100-continue") {
            let _ = stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await;
            let _ = stream.flush().await;
        }
        let Some(body) = content(&mut stream, &head, false).await else { return };
        let said = format!("{head}{body}");
        seen.lock().unwrap().push(said.clone());
        if !respond(&mut stream, &path, &said).await {
            return;
        }
    }
}

async fn respond(stream: &mut BufReader<Box<dyn Stream>>, path: &str, said: &str) -> bool {
    let whole = |headers: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let text = match path {
        "/silent" => return std::future::pending().await,
        "/drop" => return false,
        "/head" => {
            format!("HTTP/1.1 200 OK\r\nX-Echo: {}\r\nContent-Length: 0\r\n\r\n", said.replace("\r\n", " "))
        }
        "/gzip" => whole("Content-Encoding: gzip\r\n", "packed"),
        "/part" => format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/24\r\nContent-Length: 5\r\n\r\n{}",
            &KEY[..5]
        ),
        "/claimed" => whole("Content-Range: bytes 0-4/24\r\n", &KEY[..5]),
        "/ranges" => whole("Content-Type: multipart/byteranges; boundary=x\r\n", "--x\r\n"),
        "/patched" => "HTTP/1.1 226 IM Used\r\nContent-Length: 0\r\n\r\n".to_owned(),
        "/kept" => whole("ETag: \"sk-live-0123456789abcdef\"\r\nX-sk-live-0123456789abcdef: 1\r\n", &kept()),
        "/both" => {
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()
        }
        "/upgrade" => "HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n".to_owned(),
        "/nothing" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        "/hop" => whole(
            "Connection: X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n",
            "hop",
        ),
        "/close" => format!("HTTP/1.0 200 OK\r\n\r\n{said}"),
        "/pieces" => {
            let pieces: String = said.chars().map(|c| format!("1;x=y\r\n{c}\r\n")).collect();
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{pieces}0\r\nX-Trailer: 1\r\n\r\n")
        }
        _ => whole("", said),
    };
    stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok() && path != "/close"
}

/// Returns a key that a host kept, in all forms in which the host may give it back.
pub(super) fn kept() -> String {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let wide: String = KEY.chars().flat_map(|c| [c, '\0']).collect();
    let each = |write: &dyn Fn(u8) -> String| KEY.bytes().map(write).collect::<String>();
    let (colons, percent) = (each(&|b| format!("{b:02x}:")), each(&|b| format!("%{b:02X}")));
    let (json, html) = (each(&|b| format!("\\u{b:04x}")), each(&|b| format!("&#x{b:x};")));
    let twice = percent.replace('%', "%25");
    // base64 of `user:KEY`, of KEY, and of KEY in lines.
    format!(
        "{KEY} {hex} {wide} dXNlcjpzay1saXZlLTAxMjM0NTY3ODlhYmNkZWY= c2stbGl2ZS0wMTIzNDU2Nzg5YWJjZGVm \
         c2stbGl2ZS0wMTIz\nNDU2Nzg5YWJjZGVm {colons} {percent} {twice} {json} {html}"
    )
}
