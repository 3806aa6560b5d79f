//! Moving out: a project's keys with the hashes of their secrets, in the form that `import` reads.

use bytes::Bytes;
use futures_util::stream::{self, Stream};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, ProjectId};
use crate::ctx::Ctx;
use crate::features::audit::{self, By};
use crate::features::keys::rules::RevocationReason;
use crate::infra::db::DbError;

use super::line::{Algorithm, MovedKey, OlderSecret};
use super::store::{self, Leaving, LeavingSecret, Place};

/// Keys that are read at once: all that an export holds in memory.
const PAGE: i64 = 500;

/// Begins an export: says so in the audit trail, before the first line leaves.
///
/// # Errors
/// The storage.
pub async fn begin(ctx: &Ctx, by: &By, project: ProjectId) -> Result<(), DbError> {
    audit::append_reading(ctx, by, "keys.export", Some(project), None).await
}

/// The lines, oldest key first, read as they are taken. Keys that come or go meanwhile are there or not; none is there twice.
/// Ends with an error where the storage fails in the middle: the lines so far aren't all.
pub fn lines(ctx: Ctx, by: By, project: ProjectId) -> impl Stream<Item = Result<Bytes, DbError>> + Send + 'static {
    let start: Place = (Timestamp::EPOCH, KeyId::from_bits(0));
    stream::try_unfold((ctx, by, Some(start)), move |(ctx, by, after)| async move {
        let Some(after) = after else { return Ok(None) };
        match part(&ctx, project, after).await {
            Ok(Some((text, next))) => Ok(Some((text, (ctx, by, next)))),
            Ok(None) => Ok(None),
            Err(error) => {
                audit::append_broken(&ctx, &by, "keys.export", project).await;
                Err(error)
            }
        }
    })
}

/// The lines of a page, and the place after which the next begins.
async fn part(ctx: &Ctx, project: ProjectId, after: Place) -> Result<Option<(Bytes, Option<Place>)>, DbError> {
    let mut reader = ctx.db.reader().await?;
    let page = store::page(reader.conn(), project, after, PAGE).await?;
    let Some(last) = page.last().map(|key| (key.created_at, key.id)) else {
        return Ok(None);
    };
    let older = store::older(reader.conn(), project, after, last, ctx.now()).await?;
    drop(reader);
    let is_full = i64::try_from(page.len()).is_ok_and(|length| length == PAGE);
    let mut text = Vec::with_capacity(512 * page.len());
    for key in page {
        let secrets = older.iter().filter(|secret| secret.key_id == key.id).map(older_line).collect();
        // Our own types always serialise.
        text.extend(serde_json::to_vec(&line(key, secrets)).unwrap_or_default());
        text.push(b'\n');
    }
    Ok(Some((text.into(), is_full.then_some(last))))
}

fn said(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn line(key: Leaving, older: Vec<OlderSecret>) -> MovedKey {
    let settings = key.settings.map(|settings| settings.0).unwrap_or_default();
    MovedKey {
        hash: hex::encode(key.hash),
        algorithm: Some(Algorithm::Sha256),
        prefix: said(key.prefix),
        start: said(key.first_four),
        end: said(key.last_four),
        name: Some(key.name),
        description: key.description,
        owner: key.owner,
        scopes: (!key.scopes.is_empty()).then_some(key.scopes.0),
        metadata: (!key.metadata.is_empty()).then_some(key.metadata.0),
        expires_at: key.expires_at,
        created_at: Some(key.created_at),
        disabled: key.disabled_at.map(|_| true),
        revoked: None,
        revoked_at: key.revoked_at,
        revoked_reason: key.revoked_reason.as_deref().and_then(RevocationReason::from_word),
        revoked_note: key.revoked_note,
        limits: settings.limits,
        concurrency: settings.concurrency,
        ip_allow: settings.ip_allow,
        schedule: settings.schedule,
        method_allow: settings.method_allow,
        path_allow: settings.path_allow,
        older,
    }
}

fn older_line(secret: &LeavingSecret) -> OlderSecret {
    OlderSecret {
        hash: hex::encode(&secret.hash),
        prefix: said(secret.prefix.clone()),
        start: said(secret.first_four.clone()),
        end: said(secret.last_four.clone()),
        expires_at: secret.expires_at,
    }
}
