//! Heads of HTTP/1.1 messages (RFC 9112). hyper parses and writes them; before that, heads that two parsers could read
//! differently are refused, although hyper would accept some.

use forge_types::EgressRules;
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderValue};

/// Maximum number of headers in a head.
pub(super) const MAX_HEADERS: usize = 200;

/// A reason for rejecting a head, worded for its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BadHead(pub(super) &'static str);

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

/// Returns the length of the head at the start of `bytes`, including the empty line, or `None` if it is incomplete.
/// Line ends without CR also count, so that they are refused at once instead of being waited for.
pub(super) fn head_length(bytes: &[u8]) -> Option<usize> {
    let strict = bytes.windows(3).position(|three| three == b"\n\r\n").map(|at| at + 3);
    let bare = bytes.windows(2).position(|two| two == b"\n\n").map(|at| at + 2);
    strict.into_iter().chain(bare).min()
}

/// Encodes the characters of the target that hyper does not accept in a URL although programs send them. Returns the new
/// length of the head at the start of `bytes`.
pub(super) fn encode_target(bytes: &mut Vec<u8>, head: usize) -> usize {
    let place = |wanted| bytes[..head].iter().position(|&byte| byte == wanted).unwrap_or(head);
    let (start, end) = (place(b' '), place(b'\r').max(place(b' ')));
    let mut encoded = Vec::new();
    for &byte in &bytes[start..end] {
        match byte {
            b'"' | b'<' | b'>' | b'`' => encoded.extend(format!("%{byte:02X}").into_bytes()),
            _ => encoded.push(byte),
        }
    }
    let longer = encoded.len() - (end - start);
    bytes.splice(start..end, encoded);
    head + longer
}

/// Checks the head of a request before hyper parses it, which accepts more. Returns the length of the body, or `None` if
/// it is chunked.
pub(super) fn check_request(head: &[u8]) -> Result<Option<u64>, BadHead> {
    let ends = head.windows(2).filter(|pair| pair == b"\r\n").count();
    if head.iter().filter(|&&b| b == b'\r' || b == b'\n').count() != 2 * ends || head.starts_with(b"\r\n") {
        return Err(BadHead("lines must end with CR LF, and the first one must not be empty"));
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    request.parse(head).map_err(describe_syntax_error)?;
    let target = request.path.unwrap_or_default();
    if target.contains('#') {
        return Err(BadHead("its target contains a fragment"));
    }
    if !target.is_ascii() || target.parse::<Uri>().is_err() {
        return Err(BadHead("the target contains characters that are not allowed in a URL"));
    }
    let named = |name: &str| {
        let headers = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name));
        headers.map(|h| h.value).collect()
    };
    match body_length(named)? {
        None if request.version == Some(0) => Err(BadHead("HTTP/1.0 has no Transfer-Encoding")),
        length => Ok(length),
    }
}

fn describe_syntax_error(error: httparse::Error) -> BadHead {
    BadHead(match error {
        httparse::Error::HeaderName => "a header's name is not a word",
        httparse::Error::HeaderValue => "a header contains control characters",
        httparse::Error::TooManyHeaders => "there are more than 200 headers",
        httparse::Error::Version => "only HTTP/1.1 and HTTP/1.0 are supported",
        _ => "the first line is not `METHOD TARGET HTTP/1.1`",
    })
}

/// Checks the framing of a response.
pub(super) fn check_response(headers: &HeaderMap) -> Result<(), BadHead> {
    let named = |name| {
        let mut values: Vec<_> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
        // A length that is repeated is not ambiguous.
        values.dedup_by(|a, b| name == "content-length" && a == b);
        values
    };
    body_length(named).map(drop)
}

/// Returns the length of a body according to its headers, `None` if it is chunked. Contradictory or repeated framing is
/// an error.
fn body_length<'a>(named: impl Fn(&'static str) -> Vec<&'a [u8]>) -> Result<Option<u64>, BadHead> {
    match (&named("content-length")[..], &named("transfer-encoding")[..]) {
        ([], []) => Ok(Some(0)),
        ([], [only]) if only.eq_ignore_ascii_case(b"chunked") => Ok(None),
        ([], _) => Err(BadHead("the only Transfer-Encoding accepted is `chunked`, once")),
        ([only], []) if only.len() <= 18 && only.iter().all(u8::is_ascii_digit) => {
            let digits = std::str::from_utf8(only).ok().and_then(|digits| digits.parse().ok());
            digits.map(Some).ok_or(BadHead("Content-Length is not a number"))
        }
        ([_], []) => Err(BadHead("Content-Length is not a number")),
        (_, []) => Err(BadHead("Content-Length is given twice")),
        _ => Err(BadHead("both Transfer-Encoding and Content-Length are given")),
    }
}

/// Returns the comma-separated words of all headers with a name.
pub(super) fn tokens<'a>(headers: &'a HeaderMap, name: &str) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|v| std::str::from_utf8(v.as_bytes()).ok());
    values.flat_map(|v| v.split(',')).map(str::trim)
}

/// Removes the headers that apply to one connection only (RFC 9110, 7.6.1) except the framing.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<String> = tokens(headers, "connection").map(str::to_owned).collect();
    let fixed = [
        "connection",
        "proxy-connection",
        "keep-alive",
        "proxy-authorization",
        "proxy-authenticate",
        "proxy-authentication-info",
        "te",
        "trailer",
        "upgrade",
        "http2-settings",
    ];
    for name in fixed.into_iter().chain(named.iter().map(String::as_str)) {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderName;
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
        let framing =
            |headers: &str| check_request(format!("POST / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").as_bytes());
        assert_eq!(framing(""), Ok(Some(0)));
        assert_eq!(framing("Content-Length: 5\r\n"), Ok(Some(5)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(None));
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
        let named = ["connection", "x-own", "proxy-authorization", "te", "other"];
        let mut headers: HeaderMap = named
            .map(|name| (HeaderName::from_static(name), HeaderValue::from_static("close, X-Own")))
            .into_iter()
            .collect();
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["other"]);
    }

    #[test]
    fn only_the_target_is_encoded() {
        let head = b"G`T /a<b>?q=\"`\" HTTP/1.1\r\nX: <a>\r\n\r\n";
        let mut bytes = [&head[..], b"GET /`"].concat();
        let head = encode_target(&mut bytes, head.len());
        let expected = b"G`T /a%3Cb%3E?q=%22%60%22 HTTP/1.1\r\nX: <a>\r\n\r\n";
        assert_eq!((&bytes[..head], &bytes[head..]), (&expected[..], &b"GET /`"[..]));
        for (bytes, head) in [(&b"\r\n\r\n"[..], 4), (b"a\r\n\r\nb c<", 5), (b"a b<\n\nc\r", 6)] {
            let mut bytes = bytes.to_vec();
            let head = encode_target(&mut bytes, head);
            assert!(check_request(&bytes[..head]).is_err(), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = head_length(&bytes);
            let mut whole = bytes;
            whole.extend_from_slice(b"\r\n\r\n");
            let all = whole.len();
            let head = encode_target(&mut whole, all);
            let _ = check_request(&whole[..head]);
        }

        #[test]
        fn no_authority_makes_the_reader_panic(text in "\\PC{0,30}", default in proptest::option::of(1_u16..)) {
            if let Ok(authority) = Authority::parse(&text, default) {
                prop_assert!(authority.port > 0 && !authority.host.is_empty());
            }
        }
    }
}
