//! Further paths of a sandbox: writable directories, caches, the listener for a proxy outside.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, symlink};

use forge_jail::{
    Error, ExaminedSource, FileIdentity, HostBind, Jail, JailSpec, MissingSource, NetworkAccess,
};

use crate::both;
use crate::rig::{Boxed, init_exe, workspace};

both! {
    fn writable_folders_and_files_are_written_and_nothing_beside_them() {
        let (open, closed) = (workspace(), workspace());
        fs::write(open.path().join("file"), "old").unwrap();
        fs::write(closed.path().join("one"), "old").unwrap();
        fs::write(closed.path().join("two"), "old").unwrap();
        let bind = |source: std::path::PathBuf, target: &str, missing| HostBind { examined: None, source, target: target.into(), missing };
        let b = Boxed::with(|spec, _| {
            spec.writable = vec![
                bind(open.path().into(), "/opt/open", MissingSource::Fail),
                bind(closed.path().join("one"), "/opt/single", MissingSource::Fail),
                bind("/no/such/thing".into(), "/opt/absent", MissingSource::Skip),
            ];
            spec.binds = vec![bind(closed.path().into(), "/code", MissingSource::Fail)];
            spec.caches = Some(4 << 20);
        });
        let done = b.sh("cd /opt/open && echo new > file && mkdir d && echo x > d/f && echo new > /opt/single; ls /opt;
            cat /code/two; echo x > /code/two || echo fixed; echo x > /opt/other || echo fixed; stat -c %u file | grep -qx $(id -u) && echo mine
            echo c > /cache/c && cat /cache/c; head -c 8M /dev/zero > /cache/big 2>/dev/null || echo full; grep -E ' /(cache|opt/open) ' /proc/self/mountinfo | grep -c nosuid,nodev");
        assert_eq!(done.out, "open\nsingle\noldfixed\nfixed\nmine\nc\nfull\n2\n", "{}", done.err);
        assert_eq!(fs::read_to_string(open.path().join("file")).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(closed.path().join("one")).unwrap(), "new\n");
        let owner = fs::metadata(open.path()).unwrap().uid();
        assert_eq!(fs::metadata(open.path().join("d/f")).unwrap().uid(), owner);
    }

    fn a_bind_that_was_examined_shows_no_link_and_nothing_of_another_folder() {
        let (dir, secret) = (workspace(), workspace());
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(secret.path().join("file"), "secret").unwrap();
        let at = |name: &str| dir.path().join("data").join(name);
        let identity = |path: &std::path::Path| {
            fs::metadata(path).map(|meta| FileIdentity { dev: meta.dev(), ino: meta.ino() }).unwrap()
        };
        fs::write(at("file"), "old").unwrap();
        let examined = ExaminedSource { directory: identity(&dir.path().join("data")), entry: identity(&at("file")) };
        let start = || {
            let mut spec = JailSpec::new("examined", dir.path());
            let (source, target) = (at("file"), "/opt/file".into());
            spec.binds = vec![HostBind { examined: Some(examined), source, target, missing: MissingSource::Skip }];
            Jail::spawn(&spec, &init_exe()).map(|jail| Boxed { jail, dir: workspace() }.sh("cat /opt/file").out)
        };
        assert_eq!(start().unwrap(), "old");
        fs::rename(at("file"), at("moved")).unwrap();
        assert_eq!(start().unwrap(), "", "one that is gone is left out");
        fs::write(at("file"), "new").unwrap();
        assert_eq!(start().unwrap(), "new", "programs replace their files");
        let refused = |what: &str| {
            let refused = start().expect_err(what);
            assert!(matches!(refused, Error::Build { .. }), "{what}: {refused}");
        };
        fs::remove_file(at("file")).unwrap();
        symlink(secret.path().join("file"), at("file")).unwrap();
        refused("a link in its place");
        fs::rename(dir.path().join("data"), dir.path().join("moved")).unwrap();
        symlink(secret.path(), dir.path().join("data")).unwrap();
        refused("a link in the place of the folder");
        fs::remove_file(dir.path().join("data")).unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        fs::write(at("file"), "another").unwrap();
        refused("another folder");
    }

    fn a_listener_in_the_boxs_network_is_served_from_outside() {
        let b = Boxed::with(|spec, _| spec.listen = Some(3128));
        let listener = TcpListener::from(b.jail.claim_listener().expect("asked for"));
        assert!(b.jail.claim_listener().is_none());
        listener.set_nonblocking(false).unwrap();
        let served = std::thread::spawn(move || {
            let (mut peer, from) = listener.accept().unwrap();
            let mut asked = [0; 4];
            peer.read_exact(&mut asked).unwrap();
            peer.write_all(b"pong").unwrap();
            (asked, from.ip().is_loopback())
        });
        let done = b.sh("python3 -c '
import socket
s = socket.create_connection((\"127.0.0.1\", 3128)); s.sendall(b\"ping\"); print(s.recv(4).decode())
try: socket.create_connection((\"1.1.1.1\", 53), 2)
except OSError as e: print(e.errno)'");
        assert_eq!(done.out, "pong\n101\n", "{}", done.err);
        assert_eq!(served.join().unwrap(), (*b"ping", true));
        assert!(Boxed::new().jail.claim_listener().is_none());
    }

    fn a_listener_needs_a_network_of_its_own() {
        let mut spec = JailSpec::new("x", "/srv");
        spec.listen = Some(3128);
        spec.network = NetworkAccess::Host;
        let error = Jail::spawn(&spec, &init_exe()).unwrap_err().to_string();
        assert!(error.contains("listener"), "{error}");
    }
}

both! {
    fn a_box_is_known_by_its_label_until_all_of_it_is_dead() {
        let label = format!("places-{}", std::process::id());
        let b = Boxed::with(|spec, _| spec.label.clone_from(&label));
        b.sh("setsid sleep 600 & true");
        assert!(forge_jail::is_jail_alive(&label));
        drop(b);
        assert!(!forge_jail::is_jail_alive(&label));
    }
}
