//! Delays after failed log-ins.
//!
//! Failures are counted twice: for an account from one address, and for the account as a whole. The first grows long, but
//! binds only whoever guesses from there. The second stays short and spares every address from which the account has
//! logged in before: so guessing is slow from anywhere, and nobody can keep the owner out.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::base::clock::Timestamp;
use crate::ctx::Ctx;
use crate::infra::address_limit::household;
use crate::infra::db::{DbError, Tx};
use crate::web::rate::{RateLimited, seconds_up};

use super::store;

/// The failure from one address that is the first to cost a delay.
const FREE_HERE: u32 = 10;
/// The failure from anywhere that is the first to cost a delay.
const FREE_ANYWHERE: u32 = 50;
/// The longest delay for one address.
const LONGEST_HERE: Duration = Duration::from_mins(15);
/// The longest delay for an account.
const LONGEST_ANYWHERE: Duration = Duration::from_secs(30);
/// How long failures are remembered after the last one.
pub const MEMORY: Duration = Duration::from_hours(24);
/// How long an address counts as usual after a log-in.
pub const USUAL: Duration = Duration::from_hours(24 * 90);

/// A name that somebody claims, and from where.
#[derive(Clone, Debug)]
pub struct Account {
    /// A hash: people type passwords into the field for the name.
    pub(super) hash: Vec<u8>,
    /// The address' household.
    pub(super) address: String,
}

impl Account {
    /// Names are compared without regard to case, whether they exist or not.
    #[must_use]
    pub fn of(username: &str, ip: IpAddr) -> Self {
        Self { hash: Sha256::digest(username.to_ascii_lowercase()).to_vec(), address: household(ip).to_string() }
    }
}

/// The delay that the latest failure causes; it doubles with each.
fn delay(failures: i64, free: u32, longest: Duration) -> Option<Duration> {
    let over = u32::try_from(failures).unwrap_or(u32::MAX).checked_sub(free)?;
    Some(Duration::from_secs(1 << over.min(20)).min(longest))
}

/// Seconds until this account may be tried again from this address, if it may not now.
///
/// # Errors
/// The storage.
pub async fn blocked(ctx: &Ctx, account: &Account) -> Result<Option<u64>, DbError> {
    let rows = store::failures(ctx.db.reader().await?.conn(), account).await?;
    Ok(wait(&rows, ctx.now()))
}

/// The same within a transaction, which keeps other attempts on the account out until it ends: so guesses that were under
/// way together are counted one after another.
///
/// # Errors
/// The storage.
pub async fn blocked_in(tx: &mut Tx, account: &Account, now: Timestamp) -> Result<Option<u64>, DbError> {
    store::hold(tx, account, now).await?;
    let rows = store::failures(tx.conn(), account).await?;
    Ok(wait(&rows, now))
}

/// What a client is told of a delay.
#[must_use]
pub fn told(seconds: u64) -> RateLimited {
    RateLimited {
        name: "failed_logins".into(),
        limit: FREE_HERE.into(),
        window_seconds: MEMORY.as_secs(),
        remaining: 0,
        reset_seconds: seconds.max(1),
    }
}

fn wait(rows: &[store::Failures], now: Timestamp) -> Option<u64> {
    let is_usual =
        rows.iter().any(|row| !row.address.is_empty() && row.succeeded_at.is_some_and(|at| now.since(at) < USUAL));
    rows.iter()
        .filter(|row| !(row.address.is_empty() && is_usual))
        .filter_map(|row| row.blocked_until)
        .filter(|until| *until > now)
        .map(|until| seconds_up(until.since(now)))
        .max()
}

/// Counts a failure.
///
/// # Errors
/// The storage.
pub async fn failed(tx: &mut Tx, account: &Account, now: Timestamp) -> Result<(), DbError> {
    let forgotten = now.saturating_sub(MEMORY);
    for (address, free, longest) in
        [("", FREE_ANYWHERE, LONGEST_ANYWHERE), (account.address.as_str(), FREE_HERE, LONGEST_HERE)]
    {
        let failures = store::count_failure(tx, &account.hash, address, now, forgotten).await?;
        if let Some(delay) = delay(failures, free, longest) {
            store::block(tx, &account.hash, address, now.saturating_add(delay)).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_stop_growing() {
        let seconds = |failures| delay(failures, FREE_HERE, LONGEST_HERE).map(|d| d.as_secs());
        assert_eq!([9, 10, 11, 12, 13].map(seconds), [None, Some(1), Some(2), Some(4), Some(8)]);
        assert_eq!(seconds(1_000_000_000_000), Some(900));
    }

    #[test]
    fn a_usual_address_is_spared_from_what_others_do() {
        let now = Timestamp::EPOCH.saturating_add(USUAL);
        let row = |address: &str, blocked: Option<u64>, succeeded: Option<Timestamp>| store::Failures {
            address: address.to_owned(),
            blocked_until: blocked.map(|s| now.saturating_add(Duration::from_secs(s))),
            succeeded_at: succeeded,
        };
        assert_eq!(wait(&[row("", Some(9), None)], now), Some(9));
        assert_eq!(wait(&[row("", Some(9), None), row("192.0.2.1", None, Some(now))], now), None);
        assert_eq!(wait(&[row("", Some(9), None), row("192.0.2.1", Some(3), Some(now))], now), Some(3));
        assert_eq!(wait(&[row("", Some(9), None), row("192.0.2.1", None, Some(Timestamp::EPOCH))], now), Some(9));
        assert_eq!(wait(&[row("", Some(0), None)], now), None);
    }
}
