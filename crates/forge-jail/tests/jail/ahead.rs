//! Sandboxes that are started before their purpose is known.

use std::fs;

use forge_jail::{HostBind, Jail, JailSpec, MissingSource, NetworkAccess, PrewarmedJail, RawBytes};

use crate::both;
use crate::rig::{Boxed, init_exe, workspace};

both! {
    fn a_box_that_was_begun_becomes_the_one_that_is_asked_for() {
        let (first, dir, shown) = (workspace(), workspace(), workspace());
        fs::write(first.path().join("not-mine"), "x").unwrap();
        fs::write(dir.path().join("mine"), "text").unwrap();
        fs::write(dir.path().join("secret"), "key").unwrap();
        fs::write(shown.path().join("data"), "shown").unwrap();
        let spare = PrewarmedJail::start(&JailSpec::new("begun", first.path()), &init_exe()).unwrap();
        let mut spec = JailSpec::new("asked", dir.path());
        spec.masked = vec![RawBytes::from("secret")];
        spec.env.push((RawBytes::from("MARK"), RawBytes::from("this")));
        spec.binds = vec![HostBind { examined: None, source: shown.path().into(), target: "/opt/shown".into(), missing: MissingSource::Fail }];
        assert!(spare.can_become(&spec));
        let jail = spare.finish(&spec).expect("the box is finished");
        let names = |jail: &Jail| jail.layers().into_iter().map(|l| (l.layer, l.state)).collect::<Vec<_>>();
        let b = Boxed { jail, dir };
        let done = b.sh("cat mine; echo; ls /workspace; cat secret; cat /opt/shown/data; echo $MARK; echo new > made; id -u | grep -qx 0 || echo user");
        assert_eq!(done.out, "text\nmine\nsecret\nshownthis\nuser\n", "{}", done.err);
        assert_eq!(fs::read_to_string(b.path("made")).unwrap(), "new\n");
        assert!(!first.path().join("made").exists());
        // No layer is missing in comparison with a sandbox started from scratch.
        let mut begun: Vec<_> = names(&b.jail).iter().map(|l| format!("{:?}", l.0)).collect();
        let mut plain: Vec<_> = names(&Boxed::new().jail).iter().map(|l| format!("{:?}", l.0)).collect();
        begun.sort();
        plain.sort();
        assert_eq!(begun, plain);
    }

    fn a_box_that_was_begun_for_something_else_does_not_fit() {
        let dir = workspace();
        let ground = JailSpec::new("begun", dir.path());
        let spare = PrewarmedJail::start(&ground, &init_exe()).unwrap();
        let unfit = |change: &dyn Fn(&mut JailSpec)| {
            let mut spec = ground.clone();
            change(&mut spec);
            assert!(!spare.can_become(&spec), "{spec:?}");
        };
        unfit(&|spec| spec.network = NetworkAccess::Host);
        unfit(&|spec| spec.limits.memory_bytes = 64 << 20);
        unfit(&|spec| spec.limits.pids = 10);
        unfit(&|spec| spec.listen = Some(1));
        unfit(&|spec| spec.caches = Some(1 << 20));
        unfit(&|spec| spec.image = Some("/srv/image".into()));
        unfit(&|spec| spec.hostname = "other".into());
        assert!(spare.can_become(&ground));
    }
}

#[test]
fn nothing_is_left_of_a_box_that_nobody_asked_for() {
    let dir = workspace();
    let spec = JailSpec::new("unasked-for-0123456", dir.path());
    let spare = PrewarmedJail::start(&spec, &init_exe()).unwrap();
    assert!(forge_jail::is_jail_alive("unasked-for-0123456"));
    drop(spare);
    assert!(!forge_jail::is_jail_alive("unasked-for-0123456"));
    let groups = std::process::Command::new("find")
        .args(["/sys/fs/cgroup", "-name", "forge-*-unasked-for-0123456"])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&groups.stdout), "");
}
