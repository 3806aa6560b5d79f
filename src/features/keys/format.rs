//! The form of a key: `<prefix>_<48 characters of base64url>`.
//!
//! The 48 characters are 36 bytes: 32 random ones and the CRC-32 (IEEE, big endian) of the prefix, its underscore and
//! those 32 bytes. The checksum keeps typing errors and guesses away from the storage; it isn't a secret. 256 random bits
//! can't be searched, so that a plain SHA-256 of the whole key is the right thing to store.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::base::key_shape::{BODY, checksum, is_prefix};
use crate::base::rng::Rng;
use crate::base::secret::Secret;

/// The text doesn't have the form, or its checksum is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a key")]
pub struct Malformed;

/// A key that somebody shows, whose checksum is right.
#[derive(Clone, Copy)]
pub struct PresentedKey<'a> {
    text: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Checks form and checksum; looks nothing up.
    ///
    /// # Errors
    /// It can't be a key.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        // The body may hold underscores itself, so it is counted from the end. Only ASCII is sliced.
        if !text.is_ascii() {
            return Err(Malformed);
        }
        let cut = text.len().checked_sub(BODY).ok_or(Malformed)?;
        let (head, body) = text.split_at(cut);
        let prefix = head.strip_suffix('_').ok_or(Malformed)?;
        let mut bytes = [0; 36];
        let decoded = URL_SAFE_NO_PAD.decode_slice(body, &mut bytes).map_err(|_| Malformed)?;
        let (random, sum) = bytes.split_at(32);
        if decoded == 36 && sum == checksum(head, random) && is_prefix(prefix) {
            Ok(Self { text })
        } else {
            Err(Malformed)
        }
    }

    /// What the storage knows the key by.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.text).into()
    }
}

/// The longest text that was issued elsewhere and is a key here, in characters.
pub const MAX_FOREIGN: usize = 512;

/// What the storage knows a text by that doesn't have our form: 1 to 512 visible ASCII characters. Nothing but the storage
/// can tell whether it is a key.
#[must_use]
pub fn foreign(text: &str) -> Option<[u8; 32]> {
    let fits = (1..=MAX_FOREIGN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Sha256::digest(text).into())
}

/// A secret that was just made, with what is kept of it.
#[derive(Debug)]
pub struct NewSecret {
    /// Shown this once, and never kept.
    pub secret: Secret,
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// What it begins with.
    pub prefix: String,
    /// The first four characters after the prefix.
    pub first_four: String,
    /// The last four characters.
    pub last_four: String,
}

impl NewSecret {
    /// 256 random bits under a prefix.
    #[must_use]
    pub fn generate(prefix: &str, rng: &dyn Rng) -> Self {
        let mut random = [0; 32];
        rng.fill(&mut random);
        Self::from_random(prefix, &random)
    }

    fn from_random(prefix: &str, random: &[u8; 32]) -> Self {
        let head = format!("{prefix}_");
        let sum = checksum(&head, random);
        let body = URL_SAFE_NO_PAD.encode([&random[..], &sum].concat());
        let (first_four, last_four) = (body[..4].to_owned(), body[BODY - 4..].to_owned());
        let text = head + &body;
        let hash = Sha256::digest(&text).into();
        Self { secret: Secret::new(text), hash, prefix: prefix.to_owned(), first_four, last_four }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_known_key_stays_what_it_is() {
        // Made by another implementation (Python's zlib.crc32 and base64), so that the format can't drift.
        let key = NewSecret::from_random("sk", &std::array::from_fn(|i| u8::try_from(i).unwrap()));
        assert_eq!(key.secret.expose(), "sk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh-V_cIg");
        assert_eq!(hex::encode(key.hash), hex::encode(Sha256::digest(key.secret.expose())));
        assert_eq!((key.first_four.as_str(), key.last_four.as_str()), ("AAEC", "_cIg"));
    }

    proptest! {
        #[test]
        fn a_key_reads_back(prefix in "[a-z][a-z0-9]{0,15}(_[a-z][a-z0-9]{0,15}){0,2}", random in any::<[u8; 32]>()) {
            let key = NewSecret::from_random(&prefix, &random);
            let text = key.secret.expose();
            prop_assert_eq!(text.len(), prefix.len() + 1 + BODY);
            prop_assert_eq!(PresentedKey::parse(text).map(|k| k.hash()).ok(), Some(key.hash));
        }

        /// A CRC-32 finds every error within 32 bits: no single wrong character passes.
        #[test]
        fn one_wrong_character_is_malformed(random in any::<[u8; 32]>(), at in 0_usize..51, with in "[A-Za-z0-9_-]") {
            let key = NewSecret::from_random("sk", &random);
            let mut wrong = key.secret.expose().to_owned();
            wrong.replace_range(at..=at, &with);
            if wrong != key.secret.expose() {
                prop_assert!(PresentedKey::parse(&wrong).is_err(), "{}", wrong);
            }
        }

        #[test]
        fn anything_is_parsed_without_panic(text in ".{0,80}") {
            prop_assert!(PresentedKey::parse(&text).is_err());
        }
    }

    #[test]
    fn what_was_issued_elsewhere_is_visible_and_not_too_long() {
        for good in ["x", "sk_live_51H", "AKIA/+=:;", &"~".repeat(512)] {
            assert_eq!(foreign(good), Some(Sha256::digest(good).into()), "{good}");
        }
        for bad in ["", " ", "a b", "a\n", "\u{7f}", "é", &"~".repeat(513)] {
            assert_eq!(foreign(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn near_misses_are_malformed() {
        let key = NewSecret::generate("sk", &crate::base::rng::SystemRng);
        let text = key.secret.expose();
        for wrong in [
            format!("{text} "),
            format!(" {text}"),
            text[3..].to_owned(),
            format!("xk{}", &text[2..]),
            format!("x_{text}"),
            text.to_uppercase(),
            String::new(),
            "_".repeat(51),
            "é".repeat(30),
        ] {
            assert!(PresentedKey::parse(&wrong).is_err(), "{wrong:?}");
        }
    }
}
