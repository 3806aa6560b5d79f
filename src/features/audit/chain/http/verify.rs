//! `GET /v1/audit:verify`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::audit::chain::rules::{Hash, parse_hash};
use crate::features::audit::chain::verify::{self, Asked, Verdict, VerifyError};
use crate::features::auth::Instance;
use crate::features::auth::permission::AuditVerify;
use crate::web::extract::Query;
use crate::web::problem::Problem;

/// How long a call verifies before it says how far it came: well within the longest time of a request.
const BUDGET: Duration = Duration::from_secs(15);

/// Which part of the trail, and what is known of it.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyQuery {
    /// From this entry on.
    #[param(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    from_seq: Option<i64>,
    /// What the entry before it is known to hash to. Without it, what stands there counts.
    #[param(pattern = "^[0-9a-f]{64}$")]
    from_hash: Option<String>,
    /// Up to this entry.
    #[param(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    to_seq: Option<i64>,
    /// A checkpoint that was stored elsewhere, as `seq:hash`.
    #[param(pattern = "^[1-9][0-9]{0,14}:[0-9a-f]{64}$")]
    checkpoint: Option<String>,
}

impl VerifyQuery {
    fn read(self) -> Result<Asked, Invalid> {
        let number = |field, number: Option<i64>| match number {
            Some(n) if !(1..=9_007_199_254_740_991).contains(&n) => {
                Err(Invalid::field(field, "invalid_value", "must be a positive number of an entry"))
            }
            n => Ok(n),
        };
        let from = number("from_seq", self.from_seq)?;
        let to = number("to_seq", self.to_seq)?;
        if from.zip(to).is_some_and(|(from, to)| to < from) {
            return Err(Invalid::field("to_seq", "invalid_value", "must not be less than from_seq"));
        }
        let from_hash = match self.from_hash {
            Some(_) if from.is_none() => {
                return Err(Invalid::field("from_hash", "invalid_value", "needs from_seq, too"));
            }
            Some(text) => Some(
                parse_hash(&text)
                    .ok_or_else(|| Invalid::field("from_hash", "invalid_value", "must be 64 hexadecimal digits"))?,
            ),
            None => None,
        };
        let known = match self.checkpoint {
            Some(text) => vec![place(&text).ok_or_else(|| {
                Invalid::field("checkpoint", "invalid_value", "must be a number and a hash, as seq:hash")
            })?],
            None => Vec::new(),
        };
        Ok(Asked { from, from_hash, to, known, budget: Some(BUDGET) })
    }
}

fn place(text: &str) -> Option<(i64, Hash)> {
    let (seq, hash) = text.split_once(':')?;
    let is_number = (1..=15).contains(&seq.len()) && !seq.starts_with('0') && seq.bytes().all(|b| b.is_ascii_digit());
    if is_number { Some((seq.parse().ok()?, parse_hash(hash)?)) } else { None }
}

/// Verify the audit trail
///
/// Computes every hash again, follows every link, and holds the signatures of the head and of the checkpoints against the
/// trusted keys. The answer to a broken trail is `200`, too: `valid` is `false`, `first_broken_seq` names the first entry that
/// isn't as it was sealed, `reason` what has been done.
///
/// A call takes 15 seconds at most. Where the trail is longer than that, `complete` and `valid` are `false`, and `next` holds
/// what to send with the next call.
#[utoipa::path(
    get, path = "/v1/audit:verify", operation_id = "verifyAudit", tag = "audit",
    params(VerifyQuery),
    responses(
        (status = 200, description = "The verdict", body = Verdict),
        (status = 403, description = "The caller may not verify the trail"),
        (status = 404, description = "`seq_not_found`: the trail ends before `from_seq`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn verify(
    State(ctx): State<Ctx>,
    _: Instance<AuditVerify>,
    Query(query): Query<VerifyQuery>,
) -> Result<Json<Verdict>, Problem> {
    let asked = query.read()?;
    match verify::verify(&ctx, &asked).await {
        Ok(verdict) => Ok(Json(verdict)),
        Err(VerifyError::Behind(_)) => Err(Problem::not_found("seq_not_found", "The trail ends before from_seq.")),
        Err(VerifyError::Storage(error)) => Err(error.into()),
    }
}
