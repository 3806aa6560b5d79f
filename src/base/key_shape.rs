//! The shape of a key, for those who make keys and for those who find them in texts: `<prefix>_<48 characters of
//! base64url>`, the 48 being 32 random bytes and the CRC-32 (IEEE, big endian) of the prefix, its underscore and them.

/// Characters after the prefix and its underscore.
pub const BODY: usize = 48;

/// The longest prefix, in characters.
pub const MAX_PREFIX: usize = 64;

/// The longest part of a prefix, in characters.
pub const MAX_PART: usize = 16;

/// The rule of [`is_prefix`], for people.
pub const PREFIX_RULE: &str =
    "expected parts of a lower-case letter and up to 15 more letters or digits, joined by _, 64 characters at most";

/// Whether keys may begin with this: `[a-z][a-z0-9]{0,15}` parts joined by `_`, 64 characters at most.
#[must_use]
pub fn is_prefix(prefix: &str) -> bool {
    prefix.len() <= MAX_PREFIX
        && prefix.split('_').all(|part| {
            part.len() <= MAX_PART
                && part.as_bytes().first().is_some_and(u8::is_ascii_lowercase)
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

/// The checksum of a key: of its prefix with the underscore, and its random bytes.
#[must_use]
pub fn checksum(head: &str, random: &[u8]) -> [u8; 4] {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head.as_bytes());
    crc.update(random);
    crc.finalize().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_lower_case_parts() {
        for good in ["sk", "acme_live", "a", "a1_b2_c3", "abcdefghijklmnop"] {
            assert!(is_prefix(good), "{good}");
        }
        let long = ["abcdefghijklmno"; 5].join("_");
        for bad in ["", "_", "sk_", "_sk", "1a", "Sk", "s-k", "abcdefghijklmnopq", "sk__live", "ské", &long] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
