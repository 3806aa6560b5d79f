//! The proof behind the trail: entries are chained by SHA-256, the newest link is signed, and checkpoints are kept of it.
//!
//! A change writes its entry without a place in the chain; a moment later a reconciler (`seal`) gives places to whatever
//! waits, in the order of time, holding the one row of the head. So changes don't wait for each other, and any number of
//! processes may seal. `verify` walks along the chain again; `export` carries it elsewhere; `prune` ends its oldest part.
//!
//! `docs/audit.md` says what is promised, and what isn't.

mod anchors;
pub mod export;
pub mod file;
mod guard;
pub mod http;
mod memory;
pub mod prune;
mod row;
pub mod rules;
pub mod seal;
pub mod store;
pub mod verify;
pub mod walk;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::CheckpointId;
use crate::base::page::{Cursor, Limit, Page};
use crate::ctx::Ctx;
use crate::infra::audit_key::{Keyring, PublicKey};
use crate::infra::db::DbError;

use rules::{Hash, Kind};

/// A place in the chain, and who signed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The place; 0 before the first entry.
    pub seq: i64,
    /// The hash of the entry there.
    pub hash: Hash,
    /// When it was signed.
    pub at: Option<Timestamp>,
    /// The name of the key.
    pub key_id: Option<String>,
    /// Its signature.
    pub signature: Option<Vec<u8>>,
}

/// What a signature is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A trusted key made it.
    Good,
    /// There is none.
    Unsigned,
    /// By a key that isn't trusted: its name.
    UnknownKey(String),
    /// It isn't this key's.
    Bad,
}

impl Signed {
    /// Signs a place, if there is a key to sign with.
    #[must_use]
    pub fn new(keyring: &Keyring, kind: Kind, seq: i64, hash: Hash, at: Timestamp) -> Self {
        let signer = keyring.signer();
        Self {
            seq,
            hash,
            at: Some(at),
            key_id: signer.map(|signer| signer.public().id()),
            signature: signer.map(|signer| signer.sign(&rules::message(kind, seq, &hash, at))),
        }
    }

    /// What the signature is worth, by these keys.
    #[must_use]
    pub fn trust(&self, keys: &[PublicKey], kind: Kind) -> Trust {
        let (Some(id), Some(signature), Some(at)) = (&self.key_id, &self.signature, self.at) else {
            return Trust::Unsigned;
        };
        match keys.iter().find(|key| key.id() == *id) {
            None => Trust::UnknownKey(id.clone()),
            Some(key) if key.has_signed(&rules::message(kind, self.seq, &self.hash, at), signature) => Trust::Good,
            Some(_) => Trust::Bad,
        }
    }

    /// For people and programs.
    #[must_use]
    pub fn view(&self) -> SignedView {
        SignedView {
            seq: self.seq,
            hash: hex::encode(self.hash),
            at: self.at,
            key_id: self.key_id.clone(),
            signature: self.signature.as_ref().map(|signature| STANDARD.encode(signature)),
        }
    }
}

/// A signed place in the chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SignedView {
    /// The place; 0 before the first entry.
    #[schema(minimum = 0)]
    pub seq: i64,
    /// The SHA-256 of the entry there, in hexadecimal.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    pub hash: String,
    /// When it was signed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub at: Option<Timestamp>,
    /// The name of the key that signed; `null` where nothing is signed.
    pub key_id: Option<String>,
    /// The Ed25519 signature, in base64.
    pub signature: Option<String>,
}

impl SignedView {
    /// Reads it back; `None` for what isn't of this form.
    #[must_use]
    pub fn read(&self) -> Option<Signed> {
        let signature = match &self.signature {
            Some(signature) => Some(STANDARD.decode(signature).ok()?),
            None => None,
        };
        let hash = rules::parse_hash(&self.hash)?;
        Some(Signed { seq: self.seq, hash, at: self.at, key_id: self.key_id.clone(), signature })
    }
}

/// A place that is remembered.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// What the statement is about.
    pub kind: Kind,
    /// When it was made.
    pub at: Timestamp,
    /// The statement.
    pub signed: Signed,
}

/// A checkpoint, for people and programs.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct CheckpointView {
    /// Its id.
    pub id: CheckpointId,
    /// `head`: this was the newest entry. `pruned`: up to this one all were removed; the next is the first that is kept.
    pub kind: Kind,
    /// The statement that is signed.
    #[serde(flatten)]
    pub signed: SignedView,
}

impl From<Checkpoint> for CheckpointView {
    fn from(checkpoint: Checkpoint) -> Self {
        Self { id: checkpoint.id, kind: checkpoint.kind, signed: checkpoint.signed.view() }
    }
}

/// A page of checkpoints, newest first.
///
/// # Errors
/// The storage.
pub async fn checkpoints(
    ctx: &Ctx,
    after: Option<Cursor<CheckpointId>>,
    limit: Limit,
) -> Result<Page<CheckpointView>, DbError> {
    let rows = store::checkpoints(ctx.db.reader().await?.conn(), after.as_ref(), limit).await?;
    let cursor = |checkpoint: &Checkpoint| Cursor { at: checkpoint.at, id: checkpoint.id };
    Ok(Page::cut(rows, limit, cursor).map(CheckpointView::from))
}

/// A public key that has signed, or whose signatures count.
#[derive(Clone, Debug)]
pub struct KnownKey {
    /// The key.
    pub key: PublicKey,
    /// Since when it has signed here; `None` for one that is trusted and never has.
    pub since: Option<Timestamp>,
    /// Whether this process signs with it.
    pub is_signing: bool,
    /// Whether its signatures count here.
    pub is_trusted: bool,
}

/// Keys that are listed: more have never signed one trail.
const KEYS: i64 = 100;

/// The keys that sign, have signed, or are trusted.
///
/// # Errors
/// The storage.
pub async fn keys(ctx: &Ctx) -> Result<Vec<KnownKey>, DbError> {
    let keyring = ctx.keyring();
    let signing = keyring.signer().map(crate::infra::audit_key::Signer::public);
    let known = store::keys(ctx.db.reader().await?.conn(), KEYS).await?;
    let mut found: Vec<KnownKey> = Vec::new();
    let mut add = |key: PublicKey, since| {
        if !found.iter().any(|known| known.key == key) {
            let (is_signing, is_trusted) = (signing == Some(key), keyring.trusted().contains(&key));
            found.push(KnownKey { key, since, is_signing, is_trusted });
        }
    };
    for (id, public, since) in known {
        // A key under another key's name is none.
        if let Some(key) = public.try_into().ok().map(PublicKey).filter(|key| key.id() == id) {
            add(key, Some(since));
        }
    }
    keyring.trusted().iter().for_each(|key| add(*key, None));
    Ok(found)
}

/// Reads the keys, and what is remembered outside of the database.
pub async fn open(ctx: &Ctx, make_key: bool) {
    let (config, rng) = (ctx.config.clone(), std::sync::Arc::clone(&ctx.rng));
    let opened =
        tokio::task::spawn_blocking(move || Keyring::open(&config.audit, &config.database, &*rng, make_key)).await;
    ctx.set_keyring(opened.unwrap_or_default());
    memory::read(ctx.keyring()).await;
}

/// Reads the keys, makes one if there is none, and says whatever is wrong with the trail already.
///
/// # Errors
/// The storage.
pub async fn start(ctx: &Ctx) -> Result<(), DbError> {
    open(ctx, true).await;
    let keyring = ctx.keyring();
    if keyring.signer().is_none() {
        let trouble = keyring.trouble().unwrap_or("there is no key");
        tracing::error!(
            trouble,
            "the audit trail is sealed, but not signed: whoever may write to the database could rewrite it"
        );
    }
    let mut reader = ctx.db.reader().await?;
    let head = store::head(reader.conn()).await?;
    if let Err(refused) = guard::check(keyring, reader.conn(), head.as_ref()).await? {
        tracing::error!(reason = refused, "the audit trail isn't sealed any further: run `keyward audit verify`");
    }
    Ok(())
}
