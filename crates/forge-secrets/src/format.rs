//! Binary format of a store: salt 16 | nonce 12 | AES-256-GCM of a JSON object of names and values.
//!
//! The key is Argon2id of the passphrase over the salt (RFC 9106: one pass, 64 MiB, four lanes, 32 bytes). Salt and
//! nonce are fresh for every write, so no key encrypts twice. There is no header: the file is indistinguishable from
//! random bytes.

use crate::Error;
use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};

const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Length of the shortest store, which holds `{}`.
pub(crate) const MIN_STORE_BYTES: usize = SALT_BYTES + NONCE_BYTES + TAG_BYTES + 2;

/// Encrypts the content of a store.
pub(crate) fn seal(passphrase: &SecretString, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let mut head = [0; SALT_BYTES + NONCE_BYTES];
    getrandom::fill(&mut head)
        .map_err(|error| Error::Machine { why: format!("no random numbers are available: {error}") })?;
    let cipher = derive_cipher(passphrase, &head[..SALT_BYTES])?;
    let nonce = read_nonce(&head);
    let sealed = cipher
        .encrypt(&nonce, plain)
        .map_err(|_| Error::Machine { why: "the content is too long".to_owned() })?;
    Ok([&head[..], &sealed].concat())
}

/// Decrypts a store; `None` if the passphrase is wrong or a byte was changed.
///
/// `bytes` must have at least [`MIN_STORE_BYTES`] bytes.
pub(crate) fn open(passphrase: &SecretString, bytes: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, Error> {
    let (head, sealed) = bytes.split_at(SALT_BYTES + NONCE_BYTES);
    let cipher = derive_cipher(passphrase, &head[..SALT_BYTES])?;
    Ok(cipher.decrypt(&read_nonce(head), sealed).ok().map(Zeroizing::new))
}

fn read_nonce(head: &[u8]) -> Nonce<aes_gcm::aead::consts::U12> {
    let bytes: [u8; NONCE_BYTES] =
        head[SALT_BYTES..SALT_BYTES + NONCE_BYTES].try_into().expect("the slice has this length");
    bytes.into()
}

fn derive_cipher(passphrase: &SecretString, salt: &[u8]) -> Result<Aes256Gcm, Error> {
    const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
    let machine = |error: argon2::Error| Error::Machine { why: format!("no key can be derived: {error}") };
    let params = Params::new(ARGON2_MEMORY_KIB, 1, 4, Some(32)).map_err(machine)?;
    let mut key = Zeroizing::new([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase.expose_secret().as_bytes(), salt, key.as_mut())
        .map_err(machine)?;
    Ok(Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key)))
}
