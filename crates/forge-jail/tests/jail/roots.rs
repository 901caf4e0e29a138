//! Root directories to work in: several at once, copy-on-write overlays, directories of the sandbox alone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use forge_jail::{
    Error, ExecEnd, FaultKind, FileIdentity, Jail, JailRequest, JailSpec, OverlayAttributes, RawBytes,
    RemovalScope, ReplaceExisting, RootMode, WorkspaceRoot, probe_overlay,
};

use crate::both;
use crate::rig::{Boxed, init_exe, workspace};

/// The layers of an overlay next to a fresh directory: `lower`, `upper` and `work` below it.
fn layers(dir: &Path) -> (PathBuf, RootMode) {
    let at = |name: &str| dir.join(name);
    for name in ["lower", "upper", "work"] {
        fs::create_dir_all(at(name)).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    (at("lower"), RootMode::Overlay { upper: at("upper"), work: at("work") })
}

fn view(dir: &tempfile::TempDir) -> Jail {
    let (lower, show) = layers(dir.path());
    let mut spec = JailSpec::new("view", lower);
    spec.roots[0].mode = show;
    Jail::spawn(&spec, &init_exe()).expect("the box starts")
}

/// The kernel creates its directory below `work` without permissions, which an ordinary user must change to remove it.
fn cleared(dir: &tempfile::TempDir) {
    let _ = fs::set_permissions(dir.path().join("work/work"), fs::Permissions::from_mode(0o700));
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

both! {
    fn a_view_keeps_changes_out_of_its_source() {
        let dir = workspace();
        let (lower, _) = layers(dir.path());
        fs::create_dir_all(lower.join("kept/deep")).unwrap();
        for (name, text) in [("changed", "before"), ("removed", "x"), ("kept/deep/file", "same"), ("script", "y")] {
            fs::write(lower.join(name), text).unwrap();
        }
        fs::set_permissions(lower.join("script"), fs::Permissions::from_mode(0o755)).unwrap();
        let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
        fs::File::open(dir.path().join("upper")).unwrap().set_modified(long_ago).unwrap();
        let b = Boxed { jail: view(&dir), dir };
        let attributes = b.jail.overlay_attributes().unwrap();
        assert_eq!(attributes == OverlayAttributes::Trusted, rustix::process::geteuid().is_root());
        let done = b.sh("set -e; stat -c %Y . ; cat changed kept/deep/file; echo; echo after > changed; rm removed; mkdir new;
            echo n > new/file; rm -r kept; mkdir kept; echo k > kept/k; stat -c %u:%g changed script new; id -u; touch a");
        assert_eq!(done.end.end, ExecEnd::Exited(0), "{}", done.err);
        assert!(done.out.starts_with("1000000000\nbeforesame"), "the start left the time: {}", done.out);
        let owner = done.out.lines().last().unwrap();
        assert!(done.out.lines().filter(|l| l.contains(':')).all(|l| l == format!("{owner}:{owner}")), "{}", done.out);
        b.write("written", "by request").unwrap();
        assert_eq!(b.read("changed").unwrap(), "after\n");
        assert_eq!(b.read("written").unwrap(), "by request");
        assert_eq!(b.read("kept/deep/file"), Err(FaultKind::NotFound));
        b.file(JailRequest::Rename { from: "script".into(), to: "moved".into(), replace: ReplaceExisting::No }).unwrap();
        b.file(JailRequest::Remove { path: "new".into(), what: RemovalScope::Tree }).unwrap();
        assert_eq!(b.sh("ls | tr '\\n' ' '; stat -c %a moved").out, "a changed kept moved written 755\n");
        assert_eq!(names(&lower), ["changed", "kept", "removed", "script"]);
        assert_eq!(fs::read_to_string(lower.join("changed")).unwrap(), "before");
        assert_eq!(fs::read_to_string(lower.join("kept/deep/file")).unwrap(), "same");
        cleared(&b.dir);
    }

    fn a_view_tells_nothing_of_the_host() {
        let dir = workspace();
        let secret = dir.path().file_name().unwrap().to_string_lossy().into_owned();
        let b = Boxed { jail: view(&dir), dir };
        let table = b.sh("cat /proc/self/mountinfo /proc/self/mounts /proc/mounts");
        assert!(table.out.contains(" overlay "), "{}", table.out);
        assert!(!table.out.contains(&secret), "{}", table.out);
        assert!(table.out.lines().filter(|l| l.contains(" /workspace ")).all(|l| l.contains("nosuid,nodev")));
        cleared(&b.dir);
    }

    fn a_view_goes_on_in_the_next_box() {
        let dir = workspace();
        fs::create_dir_all(dir.path().join("lower/old")).unwrap();
        fs::write(dir.path().join("lower/gone"), "x").unwrap();
        let b = Boxed { jail: view(&dir), dir };
        let first = b.sh("mkdir -p deep/er; echo 1 > deep/er/f; echo s > suid; chmod 4755 suid; rm gone; ln -s /etc/shadow link;
            rm -r old; mkdir old; id -u >&2; stat -c %a suid");
        assert_eq!(first.end.end, ExecEnd::Exited(0), "{}", first.err);
        let Boxed { jail, dir } = b;
        drop(jail);
        let upper = dir.path().join("upper");
        let owner = fs::metadata(&upper).unwrap().uid();
        if rustix::process::geteuid().is_root() {
            assert!((0x7000_0000..0x7040_0000).contains(&owner), "{owner}");
            // The tree belongs to another user by now, as after a copy or a restore.
            let all = std::process::Command::new("chown").args(["-hR", "0:0"]).arg(&upper).status().unwrap();
            assert!(all.success());
            fs::set_permissions(upper.join("suid"), fs::Permissions::from_mode(0o4755)).unwrap();
        }
        let b = Boxed { jail: view(&dir), dir };
        let again = b.sh("echo 2 >> deep/er/f && cat deep/er/f && stat -c %a suid && ls; stat -c %u deep deep/er/f suid | uniq -c");
        assert_eq!(again.end.end, ExecEnd::Exited(0), "{}", again.err);
        assert!(again.out.starts_with("1\n2\n4755\ndeep\nlink\nold\nsuid\n"), "{}", again.out);
        assert!(again.out.contains(" 3 "), "{}", again.out);
        let Boxed { jail, dir } = b;
        drop(jail);
        let owner = fs::metadata(&upper).unwrap().uid();
        let b = Boxed { jail: view(&dir), dir };
        assert_eq!(fs::metadata(&upper).unwrap().uid(), owner, "the next box takes the id that owns the layer");
        cleared(&b.dir);
    }

    fn folders_are_renamed_in_a_view_where_the_kernel_can() {
        let dir = workspace();
        fs::create_dir_all(dir.path().join("lower/folder/in")).unwrap();
        fs::write(dir.path().join("lower/folder/in/file"), "text").unwrap();
        let b = Boxed { jail: view(&dir), dir };
        // `mv` copies where renaming is refused.
        let done = b.sh("mv folder other && cat other/in/file && ! test -e folder");
        assert_eq!((done.end.end, done.out.as_str()), (ExecEnd::Exited(0), "text"), "{}", done.err);
        if b.jail.overlay_attributes() == Some(OverlayAttributes::Trusted) {
            let renamed = b.sh("python3 -c 'import os; os.rename(\"other\", \"third\")' && cat third/in/file");
            assert_eq!(renamed.out, "text", "{}", renamed.err);
        }
        assert!(b.dir.path().join("lower/folder/in/file").exists());
        cleared(&b.dir);
    }

    fn a_view_that_cannot_be_had_says_so() {
        let dir = workspace();
        let (lower, _) = layers(dir.path());
        let attempt = |upper: PathBuf, work: PathBuf| {
            let mut spec = JailSpec::new("view", &lower);
            spec.roots[0].mode = RootMode::Overlay { upper, work };
            match Jail::spawn(&spec, &init_exe()) {
                Err(Error::Overlay { why }) => why,
                other => panic!("{:?}", other.map(|_| "started")),
            }
        };
        assert!(attempt("/no/such/place".into(), dir.path().join("work")).contains("/no/such/place"));
        fs::create_dir(lower.join("inside")).unwrap();
        fs::create_dir(lower.join("beside")).unwrap();
        let why = attempt(lower.join("inside"), lower.join("beside"));
        assert!(why.contains("keeping changes out"), "{why}");
        let shm = tempfile::tempdir_in("/dev/shm").unwrap();
        let why = attempt(shm.path().to_owned(), dir.path().join("work"));
        assert!(why.contains("view"), "{why}");
        let spec = |change: fn(&mut JailSpec)| {
            let mut spec = JailSpec::new("x", &lower);
            change(&mut spec);
            Jail::spawn(&spec, &init_exe()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let same = spec(|s| s.roots[0].mode = RootMode::Overlay { upper: "/a".into(), work: "/a".into() });
        assert!(same.contains("two folders"), "{same}");
    }

    fn whether_views_work_is_found_out_without_leaving_anything() {
        let dir = workspace();
        let (lower, _) = layers(dir.path());
        let found = probe_overlay(&init_exe(), &lower, dir.path());
        let wanted = if rustix::process::geteuid().is_root() { OverlayAttributes::Trusted } else { OverlayAttributes::User };
        assert_eq!(found, Ok(wanted));
        assert_eq!(names(dir.path()), ["lower", "upper", "work"]);
        assert!(probe_overlay(&init_exe(), &lower, Path::new("/proc")).is_err());
    }

    fn several_folders_stand_side_by_side() {
        let (one, two, three) = (workspace(), workspace(), workspace());
        fs::write(one.path().join("file"), "one").unwrap();
        fs::write(one.path().join(".env"), "SECRET").unwrap();
        let (lower, mode) = layers(two.path());
        fs::write(lower.join("file"), "two").unwrap();
        let mut spec = JailSpec::new("several", one.path());
        spec.roots = vec![
            WorkspaceRoot { identity: None, source: one.path().into(), target: "/workspace/one".into(), mode: RootMode::Bind },
            WorkspaceRoot { identity: None, source: lower.clone(), target: "/workspace/two".into(), mode },
            WorkspaceRoot { identity: None, source: three.path().into(), target: "/workspace/three".into(), mode: RootMode::Owned },
        ];
        spec.masked = vec![RawBytes::from("one/.env")];
        let jail = Jail::spawn(&spec, &init_exe()).unwrap();
        let b = Boxed { jail, dir: two };
        let done = b.sh("ls; cat one/file two/file; echo x > one/new; echo x > two/new; echo x > three/new;
            echo x > new || echo fixed; cat one/.env || echo masked; mv one/new two/moved && ls two");
        assert_eq!(done.out, "one\nthree\ntwo\nonetwofixed\nmasked\nfile\nmoved\nnew\n", "{}", done.err);
        assert_eq!(b.read("two/file").unwrap(), "two");
        assert_eq!(b.read("one/../two/file").unwrap(), "two");
        assert_eq!(b.read("one/.env"), Err(FaultKind::Denied));
        b.write("one/written", "x").unwrap();
        b.sh("ln -s ../two/file one/across; ln -s ../../etc/passwd one/out; ln -s /etc/passwd two/out");
        assert_eq!(b.read("one/across").unwrap(), "two");
        for outside in ["one/out", "two/out", "../etc/passwd", "one/../../etc/passwd"] {
            assert_eq!(b.read(outside), Err(FaultKind::Outside), "{outside}");
        }
        assert_eq!(b.write("top", "x"), Err(FaultKind::Denied));
        assert!(one.path().join("written").exists() && three.path().join("new").exists());
        assert_eq!(names(&lower), ["file"]);
        cleared(&b.dir);
    }

    fn a_folder_of_the_box_alone_is_written_without_mapping() {
        let dir = workspace();
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), "x").unwrap();
        let mut spec = JailSpec::new("owned", dir.path());
        spec.roots[0].mode = RootMode::Owned;
        let b = Boxed { jail: Jail::spawn(&spec, &init_exe()).unwrap(), dir };
        let done = b.sh("echo more >> sub/file && rm sub/file && echo new > sub/new && stat -c %u . sub sub/new | uniq");
        assert_eq!(done.end.end, ExecEnd::Exited(0), "{}", done.err);
        assert_eq!(done.out, b.sh("id -u").out);
        let owners: Vec<_> = [".", "sub", "sub/new"].iter().map(|n| fs::metadata(b.path(n)).unwrap().uid()).collect();
        assert!(owners.iter().all(|o| *o == owners[0]));
        assert_ne!(owners[0], 0);
    }

    fn no_file_in_a_folder_of_the_host_lends_rights() {
        let b = Boxed::with(|spec, _| assert_eq!(spec.roots[0].mode, RootMode::Bind));
        fs::create_dir(b.path("shared")).unwrap();
        fs::set_permissions(b.path("shared"), fs::Permissions::from_mode(0o2777)).unwrap();
        let done = b.sh("echo x > f; chmod 4755 f; chmod g+s f; cp -p f g; install -m 6755 f h; mknod p p -m 4644
            python3 - <<'END'
import ctypes, os
for flags in os.O_CREAT | os.O_WRONLY, os.O_TMPFILE | os.O_WRONLY:
    try:
        fd = os.open('o' if flags & os.O_CREAT else '.', flags, 0o4755)
        os.link(f'/proc/self/fd/{fd}', 't')
    except PermissionError:
        print('refused')
how = (ctypes.c_uint64 * 3)(os.O_CREAT | os.O_WRONLY, 0o4755, 0)
print(ctypes.CDLL(None).syscall(437, -100, b'u', how, 24))
END
            mkdir shared/below && git init -q repo && (cd repo && git add -A && echo ordinary)");
        assert!(done.out.ends_with("refused\nrefused\n-1\nordinary\n"), "{}{}", done.out, done.err);
        assert!(done.err.contains("Operation not permitted"), "{}", done.err);
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode();
        for entry in fs::read_dir(b.dir.path()).unwrap().map(|entry| entry.unwrap().path()) {
            assert!(entry.is_dir() || mode(&entry) & 0o6000 == 0, "{} {:o}", entry.display(), mode(&entry));
        }
        assert_eq!(mode(&b.path("f")) & 0o7777, 0o644);
        assert_eq!(mode(&b.path("shared/below")) & 0o2000, 0o2000, "the kernel hands a folder's group on by itself");
        // A private overlay may contain anything: its changes are checked when they are applied.
        let dir = workspace();
        let b = Boxed { jail: view(&dir), dir };
        assert_eq!(b.sh("echo x > f; chmod 6755 f; stat -c %a f").out, "6755\n");
        cleared(&b.dir);
    }

    fn a_source_is_the_folder_that_the_caller_has_open_or_the_box_does_not_start() {
        let dir = workspace();
        let (lower, overlay) = layers(dir.path());
        let identity = |path: &Path| fs::metadata(path).map(|m| FileIdentity { dev: m.dev(), ino: m.ino() }).unwrap();
        let wanted = identity(&lower);
        for (at, mode) in [RootMode::Bind, overlay].into_iter().enumerate() {
            let mut spec = JailSpec::new("same", &lower);
            spec.roots[0].mode = mode;
            spec.roots[0].identity = Some(wanted);
            drop(Jail::spawn(&spec, &init_exe()).expect("it is the one"));
            let moved = dir.path().join(format!("moved-{at}"));
            fs::rename(&lower, &moved).unwrap();
            // A link that leads to the folder itself, and another folder.
            for what in ["link", "folder"] {
                match what {
                    "link" => std::os::unix::fs::symlink(&moved, &lower).unwrap(),
                    _ => fs::create_dir(&lower).unwrap(),
                }
                let refused = Jail::spawn(&spec, &init_exe()).expect_err("a refusal");
                assert!(matches!(refused, Error::Build { .. }), "{what}: {refused}");
                fs::remove_file(&lower).or_else(|_| fs::remove_dir(&lower)).unwrap();
            }
            fs::rename(&moved, &lower).unwrap();
        }
        cleared(&dir);
    }

    fn folders_that_make_no_sense_are_refused() {
        let refused = |roots: &[(&str, &str)]| {
            let mut spec = JailSpec::new("x", "/srv");
            spec.roots = roots.iter()
                .map(|(source, target)| WorkspaceRoot { identity: None, source: source.into(), target: target.into(), mode: RootMode::Bind })
                .collect();
            Jail::spawn(&spec, &init_exe()).err().map(|e| e.to_string()).unwrap_or_default()
        };
        assert!(refused(&[]).contains("no workspace"));
        assert!(refused(&[("/srv", "/workspace"), ("/opt", "/workspace/b")]).contains("/workspace/NAME"));
        assert!(refused(&[("/srv", "/workspace/a"), ("/opt", "/workspace/a")]).contains("two workspaces"));
        assert!(refused(&[("/srv", "/workspace/a/b")]).contains("/workspace/NAME"));
        assert!(refused(&[("/srv", "/etc")]).contains("/workspace/NAME"));
    }
}
