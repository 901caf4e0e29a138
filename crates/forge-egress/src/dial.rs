//! Outgoing connections. The host must be on the allowlist, its name is resolved here, every address is checked, and
//! the connection is made to a checked address. No second resolution can return a different one.

use super::ProxyState;
use super::head::Authority;
use super::proxy_error::ProxyError;
use forge_types::EgressRules;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// A source of name resolution.
#[derive(Clone, Debug, Default)]
pub enum NameResolver {
    /// The system resolver, outside the sandbox.
    #[default]
    System,
    /// This table only; its names are in lower case.
    Table(BTreeMap<String, Vec<IpAddr>>),
}

/// Checks that the allowlist permits `to`.
pub(super) fn check_allowed(rules: &EgressRules, to: &Authority) -> Result<(), ProxyError> {
    let (host, port) = (&to.host, to.port);
    if rules.allows_host(host, port) {
        return Ok(());
    }
    let why = EgressRules::refusal_message(host);
    let ports = rules.ports_of(host);
    if ports.is_empty() {
        let hint =
            format!("If the run needs it, add \"{}\" to egress.allowed_domains.", to.to_host_header(port));
        return Err(ProxyError::refused(why, hint));
    }
    let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
    let hint = format!(
        "It is listed for port {} only; add \"{host}:{port}\" to egress.allowed_domains.",
        listed.join(", ")
    );
    Err(ProxyError::refused(format!("{why}: not at port {port}"), hint))
}

/// Connects to a host.
pub(super) async fn dial_host(shared: &ProxyState, to: &Authority) -> Result<TcpStream, ProxyError> {
    check_allowed(&shared.rules, to)?;
    let until = Instant::now() + shared.limits.connect;
    let late = || ProxyError::failed(504, format!("{} did not respond in time", to.to_host_header(0)));
    let resolved = timeout_at(until, resolve_host(&shared.names, to)).await.map_err(|_| late())?;
    let addresses = resolved.map_err(|error| {
        ProxyError::failed(
            502,
            format!("the name {} could not be resolved: {}", to.host, describe_io_error(&error)),
        )
    })?;
    let mut last = ProxyError::failed(502, format!("the name {} has no address", to.host));
    let mut refused = None;
    for address in addresses {
        let ip = address.ip();
        if let Some(reason) = shared.rules.refuses_address(ip, to.port) {
            refused.get_or_insert_with(|| refuse_address(to, ip, reason));
            continue;
        }
        match timeout_at(until, TcpStream::connect(address)).await {
            Err(_) => return Err(late()),
            Ok(Ok(stream)) if is_this_machine(&stream) && !shared.rules.lists_address(ip, to.port) => {
                refused.get_or_insert_with(|| refuse_address(to, ip, "an address of this machine"));
            }
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                refused = None;
                last = ProxyError::failed(
                    502,
                    format!("{} could not be reached: {}", to.to_host_header(0), describe_io_error(&error)),
                );
            }
        }
    }
    Err(refused.unwrap_or(last))
}

/// Returns whether a connection is to this machine: then both ends have the same address, even a public one. No data
/// has been sent on it yet.
fn is_this_machine(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(here), Ok(there)) if here.ip() == there.ip())
}

fn refuse_address(to: &Authority, ip: IpAddr, reason: &str) -> ProxyError {
    let why = if to.host.parse() == Ok(ip) {
        format!("egress blocked: {ip} is {reason}")
    } else {
        format!("egress blocked: {} resolves to {ip}, {reason}", to.host)
    };
    ProxyError::refused(
        why,
        format!("If this is intended, add the address itself, \"{ip}\", to egress.allowed_domains."),
    )
}

async fn resolve_host(names: &NameResolver, to: &Authority) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    match names {
        NameResolver::System => Ok(tokio::net::lookup_host((to.host.as_str(), to.port)).await?.collect()),
        NameResolver::Table(table) => match table.get(&to.host) {
            Some(ips) => Ok(ips.iter().map(|&ip| SocketAddr::new(ip, to.port)).collect()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no such name")),
        },
    }
}

/// Formats an error without the number that Rust appends.
pub(super) fn describe_io_error(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
