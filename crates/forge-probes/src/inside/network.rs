//! Attempts on the network and on other channels to processes of the host.

use crate::attempts::{AttemptOutcome, EscapeAttempt, make_attempt};
use crate::host_facts::{HostFacts, probe_failed, probe_not_applicable, probe_passed, probe_untested};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Time after which a connection counts as failed.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

fn expect_unreachable(addresses: &[&str]) -> AttemptOutcome {
    AttemptOutcome::worst(addresses.iter().map(|address| {
        let Ok(parsed) = address.parse::<SocketAddr>() else {
            return probe_untested(format!("{address} is not an address"));
        };
        match TcpStream::connect_timeout(&parsed, CONNECT_TIMEOUT) {
            Ok(_) => probe_failed(format!("{address} answered")),
            // A refusal is a response too, except from the sandbox's own loopback.
            Err(error)
                if error.kind() == std::io::ErrorKind::ConnectionRefused && !parsed.ip().is_loopback() =>
            {
                probe_failed(format!("{address} refused the connection, so it was reached"))
            }
            Err(error) => probe_passed(format!("{address}: {error}")),
        }
    }))
}

pub(crate) fn outside_tcp(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| expect_unreachable(&["1.1.1.1:443", "8.8.8.8:53", "9.9.9.9:80"]))
}

pub(crate) fn metadata_service(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        expect_unreachable(&[
            "169.254.169.254:80",
            "169.254.170.2:80",
            "[fd00:ec2::254]:80",
            "100.100.100.200:80",
        ])
    })
}

pub(crate) fn container_gateways(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        expect_unreachable(&[
            "172.17.0.1:2375",
            "172.17.0.1:22",
            "10.0.2.2:22",
            "10.88.0.1:22",
            "192.168.0.1:80",
            "192.168.1.1:80",
        ])
    })
}

pub(crate) fn outside_ipv6(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        expect_unreachable(&["[2606:4700:4700::1111]:443", "[2001:4860:4860::8888]:53", "[fe80::1]:80"])
    })
}

pub(crate) fn host_loopback(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        let port = scene.tcp;
        AttemptOutcome::worst(
            [format!("127.0.0.1:{port}"), format!("[::1]:{port}"), format!("0.0.0.0:{port}")].map(
                |a| match a.parse().map(|address| TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)) {
                    Ok(Ok(_)) => probe_failed(format!("{a} of the host answered")),
                    Ok(Err(error)) => probe_passed(error),
                    Err(error) => probe_untested(error),
                },
            ),
        )
    })
}

pub(crate) fn host_loopback_udp(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        match UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"forge", ("127.0.0.1", scene.udp))) {
            // The canary on the host shows whether it arrived.
            Ok(_) => probe_passed("nothing arrived at the host"),
            Err(error) => probe_passed(error),
        }
    })
}

pub(crate) fn outside_udp(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        AttemptOutcome::worst(
            [
                ("0.0.0.0:0", "8.8.8.8:53"),
                ("0.0.0.0:0", "224.0.0.251:5353"),
                ("[::]:0", "[2001:4860:4860::8888]:53"),
            ]
            .map(|(from, to)| {
                match UdpSocket::bind(from).and_then(|socket| socket.send_to(b"forge", to)) {
                    Ok(_) => probe_failed(format!("a datagram went to {to}")),
                    Err(error) => probe_passed(format!("{to}: {error}")),
                }
            }),
        )
    })
}

/// A DNS query for example.com (RFC 1035): a header with one question, the name, type A, class IN.
const DNS_QUERY: &[u8] = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x03com\0\0\x01\0\x01";

pub(crate) fn resolve_names(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| {
        let configured = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let configured = configured
            .lines()
            .filter_map(|line| line.strip_prefix("nameserver"))
            .map(|a| a.trim().to_owned());
        let servers = ["127.0.0.53", "127.0.0.1", "127.0.0.11", "8.8.8.8"]
            .map(str::to_owned)
            .into_iter()
            .chain(configured);
        AttemptOutcome::worst(servers.map(|server| {
            let any = if server.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
            let asked = UdpSocket::bind(any).and_then(|socket| {
                socket.set_read_timeout(Some(CONNECT_TIMEOUT / 5))?;
                socket.connect((server.as_str(), 53))?;
                socket.send(DNS_QUERY)?;
                socket.recv(&mut [0; 512])
            });
            match asked {
                Ok(_) => probe_failed(format!("{server} answered a name query")),
                Err(error) => probe_passed(format!("{server}: {error}")),
            }
        }))
    })
}

pub(crate) fn network_interfaces(scene: &HostFacts) -> AttemptOutcome {
    scene.unless_host_network(|| match std::fs::read_to_string("/proc/net/dev") {
        Err(error) => probe_untested(error),
        Ok(text) => {
            let names = text.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim);
            // Interfaces that some kernels add to every new network: tunnels that are down and have no peer.
            let inert = [
                "lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0",
                "ip6gre0",
            ];
            let extra: Vec<_> = names.filter(|name| !inert.contains(name)).collect();
            if extra.is_empty() {
                probe_passed("loopback only")
            } else {
                probe_failed(format!("there is {}", extra.join(", ")))
            }
        }
    })
}

pub(crate) fn abstract_socket(scene: &HostFacts) -> AttemptOutcome {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&scene.socket);
    match address.and_then(|address| UnixStream::connect_addr(&address)) {
        Ok(_) => probe_failed("an abstract socket of the host answered"),
        Err(error) => probe_passed(error),
    }
}

fn expect_no_sockets(paths: &[&str]) -> AttemptOutcome {
    AttemptOutcome::worst(paths.iter().map(|path| match UnixStream::connect(path) {
        Ok(_) => probe_failed(format!("{path} answered")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            probe_passed(format!("{path} does not exist"))
        }
        Err(error) => probe_failed(format!("{path} exists here ({error})")),
    }))
}

pub(crate) fn docker_socket(_: &HostFacts) -> AttemptOutcome {
    expect_no_sockets(&[
        "/var/run/docker.sock",
        "/run/docker.sock",
        "/run/podman/podman.sock",
        "/run/docker/containerd/containerd.sock",
    ])
}

pub(crate) fn containerd_socket(_: &HostFacts) -> AttemptOutcome {
    expect_no_sockets(&[
        "/run/containerd/containerd.sock",
        "/run/containerd/containerd.sock.ttrpc",
        "/run/crio/crio.sock",
    ])
}

pub(crate) fn system_buses(_: &HostFacts) -> AttemptOutcome {
    expect_no_sockets(&[
        "/run/dbus/system_bus_socket",
        "/run/systemd/private",
        "/run/systemd/notify",
        "/run/snapd.socket",
        "/tmp/.X11-unix/X0",
    ])
}

pub(crate) fn shared_memory(scene: &HostFacts) -> AttemptOutcome {
    let rows = std::fs::read_to_string("/proc/sysvipc/shm").map_or(0, |text| text.lines().skip(1).count());
    let Some(key) = scene.memory else { return probe_not_applicable("the host could not create a segment") };
    if rows > 0 {
        return probe_failed(format!("{rows} segments of other processes are visible"));
    }
    make_attempt(&EscapeAttempt::SharedMemory(key))
}

pub(crate) fn message_queue(scene: &HostFacts) -> AttemptOutcome {
    scene.queue.map_or_else(
        || probe_not_applicable("the host could not create a queue"),
        |key| make_attempt(&EscapeAttempt::MessageQueue(key)),
    )
}

pub(crate) fn posix_queue(scene: &HostFacts) -> AttemptOutcome {
    let queue = scene.posix.clone();
    queue.map_or_else(
        || probe_not_applicable("the host could not create a queue"),
        |name| make_attempt(&EscapeAttempt::PosixQueue(name)),
    )
}

pub(crate) fn shared_shm_file(scene: &HostFacts) -> AttemptOutcome {
    match std::path::Path::new("/dev/shm").join(scene.attempt_name("host")).exists() {
        true => probe_failed("the host's /dev/shm is visible"),
        false => probe_passed("/dev/shm belongs to the sandbox"),
    }
}
