//! What a box may reach: which entries make sense, what they allow, and which addresses nobody reaches.

use forge_types::{EgressRules, KeySwap};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn rules(allow: &[&str]) -> EgressRules {
    let allow: Vec<String> = allow.iter().map(|&e| e.to_owned()).collect();
    EgressRules::new(&allow, Vec::new()).expect("the entries make sense")
}

fn key(host: &str, variable: &str) -> KeySwap {
    KeySwap { host: host.to_owned(), variable: variable.to_owned() }
}

fn refused(allow: &[&str], ip: &str, port: u16) -> Option<&'static str> {
    rules(allow).refuses_address(ip.parse().expect("an address"), port)
}

#[test]
fn entries_are_kept_in_one_form() {
    for (written, kept) in [
        ("API.Example.COM", "api.example.com"),
        ("*.Example.com", "*.example.com"),
        ("example.com:443", "example.com:443"),
        ("*.example.com:8443", "*.example.com:8443"),
        ("localhost", "localhost"),
        ("_srv.a-b.example", "_srv.a-b.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[2001:DB8:0:0::1]:443", "[2001:db8::1]:443"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
    ] {
        assert_eq!(EgressRules::check_entry(written).as_deref(), Ok(kept), "{written}");
        assert_eq!(EgressRules::check_entry(kept).as_deref(), Ok(kept), "{kept}");
    }
    assert_eq!(rules(&["a.example", "A.EXAMPLE"]).allow, ["a.example"]);
}

#[test]
fn what_is_no_entry_is_named_with_what_is_expected() {
    let long_label = format!("{}.com", "a".repeat(64));
    let long_name = ["abcdefgh"; 32].join(".");
    for (entry, hint) in [
        ("", "a domain such as"),
        ("*", "`*` is only allowed"),
        ("*.", "after `*.`"),
        ("*example.com", "`*` is only allowed"),
        ("api.*.com", "`*` is only allowed"),
        ("*.*.com", "`*` is only allowed"),
        ("https://example.com", "URL"),
        ("example.com/path", "a path"),
        ("10.0.0.0/8", "network range"),
        ("exa mple.com", "is not allowed in a domain"),
        (" example.com", "is not allowed in a domain"),
        ("example.com\n", "is not allowed in a domain"),
        ("user@example.com", "is not allowed in a domain"),
        ("example.com?x", "is not allowed in a domain"),
        ("a..b", "empty part"),
        (".example.com", "empty part"),
        ("example.com.", "empty part"),
        ("-a.example", "begin or end with"),
        ("bücher.example", "punycode"),
        ("example.com:0", "port"),
        ("example.com:65536", "port"),
        ("example.com:+80", "port"),
        ("example.com:", "port"),
        ("example.com:https", "port"),
        ("::1:443x", "port"),
        ("[::1", "port"),
        ("[::1]x", "only `:port`"),
        ("[127.0.0.1]", "IPv6 address"),
        ("256.1.1.1", "four decimal numbers"),
        ("127.1", "four decimal numbers"),
        ("2130706433", "four decimal numbers"),
        ("0x7f.0x1", "four decimal numbers"),
        (long_label.as_str(), "at most 63"),
        (long_name.as_str(), "at most 253"),
    ] {
        let error = EgressRules::new(&[entry.to_owned()], Vec::new()).unwrap_err();
        assert!(error.to_string().contains(hint), "{entry:?}: {error}");
        assert!(error.to_string().len() < 300 && !error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn hosts_are_compared_whole_and_without_case() {
    let rules = rules(&["api.example.com", "*.pages.example", "one.example:443", "127.0.0.1", "[::1]:80"]);
    for (host, port, allowed) in [
        ("api.example.com", 80, true),
        ("API.EXAMPLE.COM", 1, true),
        ("api.example.com.", 80, true),
        ("xapi.example.com", 80, false),
        ("x.api.example.com", 80, false),
        ("example.com", 80, false),
        ("api.example.com.evil.example", 80, false),
        ("a.pages.example", 80, true),
        ("b.a.PAGES.example", 80, true),
        ("pages.example", 80, false),
        (".pages.example", 80, false),
        ("xpages.example", 80, false),
        ("one.example", 443, true),
        ("one.example", 80, false),
        ("127.0.0.1", 80, true),
        ("[::ffff:127.0.0.1]", 80, true),
        ("127.1", 80, false),
        ("2130706433", 80, false),
        ("[::1]", 80, true),
        ("::1", 80, true),
        ("0:0:0:0:0:0:0:1", 80, true),
        ("[::1]", 81, false),
        ("", 80, false),
        ("a b", 80, false),
    ] {
        assert_eq!(rules.allows_host(host, port), allowed, "{host}:{port}");
    }
}

#[test]
fn inner_addresses_are_refused_in_every_form() {
    for ip in [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.1.1",
        "100.64.0.1",
        "100.127.255.255",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "198.18.0.1",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "fe80::1",
        "febf::1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "3fff::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:a00:1::",
        "2001::1",
        "2001:2::1",
        "2001:10::1",
        "100::1",
        "5f00::1",
    ] {
        assert!(refused(&["*.example"], ip, 443).is_some(), "{ip}");
    }
    for ip in [
        "1.1.1.1",
        "172.15.0.1",
        "172.32.0.1",
        "100.63.0.1",
        "100.128.0.1",
        "192.1.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "64:ff9b::101:101",
        "2002:101:101::1",
        "::ffff:1.1.1.1",
        "2001:4860::8888",
    ] {
        assert_eq!(refused(&[], ip, 443), None, "{ip}");
    }
    let metadata = "an address of a cloud's metadata service";
    assert_eq!(refused(&[], "169.254.169.254", 80), Some(metadata));
    assert_eq!(refused(&[], "::ffff:169.254.169.254", 80), Some(metadata));
}

#[test]
fn an_inner_address_is_reached_only_if_it_stands_on_the_list_itself() {
    assert_eq!(refused(&["127.0.0.1"], "127.0.0.1", 80), None);
    assert_eq!(refused(&["127.0.0.1"], "::ffff:127.0.0.1", 80), None);
    assert!(refused(&["127.0.0.1"], "127.0.0.2", 80).is_some());
    assert!(refused(&["127.0.0.1"], "::1", 80).is_some());
    assert!(refused(&["127.0.0.1"], "64:ff9b::7f00:1", 80).is_some());
    assert!(refused(&["localhost"], "127.0.0.1", 80).is_some());
    assert_eq!(refused(&["127.0.0.1:80"], "127.0.0.1", 80), None);
    assert!(refused(&["127.0.0.1:80"], "127.0.0.1", 22).is_some());
}

#[test]
fn keys_go_to_exact_hosts_that_are_on_the_list() {
    let new = |allow: &[&str], keys: Vec<KeySwap>| {
        EgressRules::new(&allow.iter().map(|&e| e.to_owned()).collect::<Vec<_>>(), keys)
    };
    let good = new(&["*.example", "b.test:443"], vec![key("A.example", "API_KEY"), key("b.test", "API_KEY")])
        .unwrap();
    assert_eq!(good.keys, [key("a.example", "API_KEY"), key("b.test", "API_KEY")]);
    assert_eq!(good.keys[0].placeholder(), "forge-key-api-key");
    assert_eq!(good.keys_for("A.EXAMPLE.").count(), 1);
    assert_eq!(good.keys_for("c.example").count(), 0);
    for (host, variable, hint) in [
        ("*.example", "K", "one exact host"),
        ("a.example:443", "K", "without a port"),
        ("a.other", "K", "not on the list"),
        ("a.example", "", "letters, digits"),
        ("a.example", "1K", "letters, digits"),
        ("a.example", "A B", "letters, digits"),
    ] {
        let error = new(&["*.example"], vec![key(host, variable)]).unwrap_err().to_string();
        assert!(error.contains(hint), "{host} {variable}: {error}");
    }
    let clash = new(&["*.example"], vec![key("a.example", "A_KEY"), key("a.example", "a_key")]).unwrap_err();
    assert!(clash.to_string().contains("`A_KEY`"), "{clash}");
}

#[test]
fn the_refusal_says_what_is_missing() {
    let text = "egress blocked: domain a.example not in allowlist (mode=allowlist)";
    assert_eq!(EgressRules::refusal_message("a.example"), text);
}

proptest! {
    #[test]
    fn no_text_makes_the_rules_panic(entry in "\\PC{0,40}", host in "\\PC{0,40}", port: u16) {
        let _ = EgressRules::check_entry(&entry);
        let raw = EgressRules { allow: vec![entry], keys: Vec::new() };
        let _ = raw.allows_host(&host, port);
    }

    #[test]
    fn what_is_accepted_is_accepted_again_and_allows_itself(entry in "(\\*\\.)?[a-zA-Z0-9._-]{1,30}(:[0-9]{1,5})?") {
        if let Ok(kept) = EgressRules::check_entry(&entry) {
            prop_assert_eq!(EgressRules::check_entry(&kept).unwrap(), kept.clone());
            let (host, port) = kept.rsplit_once(':').map_or((kept.as_str(), 80), |(h, p)| (h, p.parse().unwrap()));
            let host = host.strip_prefix('*').map_or_else(|| host.to_owned(), |rest| format!("x{rest}"));
            prop_assert!(rules(&[&kept]).allows_host(&host, port));
            let evil = format!("{host}.evil.test");
            prop_assert!(!rules(&[&kept]).allows_host(&evil, port));
        }
    }

    #[test]
    fn an_address_is_judged_alike_in_each_of_its_forms(bits: u32, port: u16) {
        let v4 = Ipv4Addr::from_bits(bits);
        let [a, b, c, d] = v4.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        let none = EgressRules::default();
        let verdict = none.refuses_address(IpAddr::V4(v4), port).is_some();
        for form in [
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ] {
            prop_assert_eq!(none.refuses_address(IpAddr::V6(form), port).is_some(), verdict, "{}", form);
        }
    }
}
