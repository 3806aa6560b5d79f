//! How many bytes are asked for, and how they are written.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

/// Why a length was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    /// Not an integer, or below 1.
    #[error("not a positive integer")]
    Invalid,
    /// Above the maximum.
    #[error("above the maximum")]
    TooLarge,
}

/// Reads a length: decimal digits alone, so that `+7` and `1_0` aren't lengths.
///
/// # Errors
/// Not an integer, below 1, or above `max`.
pub fn length(text: &str, max: u64) -> Result<u64, LengthError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(LengthError::Invalid);
    }
    match text.parse::<u64>() {
        Ok(0) => Err(LengthError::Invalid),
        Ok(length) if length <= max => Ok(length),
        // Digits that don't fit are a number all the same.
        Ok(_) | Err(_) => Err(LengthError::TooLarge),
    }
}

/// How the bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Lower-case hexadecimal.
    Hex,
    /// RFC 4648, section 4, with padding.
    Base64,
    /// RFC 4648, section 5, without padding.
    Base64Url,
}

impl Encoding {
    /// Writes a piece. Pieces whose length is a multiple of three can be joined.
    #[must_use]
    pub fn write(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex => hex::encode(bytes),
            Self::Base64 => STANDARD.encode(bytes),
            Self::Base64Url => URL_SAFE_NO_PAD.encode(bytes),
        }
    }

    /// How long the text of so many bytes is.
    #[must_use]
    pub fn text_length(self, bytes: u64) -> u64 {
        match self {
            Self::Hex => bytes * 2,
            Self::Base64 => bytes.div_ceil(3) * 4,
            Self::Base64Url => (bytes * 4).div_ceil(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_are_plain_decimals() {
        for (text, expected) in [
            ("1", Ok(1)),
            ("32", Ok(32)),
            ("0032", Ok(32)),
            ("1024", Ok(1024)),
            ("1025", Err(LengthError::TooLarge)),
            ("99999999999999999999999", Err(LengthError::TooLarge)),
            ("0", Err(LengthError::Invalid)),
            ("00", Err(LengthError::Invalid)),
            ("", Err(LengthError::Invalid)),
            ("abc", Err(LengthError::Invalid)),
            ("+7", Err(LengthError::Invalid)),
            ("-1", Err(LengthError::Invalid)),
            ("1_0", Err(LengthError::Invalid)),
            ("1.0", Err(LengthError::Invalid)),
            (" 1", Err(LengthError::Invalid)),
            ("１", Err(LengthError::Invalid)),
            ("0x10", Err(LengthError::Invalid)),
        ] {
            assert_eq!(length(text, 1024), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_text_is_as_long_as_said_and_pieces_join(bytes in proptest::collection::vec(any::<u8>(), 1..200), cut in 0_usize..60) {
            for encoding in [Encoding::Hex, Encoding::Base64, Encoding::Base64Url] {
                let whole = encoding.write(&bytes);
                prop_assert_eq!(whole.len() as u64, encoding.text_length(bytes.len() as u64));
                let cut = (cut * 3).min(bytes.len() / 3 * 3);
                prop_assert_eq!(whole, encoding.write(&bytes[..cut]) + &encoding.write(&bytes[cut..]));
            }
        }
    }
}
