//! How our own types are stored: native on Postgres, the nearest exact thing on SQLite.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::PgValueFormat;
use sqlx::{Database, Decode, Encode, Postgres, Sqlite, Type};

use crate::base::clock::Timestamp;

/// 2000-01-01T00:00:00Z, from which Postgres counts microseconds.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

type Native = chrono::DateTime<chrono::Utc>;

impl Type<Postgres> for Timestamp {
    fn type_info() -> <Postgres as Database>::TypeInfo {
        <Native as Type<Postgres>>::type_info()
    }

    fn compatible(ty: &<Postgres as Database>::TypeInfo) -> bool {
        <Native as Type<Postgres>>::compatible(ty)
    }
}

impl Encode<'_, Postgres> for Timestamp {
    fn encode_by_ref(&self, buf: &mut <Postgres as Database>::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Postgres>::encode(self.as_datetime(), buf)
    }
}

impl<'r> Decode<'r, Postgres> for Timestamp {
    fn decode(value: <Postgres as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        if value.format() == PgValueFormat::Text {
            return <Native as Decode<Postgres>>::decode(value).map(Self::new);
        }
        // Not through chrono, which panics at what the engine can hold and it can't: `infinity`, for one.
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        let at = micros.checked_add(POSTGRES_EPOCH).and_then(Self::from_micros);
        at.ok_or_else(|| "a time outside of the calendar".into())
    }
}

// SQLite has no time type. Microseconds since the epoch compare, index and read back exactly.
impl Type<Sqlite> for Timestamp {
    fn type_info() -> <Sqlite as Database>::TypeInfo {
        <i64 as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &<Sqlite as Database>::TypeInfo) -> bool {
        <i64 as Type<Sqlite>>::compatible(ty)
    }
}

impl Encode<'_, Sqlite> for Timestamp {
    fn encode_by_ref(&self, buf: &mut <Sqlite as Database>::ArgumentBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.as_micros(), buf)
    }
}

impl<'r> Decode<'r, Sqlite> for Timestamp {
    fn decode(value: <Sqlite as Database>::ValueRef<'r>) -> Result<Self, BoxDynError> {
        let micros = <i64 as Decode<Sqlite>>::decode(value)?;
        Self::from_micros(micros).ok_or_else(|| "a time outside of the calendar".into())
    }
}
