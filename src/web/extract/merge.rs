//! Fields of a merge patch (RFC 7396), in which `null` means something else than an absent field.

use serde::{Deserialize, Deserializer, de};

/// Tells `null` (an inner `None`) from an absent field (an outer one, by `#[serde(default)]`).
///
/// # Errors
/// Those of the value.
pub fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// As [`present`], for a whole number within bounds, however it is written.
///
/// # Errors
/// Anything but such a number or `null`.
pub fn whole<'de, D: Deserializer<'de>, const LEAST: u32, const MOST: u32>(
    deserializer: D,
) -> Result<Option<Option<u32>>, D::Error> {
    struct Whole<const LEAST: u32, const MOST: u32>(u32);

    impl<'de, const LEAST: u32, const MOST: u32> Deserialize<'de> for Whole<LEAST, MOST> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            crate::gate::whole(deserializer, LEAST, MOST).map(Self)
        }
    }

    let number = Option::<Whole<LEAST, MOST>>::deserialize(deserializer)?;
    Ok(Some(number.map(|Whole(number)| number)))
}

/// As [`present`], for a name that can't be cleared.
///
/// # Errors
/// `null`, or what isn't a text.
pub fn required<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    match Option::deserialize(deserializer)? {
        Some(value) => Ok(Some(value)),
        None => Err(de::Error::custom("can't be cleared")),
    }
}
