//! The way out: the host is on the list, its name is resolved here, each address is judged, and the connection goes to
//! a judged address itself. There is no second resolution that could give another answer.

use super::Shared;
use super::fault::Fault;
use super::head::Authority;
use forge_types::EgressRules;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// Where names are resolved.
#[derive(Clone, Debug, Default)]
pub enum Names {
    /// By the system, outside the box.
    #[default]
    System,
    /// By this table alone, whose names are in lower case.
    Table(BTreeMap<String, Vec<IpAddr>>),
}

/// Whether the list lets `to` through.
pub(super) fn judge(rules: &EgressRules, to: &Authority) -> Result<(), Fault> {
    let (host, port) = (&to.host, to.port);
    if rules.allows_host(host, port) {
        return Ok(());
    }
    let why = EgressRules::refusal(host);
    let ports = rules.ports_of(host);
    if ports.is_empty() {
        let hint = format!("If the run needs it, add \"{}\" to egress.allowed_domains.", to.written(port));
        return Err(Fault::refused(why, hint));
    }
    let listed: Vec<String> = ports.iter().map(u16::to_string).collect();
    let hint = format!(
        "It is listed for port {} only; add \"{host}:{port}\" to egress.allowed_domains.",
        listed.join(", ")
    );
    Err(Fault::refused(format!("{why}: not at port {port}"), hint))
}

/// Connects to a host.
pub(super) async fn dial(shared: &Shared, to: &Authority) -> Result<TcpStream, Fault> {
    judge(&shared.rules, to)?;
    let until = Instant::now() + shared.limits.connect;
    let late = || Fault::failed(504, format!("{} did not answer in time", to.written(0)));
    let resolved = timeout_at(until, resolve(&shared.names, to)).await.map_err(|_| late())?;
    let addresses = resolved.map_err(|error| {
        Fault::failed(502, format!("the name {} could not be resolved: {}", to.host, words(&error)))
    })?;
    let mut last = Fault::failed(502, format!("the name {} has no address", to.host));
    let mut refused = None;
    for address in addresses {
        let ip = address.ip();
        if let Some(reason) = shared.rules.refuses_address(ip, to.port) {
            refused.get_or_insert_with(|| inner(to, ip, reason));
            continue;
        }
        match timeout_at(until, TcpStream::connect(address)).await {
            Err(_) => return Err(late()),
            Ok(Ok(stream)) if is_this_machine(&stream) && !shared.rules.lists_address(ip, to.port) => {
                refused.get_or_insert_with(|| inner(to, ip, "an address of this machine"));
            }
            Ok(Ok(stream)) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                refused = None;
                last =
                    Fault::failed(502, format!("{} could not be reached: {}", to.written(0), words(&error)));
            }
        }
    }
    Err(refused.unwrap_or(last))
}

/// A connection to an own address has that address at both ends, public ones included. Nothing has been sent on it yet.
fn is_this_machine(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(here), Ok(there)) if here.ip() == there.ip())
}

fn inner(to: &Authority, ip: IpAddr, reason: &str) -> Fault {
    let why = if to.host.parse() == Ok(ip) {
        format!("egress blocked: {ip} is {reason}")
    } else {
        format!("egress blocked: {} resolves to {ip}, {reason}", to.host)
    };
    Fault::refused(
        why,
        format!("If that is meant, add the address itself, \"{ip}\", to egress.allowed_domains."),
    )
}

async fn resolve(names: &Names, to: &Authority) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = to.host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(ip, to.port)]);
    }
    match names {
        Names::System => Ok(tokio::net::lookup_host((to.host.as_str(), to.port)).await?.collect()),
        Names::Table(table) => match table.get(&to.host) {
            Some(ips) => Ok(ips.iter().map(|&ip| SocketAddr::new(ip, to.port)).collect()),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "there is no such name")),
        },
    }
}

/// An error without the number that Rust adds.
pub(super) fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
