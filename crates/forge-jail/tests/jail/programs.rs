//! Sandboxes with commands that may execute only the programs of a list.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use forge_jail::{
    DisabledProtection, Error, IsolationLayer, Jail, JailLayerState, JailSpec, PrewarmedJail, RawBytes,
};

use crate::both;
use crate::images::install;
use crate::rig::{Boxed, exec, init_exe, weak_exe, workspace};

fn listed(list: &[&str]) -> Boxed {
    Boxed::with(|spec, _| spec.programs = Some(list.iter().map(|name| (*name).to_owned()).collect()))
}

/// The loader named by programs of this machine.
fn loader() -> &'static str {
    let all = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"];
    all.into_iter().find(|path| Path::new(path).exists()).expect("a loader")
}

fn script(b: &Boxed, name: &str, text: &str) {
    fs::write(b.path(name), text).unwrap();
    fs::set_permissions(b.path(name), fs::Permissions::from_mode(0o755)).unwrap();
}

both! {
    fn only_listed_programs_are_executed_whatever_starts_them() {
        let b = listed(&["ls", "cat"]);
        assert_eq!(b.sh("echo well > f; ls; cat f | cat").out, "f\nwell\n");
        for line in ["id", "/usr/bin/id", "exec id", "env id", "cp /usr/bin/id ls", "cat /usr/bin/id > ls; PATH=. ls"] {
            let ran = b.sh(line);
            assert!(!ran.out.contains("uid="), "{line}: {}", ran.out);
        }
        let refused = b.sh("id");
        assert_eq!(format!("{:?}", refused.end.end), "Exited(126)", "{}", refused.err);
        // The list also applies to the caller's own commands, but not to programs that they name in addition.
        assert!(matches!(b.exec(exec(&["id"])), Err(Error::Start(fault)) if fault.errno == 13));
        let mut also = exec(&["id"]);
        also.also = vec![RawBytes::from("id")];
        for _ in 0..2 {
            assert!(b.exec(also.clone()).unwrap().out.contains("uid="));
        }
        assert!(b.exec(exec(&["id"])).is_err());
    }

    fn a_loader_runs_nothing_by_itself() {
        let b = listed(&["ls", "cat", "ln", "mv", "cp"]);
        let ld = loader();
        for line in ["@LD@ /usr/bin/id", "ln -s @LD@ ls; ./ls /usr/bin/id", "exec 3<@LD@; /proc/self/fd/3 /usr/bin/id",
            "cd /; .@LD@ /usr/bin/id", "cp @LD@ ls; ./ls /usr/bin/id"] {
            let ran = b.sh(&line.replace("@LD@", ld));
            assert!(!ran.out.contains("uid="), "{line}");
            assert!(ran.err.contains("ermission denied"), "{line}: {}", ran.err);
        }
        let race = format!(
            "ln -s /bin/cat a; ln -s {ld} b; (i=0; while [ $i -lt 100 ]; do cp -P a c; mv c x; cp -P b c; mv c x; i=$((i+1)); \
             done) & i=0; while [ $i -lt 200 ]; do ./x /usr/bin/id; i=$((i+1)); done 2>/dev/null; wait; echo over"
        );
        assert_eq!(b.sh(&race).out, "over\n");
    }

    fn what_a_command_wrote_is_no_code() {
        let b = listed(&["cat", "cp", "chmod", "sed"]);
        let library = fs::read_dir("/lib").unwrap().chain(fs::read_dir("/usr/lib").unwrap()).flatten()
            .map(|entry| entry.path().join("libm.so.6")).find(|path| path.exists()).expect("a library");
        for place in ["/workspace", "/tmp", "/dev/shm"] {
            let ran = b.sh(&format!("cp {} {place}/own.so; LD_PRELOAD={place}/own.so cat /proc/self/maps", library.display()));
            let code = ran.out.lines().any(|line| line.contains("own.so") && line.contains('x'));
            assert!(!code && ran.out.contains("libc.so"), "{place}: {}{}", ran.out, ran.err);
            let ran = b.sh(&format!("cp /usr/bin/id {place}/cat; chmod +x {place}/cat; {place}/cat"));
            assert!(ran.err.contains("ermission denied"), "{place}: {}", ran.err);
        }
    }

    fn what_listed_programs_need_is_known() {
        // The interpreter of a script, and the program that `env` starts for one.
        let b = listed(&["ldd", "sed"]);
        assert!(b.sh("ldd --version").out.contains("ldd"), "{}", b.sh("ldd --version").err);
        if Path::new("/usr/bin/git").exists() {
            let b = listed(&["git"]);
            let line = "git init -q . && git -c user.name=a -c user.email=b commit -qm m --allow-empty && git log --format=%s";
            let ran = b.sh(line);
            assert_eq!(ran.out, "m\n", "{}", ran.err);
        } else {
            println!("NOT TESTED: there is no git");
        }
        if Path::new("/usr/bin/cc").exists() {
            let b = listed(&["cc"]);
            fs::write(b.path("m.c"), "int main(void) { return 7; }").unwrap();
            let ran = b.sh("cc m.c -o m");
            assert_eq!(format!("{:?}", ran.end.end), "Exited(0)", "{}", ran.err);
            assert!(b.sh("./m").err.contains("ermission denied"), "a compiler makes no program that may be executed");
        } else {
            println!("NOT TESTED: there is no cc");
        }
    }

    fn tools_that_start_what_they_build_execute_what_is_written_and_say_so() {
        let b = listed(&["cargo", "chmod"]);
        script(&b, "built", "#!/bin/sh\necho built\n");
        assert_eq!(b.sh("./built; printf '#!/bin/sh\necho more\n' > /tmp/x; chmod +x /tmp/x; /tmp/x").out, "built\nmore\n");
        assert!(b.jail.warnings().iter().any(|text| text.contains("whatever commands wrote")), "{:?}", b.jail.warnings());
        assert!(!b.sh("id").out.contains("uid="), "other programs of the system stay closed");
        let b = listed(&["python3"]);
        script(&b, "built", "#!/bin/sh\necho built\n");
        assert!(b.sh("./built").err.contains("ermission denied"));
        assert!(!b.sh("grep ' /workspace ' /proc/self/mountinfo").out.contains("noexec"));
    }

    fn names_in_vain_and_files_that_commands_can_change_are_told() {
        let b = listed(&["ls", "no-such-program", "/workspace/own", "rel/ative", ""]);
        script(&b, "own", "#!/bin/sh\necho own\n");
        let told = b.jail.warnings().join("\n");
        for name in ["`no-such-program`", "`/workspace/own`", "`rel/ative`"] {
            assert!(told.contains(name), "{told}");
        }
        assert!(b.sh("./own").err.contains("ermission denied"));
        let layers = b.jail.layers();
        let layer = layers.iter().find(|l| l.layer == IsolationLayer::ProgramList).expect("it is in the report");
        assert!(matches!(layer.state, JailLayerState::Enforced { .. }), "{layer}");
        assert!(Boxed::new().jail.layers().iter().all(|l| l.layer != IsolationLayer::ProgramList));
    }

    fn a_list_holds_in_a_box_that_was_begun_ahead_and_only_there() {
        let dir = workspace();
        let spec = JailSpec { programs: Some(vec!["ls".to_owned()]), ..JailSpec::new("test", dir.path()) };
        let ahead = PrewarmedJail::start(&JailSpec::new("test", dir.path()), &init_exe()).unwrap();
        assert!(!ahead.can_become(&spec));
        let ahead = PrewarmedJail::start(&spec, &init_exe()).unwrap();
        assert!(ahead.can_become(&spec));
        let b = Boxed { jail: ahead.finish(&spec).unwrap(), dir };
        assert!(!b.sh("id").out.contains("uid=") && b.sh("echo x > f; ls").out == "f\n");
    }

    fn commands_side_by_side_keep_their_time_limits_and_stand_still() {
        let b = listed(&["sleep", "ls"]);
        let mut late = exec(&["sh", "-c", "while :; do ls >/dev/null; done"]);
        late.timeout_ms = Some(300);
        std::thread::scope(|scope| {
            let busy: Vec<_> = (0..3).map(|_| scope.spawn(|| b.exec(late.clone()).unwrap().end.end)).collect();
            for _ in 0..5 {
                b.jail.call(forge_jail::JailRequest::Freeze, &[]).unwrap();
                b.jail.call(forge_jail::JailRequest::Thaw, &[]).unwrap();
            }
            for one in busy {
                assert_eq!(format!("{:?}", one.join().unwrap()), "TimedOut");
            }
        });
        assert_eq!(b.sh("sleep 0; echo on").out, "on\n");
    }

    fn a_file_that_is_many_programs_is_executed_under_listed_names_only() {
        let image = workspace();
        let at = |name: &str| image.path().join(name);
        for program in ["/usr/bin/dash", "/usr/bin/bash"] {
            install(image.path(), program);
        }
        symlink("usr/bin", at("bin")).unwrap();
        symlink("dash", at("usr/bin/sh")).unwrap();
        // Bash as a multi-call binary: it prints the name it was started under.
        fs::rename(at("usr/bin/bash"), at("usr/bin/busybox")).unwrap();
        for name in ["ls", "id"] {
            symlink("busybox", at("usr/bin").join(name)).unwrap();
        }
        let b = Boxed::with(|spec, _| {
            spec.image = Some(image.path().to_owned());
            spec.programs = Some(vec!["ls".to_owned()]);
        });
        assert_eq!(b.sh("ls -c 'echo ran $0'").out, "ran ls\n");
        for name in ["id", "busybox", "/usr/bin/id", "/bin/busybox"] {
            let ran = b.sh(&format!("{name} -c 'echo ran'"));
            assert!(ran.out.is_empty() && ran.err.contains("ermission denied"), "{name}: {}{}", ran.out, ran.err);
            assert!(b.exec(exec(&[name, "-c", "echo ran"])).is_err(), "{name}");
        }
        assert_eq!(b.exec(exec(&["ls", "-c", "echo ran"])).unwrap().out, "ran\n");
    }

    fn without_its_wall_a_list_holds_nothing() {
        let dir = workspace();
        let mut spec = JailSpec { programs: Some(Vec::new()), ..JailSpec::new("test", dir.path()) };
        spec.without = vec![DisabledProtection::ProgramList];
        let b = Boxed { jail: Jail::spawn(&spec, &weak_exe()).unwrap(), dir };
        assert!(b.sh("id").out.contains("uid="));
        assert!(b.sh(&format!("{} /usr/bin/id", loader())).out.contains("uid="));
    }
}
