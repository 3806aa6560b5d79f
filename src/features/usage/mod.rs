//! What happens too often to be written each time: outcomes of verifications, latest uses, and the windows that must
//! survive. It is counted in memory, key by key, and written together, twice a second and at shutdown.
//!
//! A crash forgets what was counted since the last write: at most a second.

pub mod store;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::{limits, requests};
use crate::gate::noted::Source;
use crate::gate::{Code, KeyState, Pending, Sample, Saved};
use crate::infra::db::DbError;

/// How long what was counted may stay unwritten, the time that writing takes left out.
pub const FLUSH: Duration = Duration::from_millis(500);

/// Keys written in one transaction: a change that waits for it waits for a moment only.
const BATCH: usize = 2_000;

/// How a request came out for its key. A verification: allowed with `VALID`, otherwise denied. Anything with a status: see
/// [`Outcome::of_status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was let through, and succeeded as far as anybody knows.
    Allowed,
    /// The key, its rights or its limits stood against it.
    Denied,
    /// It was let through, and failed.
    Failed,
}

impl Outcome {
    /// What an HTTP status says (RFC 9110, section 15): 401, 403 and 429 deny, every other from 400 on is a failure.
    #[must_use]
    pub fn of_status(status: u16) -> Self {
        match status {
            401 | 403 | 429 => Self::Denied,
            400.. => Self::Failed,
            _ => Self::Allowed,
        }
    }

    /// What a verification says.
    #[must_use]
    pub fn of_code(code: Code) -> Self {
        if code == Code::Valid { Self::Allowed } else { Self::Denied }
    }
}

/// One request of a key: everything that usage and the request log may want to know of it. Texts are the client's own words.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Whose request.
    pub key: KeyId,
    /// The key's project.
    pub project: ProjectId,
    /// Which part of the project's admitted requests the request log keeps.
    pub sample: Sample,
    /// Who saw it.
    pub source: Source,
    /// When it came.
    pub at: Timestamp,
    /// With which method; empty where nobody said.
    pub method: &'a str,
    /// The template of a route, or a path. A query is cut off here.
    pub endpoint: &'a str,
    /// What it was answered with, 100 to 599; `None` for a verification.
    pub status: Option<u16>,
    /// How it came out.
    pub outcome: Outcome,
    /// What the gate said, where it was asked.
    pub code: Option<Code>,
    /// How long it took.
    pub duration: Option<Duration>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// What the client calls itself.
    pub user_agent: Option<&'a str>,
    /// Names it in logs.
    pub request_id: Option<&'a str>,
}

/// Counts a request: one that a service reports, or one of Keyward's own routes. Never waits for I/O and never fails; what is
/// counted is bounded.
pub fn seen(ctx: &Ctx, seen: &Seen<'_>) {
    let _ = (ctx, seen.key);
    counted(ctx, seen);
}

/// A request has been counted: by [`seen`], or by the gate, which counts verifications under the lock that it takes anyway.
/// Every request of a key comes through here exactly once; whoever wants more than counts hooks in here.
pub fn counted(ctx: &Ctx, seen: &Seen<'_>) {
    requests::log::note(ctx, seen);
}

/// What one key has counted.
struct Taken {
    state: Arc<KeyState>,
    pending: Pending,
    windows: Option<Vec<Saved>>,
}

/// Writes everything counted so far. What can't be written stays counted.
///
/// # Errors
/// The storage.
pub async fn flush(ctx: &Ctx) -> Result<(), DbError> {
    let mut states = ctx.gate.take_unwritten();
    let mut result = Ok(());
    while !states.is_empty() {
        let batch = states.split_off(states.len().saturating_sub(BATCH));
        let taken: Vec<Taken> = batch
            .into_iter()
            .filter_map(|state| state.take().map(|(pending, windows)| Taken { state, pending, windows }))
            .collect();
        if let Err(error) = write(ctx, &taken).await {
            for taken in &taken {
                if taken.state.give_back(&taken.pending) {
                    ctx.gate.write_later(&taken.state);
                }
            }
            // The rest isn't taken yet: it stays where it is.
            for state in &states {
                ctx.gate.write_later(state);
            }
            result = Err(error);
            break;
        }
    }
    result
}

async fn write(ctx: &Ctx, taken: &[Taken]) -> Result<(), DbError> {
    let now = ctx.now();
    let mut tx = ctx.db.begin().await?;
    let outcomes: Vec<_> = taken.iter().map(|taken| (taken.state.key, &taken.pending.outcomes)).collect();
    store::add(&mut tx, &outcomes, hour(now)).await?;
    let uses: Vec<_> = taken
        .iter()
        .flat_map(|taken| taken.pending.uses.iter().map(|(secret, at)| (taken.state.key, *secret, *at)))
        .collect();
    store::used(&mut tx, &uses).await?;
    let windows: Vec<_> =
        taken.iter().filter_map(|taken| taken.windows.as_ref().map(|windows| (taken.state.key, windows))).collect();
    limits::store::save(&mut tx, &windows, now).await?;
    tx.commit().await
}

/// The beginning of the hour.
fn hour(at: Timestamp) -> Timestamp {
    const HOUR: i64 = 3_600_000_000;
    Timestamp::from_micros(at.as_micros().div_euclid(HOUR) * HOUR).unwrap_or(at)
}
