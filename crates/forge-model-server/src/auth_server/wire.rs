//! As much HTTP as logins need, and a browser.

use std::io::{BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Nobody waits longer.
const IO_TIMEOUT: Duration = Duration::from_secs(60);

/// A request as it came in.
pub(super) struct AuthRequest {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) form: Vec<(String, String)>,
}

pub(super) fn read_request(stream: &mut TcpStream) -> Option<AuthRequest> {
    stream.set_read_timeout(Some(IO_TIMEOUT)).ok()?;
    let mut reader = BufReader::new(stream);
    let line = read_trimmed_line(&mut reader)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let header = self::read_trimmed_line(&mut reader)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    Some(AuthRequest {
        method,
        path: path.to_owned(),
        query: parse_pairs(query),
        form: parse_pairs(&String::from_utf8_lossy(&body)),
    })
}

fn read_trimmed_line(reader: &mut impl std::io::BufRead) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    Some(line.trim_end().to_owned())
}

pub(super) fn write_response(stream: &mut TcpStream, status: u16, kind: &str, body: &str) {
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

pub(super) fn write_redirect(stream: &mut TcpStream, location: &str) {
    let head = format!(
        "HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let _ = stream.write_all(head.as_bytes());
}

/// The first value of this name.
pub(super) fn first_value(pairs: &[(String, String)], name: &str) -> Option<String> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

fn parse_pairs(text: &str) -> Vec<(String, String)> {
    form_urlencoded::parse(text.as_bytes()).into_owned().collect()
}

/// Returns the pairs as a query.
pub(super) fn encode_pairs(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// What a browser shows in the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrowserVisit {
    /// The last address.
    pub url: String,
    /// Its status.
    pub status: u16,
    /// Head and body of the answer.
    pub text: String,
}

/// Opens an address like a browser: follows redirects and gives the last page; `None` if nobody answers.
pub fn visit_url(url: &str) -> Option<BrowserVisit> {
    let mut url = url.to_owned();
    for _ in 0..5 {
        let rest = url.strip_prefix("http://")?;
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let mut stream = TcpStream::connect(host).ok()?;
        stream.set_read_timeout(Some(IO_TIMEOUT)).ok()?;
        write!(stream, "GET /{path} HTTP/1.1\r\nhost: {host}\r\naccept: text/html\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        let location = text.lines().take_while(|line| !line.trim().is_empty()).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        match location {
            Some(next) if (300..400).contains(&status) => url = next,
            _ => return Some(BrowserVisit { url, status, text }),
        }
    }
    None
}
