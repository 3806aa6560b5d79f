//! What a username and a password must be.

use unicode_normalization::UnicodeNormalization as _;

use crate::base::invalid::Invalid;
use crate::base::masking::holds_secret;
use crate::base::secret::Secret;

/// Shortest and longest username, in characters.
pub const USERNAME_LENGTH: std::ops::RangeInclusive<usize> = 3..=64;

/// Shortest and longest password, in characters of its normalised form.
pub const PASSWORD_LENGTH: std::ops::RangeInclusive<usize> = 8..=256;

/// A username that follows the rule: 3 to 64 of `[A-Za-z0-9._-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(String);

impl Username {
    /// # Errors
    /// The rule.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if USERNAME_LENGTH.contains(&text.len()) && text.bytes().all(allowed) {
            if holds_secret(text) {
                return Err(Invalid::field("username", "holds_secret", "holds a key, which is never kept"));
            }
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::field("username", "invalid_username", "must be 3 to 64 of A-Z, a-z, 0-9, ., _ and -"))
        }
    }

    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What makes it unique.
    #[must_use]
    pub fn folded(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// The form in which a password is hashed: NFKC, so that the same characters typed on another keyboard are the same
/// password (NIST SP 800-63B, 5.1.1.2). `None` outside of the lengths.
#[must_use]
pub fn normalised(password: &Secret) -> Option<Secret> {
    // Bounds the work: normalising can make text longer, hardly ever shorter.
    if password.expose().len() > 4 * 4 * PASSWORD_LENGTH.end() {
        return None;
    }
    let normal: String = password.expose().nfkc().collect();
    PASSWORD_LENGTH.contains(&normal.chars().count()).then(|| Secret::new(normal))
}

/// A new password in the form in which it is hashed.
///
/// # Errors
/// Its length.
pub fn new_password(field: &'static str, password: &Secret) -> Result<Secret, Invalid> {
    normalised(password).ok_or_else(|| Invalid::field(field, "password_length", "must be 8 to 256 characters"))
}

/// Longer passwords aren't common, and aren't looked at: the estimator's time grows with the length, up to a quarter of a
/// second for 256 characters that were chosen to be slow.
const LONGEST_COMMON: usize = 32;

/// Passwords that can be guessed in fewer tries are refused: about as many as the delays after failed log-ins let one
/// address make in half a year (96 a day).
const GUESSES: u64 = 17_000;

/// Whether a password is one that attackers try first: the whole of it is one word of zxcvbn's lists of common passwords,
/// names and words (also with other capitals, or digits for letters), or zxcvbn guesses it in [`GUESSES`] tries, knowing
/// the username.
///
/// Takes some milliseconds.
#[must_use]
pub fn is_common(password: &Secret, username: &str) -> bool {
    use zxcvbn::matching::patterns::MatchPattern;
    if password.expose().chars().count() > LONGEST_COMMON {
        return false;
    }
    let estimate = zxcvbn::zxcvbn(password.expose(), &[username]);
    let is_one_word = matches!(estimate.sequence(), [only] if matches!(only.pattern, MatchPattern::Dictionary(_)));
    is_one_word || estimate.guesses() < GUESSES
}

/// The error of a common password.
#[must_use]
pub fn common_password(field: &'static str) -> Invalid {
    Invalid::field(field, "common_password", "is one of the passwords that attackers try first; choose another")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn usernames_are_plain() {
        let long = "x".repeat(64);
        for good in ["ada", "A.b-C_9", "...", long.as_str()] {
            assert!(Username::parse(good).is_ok(), "{good}");
        }
        let longer = "x".repeat(65);
        for bad in ["", "ab", longer.as_str(), "a b", "ada\n", "adä", "a/b/c", "a@b.c"] {
            assert!(Username::parse(bad).is_err(), "{bad:?}");
        }
        assert_eq!(Username::parse("AdA").unwrap().folded(), "ada");
    }

    #[test]
    fn lengths_count_normalised_characters() {
        assert!(normalised(&secret("1234567")).is_none());
        assert!(normalised(&secret("12345678")).is_some());
        assert!(normalised(&secret(&"ä".repeat(256))).is_some());
        assert!(normalised(&secret(&"ä".repeat(257))).is_none());
        assert!(normalised(&secret(&"x".repeat(1_000_000))).is_none());
        // A ligature is its letters, a full-width digit the digit.
        assert_eq!(normalised(&secret("ﬁne１２３４５")).unwrap().expose(), "fine12345");
    }

    #[test]
    fn common_passwords_are_known() {
        for common in [
            "password",
            "12345678",
            "Password1",
            "qwertyuiop",
            "p@ssw0rd",
            "iloveyou",
            "password123",
            "Passw0rd!",
            "letmein123",
            "aaaaaaaa",
            "ada-lovelace",
            "abcd1234",
        ] {
            assert!(is_common(&secret(common), "ada-lovelace"), "{common}");
        }
        for fine in [
            "correct horse battery staple",
            "Tr0ub4dor&3x",
            "пароль-из-десяти",
            "s3cret-passw0rd!",
            "test-password-1",
            "testpassword",
            "hunter2hunter2!",
        ] {
            assert!(!is_common(&secret(fine), "ada-lovelace"), "{fine}");
        }
    }
}
