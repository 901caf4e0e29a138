//! The encrypted file: what it keeps, what it refuses, and that it is never half written.

use forge_secrets::{Error, ExposeSecret as _, LinkPolicy, SecretStore, SecretString};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn store(folder: &Path) -> SecretStore {
    SecretStore::new(
        folder.join("secrets.enc"),
        folder.join("lock"),
        LinkPolicy::Refuse { below: folder.to_owned() },
    )
}

fn pass(text: &str) -> SecretString {
    SecretString::from(text)
}

fn set(store: &SecretStore, phrase: &str, name: &str, value: &str) -> Result<(), Error> {
    store.update(&pass(phrase), |values| {
        values.insert(name.to_owned(), SecretString::from(value));
    })
}

fn get(store: &SecretStore, phrase: &str, name: &str) -> Option<String> {
    let values = store.open(&pass(phrase)).unwrap();
    values.get(name).map(|value| value.expose_secret().to_owned())
}

#[test]
fn what_is_set_comes_back_and_stands_nowhere_in_clear() {
    let folder = folder();
    let store = store(folder.path());
    assert!(!store.exists());
    assert!(store.open(&pass("x")).unwrap().is_empty());
    set(&store, "right horse", "OPENAI_API_KEY", "sk-test-0123456789").unwrap();
    set(&store, "right horse", "OTHER", "zwei\n\"Zeilen\" ü").unwrap();
    assert_eq!(get(&store, "right horse", "OPENAI_API_KEY").unwrap(), "sk-test-0123456789");
    assert_eq!(get(&store, "right horse", "OTHER").unwrap(), "zwei\n\"Zeilen\" ü");
    let bytes = std::fs::read(store.path()).unwrap();
    for needle in [&b"sk-test"[..], b"OPENAI", b"OTHER"] {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
    let mode = store.path().metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

/// The layout is a promise to other programs: this is what another one wrote (salt, nonce, ciphertext with its tag),
/// with Python's argon2-cffi and cryptography.
#[test]
fn a_store_that_another_program_wrote_is_read() {
    let folder = folder();
    let store = store(folder.path());
    let hex = include_str!("store.hex");
    let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    std::fs::write(store.path(), bytes).unwrap();
    std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(get(&store, "correct horse battery staple", "OPENAI_API_KEY").unwrap(), "sk-from-elsewhere");
}

#[test]
fn every_write_has_a_salt_and_a_nonce_of_its_own() {
    let folder = folder();
    let store = store(folder.path());
    set(&store, "p", "A", "1").unwrap();
    let first = std::fs::read(store.path()).unwrap();
    set(&store, "p", "A", "1").unwrap();
    let second = std::fs::read(store.path()).unwrap();
    assert_ne!(first[..16], second[..16]);
    assert_ne!(first[16..28], second[16..28]);
    assert_eq!(first.len(), second.len());
}

#[test]
fn a_wrong_passphrase_changes_nothing_and_says_so() {
    let folder = folder();
    let store = store(folder.path());
    set(&store, "right", "A", "secret value").unwrap();
    let before = std::fs::read(store.path()).unwrap();
    let error = store.open(&pass("wrong")).unwrap_err();
    assert!(matches!(error, Error::Unopened { .. }), "{error}");
    assert!(error.to_string().contains("passphrase") && !error.to_string().contains("secret value"));
    assert!(matches!(set(&store, "wrong", "B", "2"), Err(Error::Unopened { .. })));
    assert_eq!(std::fs::read(store.path()).unwrap(), before);
}

#[test]
fn no_damage_goes_unnoticed_or_gets_written_over() {
    let folder = folder();
    let store = store(folder.path());
    set(&store, "p", "A", "a value").unwrap();
    let whole = std::fs::read(store.path()).unwrap();
    for at in [0, 15, 16, 27, 28, whole.len() / 2, whole.len() - 1] {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(store.path(), &bytes).unwrap();
        assert!(matches!(store.open(&pass("p")), Err(Error::Unopened { .. })), "byte {at}");
        assert!(set(&store, "p", "B", "2").is_err());
        assert_eq!(std::fs::read(store.path()).unwrap(), bytes);
    }
    for length in [0, 1, 27, 28, 43, 45] {
        std::fs::write(store.path(), &whole[..length]).unwrap();
        let error = store.open(&pass("p")).unwrap_err();
        // Few bytes of noise may happen to be text.
        assert!(matches!(error, Error::Truncated { .. } | Error::Foreign { .. }), "{length}: {error}");
    }
    std::fs::write(store.path(), &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(store.open(&pass("p")), Err(Error::Unopened { .. })));
    std::fs::write(store.path(), &whole).unwrap();
    assert_eq!(get(&store, "p", "A").unwrap(), "a value");
}

#[test]
fn what_is_no_store_is_left_alone() {
    let folder = folder();
    let store = store(folder.path());
    let text = "[default]\nkey = \"something that is long enough to be a store of secrets\"\n";
    std::fs::write(store.path(), text).unwrap();
    std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(store.open(&pass("p")), Err(Error::Foreign { .. })));
    assert!(matches!(set(&store, "p", "A", "1"), Err(Error::Foreign { .. })));
    assert_eq!(std::fs::read_to_string(store.path()).unwrap(), text);
    std::fs::remove_file(store.path()).unwrap();
    std::fs::create_dir(store.path()).unwrap();
    assert!(matches!(store.open(&pass("p")), Err(Error::Foreign { .. })));
}

#[test]
fn what_others_can_read_is_refused_with_the_way_out() {
    let folder = folder();
    let store = store(folder.path());
    set(&store, "p", "A", "1").unwrap();
    std::fs::set_permissions(store.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = store.open(&pass("p")).unwrap_err();
    assert!(matches!(error, Error::TooOpen { mode: 0o644, .. }));
    assert!(error.to_string().contains("chmod 600"), "{error}");
}

#[test]
fn links_are_followed_where_the_user_made_them_and_refused_in_a_repository() {
    let folder = folder();
    let real = folder.path().join("elsewhere");
    let link = folder.path().join("secrets.enc");
    let kept = SecretStore::new(real.clone(), folder.path().join("lock"), LinkPolicy::Follow);
    set(&kept, "p", "A", "1").unwrap();
    symlink(&real, &link).unwrap();
    let refusing = store(folder.path());
    assert!(matches!(refusing.open(&pass("p")), Err(Error::Link { .. })));
    assert!(matches!(set(&refusing, "p", "B", "2"), Err(Error::Link { .. })));
    let following = SecretStore::new(link.clone(), folder.path().join("lock"), LinkPolicy::Follow);
    set(&following, "p", "B", "2").unwrap();
    assert!(link.symlink_metadata().unwrap().is_symlink());
    assert_eq!(get(&kept, "p", "B").unwrap(), "2");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let folder = folder();
    std::thread::scope(|scope| {
        for n in 0..6 {
            let store = store(folder.path());
            scope.spawn(move || set(&store, "p", &format!("NAME_{n}"), &n.to_string()).unwrap());
        }
    });
    assert_eq!(store(folder.path()).open(&pass("p")).unwrap().len(), 6);
}

#[test]
fn a_folder_that_can_not_be_written_is_an_error_not_a_loss() {
    let folder = folder();
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let store = SecretStore::new(
        file.join("secrets.enc"),
        folder.path().join("lock"),
        LinkPolicy::Refuse { below: folder.path().to_owned() },
    );
    assert!(matches!(set(&store, "p", "A", "1"), Err(Error::Io { .. })));
}

#[test]
fn no_debug_form_shows_a_value() {
    let folder = folder();
    let store = store(folder.path());
    set(&store, "p", "A", "hidden-value").unwrap();
    let shown = format!("{:?} {store:?}", store.open(&pass("p")).unwrap());
    assert!(!shown.contains("hidden-value"), "{shown}");
}

#[test]
fn a_store_that_can_not_be_examined_is_not_an_empty_one() {
    let folder = folder();
    let place = folder.path().join("place");
    symlink("place", &place).unwrap();
    let store = SecretStore::new(place.join("secrets.enc"), folder.path().join("lock"), LinkPolicy::Follow);
    assert!(store.exists());
    assert!(matches!(store.open(&pass("x")), Err(Error::Io { .. } | Error::Link { .. })));
}
