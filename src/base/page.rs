//! Keyset pages, newest first: a cursor says after which row to go on, so that no page is skipped or seen twice while
//! rows come and go.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use super::clock::Timestamp;

/// How many rows a page holds: 1 to 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u8);

impl Limit {
    /// The most rows a page holds.
    pub const MAX: u8 = 200;

    /// `None` outside of 1 to 200.
    #[must_use]
    pub fn new(rows: u64) -> Option<Self> {
        u8::try_from(rows).ok().filter(|rows| (1..=Self::MAX).contains(rows)).map(Self)
    }

    /// As a number.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// What a statement must ask for: one row more than the page holds, to know whether there is another page.
    #[must_use]
    pub fn fetch(self) -> i64 {
        i64::from(self.0) + 1
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(50)
    }
}

/// Hexadecimal digits of a cursor's time: 60 bits of microseconds, which last until the year 38505.
const TIME_DIGITS: usize = 15;

/// The row after which a page begins: its time and its id. As text: 15 hexadecimal digits and the id, so that every text
/// of that form is a place in the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor<Id> {
    /// When the row was made.
    pub at: Timestamp,
    /// Breaks ties between rows of the same microsecond.
    pub id: Id,
}

/// The text isn't a cursor that this service gave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this list")]
pub struct NotACursor;

impl<Id: fmt::Display> fmt::Display for Cursor<Id> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$x}{}", self.at.as_micros().max(0), self.id, width = TIME_DIGITS)
    }
}

impl<Id: FromStr> FromStr for Cursor<Id> {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (time, id) = text.split_at_checked(TIME_DIGITS).ok_or(NotACursor)?;
        if !time.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(NotACursor);
        }
        let at = i64::from_str_radix(time, 16).ok().and_then(Timestamp::from_micros).ok_or(NotACursor)?;
        Ok(Self { at, id: id.parse().map_err(|_| NotACursor)? })
    }
}

/// One page of a list.
#[derive(Clone, Debug, Serialize)]
pub struct Page<T> {
    /// The rows, newest first.
    pub data: Vec<T>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Cuts the rows that a statement gave for [`Limit::fetch`] down to the page, and makes the next cursor.
    #[must_use]
    pub fn cut<Id: fmt::Display>(mut rows: Vec<T>, limit: Limit, key: impl Fn(&T) -> Cursor<Id>) -> Self {
        let more = rows.len() > limit.get();
        rows.truncate(limit.get());
        let next_cursor = if more { rows.last().map(|row| key(row).to_string()) } else { None };
        Self { data: rows, next_cursor }
    }

    /// The same page of something else.
    #[must_use]
    pub fn map<U>(self, f: impl FnMut(T) -> U) -> Page<U> {
        Page { data: self.data.into_iter().map(f).collect(), next_cursor: self.next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::KeyId;

    proptest! {
        #[test]
        fn a_cursor_reads_back(micros in 0_i64..1 << 60, bits in any::<u128>()) {
            let cursor = Cursor { at: Timestamp::from_micros(micros).unwrap(), id: KeyId::from_bits(bits) };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn anything_else_is_refused_without_panic(text in ".{0,60}") {
            prop_assert!(text.parse::<Cursor<KeyId>>().is_err());
        }

        /// Walking page by page shows every row once, whatever the page size.
        #[test]
        fn pages_cover_everything_once(count in 0_usize..450, size in 1_u64..=200) {
            let rows: Vec<u128> = (0..count as u128).rev().collect();
            let limit = Limit::new(size).unwrap();
            let key = |row: &u128| Cursor { at: Timestamp::EPOCH, id: KeyId::from_bits(*row) };
            let mut seen = Vec::new();
            let mut after: Option<Cursor<KeyId>> = None;
            loop {
                let fetched = rows.iter().copied()
                    .filter(|row| after.as_ref().is_none_or(|c| KeyId::from_bits(*row) < c.id))
                    .take(usize::try_from(limit.fetch()).unwrap())
                    .collect();
                let page = Page::cut(fetched, limit, key);
                prop_assert!(page.data.len() <= limit.get());
                seen.extend(page.data);
                match page.next_cursor {
                    Some(text) => after = Some(text.parse().unwrap()),
                    None => break,
                }
            }
            prop_assert_eq!(seen, rows);
        }
    }

    #[test]
    fn limits_are_one_to_two_hundred() {
        assert!(Limit::new(0).is_none() && Limit::new(201).is_none() && Limit::new(u64::MAX).is_none());
        assert_eq!(Limit::new(200).unwrap().fetch(), 201);
        assert_eq!(Limit::default().get(), 50);
    }
}
