//! The Ed25519 keys (RFC 8032) of the audit trail: the one that signs, and those whose signatures count. The secret one never
//! enters the database: whoever can rewrite the trail must not find it there.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::{Digest as _, Sha256};

use crate::base::rng::Rng;
use crate::infra::config::{AuditConfig, DatabaseConfig, DatabaseUrl, thirty_two};
use crate::infra::key_file;

/// The key's file on Postgres, in the working directory.
const FILE: &str = "keyward-audit.key";

/// A public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// Its short name: the first 8 bytes of its SHA-256, in hexadecimal.
    #[must_use]
    pub fn id(&self) -> String {
        hex::encode(&Sha256::digest(self.0)[..8])
    }

    /// From base64, or from the PEM of a `SubjectPublicKeyInfo` (RFC 8410).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(key) = thirty_two(text) {
            return Some(Self(key));
        }
        let inner = text.strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
        let der = STANDARD.decode(inner.split_whitespace().collect::<String>()).ok()?;
        der.strip_prefix(&SPKI)?.try_into().ok().map(Self)
    }

    /// In base64.
    #[must_use]
    pub fn base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// In base64url without padding, as a JWK's `x` (RFC 8037).
    #[must_use]
    pub fn base64url(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// As PEM (RFC 8410), which `openssl pkeyutl` reads.
    #[must_use]
    pub fn pem(&self) -> String {
        let der = [&SPKI[..], &self.0].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// Whether it made this signature.
    #[must_use]
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

/// What a `SubjectPublicKeyInfo` of Ed25519 begins with.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The key that signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer {
    fn new(seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// Signs.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Signer").field(&self.public.id()).finish()
    }
}

/// The keys of this process.
#[derive(Debug, Default)]
pub struct Keyring {
    signer: Option<Signer>,
    trusted: Vec<PublicKey>,
    head_file: Option<PathBuf>,
    trouble: Option<String>,
    remembered: Mutex<Option<(i64, [u8; 32])>>,
}

impl Keyring {
    /// No key at all.
    #[must_use]
    pub const fn empty() -> Self {
        Self { signer: None, trusted: Vec::new(), head_file: None, trouble: None, remembered: Mutex::new(None) }
    }

    /// Reads the keys; makes the file of the signing one, readable by its owner alone, if it isn't there and `make` says so.
    /// What goes wrong is kept as [`trouble`](Self::trouble).
    #[must_use]
    pub fn open(config: &AuditConfig, database: &DatabaseConfig, rng: &dyn Rng, make: bool) -> Self {
        let mut keyring = Self::empty();
        let path = config.signing_key_file.clone().unwrap_or_else(|| key_file(database));
        let signer = match &config.signing_key {
            Some(seed) => Ok(thirty_two(seed.expose()).as_ref().and_then(Signer::new)),
            None => key_file::read_or_make(&path, rng, make).map(|seed| Signer::new(&seed)),
        };
        match signer {
            Ok(Some(signer)) => keyring.signer = Some(signer),
            Ok(None) => keyring.trouble = Some("the signing key isn't an Ed25519 seed".to_owned()),
            Err(error) => keyring.trouble = Some(format!("{}: {error}", path.display())),
        }
        keyring.trusted = keyring.signer.iter().map(Signer::public).collect();
        keyring.trusted.extend(config.public_keys.iter().copied().map(PublicKey));
        keyring.head_file = config.head_file.clone().or_else(|| head_file(config, database, &path));
        keyring
    }

    /// The key that signs.
    #[must_use]
    pub fn signer(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Whose signatures count.
    #[must_use]
    pub fn trusted(&self) -> &[PublicKey] {
        &self.trusted
    }

    /// The trusted key of this name.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<PublicKey> {
        self.trusted.iter().copied().find(|key| key.id() == id)
    }

    /// Where the newest signed head is remembered outside of the database.
    #[must_use]
    pub fn head_file(&self) -> Option<&Path> {
        self.head_file.as_deref()
    }

    /// The newest place in the chain that this process knows of, and its hash.
    #[must_use]
    pub fn remembered(&self) -> Option<(i64, [u8; 32])> {
        *self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a place, unless a newer one is.
    pub fn remember(&self, seq: i64, hash: [u8; 32]) {
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.is_none_or(|(newest, _)| newest < seq) {
            *remembered = Some((seq, hash));
        }
    }

    /// Why nothing can be signed.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

/// Where the signing key is, if nobody says.
#[must_use]
pub fn key_file(database: &DatabaseConfig) -> PathBuf {
    match &database.url {
        DatabaseUrl::Sqlite(path) => key_file::beside(path, "audit-key"),
        DatabaseUrl::Postgres(_) => PathBuf::from(FILE),
    }
}

/// Each database has one of its own, so that a key may serve several. With a key from the environment there is no place
/// beside it on Postgres.
fn head_file(config: &AuditConfig, database: &DatabaseConfig, key: &Path) -> Option<PathBuf> {
    match &database.url {
        DatabaseUrl::Sqlite(path) => Some(key_file::beside(path, "audit-head")),
        DatabaseUrl::Postgres(_) if config.signing_key.is_some() => None,
        DatabaseUrl::Postgres(url) => {
            let options: sqlx::postgres::PgConnectOptions = url.expose().parse().ok()?;
            let place = format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database()?);
            Some(key_file::beside(key, &format!("{}.head", hex::encode(&Sha256::digest(place)[..4]))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_good_for_its_message_and_key_alone() {
        // RFC 8032, 7.1, test 1.
        let seed = hex::decode("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let signer = Signer::new(&seed.try_into().unwrap()).unwrap();
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(hex::encode(signer.public().0), public);
        let signature = signer.sign(b"");
        assert!(
            hex::encode(&signature).starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155")
        );
        assert!(signer.public().has_signed(b"", &signature) && !signer.public().has_signed(b"x", &signature));
        let other = Signer::new(&[7; 32]).unwrap();
        assert!(!other.public().has_signed(b"", &signature) && !other.public().has_signed(b"", b""));
        assert_ne!(other.public().id(), signer.public().id());
    }

    #[test]
    fn public_keys_are_read_in_both_forms() {
        let key = Signer::new(&[9; 32]).unwrap().public();
        assert_eq!(PublicKey::parse(&key.base64()), Some(key));
        assert_eq!(PublicKey::parse(&key.pem()), Some(key));
        for wrong in ["", "x", "AAAA", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
            assert_eq!(PublicKey::parse(wrong), None, "{wrong}");
        }
    }
}
