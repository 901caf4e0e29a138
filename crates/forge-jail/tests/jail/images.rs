//! Sandboxes on the root directory of another system.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use forge_jail::{Error, ExecEnd, HELPER_PATH, Jail, JailSpec, RawBytes};

use crate::both;
use crate::rig::{Boxed, exec, init_exe, workspace};

/// Copies a program and the libraries it names into an image.
pub(crate) fn install(image: &Path, program: &str) {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let to = image.join(file.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
}

fn with_image(image: &Path) -> Boxed {
    Boxed::with(|spec, _| spec.image = Some(image.to_owned()))
}

fn runs_the_helper(b: &Boxed) {
    let mut own = exec(&["some-name", "argument"]);
    own.program = Some(RawBytes::from(HELPER_PATH));
    // The exit code of an init that no caller started.
    assert_eq!(b.exec(own).unwrap().end.end, ExecEnd::Exited(125));
}

both! {
    fn an_image_stands_in_the_place_of_the_hosts_programs() {
        let image = workspace();
        let at = |name: &str| image.path().join(name);
        for program in ["/usr/bin/dash", "/usr/bin/cat", "/usr/bin/ls", "/usr/bin/id"] {
            install(image.path(), program);
        }
        for folder in ["proc", "home/somebody", "run", "tmp", "opt/tool", "etc/ssl/certs", "root", "var/lib/dpkg"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        symlink("usr/bin", at("bin")).unwrap();
        symlink("dash", at("usr/bin/sh")).unwrap();
        fs::write(at("opt/tool/file"), "of the image").unwrap();
        fs::write(at("var/lib/dpkg/status"), "packages").unwrap();
        fs::write(at("etc/os-release"), "NAME=other").unwrap();
        fs::write(at("etc/passwd"), "root::0:0:::/bin/sh").unwrap();
        fs::write(at("usr/share-zone"), "zone").unwrap();
        symlink("/usr/share-zone", at("etc/localtime")).unwrap();
        symlink("/../../../etc/hostname", at("etc/magic")).unwrap();
        let b = with_image(image.path());
        let done = b.sh("cat /opt/tool/file /etc/os-release /var/lib/dpkg/status /etc/localtime; cat /etc/passwd; cat /etc/magic
            ls /; ls /usr/bin; echo x > /opt/tool/file || echo fixed; id; ls /home /root");
        assert!(done.out.starts_with("of the imageNAME=otherpackageszone"), "{} {}", done.out, done.err);
        assert!(done.out.contains("forge:x:") && !done.out.contains("root::0"), "{}", done.out);
        assert!(done.out.contains("cat\ndash\nid\nls\nsh\n"), "{}", done.out);
        assert!(done.out.contains("fixed"), "{}", done.out);
        assert!(!done.out.lines().any(|l| ["home", "root", "somebody"].contains(&l)), "{}", done.out);
        b.write("file", "x").unwrap();
        runs_the_helper(&b);
    }

    fn an_empty_image_holds_the_own_binary_only() {
        let image = workspace();
        let b = with_image(image.path());
        assert!(matches!(b.exec(exec(&["sh"])), Err(Error::Start(_))));
        runs_the_helper(&b);
        b.write("file", "x").unwrap();
    }

    fn an_image_that_cannot_be_used_is_refused_before_anything_starts() {
        let dir = workspace();
        let refused = |image: &Path| {
            let mut spec = JailSpec::new("x", dir.path());
            spec.image = Some(image.to_owned());
            match Jail::spawn(&spec, &init_exe()) {
                Err(Error::Image { why }) => why,
                other => panic!("{:?}", other.map(|_| "started")),
            }
        };
        let image = workspace();
        assert!(refused(&image.path().join("absent")).contains("build it first"));
        fs::write(image.path().join("file"), "").unwrap();
        assert!(refused(&image.path().join("file")).contains("file"));
        install(image.path(), "/usr/bin/dash");
        fs::create_dir(image.path().join("bin")).unwrap();
        let mut program = fs::read("/usr/bin/dash").unwrap();
        program[18] = if program[18] == 183 { 62 } else { 183 };
        fs::write(image.path().join("bin/sh"), program).unwrap();
        fs::set_permissions(image.path().join("bin/sh"), fs::Permissions::from_mode(0o755)).unwrap();
        let why = refused(image.path());
        assert!(why.contains("aarch64") && why.contains("x86-64") && why.contains("use an image built for"), "{why}");
    }
}
