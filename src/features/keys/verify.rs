//! Is this key good, and may it do this now? Nothing is written to the database here.

use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::auth::Reach;
use crate::features::scopes::Scopes;
use crate::infra::db::DbError;
use crate::infra::sink::LastUse;

use super::format::PresentedKey;
use super::rules::{self, Code};
use super::{Key, store};

/// What is asked.
#[derive(Debug)]
pub struct Question {
    /// The key as somebody showed it.
    pub key: Secret,
    /// The scopes that are all needed.
    pub scopes: Scopes,
    /// Ask without leaving a trace of a use.
    pub dry_run: bool,
}

/// What is answered. `key` is there once the secret is proven, whatever the code.
#[derive(Debug)]
pub struct Answer {
    /// Yes, or why not.
    pub code: Code,
    /// Whose key it is.
    pub key: Option<Key>,
}

/// Answers a question of somebody who may ask about the projects in `reach`.
///
/// # Errors
/// The storage.
pub async fn verify(ctx: &Ctx, reach: &Reach, question: &Question) -> Result<Answer, DbError> {
    let answer = answer(ctx, reach, question).await?;
    ctx.metrics.verifications.with_label_values(&[answer.code.word()]).inc();
    Ok(answer)
}

async fn answer(ctx: &Ctx, reach: &Reach, question: &Question) -> Result<Answer, DbError> {
    let Ok(presented) = PresentedKey::parse(question.key.expose()) else {
        return Ok(Answer { code: Code::Malformed, key: None });
    };
    let found = store::by_hash(ctx.db.reader().await?.conn(), &presented.hash()).await?;
    let Some(found) = found.filter(|found| reach.contains(found.key.project_id)) else {
        return Ok(Answer { code: Code::NotFound, key: None });
    };
    let now = ctx.now();
    let code = rules::decide(&found.key, found.secret_expires_at, &question.scopes, now);
    if code == Code::Valid && !question.dry_run {
        ctx.usage.record(LastUse { key: found.key.id, secret: found.secret_id, at: now });
    }
    Ok(Answer { code, key: Some(found.key) })
}
