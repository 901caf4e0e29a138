//! What may be at a path where a small file is expected, and what the readers make of it.

use forge_files::{
    Directory, Error, OWNER_ONLY_MODE, SpecialFileKind, open, open_or_create, read, read_prefix, read_text,
    read_text_within, read_within,
};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

const LIMIT: u64 = 1000;

fn directory() -> (tempfile::TempDir, PathBuf) {
    let guard = tempfile::tempdir().unwrap();
    let path = guard.path().to_owned();
    (guard, path)
}

fn pipe(path: &Path) {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// Both readers on the same file.
fn both(root: &Path, name: &str) -> [Result<Vec<u8>, Error>; 2] {
    [read(&root.join(name), LIMIT), read_within(root, Path::new(name), LIMIT)]
}

fn said(result: &Result<Vec<u8>, Error>, root: &Path) -> String {
    match result {
        Ok(bytes) => format!("{} bytes", bytes.len()),
        Err(error) => error.to_string().replace(&root.display().to_string(), "ROOT"),
    }
}

#[test]
fn a_regular_file_is_read_up_to_the_limit() {
    let (_guard, root) = directory();
    for (name, bytes, wanted) in [
        ("empty", 0, "0 bytes"),
        ("full", 1000, "1000 bytes"),
        ("longer", 1001, "ROOT/longer is larger than 1000 bytes"),
    ] {
        fs::write(root.join(name), vec![b'x'; bytes]).unwrap();
        for result in both(&root, name) {
            assert_eq!(said(&result, &root), wanted);
        }
    }
    assert_eq!(read_prefix(&root.join("longer"), LIMIT).unwrap().len(), 1000);
    // Nothing of it is on the disk.
    File::create(root.join("sparse")).unwrap().set_len(20 << 30).unwrap();
    for result in both(&root, "sparse") {
        assert_eq!(said(&result, &root), "ROOT/sparse is larger than 1000 bytes");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_being_opened() {
    let (_guard, root) = directory();
    pipe(&root.join("pipe"));
    fs::create_dir(root.join("dir")).unwrap();
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    for (name, found, words) in [
        ("pipe", SpecialFileKind::NamedPipe, "a named pipe"),
        ("dir", SpecialFileKind::Directory, "a directory"),
        ("socket", SpecialFileKind::Socket, "a socket"),
    ] {
        for result in both(&root, name) {
            assert_eq!(said(&result, &root), format!("ROOT/{name} is {words}, not a regular file"));
            assert!(matches!(result, Err(Error::NotRegular { found: seen, .. }) if seen == found));
        }
    }
    assert!(matches!(
        read(Path::new("/dev/zero"), LIMIT),
        Err(Error::NotRegular { found: SpecialFileKind::Device, .. })
    ));
    for name in ["absent", "dir/absent", "pipe/below"] {
        for result in both(&root, name) {
            assert!(result.as_ref().is_err_and(Error::is_absent), "{name}: {result:?}");
        }
    }
}

#[test]
fn a_link_is_followed_only_where_the_caller_named_the_path() {
    let (_guard, root) = directory();
    fs::create_dir(root.join("real")).unwrap();
    fs::write(root.join("real/file"), "text").unwrap();
    symlink("real", root.join("way")).unwrap();
    symlink("real/file", root.join("link")).unwrap();
    symlink("/dev/zero", root.join("zero")).unwrap();
    symlink("/etc/passwd", root.join("out")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    assert_eq!(read(&root.join("link"), LIMIT).unwrap(), b"text");
    assert_eq!(read(&root.join("way/file"), LIMIT).unwrap(), b"text");
    assert!(matches!(
        read(&root.join("zero"), LIMIT),
        Err(Error::NotRegular { found: SpecialFileKind::Device, .. })
    ));
    assert!(matches!(read(&root.join("loop"), LIMIT), Err(Error::Link { .. })));
    for name in ["way/file", "link", "zero", "out", "loop", "../outside", "real/../../outside"] {
        let within = read_within(&root, Path::new(name), LIMIT);
        assert!(matches!(within, Err(Error::Link { .. })), "{name}: {within:?}");
    }
    assert!(matches!(read_within(&root, Path::new("/etc/passwd"), LIMIT), Err(Error::Link { .. })));
    // The directory itself is the caller's word.
    assert_eq!(read_within(&root.join("way"), Path::new("file"), LIMIT).unwrap(), b"text");
}

#[test]
fn text_is_utf8_and_a_refusal_says_why() {
    let (_guard, root) = directory();
    fs::write(root.join("text"), "grün").unwrap();
    fs::write(root.join("bytes"), [0xff, 0xfe]).unwrap();
    assert_eq!(read_text(&root.join("text"), LIMIT).unwrap(), "grün");
    assert_eq!(read_text_within(&root, Path::new("text"), LIMIT).unwrap(), "grün");
    let error = read_text(&root.join("bytes"), LIMIT).unwrap_err();
    assert_eq!(error.reason(), "not UTF-8 text");
    fs::write(root.join("closed"), "x").unwrap();
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    if let Err(error) = open(&root.join("closed")) {
        assert_eq!(error.reason(), "no permission to read it");
    }
}

#[test]
fn a_file_that_grows_while_it_is_read_ends_at_the_limit() {
    let (_guard, root) = directory();
    let path = root.join("growing");
    fs::write(&path, vec![b'x'; 10]).unwrap();
    let file = open(&path).unwrap();
    let grown = forge_files::read_from(&path, file.try_clone().unwrap(), LIMIT).unwrap();
    assert_eq!(grown.len(), 10);
    fs::write(&path, vec![b'x'; 5000]).unwrap();
    assert!(matches!(forge_files::read_from(&path, file, LIMIT), Err(Error::TooLarge { limit: LIMIT, .. })));
}

#[test]
fn a_lock_file_is_made_once_and_is_never_anything_else() {
    let (_guard, root) = directory();
    let path = root.join("lock");
    for _ in 0..2 {
        open_or_create(&path).unwrap().try_lock().unwrap();
    }
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    pipe(&root.join("pipe"));
    symlink("lock", root.join("link")).unwrap();
    fs::create_dir(root.join("dir")).unwrap();
    assert!(matches!(
        open_or_create(&root.join("pipe")),
        Err(Error::NotRegular { found: SpecialFileKind::NamedPipe, .. })
    ));
    assert!(matches!(open_or_create(&root.join("link")), Err(Error::Link { .. })));
    assert!(open_or_create(&root.join("dir")).is_err());
    forge_files::sync_directory(&root.join("dir")).unwrap();
    assert!(forge_files::sync_directory(&root.join("pipe")).is_err());
}

#[test]
fn nothing_is_written_through_a_link_and_the_link_is_named() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    fs::create_dir_all(at("clone")).unwrap();
    fs::create_dir_all(at("outside/memory")).unwrap();
    symlink(at("outside"), at("clone/.forge")).unwrap();
    for opened in [
        Directory::open_within(&at("clone"), Path::new(".forge/memory")),
        Directory::open_or_create_within(&at("clone"), Path::new(".forge/memory")),
        Directory::open_or_create_within(&at("clone"), Path::new(".forge")),
    ] {
        let Err(Error::Link { path }) = opened else { panic!("{opened:?}") };
        assert_eq!(path, at("clone/.forge"));
    }
    assert!(Directory::open_within(&at("clone"), Path::new("../outside")).is_err());
    fs::remove_file(at("clone/.forge")).unwrap();
    let made = Directory::open_or_create_within(&at("clone"), Path::new("./.forge/memory")).unwrap();
    made.replace_file("m.json", b"one", OWNER_ONLY_MODE).unwrap();
    made.replace_file("m.json", b"two", 0o640).unwrap();
    assert_eq!(
        (made.read_file("m.json", 10).unwrap(), made.file_mode("m.json").unwrap()),
        (b"two".to_vec(), Some(0o640))
    );
    assert!(made.create_file("m.json", b"x", OWNER_ONLY_MODE).is_err());
    fs::write(at("precious"), "precious").unwrap();
    symlink(at("precious"), at("clone/.forge/memory/link")).unwrap();
    assert!(matches!(made.replace_file("link", b"x", OWNER_ONLY_MODE), Err(Error::Link { .. })));
    assert!(matches!(made.read_file("link", 10), Err(Error::Link { .. })));
    assert!(matches!(made.open_lock_file("link"), Err(Error::Link { .. })));
    assert!(
        made.create_file("link", b"x", OWNER_ONLY_MODE).is_err()
            && made.rename_file("m.json", "link").is_err()
    );
    assert_eq!(fs::read(at("precious")).unwrap(), b"precious");
    // What the path leads to later makes no difference.
    fs::rename(at("clone/.forge"), at("clone/moved")).unwrap();
    symlink(at("outside"), at("clone/.forge")).unwrap();
    made.replace_file("m.json", b"three", OWNER_ONLY_MODE).unwrap();
    assert_eq!(fs::read(at("clone/moved/memory/m.json")).unwrap(), b"three");
    assert_eq!(fs::read_dir(at("outside/memory")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(at("clone/moved/memory")).unwrap().count(), 2, "no draft is left");
}
