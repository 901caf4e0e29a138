//! Environment variables through which programs in the sandbox find the proxy.

use forge_types::EgressRules;
use std::net::IpAddr;

/// Path in the sandbox of the CA certificates that its programs trust if hosts get keys.
pub const CA_BUNDLE_PATH: &str = "/run/forge/ca.pem";

/// Returns the variables for a sandbox with the proxy on its loopback at `port`.
///
/// Programs reach the sandbox's own loopback without the proxy. Loopback names and addresses on the allowlist are the
/// exception: they denote the host's loopback.
#[must_use]
pub fn proxy_environment(rules: &EgressRules, port: u16) -> Vec<(String, String)> {
    let proxy = format!("http://127.0.0.1:{port}");
    let mut variables = Vec::new();
    let mut set = |name: &str, value: &str| variables.push((name.to_owned(), value.to_owned()));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        set(name, &proxy);
        set(&name.to_ascii_lowercase(), &proxy);
    }
    let own = ["127.0.0.1", "localhost", "::1"].into_iter().filter(|host| !lists_host(rules, host));
    let own = own.collect::<Vec<_>>().join(",");
    set("NO_PROXY", &own);
    set("no_proxy", &own);
    // Node uses the variables above only if this is set.
    set("NODE_USE_ENV_PROXY", "1");
    for key in &rules.keys {
        set(&key.variable, &key.placeholder());
    }
    if !rules.keys.is_empty() {
        for name in [
            "SSL_CERT_FILE",
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "NODE_EXTRA_CA_CERTS",
            "GIT_SSL_CAINFO",
            "PIP_CERT",
            "CARGO_HTTP_CAINFO",
            "AWS_CA_BUNDLE",
            "DENO_CERT",
        ] {
            set(name, CA_BUNDLE_PATH);
        }
    }
    variables.sort();
    variables.dedup();
    variables
}

/// Returns whether an entry names this host itself, at any port.
fn lists_host(rules: &EgressRules, host: &str) -> bool {
    let is = |entry: &String| entry == host || entry.starts_with(&format!("{host}:"));
    let bracketed = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
    rules.allow.iter().any(|e| is(e) || (bracketed && e.starts_with(&format!("[{host}]"))))
}
