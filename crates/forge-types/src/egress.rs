//! Egress rules of a sandbox as data, and the record of each attempt.

use crate::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The hosts that a sandbox with an allow-list can reach.
///
/// [`EgressRules::new`] validates user input. Rules read from a journal are not validated again: an entry that
/// cannot be parsed allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRules {
    /// Allowed hosts: exact names, `*.suffix` or addresses, each with a port to allow only that port.
    /// Case-insensitive.
    pub allow: Vec<String>,
    /// Keys that the proxy inserts into requests, so that they never enter the sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeySwap>,
}

/// A key that the proxy inserts into requests to one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySwap {
    /// The exact host.
    pub host: String,
    /// The variable in the sandbox; its value there is [`KeySwap::placeholder`].
    pub variable: String,
}

impl KeySwap {
    /// Returns the placeholder for the key in the sandbox. The proxy replaces it in the headers of requests to the
    /// host.
    pub fn placeholder(&self) -> String {
        format!("forge-key-{}", self.variable.to_ascii_lowercase().replace('_', "-"))
    }
}

/// An invalid entry of the allow-list, or an invalid key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid egress rule `{entry}`: {expected}")]
pub struct BadEntry {
    /// The entry as it was written.
    pub entry: String,
    /// The fault, and the expected form.
    pub expected: String,
}

impl EgressRules {
    /// Builds rules from user input, normalized for comparison: lower case, no brackets around an address without a
    /// port, no duplicates.
    ///
    /// # Errors
    /// Returns the first entry that is not a domain, `*.domain` or address (each with or without `:port`), or the
    /// first key with an unlisted host or an invalid variable name.
    pub fn new(allow: &[String], keys: Vec<KeySwap>) -> Result<Self, BadEntry> {
        let mut rules = Self::default();
        for entry in allow {
            let entry = Self::check_entry(entry)?;
            if !rules.allow.contains(&entry) {
                rules.allow.push(entry);
            }
        }
        for key in keys {
            let key = rules.check_key(&key)?;
            if !rules.keys.contains(&key) {
                rules.keys.push(key);
            }
        }
        Ok(rules)
    }

    /// Returns an entry of an allow-list, normalized for comparison.
    ///
    /// # Errors
    /// Fails if the entry is not a domain, `*.domain` or address, with or without `:port`.
    pub fn check_entry(entry: &str) -> Result<String, BadEntry> {
        parse_entry(entry)
            .map(|entry| entry.to_string())
            .map_err(|expected| BadEntry { entry: display_entry(entry), expected })
    }

    fn check_key(&self, key: &KeySwap) -> Result<KeySwap, BadEntry> {
        let bad = |expected: String| BadEntry { entry: display_entry(&key.host), expected };
        let entry = parse_entry(&key.host).map_err(bad)?;
        let host = match (&entry.what, entry.port) {
            (HostPattern::Below(_), _) => {
                return Err(bad("a key is bound to one exact host, without `*`".to_owned()));
            }
            (_, Some(_)) => return Err(bad("specify the host of a key without a port".to_owned())),
            _ => entry.to_string(),
        };
        let listed = self.allow.iter().filter_map(|e| parse_entry(e).ok()).any(|e| e.what.covers_host(&host));
        if !listed {
            let what = "the host has a key but is not on the list; add it to egress.allowed_domains";
            return Err(bad(what.to_owned()));
        }
        if !is_variable(&key.variable) {
            let expected =
                "the variable of a key may contain letters, digits and `_`, and must not begin with a digit";
            return Err(BadEntry { entry: display_entry(&key.variable), expected: expected.to_owned() });
        }
        let swap = KeySwap { host, variable: key.variable.clone() };
        let clash = |k: &&KeySwap| k.variable != swap.variable && k.placeholder() == swap.placeholder();
        if let Some(other) = self.keys.iter().find(clash) {
            let expected =
                format!("it is too similar to the variable `{}`; rename one of them", other.variable);
            return Err(BadEntry { entry: display_entry(&key.variable), expected });
        }
        Ok(swap)
    }

    /// Returns whether `host` (a name or an address, optionally with brackets or a final dot) is allowed at `port`.
    ///
    /// The address that an allowed name resolves to must also pass [`EgressRules::refuses_address`].
    pub fn allows_host(&self, host: &str, port: u16) -> bool {
        let Some(host) = Self::normalize_host(host) else { return false };
        self.parsed_entries().any(|entry| entry.covers_port(port) && entry.what.covers_host(&host))
    }

    /// Returns the ports at which `host` is allowed, if only some are listed; empty if all ports or none are.
    pub fn ports_of(&self, host: &str) -> Vec<u16> {
        let host = Self::normalize_host(host).unwrap_or_default();
        let ports: Option<Vec<u16>> = self
            .parsed_entries()
            .filter(|entry| entry.what.covers_host(&host))
            .map(|entry| entry.port)
            .collect();
        ports.unwrap_or_default()
    }

    /// Returns the reason why `ip` is refused at `port`: it belongs to this machine, a private network or a cloud's
    /// internal services, and is not listed itself. An IPv6 address that embeds an IPv4 address is judged by the
    /// latter.
    pub fn refuses_address(&self, ip: IpAddr, port: u16) -> Option<&'static str> {
        if self.lists_address(ip, port) { None } else { inner_address(ip.to_canonical()) }
    }

    /// Returns whether this exact address is listed for `port`.
    pub fn lists_address(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.parsed_entries().any(|entry| entry.covers_port(port) && entry.what == HostPattern::Address(ip))
    }

    /// Returns the keys that the proxy inserts into requests to `host`.
    pub fn keys_for(&self, host: &str) -> impl Iterator<Item = &KeySwap> {
        let host = Self::normalize_host(host);
        self.keys.iter().filter(move |key| host.is_some() && Self::normalize_host(&key.host) == host)
    }

    /// Returns the host normalized for comparison: lower case, no brackets, no final dot; addresses in their
    /// shortest form, IPv4-mapped IPv6 as IPv4. `None` if it is not a host.
    pub fn normalize_host(host: &str) -> Option<String> {
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if let Some(ip) = bare {
            return ip.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical().to_string());
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(ip.to_canonical().to_string());
        }
        normalize_domain(host.strip_suffix('.').unwrap_or(host)).ok()
    }

    /// Returns the message for a host that is not listed (SEC-3).
    pub fn refusal_message(host: &str) -> String {
        format!("egress blocked: domain {host} not in allowlist (mode=allowlist)")
    }

    fn parsed_entries(&self) -> impl Iterator<Item = EgressEntry> {
        self.allow.iter().filter_map(|entry| parse_entry(entry).ok())
    }
}

/// A parsed entry of the list.
struct EgressEntry {
    what: HostPattern,
    port: Option<u16>,
}

#[derive(PartialEq, Eq)]
enum HostPattern {
    Name(String),
    /// All subdomains of this domain, excluding the domain itself.
    Below(String),
    Address(IpAddr),
}

impl EgressEntry {
    fn covers_port(&self, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
    }
}

impl HostPattern {
    /// Returns whether the pattern covers `host`, which must be normalized by [`EgressRules::normalize_host`].
    fn covers_host(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name == host,
            Self::Below(domain) => {
                host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            Self::Address(ip) => host.parse() == Ok(*ip),
        }
    }
}

impl std::fmt::Display for EgressEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.what, self.port) {
            (HostPattern::Name(name), _) => f.write_str(name)?,
            (HostPattern::Below(domain), _) => write!(f, "*.{domain}")?,
            (HostPattern::Address(IpAddr::V6(ip)), Some(_)) => write!(f, "[{ip}]")?,
            (HostPattern::Address(ip), _) => write!(f, "{ip}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

/// Parses an entry. The error describes the expected form.
fn parse_entry(entry: &str) -> Result<EgressEntry, String> {
    if entry.contains("://") {
        return Err("it is a URL; write only the host, such as `api.example.com`".to_owned());
    }
    if entry.contains('/') {
        return Err("specify a host without a path or a network range, such as `api.example.com`".to_owned());
    }
    if let Ok(ip) = entry.parse::<IpAddr>() {
        return Ok(EgressEntry { what: HostPattern::Address(ip.to_canonical()), port: None });
    }
    let (host, port) = split_port(entry)?;
    let what = if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap_or(inner);
        let ip =
            inner.parse::<Ipv6Addr>().map_err(|_| "expected an IPv6 address between brackets".to_owned())?;
        HostPattern::Address(IpAddr::V6(ip).to_canonical())
    } else if let Ok(ip) = host.parse::<Ipv4Addr>() {
        HostPattern::Address(IpAddr::V4(ip))
    } else if let Some(rest) = host.strip_prefix("*.") {
        HostPattern::Below(
            normalize_domain(rest).map_err(|why| format!("expected a domain after `*.`: {why}"))?,
        )
    } else {
        HostPattern::Name(normalize_domain(host)?)
    };
    Ok(EgressEntry { what, port })
}

/// Splits `host:port`, or `host` alone; keeps the brackets of an IPv6 address.
fn split_port(entry: &str) -> Result<(&str, Option<u16>), String> {
    let at = match entry.rfind(']') {
        Some(end) if entry.len() == end + 1 => return Ok((entry, None)),
        Some(end) if entry.as_bytes().get(end + 1) == Some(&b':') => Some(end + 1),
        Some(_) => return Err("only `:port` may follow the address in brackets".to_owned()),
        None => entry.find(':'),
    };
    let Some(at) = at else { return Ok((entry, None)) };
    let (host, port) = (&entry[..at], &entry[at + 1..]);
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok((host, Some(port))),
        _ => Err("expected a port from 1 to 65535 after `:` (write an IPv6 address with a port in brackets)"
            .to_owned()),
    }
}

/// Returns a domain in lower case, validated by the rules for host names (RFC 1123) with `_` allowed. The error
/// describes the expected form.
fn normalize_domain(text: &str) -> Result<String, String> {
    let expected = "expected a domain such as `api.example.com` or `*.example.com`, or an address";
    if text.is_empty() {
        return Err(expected.to_owned());
    }
    if !text.is_ascii() {
        return Err("use the ASCII form (punycode: `xn--…`)".to_owned());
    }
    if text.contains('*') {
        return Err("`*` is only allowed at the beginning, as in `*.example.com`".to_owned());
    }
    if text.len() > 253 {
        return Err("a domain may have at most 253 characters".to_owned());
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err(format!("empty part before or after a dot; {expected}"));
        }
        if label.len() > 63 {
            return Err("a part between dots may have at most 63 characters".to_owned());
        }
        if let Some(odd) = label.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_')) {
            return Err(format!("{odd:?} is not allowed in a domain; {expected}"));
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err(format!("no part may begin or end with `-`; {expected}"));
        }
    }
    // Resolvers interpret `127.1` and `0x7f000001` as addresses, so these are not names.
    let last = text.rsplit('.').next().unwrap_or(text);
    let hex = last.get(..2).is_some_and(|p| p.eq_ignore_ascii_case("0x"));
    if last.bytes().all(|b| b.is_ascii_digit()) || hex {
        return Err("write an IPv4 address as four decimal numbers from 0 to 255".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

fn is_variable(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.len() <= 128
}

/// Escapes control characters in an entry and truncates it for display.
fn display_entry(entry: &str) -> String {
    let mut text: String = entry.chars().take(80).flat_map(char::escape_debug).collect();
    if entry.chars().nth(80).is_some() {
        text.push('…');
    }
    text
}

/// Returns the reason why an address is not on a public network, or `None` if it is. Based on the special-purpose
/// registries (RFC 6890).
fn inner_address(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(ip) => inner_v4(ip),
        IpAddr::V6(ip) => inner_v6(ip),
    }
}

fn inner_v4(ip: Ipv4Addr) -> Option<&'static str> {
    Some(match ip.octets() {
        [169, 254, 169, 254] | [168, 63, 129, 16] | [100, 100, 100, 200] | [192, 0, 0, 192] => {
            "an address of a cloud's metadata service"
        }
        [0, 0, 0, 0] => "the unspecified address",
        [0, ..] => "a \"this network\" address",
        [127, ..] => "a loopback address",
        [169, 254, ..] => "a link-local address",
        [10, ..] | [192, 168, ..] => "a private address",
        [172, b, ..] if b & 0xf0 == 16 => "a private address",
        [100, b, ..] if b & 0xc0 == 64 => "a carrier-grade NAT address",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "a documentation address",
        [192, 0, 0, _] | [192, 88, 99, _] => "a special-purpose address",
        [198, 18 | 19, ..] => "a benchmarking address",
        [224..=239, ..] => "a multicast address",
        [255, 255, 255, 255] => "the broadcast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn inner_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        inner_v4(Ipv4Addr::new(a, b, c, d))
    };
    if ip.is_unspecified() {
        return Some("the unspecified address");
    }
    if ip.is_loopback() {
        return Some("a loopback address");
    }
    Some(match s {
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => {
            "an address of a cloud's metadata service"
        }
        // Mapped, IPv4-compatible, NAT64 (RFC 6052), 6to4: judge the embedded address.
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x2002, high, low, ..] => return v4(high, low),
        [0x64, 0xff9b, 1, ..] => "a local NAT64 address",
        [0x2001, 0, ..] => "a Teredo tunnel address",
        [a, ..] if a & 0xfe00 == 0xfc00 => "a private address",
        [a, ..] if a & 0xffc0 == 0xfe80 => "a link-local address",
        [a, ..] if a & 0xffc0 == 0xfec0 => "a private address",
        [a, ..] if a & 0xff00 == 0xff00 => "a multicast address",
        [0x2001, 0xdb8, ..] => "a documentation address",
        [0x3fff, b, ..] if b < 0x1000 => "a documentation address",
        [0x2001, 2, 0, ..] => "a benchmarking address",
        [0x2001, b, ..] if b < 0x200 => "a special-purpose address",
        [0x100, 0, 0, ..] => "a discard-only address",
        [0x5f00, ..] => "a special-purpose address",
        _ => return None,
    })
}

/// The result of an attempt to reach a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EgressVerdict {
    /// The connection was made.
    Allowed,
    /// The host is not listed, or its address is never allowed.
    Refused,
    /// The host is allowed, but the connection failed.
    Failed,
}

/// An attempt to reach a host from a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRecord {
    /// Time of the attempt.
    pub at: Timestamp,
    /// The requested host; empty if the request could not be parsed.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The result.
    pub verdict: EgressVerdict,
    /// The reason for a refusal or failure; empty if the connection was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Number of consecutive equal attempts. Zero: further bytes of an attempt that was already recorded.
    pub count: u32,
    /// Bytes sent out.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}
