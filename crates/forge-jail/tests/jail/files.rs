//! Files: created in the sandbox, masked, and through the init.

use std::fs;
use std::os::unix::fs::MetadataExt;

use forge_jail::{
    ExecEnd, FaultKind, FinalSymlink, JailFileKind, JailReply, JailRequest, RawBytes, RemovalScope,
    ReplaceExisting,
};

use crate::both;
use crate::rig::Boxed;

both! {
    fn files_made_inside_belong_to_the_workspaces_owner() {
        let b = Boxed::new();
        let owner = fs::metadata(b.dir.path()).unwrap();
        assert_eq!(b.sh("echo hi > made && mkdir d && id -u && stat -c %u:%g made").end.end, ExecEnd::Exited(0));
        let made = fs::metadata(b.path("made")).unwrap();
        assert_eq!((made.uid(), made.gid()), (owner.uid(), owner.gid()));
        b.write("d/written", "text").unwrap();
        let written = fs::metadata(b.path("d/written")).unwrap();
        assert_eq!((written.uid(), written.gid()), (owner.uid(), owner.gid()));
        assert_ne!(b.sh("id -u").out, "0\n");
    }

    fn masked_paths_hold_nothing_and_stay_where_they_are() {
        let b = Boxed::with(|spec, dir| {
            fs::write(dir.join(".env"), "SECRET=1").unwrap();
            fs::create_dir_all(dir.join("conf/keys")).unwrap();
            fs::write(dir.join("conf/keys/id_rsa"), "SECRET").unwrap();
            fs::write(dir.join("seen"), "SEEN").unwrap();
            std::os::unix::fs::symlink("seen", dir.join("link")).unwrap();
            spec.masked = [".env", "conf/keys", "absent/file", "link"].map(RawBytes::from).into();
        });
        let done = b.sh("cat .env; cat conf/keys/id_rsa; ls conf/keys; rm -f .env; mv .env x; ln .env y; chmod 644 .env; \
            echo new > .env; cat seen link");
        assert!(!done.out.contains("SECRET"), "{}", done.out);
        assert_eq!(done.out, "SEENSEEN");
        assert_eq!(b.read(".env"), Err(FaultKind::Denied));
        assert_eq!(b.read("conf/keys/id_rsa"), Err(FaultKind::Denied));
        assert_eq!(b.write(".env", "x"), Err(FaultKind::Denied));
        assert_eq!(b.read("seen").unwrap(), "SEEN");
        assert_eq!(fs::read_to_string(b.path(".env")).unwrap(), "SECRET=1");
    }

    fn only_regular_files_inside_are_opened_and_nothing_blocks() {
        let b = Boxed::new();
        let done = b.sh("mkfifo fifo; mkdir dir; echo text > file; ln -s file good; ln -s /etc/passwd bad; ln -s ../.. up;
            ln -s nowhere dangling; ln -s loop loop; ln -s /dev/zero zero;
            python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'");
        assert_eq!(done.end.end, ExecEnd::Exited(0), "{}", done.err);
        assert_eq!(b.read("good").unwrap(), "text\n");
        assert_eq!(b.read("dir/../file").unwrap(), "text\n");
        assert_eq!(b.read("fifo"), Err(FaultKind::NotRegular(JailFileKind::Fifo)));
        assert_eq!(b.read("dir"), Err(FaultKind::NotRegular(JailFileKind::Dir)));
        assert_eq!(b.read("sock"), Err(FaultKind::NotRegular(JailFileKind::Socket)));
        for outside in ["bad", "zero", "up/x", "../x", "/etc/passwd", "dir/../../x", "good/../../x"] {
            let kind = b.read(outside).unwrap_err();
            assert!(matches!(kind, FaultKind::Outside | FaultKind::NotDir), "{outside}: {kind:?}");
        }
        assert_eq!(b.read("dangling"), Err(FaultKind::NotFound));
        assert_eq!(b.read("loop"), Err(FaultKind::Loop));
        assert_eq!(b.read(""), Err(FaultKind::BadPath));
        assert_eq!(b.read("a\0b"), Err(FaultKind::BadPath));
        let stat = |path: &str, links| match b.file(JailRequest::Stat { path: path.into(), links }).unwrap().reply {
            JailReply::Stat { stat } => stat,
            other => panic!("{other:?}"),
        };
        assert_eq!(stat("bad", FinalSymlink::NoFollow).kind, JailFileKind::Symlink);
        assert_eq!(stat("good", FinalSymlink::Follow).size, 5);
    }

    fn writing_follows_links_that_stay_inside_and_keeps_modes() {
        let b = Boxed::new();
        b.sh("echo old > file; chmod 751 file; mkdir d; ln -s ../file d/link; ln -s nowhere dangling; ln -s /tmp/x out;
            mkdir folder; mkfifo fifo");
        b.write("d/link", "new").unwrap();
        assert_eq!(fs::read_to_string(b.path("file")).unwrap(), "new");
        assert!(fs::symlink_metadata(b.path("d/link")).unwrap().is_symlink());
        assert_eq!(fs::metadata(b.path("file")).unwrap().mode() & 0o7777, 0o751);
        b.write("fresh", "x").unwrap();
        assert_eq!(fs::metadata(b.path("fresh")).unwrap().mode() & 0o7777, 0o644);
        assert_eq!(b.write("dangling", "x"), Err(FaultKind::Dangling));
        assert_eq!(b.write("out", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("../x", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("..", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("/x", "x"), Err(FaultKind::Outside));
        assert_eq!(b.write("none/x", "x"), Err(FaultKind::NotFound));
        assert_eq!(b.write("folder", "x"), Err(FaultKind::NotRegular(JailFileKind::Dir)));
        assert_eq!(b.write("fifo", "x"), Err(FaultKind::NotRegular(JailFileKind::Fifo)));
        assert!(fs::read_dir(b.dir.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().contains("forge")));
    }

    fn nothing_below_git_is_written_by_whatever_name() {
        let b = Boxed::new();
        let made = b.sh("mkdir -p .git/hooks .git/objects .git/refs .git/worktrees/w .git/modules/m/objects src;
            echo 'ref: refs/heads/main' > .git/HEAD; echo old > .git/config; ln .git/config copy;
            ln -s .git docs; ln -s ../.git src/up; ln -s .git/config settings; ln -s . self; ln -s docs/hooks far;
            mkdir -p bare.d/objects bare.d/refs bare.d/info; echo x > bare.d/HEAD;
            mkdir -p tree.d; echo x > tree.d/HEAD; echo ../.git > tree.d/commondir;
            mkdir -p nested/.git/objects nested/.git/refs; echo x > nested/.git/HEAD; ln -s nested/.git inner;
            mkdir -p half/objects half/refs broken/.git; ln -s broken/.git empty;
            mkdir upper; ln -s upper/.GIT case; mkdir -p upper/.GIT");
        assert_eq!(made.end.end, ExecEnd::Exited(0), "{}", made.err);
        let git = Err(FaultKind::GitData);
        for path in ["docs/hooks/pre-commit", ".git/hooks/x", ".git/config", "settings", "src/up/config", "self/.git/x",
            "self/self/docs/x", "far/post-checkout", "src/../.git/x", "src/up/hooks/../x", ".git", "src/.git", ".GIT",
            "src/.Git", "src/.git.", "src/git~1", "bare.d/config", "bare.d/info/exclude", "tree.d/config", "inner/config",
            "nested/.git/config", "half/HEAD", "half/config", "empty/config", "case/x", "docs/modules/m/config", "docs/worktrees/w/x"] {
            assert_eq!(b.write(path, "x"), git, "writing {path}");
        }
        for path in ["docs/new", "docs/hooks/deep/er", "far/deep", "src/.git/hooks", "bare.d/hooks", "empty/hooks"] {
            assert_eq!(b.file(JailRequest::MakeDirs { path: path.into() }).map(drop), git, "making {path}");
        }
        for (path, what) in [("docs/config", RemovalScope::File), ("src/up/hooks", RemovalScope::EmptyDir), (".git", RemovalScope::Tree),
            ("docs/hooks", RemovalScope::Tree), ("nested/.git", RemovalScope::Tree)] {
            assert_eq!(b.file(JailRequest::Remove { path: path.into(), what }).map(drop), git, "removing {path}");
        }
        let moved = |from: &str, to: &str| {
            b.file(JailRequest::Rename { from: from.into(), to: to.into(), replace: ReplaceExisting::Yes }).map(drop)
        };
        assert_eq!([moved("copy", "docs/hooks/x"), moved("docs/config", "y"), moved("half", "src/.git")], [git; 3]);
        // A write through another name of one of git's files creates a separate file; reading still works; files that
        // only look alike are written.
        b.write("copy", "new").unwrap();
        assert_eq!((b.read(".git/config").unwrap().as_str(), b.read("docs/config").unwrap().as_str()), ("old\n", "old\n"));
        for path in [".gitignore", "src/HEAD", "nested/file", "broken/file"] {
            b.write(path, "x").unwrap();
        }
        // The link itself belongs to the workspace.
        b.file(JailRequest::Remove { path: "docs".into(), what: RemovalScope::File }).unwrap();
    }

    fn a_half_made_repository_is_not_finished_by_a_write_that_began_before() {
        let b = Boxed::new();
        let begun = b.file(JailRequest::CreateTemp { path: "HEAD".into(), mode: 0o644 }).unwrap();
        let JailReply::Temp { token, .. } = begun.reply else { panic!("{:?}", begun.reply) };
        for path in ["objects", "refs"] {
            b.file(JailRequest::MakeDirs { path: path.into() }).unwrap();
        }
        let done = b.file(JailRequest::CommitTemp { token, replace: ReplaceExisting::Yes, sync: forge_jail::SyncToDisk::No });
        assert_eq!(done.map(drop), Err(FaultKind::GitData));
        assert_eq!(b.file(JailRequest::MakeDirs { path: "elsewhere".into() }).map(drop), Ok(()));
        b.sh("echo 'gitdir: elsewhere' > .git");
        assert_eq!(b.write("elsewhere/config", "x"), Err(FaultKind::GitData));
    }

    fn what_worktrees_share_is_git_data_without_a_head() {
        let b = Boxed::new();
        b.sh("mkdir -p common/objects common/refs other/objects common2/objects common2/refs common2/hooks");
        for path in ["common/config", "common/hooks", "common/packed-refs", "common2/hooks/pre-commit", "common2/x"] {
            assert_eq!(b.write(path, "x"), Err(FaultKind::GitData), "{path}");
        }
        assert_eq!(b.file(JailRequest::MakeDirs { path: "common/hooks".into() }).map(drop), Err(FaultKind::GitData));
        b.write("other/config", "x").unwrap();
        assert_eq!(b.file(JailRequest::MakeDirs { path: "other/refs".into() }).map(drop), Err(FaultKind::GitData));
        b.write("common/notes.txt", "x").unwrap();
    }

    fn folders_are_made_moved_and_removed() {
        let b = Boxed::new();
        b.file(JailRequest::MakeDirs { path: "a/b/c".into() }).unwrap();
        b.file(JailRequest::MakeDirs { path: "a/b/c/".into() }).unwrap();
        assert_eq!(b.file(JailRequest::MakeDirs { path: "../x".into() }).unwrap_err(), FaultKind::Outside);
        b.write("a/file", "x").unwrap();
        let to = |from: &str, to: &str, replace| {
            b.file(JailRequest::Rename { from: from.into(), to: to.into(), replace }).map(drop)
        };
        to("a/file", "a/b/moved", ReplaceExisting::No).unwrap();
        b.write("a/file", "y").unwrap();
        assert_eq!(to("a/file", "a/b/moved", ReplaceExisting::No), Err(FaultKind::Exists));
        assert_eq!(to("a/file", "../x", ReplaceExisting::Yes), Err(FaultKind::Outside));
        let remove = |path: &str, what| b.file(JailRequest::Remove { path: path.into(), what }).map(drop);
        assert_eq!(remove("a", RemovalScope::EmptyDir), Err(FaultKind::NotEmpty));
        assert_eq!(remove("a", RemovalScope::File), Err(FaultKind::NotRegular(JailFileKind::Dir)));
        b.sh("chmod 000 a/b/c a/b");
        remove("a", RemovalScope::Tree).unwrap();
        assert!(!b.path("a").exists());
        let deep = b.sh("python3 -c '
import os
for i in range(150):
    os.mkdir(\"d\"); os.mkdir(\"e\"); os.mkdir(\".forge-gone-1\"); os.chdir(\"d\")'");
        assert_eq!(deep.end.end, ExecEnd::Exited(0), "{}", deep.err);
        remove("d", RemovalScope::Tree).unwrap();
        remove("e", RemovalScope::Tree).unwrap();
        remove(".forge-gone-1", RemovalScope::Tree).unwrap();
        assert_eq!(fs::read_dir(b.dir.path()).unwrap().count(), 0);
    }
}
