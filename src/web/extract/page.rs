//! `limit` and `cursor`, which every list takes.

use std::str::FromStr;

use crate::base::invalid::Invalid;
use crate::base::page::{Cursor, Limit};

/// Which page a list is asked for.
#[derive(Debug)]
pub struct PageQuery<Id> {
    /// How many rows.
    pub limit: Limit,
    /// After which row; `None` from the newest.
    pub after: Option<Cursor<Id>>,
}

impl<Id: FromStr> PageQuery<Id> {
    /// Reads the two parameters.
    ///
    /// # Errors
    /// A limit outside of 1 to 200, or a cursor that isn't one of ours.
    pub fn read(limit: Option<u64>, cursor: Option<&str>) -> Result<Self, Invalid> {
        let limit = match limit {
            None => Limit::default(),
            Some(rows) => {
                Limit::new(rows).ok_or_else(|| Invalid::field("limit", "invalid_value", "must be 1 to 200"))?
            }
        };
        let after = cursor
            .map(|text| {
                text.parse().map_err(|_| Invalid::field("cursor", "invalid_cursor", "isn't a cursor of this list"))
            })
            .transpose()?;
        Ok(Self { limit, after })
    }
}
