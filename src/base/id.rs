//! Ids: a prefix that says what it names, and a ULID, which sorts by the time it was made.

use std::fmt;
use std::str::FromStr;

use ulid::Ulid;

use super::clock::Timestamp;
use super::rng::Rng;

/// The text isn't an id of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an id of this kind")]
pub struct NotAnId;

/// The length of every id's text in bytes: four of the prefix, 26 of the ULID.
pub const TEXT_LENGTH: usize = 4 + ulid::ULID_LEN;

fn generate(now: Timestamp, rng: &dyn Rng) -> Ulid {
    let mut random = [0; 16];
    rng.fill(&mut random);
    Ulid::from_parts(now.as_millis(), u128::from_le_bytes(random))
}

/// Only the canonical spelling is an id: one object never has two names.
fn parse(prefix: &str, text: &str) -> Result<Ulid, NotAnId> {
    let digits = text.strip_prefix(prefix).ok_or(NotAnId)?;
    let ulid = Ulid::from_string(digits).map_err(|_| NotAnId)?;
    if ulid.array_to_str(&mut [0; ulid::ULID_LEN]) == digits { Ok(ulid) } else { Err(NotAnId) }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Ulid);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id: 48 bits of time in milliseconds and 80 random bits.
            #[must_use]
            pub fn generate(now: Timestamp, rng: &dyn Rng) -> Self {
                Self(generate(now, rng))
            }

            /// Before or after every id that is made: for tests and for the ends of a page.
            #[must_use]
            pub const fn from_bits(bits: u128) -> Self {
                Self(Ulid(bits))
            }

            /// When it was made: whole milliseconds.
            #[must_use]
            pub fn made_at(self) -> Timestamp {
                let millis = i64::try_from(self.0.timestamp_ms()).unwrap_or(i64::MAX);
                Timestamp::from_micros(millis.saturating_mul(1000)).unwrap_or(Timestamp::FAR)
            }

            /// As text, without allocation.
            pub fn text(self, buffer: &mut [u8; TEXT_LENGTH]) -> &str {
                let (head, tail) = buffer.split_at_mut($prefix.len());
                head.copy_from_slice($prefix.as_bytes());
                tail.copy_from_slice(self.0.array_to_str(&mut [0; ulid::ULID_LEN]).as_bytes());
                // ASCII alone.
                std::str::from_utf8(buffer).unwrap_or_default()
            }

            /// The last 64 bits, all random: a hash.
            #[must_use]
            #[expect(clippy::cast_possible_truncation, reason = "the lower half is wanted")]
            pub const fn low_bits(self) -> u64 {
                self.0.0 as u64
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($prefix)?;
                f.write_str(self.0.array_to_str(&mut [0; ulid::ULID_LEN]))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                parse($prefix, text).map(Self)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-7][0-9A-HJKMNP-TV-Z]{25}$")))
                    .examples([concat!($prefix, "01K5ZV8QXW3M7C2R9T4B6D8F0G")])
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}

        impl<DB: sqlx::Database> sqlx::Type<DB> for $name
        where
            String: sqlx::Type<DB>,
        {
            fn type_info() -> DB::TypeInfo {
                <String as sqlx::Type<DB>>::type_info()
            }

            fn compatible(ty: &DB::TypeInfo) -> bool {
                <String as sqlx::Type<DB>>::compatible(ty)
            }
        }

        impl<'q, DB: sqlx::Database> sqlx::Encode<'q, DB> for $name
        where
            String: sqlx::Encode<'q, DB>,
        {
            fn encode_by_ref(
                &self,
                buf: &mut DB::ArgumentBuffer,
            ) -> Result<sqlx::encode::IsNull, sqlx::error::BoxDynError> {
                sqlx::Encode::<DB>::encode(self.to_string(), buf)
            }
        }

        impl<'r, DB: sqlx::Database> sqlx::Decode<'r, DB> for $name
        where
            &'r str: sqlx::Decode<'r, DB>,
        {
            fn decode(value: DB::ValueRef<'r>) -> Result<Self, sqlx::error::BoxDynError> {
                Ok(<&str as sqlx::Decode<DB>>::decode(value)?.parse()?)
            }
        }
    )*};
}

ids! {
    /// A person.
    UserId = "usr_";
    /// A project: the tenant that owns keys.
    ProjectId = "prj_";
    /// An API key, whatever its present secret.
    KeyId = "key_";
    /// One secret (generation) of a key.
    SecretId = "sec_";
    /// A person's log-in.
    SessionId = "ses_";
    /// An event of the outbox.
    EventId = "evt_";
    /// An entry of the audit trail.
    AuditId = "aud_";
    /// A checkpoint of the audit trail.
    CheckpointId = "chk_";
    /// A scope of a project's catalogue.
    ScopeId = "scp_";
    /// A rule for sensitive fields.
    SensitiveFieldId = "sfd_";
    /// Work done elsewhere that holds one of a key's places.
    LeaseId = "lse_";
    /// A row of the request log.
    RequestId = "req_";
    /// An alert rule.
    AlertId = "alr_";
    /// What became of an alert rule at a moment.
    AlertHistoryId = "alh_";
    /// An e-mail.
    MailId = "mai_";
    /// A webhook.
    WebhookId = "whk_";
    /// One event on its way to one webhook.
    DeliveryId = "dlv_";
    /// A restart of a watched service.
    ServiceOperationId = "opr_";
    /// A change of a watched service's state.
    ServiceHistoryId = "svh_";
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_reads_back(bits in any::<u128>()) {
            let id = KeyId::from_bits(bits);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.to_string().len(), 30);
            prop_assert!(id.to_string().parse::<UserId>().is_err());
        }

        #[test]
        fn ids_sort_by_time(early in 0_i64..1 << 46, later in 1_i64..1 << 40) {
            let rng = crate::base::rng::SystemRng;
            let first = KeyId::generate(Timestamp::from_micros(early).unwrap(), &rng);
            let second = KeyId::generate(Timestamp::from_micros(early + later + 1_000).unwrap(), &rng);
            prop_assert!(first < second);
            prop_assert!(first.to_string() < second.to_string());
        }

        #[test]
        fn anything_else_is_refused_without_panic(text in ".{0,40}") {
            if let Ok(id) = text.parse::<KeyId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let id = KeyId::from_bits(42 << 80 | 0xabc).to_string();
        assert!(id.parse::<KeyId>().is_ok());
        for wrong in [
            id.to_lowercase(),
            id.replace('0', "O"),
            format!("{id} "),
            id.replace("key_", "KEY_"),
            "key_8ZZZZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
        ] {
            assert_eq!(wrong.parse::<KeyId>(), Err(NotAnId), "{wrong}");
        }
    }
}
