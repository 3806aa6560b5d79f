//! What traffic shows and somebody should know: limits and rules that refuse, quotas that run out, and what looks like an
//! attack.
//!
//! `notice` hears of requests and counts in memory (`gate/noticed`), `flush` adds the counts to rows twice a second, `raise`
//! makes events of rows: one for a key, a kind and a window, and then none for as long as the window is. What comes meanwhile
//! stays counted in the row and is told with the next event. The row is what all replicas share, so they tell nothing twice,
//! and a restart forgets nothing that was written. `habits` compares failures with what they usually are.

pub mod flush;
pub mod habits;
pub mod notice;
pub mod raise;
pub mod store;

use std::time::Duration;

use crate::gate::noticed::Kind;

pub use crate::gate::noticed::Wrong;
pub use flush::{FLUSH, flush};

/// How long there is no second event of something that has no window, in seconds.
pub const QUIET: u64 = 3_600;
/// The longest and the shortest of those times.
const QUIETS: (u64, u64) = (60, 86_400);

/// How long there is no second event of a window of so many seconds, in seconds.
#[must_use]
pub fn quiet(window_seconds: u64) -> u64 {
    window_seconds.clamp(QUIETS.0, QUIETS.1)
}

/// Why something is suspicious.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One address shows many keys or passwords that are no good.
    Guessing,
    /// A key is used from many addresses at once.
    ManyAddresses,
    /// A key that was taken back is still being used.
    RevokedKeyUsed,
    /// A secret that a newer one has replaced is still being used, after its time.
    SupersededSecretUsed,
    /// A key is refused, or fails, far more often than it usually does.
    UnusualFailures,
}

impl Reason {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Guessing, Self::ManyAddresses, Self::RevokedKeyUsed, Self::SupersededSecretUsed, Self::UnusualFailures];

    /// What tells their rows apart.
    #[must_use]
    pub fn about(self) -> &'static str {
        match self {
            Self::SupersededSecretUsed => "superseded_secret_used",
            other => other.word(),
        }
    }

    /// As events and metrics have it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Guessing => "guessing",
            Self::ManyAddresses => "many_addresses",
            Self::RevokedKeyUsed | Self::SupersededSecretUsed => "revoked_key_used",
            Self::UnusualFailures => "unusual_failures",
        }
    }
}

/// A kind's type of event.
#[must_use]
pub fn event_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Limit => "limit.reached",
        Kind::QuotaWarning => "quota.warning",
        Kind::Quota => "quota.reached",
        Kind::Concurrency => "concurrency.reached",
        Kind::Scope => "scope.denied",
        Kind::Address => "ip.denied",
        Kind::Schedule => "schedule.denied",
        Kind::Suspicion => "auth.suspicious",
    }
}

/// The types of events that come from here.
const TYPES: [&str; 8] = [
    "limit.reached",
    "quota.warning",
    "quota.reached",
    "concurrency.reached",
    "scope.denied",
    "ip.denied",
    "schedule.denied",
    "auth.suspicious",
];

/// How long an empty row stays: longer than it must keep quiet.
const KEPT: Duration = Duration::from_hours(48);
/// Rows removed in one transaction.
const PRUNED: u16 = 5_000;

/// Removes rows with nothing to tell, and counts that are older than minutes of usage may become.
///
/// # Errors
/// The storage; the next call goes on.
pub async fn prune(ctx: &crate::ctx::Ctx) -> Result<(), crate::infra::db::DbError> {
    let now = ctx.now();
    loop {
        let mut tx = ctx.db.begin().await?;
        let empty = store::prune_noticed(&mut tx, now.saturating_sub(KEPT), now, PRUNED.into()).await?;
        let before = now.saturating_sub(ctx.config.usage.keep_minutes);
        let old = store::prune_counts(&mut tx, before, PRUNED.into()).await?;
        tx.commit().await?;
        if empty.max(old) < PRUNED.into() {
            return Ok(());
        }
    }
}
