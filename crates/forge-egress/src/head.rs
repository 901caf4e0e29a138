//! Heads of HTTP/1.1 messages (RFC 9112), parsed strictly. Ambiguous heads are refused because request smuggling relies
//! on two parsers that disagree.

use forge_types::EgressRules;

/// Maximum number of headers in a head.
const MAX_HEADERS: usize = 200;

/// A reason for rejecting a head, worded for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadHead(pub(super) &'static str);

/// One header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HeaderLine {
    /// Name as received; compared case-insensitively.
    pub(super) name: String,
    /// Value without surrounding spaces and without control characters except tabs.
    pub(super) value: Vec<u8>,
}

/// The header lines of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeaderList(pub(super) Vec<HeaderLine>);

/// The first line and headers of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) target: String,
    /// Minor version: 1 for HTTP/1.1, 0 for HTTP/1.0.
    pub(super) minor: u8,
    pub(super) headers: HeaderList,
}

/// The status line and headers of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) minor: u8,
    pub(super) status: u16,
    pub(super) reason: Vec<u8>,
    pub(super) headers: HeaderList,
}

/// The end of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// There is no body.
    Empty,
    /// After this number of bytes.
    Length(u64),
    /// After the last chunk.
    Chunked,
    /// At the end of the connection.
    Close,
}

/// The host and port of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authority {
    /// Host in the form of [`EgressRules::normalize_host`], or as received if it is not a host (then no rule covers
    /// it).
    pub(super) host: String,
    pub(super) port: u16,
}

impl Authority {
    /// Parses `host[:port]`. Without a port, `default` is used; without a default, a missing port is an error.
    pub(super) fn parse(text: &str, default: Option<u16>) -> Result<Self, BadHead> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(BadHead("the host is not ASCII"));
        }
        if text.contains('@') {
            return Err(BadHead(
                "a user name in front of the host is not accepted; send an Authorization header",
            ));
        }
        let colon = match text.rfind(']') {
            Some(end) => text[end..].find(':').map(|at| end + at),
            None => text.find(':'),
        };
        let (host, port) = colon.map_or((text, ""), |at| (&text[..at], &text[at + 1..]));
        let port = match (port, default) {
            ("", Some(port)) => port,
            ("", None) => return Err(BadHead("the port is missing")),
            (digits, _) if digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()) => digits
                .parse()
                .ok()
                .filter(|&port: &u16| port > 0)
                .ok_or(BadHead("the port is not a number from 1 to 65535"))?,
            _ => return Err(BadHead("the port is not a number from 1 to 65535")),
        };
        if host.is_empty() || host.len() > 255 {
            return Err(BadHead("the host is missing or too long"));
        }
        let host = EgressRules::normalize_host(host).unwrap_or_else(|| host.to_ascii_lowercase());
        Ok(Self { host, port })
    }

    /// Formats the authority for a Host header.
    pub(super) fn to_host_header(&self, default: u16) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

impl HeaderList {
    pub(super) fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().filter(move |h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value.as_slice())
    }

    /// Returns whether `word` is one of the comma-separated words of these headers.
    pub(super) fn has_token(&self, header: &str, word: &str) -> bool {
        self.tokens(header).any(|w| w.eq_ignore_ascii_case(word))
    }

    pub(super) fn tokens<'a>(&'a self, header: &'a str) -> impl Iterator<Item = &'a str> {
        self.get_all(header)
            .filter_map(|v| std::str::from_utf8(v).ok())
            .flat_map(|v| v.split(','))
            .map(str::trim)
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|h| !h.name.eq_ignore_ascii_case(name));
    }

    pub(super) fn add(&mut self, name: &str, value: impl Into<Vec<u8>>) {
        self.0.push(HeaderLine { name: name.to_owned(), value: value.into() });
    }

    /// Removes the headers that apply to one connection only (RFC 9110, 7.6.1), including the framing. The sender adds
    /// its own framing.
    pub(super) fn strip_hop_by_hop(&mut self) {
        let named: Vec<String> = self.tokens("connection").map(str::to_owned).collect();
        let fixed = [
            "connection",
            "proxy-connection",
            "keep-alive",
            "proxy-authorization",
            "proxy-authenticate",
            "proxy-authentication-info",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "http2-settings",
            "content-length",
        ];
        for name in fixed.into_iter().chain(named.iter().map(String::as_str)) {
            self.remove(name);
        }
    }

    pub(super) fn add_framing(&mut self, framing: BodyFraming) {
        match framing {
            BodyFraming::Length(bytes) => self.add("Content-Length", bytes.to_string()),
            BodyFraming::Chunked => self.add("Transfer-Encoding", "chunked"),
            BodyFraming::Empty | BodyFraming::Close => {}
        }
    }

    fn write_to(&self, out: &mut Vec<u8>) {
        for header in &self.0 {
            out.extend_from_slice(header.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(&header.value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Returns the only Content-Length, if there is one.
    fn content_length(&self) -> Result<Option<u64>, BadHead> {
        let mut found = None;
        for value in self.get_all("content-length") {
            let text = std::str::from_utf8(value).unwrap_or_default();
            let digits = (1..=18).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            let length: u64 =
                text.parse().ok().filter(|_| digits).ok_or(BadHead("Content-Length is not a number"))?;
            if found.is_some_and(|other| other != length) {
                return Err(BadHead("Content-Length is given with different values"));
            }
            found = Some(length);
        }
        Ok(found)
    }

    fn is_chunked(&self) -> Result<bool, BadHead> {
        let mut codings = self.get_all("transfer-encoding");
        match (codings.next(), codings.next()) {
            (None, _) => Ok(false),
            (Some(only), None) if only.eq_ignore_ascii_case(b"chunked") => Ok(true),
            _ => Err(BadHead("the only Transfer-Encoding accepted is `chunked`, once")),
        }
    }
}

impl Request {
    pub(super) fn parse(head: &[u8]) -> Result<Self, BadHead> {
        let (first, headers) = split_lines(head)?;
        let mut parts = first.split(|&b| b == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(BadHead("the first line is not `METHOD TARGET HTTP/1.1`"));
        };
        if method.is_empty() || method.len() > 32 || !method.iter().all(|&b| is_token_byte(b)) {
            return Err(BadHead("the method is not a word"));
        }
        if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
            return Err(BadHead("the target contains characters that are not allowed in a URL"));
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Self { method: text(method), target: text(target), minor: parse_version(version)?, headers })
    }

    /// Returns the framing of the body. Contradictory or repeated framing is an error.
    pub(super) fn body_framing(&self) -> Result<BodyFraming, BadHead> {
        let lengths = self.headers.get_all("content-length").count();
        match (self.headers.is_chunked()?, self.headers.content_length()?) {
            (true, Some(_)) => Err(BadHead("both Transfer-Encoding and Content-Length are given")),
            (true, None) if self.minor == 0 => Err(BadHead("HTTP/1.0 has no Transfer-Encoding")),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, Some(_)) if lengths > 1 => Err(BadHead("Content-Length is given twice")),
            (false, Some(length)) => Ok(BodyFraming::Length(length)),
            (false, None) => Ok(BodyFraming::Empty),
        }
    }

    /// Returns the only Host header.
    pub(super) fn host_header(&self) -> Result<Option<&str>, BadHead> {
        let mut hosts = self.headers.get_all("host");
        match (hosts.next(), hosts.next()) {
            (None, _) if self.minor == 0 => Ok(None),
            (None, _) => Err(BadHead("the Host header is missing")),
            (Some(host), None) => {
                std::str::from_utf8(host).map(Some).map_err(|_| BadHead("the Host header is not valid UTF-8"))
            }
            _ => Err(BadHead("there are two Host headers")),
        }
    }

    /// Returns whether the connection can serve another request afterwards.
    pub(super) fn is_persistent(&self) -> bool {
        let says = |word| {
            self.headers.has_token("connection", word) || self.headers.has_token("proxy-connection", word)
        };
        if self.minor == 0 { says("keep-alive") } else { !says("close") }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        self.headers.write_to(&mut out);
        out
    }
}

impl Response {
    pub(super) fn parse(head: &[u8]) -> Result<Self, BadHead> {
        let (first, headers) = split_lines(head)?;
        let (version, rest) = first.split_at_checked(8).ok_or(BadHead("the status line is too short"))?;
        let minor = parse_version(version)?;
        let status = match rest {
            [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9'] => parse_status(*a, *b, *c),
            [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b' ', ..] => parse_status(*a, *b, *c),
            _ => return Err(BadHead("the status is not a three-digit number")),
        };
        let reason = rest.get(5..).unwrap_or_default().to_vec();
        Ok(Self { minor, status, reason, headers })
    }

    /// Returns the framing of the body in the response to a `method` request.
    pub(super) fn body_framing(&self, method: &str) -> Result<BodyFraming, BadHead> {
        let (chunked, length) = (self.headers.is_chunked()?, self.headers.content_length()?);
        if method == "HEAD" || matches!(self.status, 100..=199 | 204 | 304) {
            return Ok(BodyFraming::Empty);
        }
        match (chunked, length) {
            (true, Some(_)) => Err(BadHead("both Transfer-Encoding and Content-Length are given")),
            (true, None) => Ok(BodyFraming::Chunked),
            (false, Some(length)) => Ok(BodyFraming::Length(length)),
            (false, None) => Ok(BodyFraming::Close),
        }
    }

    pub(super) fn is_persistent(&self) -> bool {
        let says = |word| self.headers.has_token("connection", word);
        if self.minor == 0 { says("keep-alive") } else { !says("close") }
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} ", self.status).into_bytes();
        out.extend_from_slice(&self.reason);
        out.extend_from_slice(b"\r\n");
        self.headers.write_to(&mut out);
        out
    }
}

fn parse_status(a: u8, b: u8, c: u8) -> u16 {
    [a, b, c].iter().fold(0, |n, d| n * 10 + u16::from(d - b'0'))
}

/// Returns the length of the head at the start of `bytes`, including the empty line, or `None` if it is incomplete.
/// Line ends without CR also count, so that they are refused at once instead of being waited for.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|&b| b == b'\n') {
        let next = from + at + 1;
        match bytes.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

/// Splits a head into its first line and headers.
fn split_lines(head: &[u8]) -> Result<(&[u8], HeaderList), BadHead> {
    let body = head.strip_suffix(b"\r\n\r\n").ok_or(BadHead("lines must end with CR LF"))?;
    let mut lines = Vec::new();
    let mut rest = body;
    loop {
        match rest.iter().position(|&b| b == b'\r' || b == b'\n') {
            None => break lines.push(rest),
            Some(at) if rest[at..].starts_with(b"\r\n") => {
                lines.push(&rest[..at]);
                rest = &rest[at + 2..];
            }
            Some(_) => return Err(BadHead("lines must end with CR LF")),
        }
    }
    let mut lines = lines.into_iter();
    let first = lines.next().unwrap_or_default();
    if first.iter().any(|&b| b < b' ' || b == 0x7f) {
        return Err(BadHead("the first line contains control characters"));
    }
    let headers = lines.map(parse_header).collect::<Result<Vec<_>, _>>()?;
    if headers.len() > MAX_HEADERS {
        return Err(BadHead("there are more than 200 headers"));
    }
    Ok((first, HeaderList(headers)))
}

fn parse_header(line: &[u8]) -> Result<HeaderLine, BadHead> {
    if line.starts_with(b" ") || line.starts_with(b"\t") {
        return Err(BadHead("a header continues on the next line, which is obsolete and not accepted"));
    }
    let colon = line.iter().position(|&b| b == b':').ok_or(BadHead("a header has no colon"))?;
    let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) {
        return Err(BadHead("a header's name is not a word"));
    }
    if value.iter().any(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
        return Err(BadHead("a header contains control characters"));
    }
    Ok(HeaderLine { name: String::from_utf8_lossy(name).into_owned(), value: value.to_vec() })
}

fn parse_version(version: &[u8]) -> Result<u8, BadHead> {
    match version {
        b"HTTP/1.1" => Ok(1),
        b"HTTP/1.0" => Ok(0),
        _ => Err(BadHead("only HTTP/1.1 and HTTP/1.0 are supported")),
    }
}

/// Returns whether a byte is allowed in a header name (RFC 9110, 5.6.2).
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_of_a_head_is_found_in_both_spellings() {
        for (bytes, length) in [
            (&b""[..], None),
            (b"GET / HTTP/1.1\r\n", None),
            (b"a\r\n\r\nrest", Some(5)),
            (b"a\n\nrest", Some(3)),
            (b"a\n\r\n", Some(4)),
            (b"a\r\n\r", None),
        ] {
            assert_eq!(head_length(bytes), length, "{bytes:?}");
        }
    }

    #[test]
    fn a_body_whose_end_is_said_in_two_ways_is_refused() {
        let framing = |headers: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n");
            Request::parse(head.as_bytes()).and_then(|r| r.body_framing())
        };
        assert_eq!(framing(""), Ok(BodyFraming::Empty));
        assert_eq!(framing("Content-Length: 5\r\n"), Ok(BodyFraming::Length(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(BodyFraming::Chunked));
        for bad in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: gzip\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding:\x0bchunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "X: a\r\n b\r\n",
            "X: a\nY: b\r\n",
            "X: a\rb\r\n",
            "X: a\0b\r\n",
            "no colon\r\n",
        ] {
            assert!(framing(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_connections_own_headers_go_no_further() {
        let head = b"GET / HTTP/1.1\r\nConnection: close, X-Own\r\nX-Own: 1\r\nProxy-Authorization: x\r\nTE: y\r\nOther: 2\r\n\r\n";
        let mut request = Request::parse(head).unwrap();
        request.headers.strip_hop_by_hop();
        assert_eq!(request.to_bytes(), b"GET / HTTP/1.1\r\nOther: 2\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = head_length(&bytes);
            let mut whole = bytes;
            whole.extend_from_slice(b"\r\n\r\n");
            let _ = Request::parse(&whole).map(|r| (r.body_framing(), r.host_header().is_ok(), r.is_persistent(), r.to_bytes()));
            let _ = Response::parse(&whole).map(|r| (r.body_framing("GET"), r.is_persistent(), r.to_bytes()));
        }

        #[test]
        fn nearly_good_heads_do_not_panic_and_good_ones_come_out_as_they_went_in(
            text in "(GET|CONNECT|P\\PC) [!-~]{1,20} HTTP/1\\.[01x]\r\n([!-~]{1,8}:[ -~\t]{0,12}\r\n){0,6}",
        ) {
            let head = format!("{text}\r\n");
            if let Ok(request) = Request::parse(head.as_bytes()) {
                let again = Request::parse(&request.to_bytes()).unwrap();
                prop_assert_eq!(Request { minor: 1, ..request }, again);
            }
        }

        #[test]
        fn no_authority_makes_the_reader_panic(text in "\\PC{0,30}", default in proptest::option::of(1_u16..)) {
            if let Ok(authority) = Authority::parse(&text, default) {
                prop_assert!(authority.port > 0 && !authority.host.is_empty());
            }
        }
    }
}
