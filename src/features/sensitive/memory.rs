//! Keeps the rules in memory (`infra/sensitive.rs`): all are read at the start, and those of one place whenever they change,
//! here or, by the feed of changes, in another process.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::id::ProjectId;
use crate::base::sensitive::{Cleaner, HashKey, Layer, Rule};
use crate::ctx::Ctx;
use crate::infra::db::{DbError, Tx};
use crate::infra::sensitive::Known;

use super::{Kept, store};

/// The name under which the key of hashes is kept.
const KEY: &str = "sensitive_fields";

/// Reads all rules, and the key, which is made if there is none.
///
/// # Errors
/// The storage; what was read before stays.
pub async fn read_in(ctx: &Ctx) -> Result<(), DbError> {
    let reading = ctx.sensitive.reading().await;
    let known = ctx.db.reader().await?;
    let mut reader = known;
    let stored = store::key(reader.conn(), KEY).await?;
    let all = store::all(reader.conn()).await?;
    drop(reader);
    let key = match key(ctx, stored) {
        Some(key) => key,
        None => make_key(ctx).await?,
    };
    ctx.sensitive.replace(arranged(key, all));
    drop(reading);
    Ok(())
}

/// Reads the rules of a project, or of the server.
///
/// # Errors
/// The storage; what was read before stays.
pub async fn read_one(ctx: &Ctx, project: Option<ProjectId>) -> Result<(), DbError> {
    let reading = ctx.sensitive.reading().await;
    let rules = store::of(ctx.db.reader().await?.conn(), project).await?;
    ctx.sensitive.replace_one(project, layer(rules));
    drop(reading);
    Ok(())
}

/// What treats documents of a project, or of none. Where nothing has been read in yet, it is read with `tx`.
///
/// # Errors
/// The storage.
pub async fn cleaner(ctx: &Ctx, tx: &mut Tx, project: Option<ProjectId>) -> Result<Cleaner, DbError> {
    if let Some(cleaner) = ctx.sensitive.cleaner(project) {
        return Ok(cleaner);
    }
    let mut stored = store::key(tx.conn(), KEY).await?;
    if stored.is_none() && ctx.config.privacy.hash_key.is_none() {
        store::keep_key(tx, KEY, &random(ctx), ctx.now()).await?;
        stored = store::key(tx.conn(), KEY).await?;
    }
    let mut rules = store::of(tx.conn(), None).await?;
    if project.is_some() {
        rules.extend(store::of(tx.conn(), project).await?);
    }
    // The transaction may yet come to nothing, and the key with it: nothing of this is kept in memory.
    let key = key(ctx, stored).ok_or_else(|| DbError::Internal(sqlx::Error::RowNotFound))?;
    Ok(arranged(key, rules).cleaner(project))
}

fn key(ctx: &Ctx, stored: Option<Vec<u8>>) -> Option<HashKey> {
    let configured = ctx.config.privacy.hash_key.clone();
    configured.or_else(|| stored.and_then(|bytes| bytes.try_into().ok()).map(HashKey::new))
}

fn random(ctx: &Ctx) -> [u8; 32] {
    let mut random = [0; 32];
    ctx.rng.fill(&mut random);
    random
}

/// Of several processes that start at once, the first one's key is everybody's.
async fn make_key(ctx: &Ctx) -> Result<HashKey, DbError> {
    let mut tx = ctx.db.begin().await?;
    store::keep_key(&mut tx, KEY, &random(ctx), ctx.now()).await?;
    let stored = store::key(tx.conn(), KEY).await?;
    tx.commit().await?;
    key(ctx, stored).ok_or_else(|| DbError::Internal(sqlx::Error::RowNotFound))
}

fn layer(kept: Vec<Kept>) -> Layer {
    Layer::new(kept.into_iter().map(|kept| kept.rule).collect())
}

fn arranged(key: HashKey, all: Vec<Kept>) -> Known {
    let mut server = Vec::new();
    let mut projects: HashMap<ProjectId, Vec<Rule>> = HashMap::new();
    for kept in all {
        match kept.project {
            None => server.push(kept.rule),
            Some(project) => projects.entry(project).or_default().push(kept.rule),
        }
    }
    let projects = projects.into_iter().map(|(project, rules)| (project, Arc::new(Layer::new(rules)))).collect();
    Known { key, server: Arc::new(Layer::new(server)), projects }
}
