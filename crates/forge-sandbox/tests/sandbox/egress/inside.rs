//! Egress from inside a sandbox: its programs reach listed hosts, only through the proxy, and never see a key.

use super::stage::{KEY, PLACEHOLDER, host};
use crate::as_both;
use crate::rig::{command, err, folder, helper, out, spec};
use forge_ports::Sandbox as _;
use forge_ports::sandbox::Error;
use forge_sandbox::{BackendOptions, Backends};
use forge_types::{EgressRules, EgressVerdict, KeySwap, NetworkPolicy, RunId};
use std::collections::BTreeMap;

/// Script that tries all ways out and prints one line for each. Argument: the port of the listed host.
const TRY: &str = r#"
import os, socket, ssl, sys, urllib.request, urllib.error
port = sys.argv[1]
def ask(name, url):
    request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["API_KEY"]})
    try:
        print(name, "reached", urllib.request.urlopen(request, timeout=20).read().decode().replace("\r\n", " "))
    except urllib.error.HTTPError as error:
        print(name, error.code, error.read().decode().replace("\n", " "))
    except Exception as error:
        print(name, "failed", error)
def dial(name, family, address):
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.settimeout(5)
        try:
            s.connect(address)
            print(name, "reached")
        except OSError as error:
            print(name, "failed", error)
ask("listed", f"http://127.0.0.1:{port}/hello")
ask("other", "http://other.example/")
ask("tunnel", "https://other.example/")
ask("metadata", "http://169.254.169.254/latest/meta-data/")
ask("port", f"http://127.0.0.1:{int(port) ^ 1}/")
ask("tls", f"https://127.0.0.1:{port}/")
dial("loopback", socket.AF_INET, ("127.0.0.1", int(port)))
dial("outside", socket.AF_INET, ("192.0.2.1", 80))
dial("outside6", socket.AF_INET6, ("2001:db8::1", 80))
try:
    print("name", "reached", socket.getaddrinfo("other.example", 80))
except OSError as error:
    print("name", "failed", error)
print("roots", ssl.create_default_context().cert_store_stats()["x509_ca"] > 0)
print("variables", [v for v in os.environ.values() if "sk-live" in v])
"#;

as_both! {
    async fn programs_reach_what_is_listed_and_nothing_else() {
        let (port, seen) = host().await;
        let (dir, data) = (folder(), folder());
        let key = KeySwap { host: "127.0.0.1".to_owned(), variable: "API_KEY".to_owned() };
        let mut spec = spec(dir.path(), "native");
        let rules = EgressRules::new(&[format!("127.0.0.1:{port}")], vec![key]).unwrap();
        spec.network = NetworkPolicy::Allow(rules);
        let keys = BTreeMap::from([("API_KEY".to_owned(), KEY.to_owned())]);
        let backends = Backends::new(BackendOptions { exe: Some(helper()), keys, ..BackendOptions::under_directory(data.path()) });
        let room = backends.open(&spec, RunId::generate(), None).await.expect("the box opens");
        let ran = room.exec(command(&["python3", "-c", TRY, &port.to_string()]), &()).await.unwrap();
        let text = out(&ran);
        let line = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(&format!("{name} "))).unwrap_or_else(|| panic!("{name}: {text} {}", err(&ran)))
        };
        let refusal = "egress blocked: domain other.example not in allowlist (mode=allowlist)";
        assert!(line("listed").starts_with("reached GET /hello HTTP/1.1"), "{text}");
        assert!(line("listed").contains(PLACEHOLDER), "{text}");
        assert!(line("other").starts_with("403 ") && line("other").contains(refusal), "{text}");
        assert!(line("tunnel").starts_with("failed ") && line("tunnel").contains(refusal), "{text}");
        assert!(line("metadata").starts_with("403 ") && line("port").starts_with("403 "), "{text}");
        // The host speaks no TLS: the program trusted the proxy's own certificate, and the proxy found none behind it.
        assert!(line("tls").starts_with("502 TLS with 127.0.0.1 failed"), "{text}");
        for way in ["loopback", "outside", "outside6", "name"] {
            assert!(line(way).starts_with("failed "), "{way}: {text}");
        }
        assert_eq!((line("roots"), line("variables")), ("True", "[]"));
        assert!(!text.contains(KEY), "{text}");
        let heard = seen.lock().unwrap().clone();
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].contains(&format!("Authorization: Bearer {KEY}")), "{heard:?}");
        let reached = room.drain_egress_records();
        let count = |verdict| reached.iter().filter(|r| r.verdict == verdict).map(|r| r.count).sum::<u32>();
        assert_eq!(count(EgressVerdict::Allowed), 1, "{reached:?}");
        assert_eq!(count(EgressVerdict::Refused), 4, "{reached:?}");
        assert_eq!(count(EgressVerdict::Failed), 1, "{reached:?}");
        assert_eq!(room.drain_egress_records(), []);
    }

    async fn certificates_lie_with_the_view_and_a_key_that_is_of_no_use_is_the_callers_to_mend() {
        let (dir, data) = (folder(), folder());
        let key = KeySwap { host: "127.0.0.1".to_owned(), variable: "API_KEY".to_owned() };
        let mut spec = spec(dir.path(), "native");
        spec.network = NetworkPolicy::Allow(EgressRules::new(&["127.0.0.1".to_owned()], vec![key]).unwrap());
        let backends = |keys: &[(&str, &str)]| {
            let keys = keys.iter().map(|(name, key)| ((*name).to_owned(), (*key).to_owned())).collect();
            Backends::new(BackendOptions { exe: Some(helper()), keys, ..BackendOptions::under_directory(data.path()) })
        };
        for keys in [&[][..], &[("API_KEY", "a\nb\nc")], &[("API_KEY", "x")]] {
            let Err(error) = backends(keys).open(&spec, RunId::generate(), None).await else { panic!("{keys:?}") };
            assert!(matches!(&error, Error::Invalid { why } if why.contains("`API_KEY`")), "{error:?}");
        }
        let (run, view) = (RunId::generate(), data.path().join("runs"));
        let room = backends(&[("API_KEY", KEY)]).open(&spec, run, None).await.unwrap();
        let shown = room.exec(command(&["grep", "-c", "BEGIN CERTIFICATE", "/run/forge/ca.pem"]), &()).await.unwrap();
        assert_eq!(shown.exit_code, 0, "{}", err(&shown));
        let pems = || {
            let entries = std::fs::read_dir(view.join(run.to_string()).join("view")).unwrap().flatten();
            entries.filter(|e| e.path().extension().is_some_and(|x| x == "pem")).count()
        };
        assert_eq!(pems(), 1);
        drop(room);
        while pems() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
