//! Values of whatever type: the right one is read, another is taken for absent.
//!
//! For documents that others wrote, of which only some parts matter here. Knows nothing of what the parts mean.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess};
use serde::{Deserialize, Deserializer, de};

/// What can be made of some types of values, and is absent otherwise.
pub(super) trait Part<'de>: Default {
    /// Of a string, a number or a truth value.
    fn of_text(_: Cow<'de, str>) -> Self {
        Self::default()
    }

    /// Of a list, which must be read to its end.
    fn of_list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }

    /// Of an object, which must be read to its end.
    fn of_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Self::default())
    }
}

/// Reads a part of any value.
#[derive(Debug, Default)]
pub(super) struct Lenient<T>(pub(super) T);

impl<'de, T: Part<'de>> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<T>(PhantomData<T>);

        impl<'de, T: Part<'de>> de::Visitor<'de> for Visitor<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<T, E> {
                Ok(T::of_text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
                Ok(T::of_text(Cow::Owned(text.to_owned())))
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
                Ok(T::of_text(Cow::Owned(value.to_string())))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
                Ok(T::of_text(Cow::Owned(value.to_string())))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<T, E> {
                Ok(T::of_text(Cow::Owned(value.to_string())))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<T, E> {
                // `3.0` stays `3.0`: YAML takes an unquoted version for a number.
                Ok(T::of_text(Cow::Owned(format!("{value:?}"))))
            }

            fn visit_unit<E: de::Error>(self) -> Result<T, E> {
                Ok(T::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
                T::of_list(list)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::of_map(map)
            }
        }

        deserializer.deserialize_any(Visitor(PhantomData)).map(Self)
    }
}

/// Text, borrowed from the document where that is possible. As the name in an object it is nothing else.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Part<'de> for Option<Text<'a>> {
    fn of_text(text: Cow<'de, str>) -> Self {
        Some(Text(text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Visitor).map(Self)
    }
}

impl Lenient<Option<Text<'_>>> {
    /// The text, if there is some.
    pub(super) fn get(&self) -> Option<&str> {
        self.0.as_ref().map(|Text(text)| text.trim()).filter(|text| !text.is_empty())
    }
}
