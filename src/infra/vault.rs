//! Secrets that must be read again, such as those that webhooks are signed with: kept encrypted (AES-256-GCM, NIST SP
//! 800-38D) under a key that isn't in the database. Whoever has only the database, or a copy of it, learns none of them.
//!
//! What is sealed begins with a version and the name of its key, so that keys can be replaced one after the other, and is
//! bound to what it belongs to: a sealed secret that is moved to another row can't be opened there.
//!
//! A nonce is 96 random bits. Of 2^32 secrets under one key two have the same one with a probability of 2^-33, which is the
//! bound that NIST sets; there are a few thousand.

use std::path::PathBuf;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use sha2::{Digest as _, Sha256};

use crate::base::rng::Rng;
use crate::infra::config::{DatabaseConfig, DatabaseUrl, SecretsConfig, thirty_two};
use crate::infra::key_file;

/// The first byte of what is sealed.
const VERSION: u8 = 1;
/// Bytes of a key's name.
const NAME: usize = 8;
/// Bytes before the ciphertext.
const HEAD: usize = 1 + NAME + NONCE_LEN;

/// Why something can't be sealed or opened. The texts are for operators.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// There is no key to seal with.
    #[error("no key for secrets is set (KEYWARD_SECRETS_KEY)")]
    NoKey,
    /// It was sealed under a key that isn't here.
    #[error(
        "it is encrypted under the key {0}, which is neither KEYWARD_SECRETS_KEY nor among KEYWARD_SECRETS_KEYS_PREVIOUS"
    )]
    OtherKey(String),
    /// It was changed, moved, or cut off.
    #[error("it isn't what was encrypted")]
    Broken,
}

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Key {
    fn new(bytes: &[u8; 32]) -> Option<Self> {
        let digest = Sha256::new().chain_update(b"keyward secrets key\0").chain_update(bytes).finalize();
        let name = digest.first_chunk().copied()?;
        Some(Self { name, key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?) })
    }
}

/// Seals and opens.
#[derive(Default)]
pub struct Vault {
    present: Option<Key>,
    previous: Vec<Key>,
    trouble: Option<String>,
}

impl Vault {
    /// Reads the keys. Beside a SQLite file the present one is made, if nobody says another, it isn't there, and `make` says
    /// so; on Postgres it must be set, since all replicas need the same. What goes wrong is kept as
    /// [`trouble`](Self::trouble).
    #[must_use]
    pub fn open(config: &SecretsConfig, database: &DatabaseConfig, rng: &dyn Rng, make: bool) -> Self {
        let mut vault = Self::default();
        let present = match (&config.key, file(database)) {
            (Some(key), _) => Ok(thirty_two(key.expose())),
            (None, Some(path)) => key_file::read_or_make(&path, rng, make)
                .map(Some)
                .map_err(|error| format!("{}: {error}", path.display())),
            (None, None) => Err(VaultError::NoKey.to_string()),
        };
        match present {
            Ok(bytes) => vault.present = bytes.as_ref().and_then(Key::new),
            Err(trouble) => vault.trouble = Some(trouble),
        }
        let previous = config.previous.iter().filter_map(|key| thirty_two(key.expose()));
        vault.previous = previous.filter_map(|bytes| Key::new(&bytes)).collect();
        vault
    }

    /// Why nothing can be sealed.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The name of the key that seals.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        self.present.as_ref().map(|key| hex::encode(key.name))
    }

    /// Seals a secret for what it belongs to.
    ///
    /// # Errors
    /// There is no key.
    pub fn seal(&self, rng: &dyn Rng, belongs: &str, secret: &[u8]) -> Result<Vec<u8>, VaultError> {
        let key = self.present.as_ref().ok_or(VaultError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        rng.fill(&mut nonce);
        let mut text = secret.to_vec();
        let head = head(key.name, nonce);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = key.key.seal_in_place_append_tag(nonce, bound(&head, belongs), &mut text);
        // Fails only beyond 64 GiB.
        sealed.map_err(|_| VaultError::Broken)?;
        Ok([&head[..], &text].concat())
    }

    /// Opens what was sealed for the same.
    ///
    /// # Errors
    /// Its key isn't here, or it isn't what was sealed.
    pub fn open_sealed(&self, belongs: &str, sealed: &[u8]) -> Result<Vec<u8>, VaultError> {
        let (head, text) = sealed.split_at_checked(HEAD).ok_or(VaultError::Broken)?;
        let (Some(&VERSION), Some(name)) = (head.first(), head.get(1..=NAME)) else {
            return Err(VaultError::Broken);
        };
        let mut keys = self.present.iter().chain(&self.previous);
        let key = keys.find(|key| key.name == name).ok_or_else(|| VaultError::OtherKey(hex::encode(name)))?;
        let nonce = Nonce::try_assume_unique_for_key(&head[1 + NAME..]).map_err(|_| VaultError::Broken)?;
        let mut text = text.to_vec();
        let opened = key.key.open_in_place(nonce, bound(head, belongs), &mut text).map_err(|_| VaultError::Broken)?;
        Ok(opened.to_vec())
    }

    /// Whether it is sealed under the present key.
    #[must_use]
    pub fn is_present(&self, sealed: &[u8]) -> bool {
        self.present.as_ref().is_some_and(|key| sealed.get(1..=NAME) == Some(&key.name[..]))
    }
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vault").field("key", &self.key()).finish_non_exhaustive()
    }
}

/// Where the key is, if nobody says another.
#[must_use]
pub fn file(database: &DatabaseConfig) -> Option<PathBuf> {
    match &database.url {
        DatabaseUrl::Sqlite(path) => Some(key_file::beside(path, "secrets-key")),
        DatabaseUrl::Postgres(_) => None,
    }
}

fn head(name: [u8; NAME], nonce: [u8; NONCE_LEN]) -> Vec<u8> {
    [&[VERSION][..], &name, &nonce].concat()
}

/// What is authenticated beside the secret: the version and key that it says of itself, and what it belongs to.
fn bound(head: &[u8], belongs: &str) -> Aad<Vec<u8>> {
    Aad::from([b"keyward vault\0", &head[..head.len().min(1 + NAME)], belongs.as_bytes()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::SystemRng;

    fn vault(present: u8, previous: &[u8]) -> Vault {
        Vault {
            present: Key::new(&[present; 32]),
            previous: previous.iter().filter_map(|byte| Key::new(&[*byte; 32])).collect(),
            trouble: None,
        }
    }

    #[test]
    fn a_secret_opens_where_it_belongs_alone() {
        let vault = vault(1, &[]);
        let sealed = vault.seal(&SystemRng, "whk_a secret", b"hunter2").unwrap();
        assert_eq!(vault.open_sealed("whk_a secret", &sealed).unwrap(), b"hunter2");
        assert_eq!(vault.open_sealed("whk_b secret", &sealed), Err(VaultError::Broken));
        assert_ne!(vault.seal(&SystemRng, "whk_a secret", b"hunter2").unwrap(), sealed);
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        for place in [0, HEAD - 1, HEAD, sealed.len() - 1] {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(vault.open_sealed("whk_a secret", &changed), Err(VaultError::Broken), "{place}");
        }
        assert_eq!(vault.open_sealed("x", b""), Err(VaultError::Broken));
        assert_eq!(vault.open_sealed("x", &sealed[..HEAD]), Err(VaultError::Broken));
    }

    #[test]
    fn keys_are_replaced_one_after_the_other() {
        let (old, new) = (vault(1, &[]), vault(2, &[1]));
        let sealed = old.seal(&SystemRng, "x", b"s").unwrap();
        assert_eq!(new.open_sealed("x", &sealed).unwrap(), b"s");
        assert!(old.is_present(&sealed) && !new.is_present(&sealed));
        let name = old.key().unwrap();
        assert_eq!(vault(2, &[]).open_sealed("x", &sealed), Err(VaultError::OtherKey(name.clone())));
        assert!(vault(2, &[]).open_sealed("x", &sealed).unwrap_err().to_string().contains(&name));
        let none = Vault::default();
        assert_eq!(none.seal(&SystemRng, "x", b"s"), Err(VaultError::NoKey));
        assert_eq!(none.key(), None);
    }
}
