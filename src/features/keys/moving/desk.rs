//! The desk at which lines are judged, one after another: what is right becomes a key to add, what isn't an entry of the
//! report. Reads the storage, and writes nothing.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::base::clock::Timestamp;
use crate::base::id::{KeyId, SecretId};
use crate::base::invalid::{FieldError, Invalid};
use crate::ctx::Ctx;
use crate::features::auth::Caller;
use crate::features::keys::giver::Giver;
use crate::features::keys::terms::Terms;
use crate::features::keys::{Key, inherit, rules};
use crate::features::scopes::{self, Scope, Scopes};
use crate::gate::{Digest, Settings};
use crate::infra::db::Conn;
use crate::infra::telemetry::current;

use super::import::{Chunk, ImportError, Importing};
use super::line::{self, Line, MovedKey};
use super::report::{Place, Report};
use super::store::{self, Batch, Common, NewKey, NewSecret};

/// Lines that aren't blank, each with its number.
type Read = Vec<(u64, Result<Line, Vec<FieldError>>)>;

/// Reads the lines of a chunk, on a thread of its own: it takes a while.
async fn read(chunk: &Chunk, now: Timestamp) -> Read {
    let Chunk { text, first_line } = chunk.clone();
    let read = move || {
        text.split(|byte| *byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .zip(first_line..)
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, line)| (line, line::read(text, now)))
            .collect()
    };
    // Fails only where it panicked, which has been told already.
    tokio::task::spawn_blocking(current::carried_to_thread(read)).await.unwrap_or_default()
}

/// What is the same for every line of a transaction.
pub(super) struct Desk<'a> {
    ctx: &'a Ctx,
    importing: &'a Importing<'a>,
    giver: Giver,
    terms: Terms,
    /// How many more keys there may be.
    room: Option<u32>,
    /// Scopes that the project doesn't want its keys to hold.
    unwanted: HashSet<Scope>,
    created_by: String,
    pub(super) now: Timestamp,
    /// Hashes of the keys that lines before have made.
    seen: HashSet<Digest>,
    /// How many keys stand before this part.
    first_index: u64,
    pub(super) report: Report,
}

impl<'a> Desk<'a> {
    /// With nothing on it yet.
    pub(super) fn new(
        ctx: &'a Ctx,
        importing: &'a Importing<'a>,
        (giver, terms, room): (Giver, Terms, Option<u32>),
        first_index: u64,
    ) -> Self {
        Self {
            ctx,
            importing,
            giver,
            terms,
            room,
            unwanted: HashSet::new(),
            created_by: importing.caller.map_or_else(|| "system".to_owned(), Caller::id),
            now: ctx.now(),
            seen: HashSet::new(),
            first_index,
            report: Report::default(),
        }
    }

    /// By whose rights lines are judged.
    pub(super) fn giver(&self) -> &Giver {
        &self.giver
    }

    /// Whether what was judged on one set of terms is right on another, which a transaction holds.
    pub(super) fn stands(&self, (giver, terms, room): &(Giver, Terms, Option<u32>)) -> bool {
        let fits = room.is_none_or(|room| u64::from(room) >= self.report.created);
        self.giver.is_as(giver) && self.terms == *terms && fits
    }

    /// Whether keys that were judged a moment ago, and staged, may still come in: nobody has taken a hash of theirs meanwhile,
    /// nor a scope out of the catalogue.
    pub(super) async fn is_free(
        &self,
        mut conn: Conn<'_>,
        import: KeyId,
        scopes: &BTreeSet<Scope>,
    ) -> Result<bool, ImportError> {
        let scopes: BTreeSet<&Scope> = scopes.iter().collect();
        let unknown = scopes::unknown(conn.lend(), self.importing.project, &scopes).await?;
        Ok(unknown.is_empty() && !store::is_taken(conn, import, !self.importing.revive).await?)
    }

    /// What all keys that it has let in share.
    pub(super) fn common(&self) -> Common<'_> {
        let Importing { project, responsible, .. } = *self.importing;
        Common { project, person: responsible, created_by: &self.created_by, at: self.now }
    }

    /// Looks at the lines of a chunk, and gives the keys that are to be added.
    pub(super) async fn judge(&mut self, mut conn: Conn<'_>, chunk: &Chunk) -> Result<Option<Batch>, ImportError> {
        let lines = read(chunk, self.now).await;
        let hashes: Vec<Digest> = lines
            .iter()
            .filter_map(|(_, line)| line.as_ref().ok())
            .flat_map(|line| std::iter::once(line.hash).chain(line.older.iter().copied()))
            .collect();
        let wanted: BTreeSet<&Scope> = lines
            .iter()
            .filter_map(|(_, line)| line.as_ref().ok())
            .flat_map(|line| line.key.scopes.iter().flat_map(Scopes::iter))
            .collect();
        self.unwanted = scopes::unknown(conn.lend(), self.importing.project, &wanted).await?;
        let mut taken = store::existing(conn, self.importing.project, &hashes).await?;
        taken.retain(|taken| !(taken.gone && self.importing.revive));
        // One that was removed and taken over again is there twice: the key that is there counts.
        taken.sort_unstable_by_key(|taken| !taken.gone);
        let existing: HashMap<Digest, bool> =
            taken.iter().filter_map(|taken| Some((taken.hash.as_slice().try_into().ok()?, taken.own))).collect();
        let mut new = Vec::new();
        for (number, line) in lines {
            let place = Place { index: self.first_index + self.report.total_processed, line: number };
            self.report.total_processed += 1;
            match line.and_then(|line| self.judge_line(line, &existing)) {
                Ok(Some(key)) => {
                    self.seen.extend(key.secrets.iter().map(|secret| secret.hash));
                    self.report.created += 1;
                    // Revoked ones, too: they take up as much storage.
                    self.room = self.room.map(|room| room.saturating_sub(1));
                    new.push(key);
                }
                Ok(None) => self.report.skipped += 1,
                Err(errors) => self.report.refuse(place, errors),
            }
        }
        Ok(Batch::of(&new)?)
    }

    /// The key that a line makes; `None` for one that the project has, or had: what it deleted stays deleted, as what it revoked
    /// stays revoked.
    fn judge_line(&self, line: Line, existing: &HashMap<Digest, bool>) -> Result<Option<NewKey>, Vec<FieldError>> {
        if existing.get(&line.hash) == Some(&true) || self.seen.contains(&line.hash) {
            return Ok(None);
        }
        // Whose it is, nobody learns. Of a superseded secret that the project has, it is another key's.
        let is_taken = |hash: &Digest| existing.contains_key(hash) || self.seen.contains(hash);
        let taken = |field: String| Invalid::field(field, "hash_taken", "is in use already").0;
        if is_taken(&line.hash) {
            return Err(taken("hash".to_owned()));
        }
        if let Some(i) = line.older.iter().position(is_taken) {
            return Err(taken(format!("older[{i}].hash")));
        }
        let mut new = self.make(line);
        self.admit(&mut new.key)?;
        Ok(Some(new))
    }

    /// Whether whoever imports may bring this key in: the one place where this is asked, of what they hold and of what the
    /// project allows. May narrow what the key is given.
    fn admit(&self, key: &mut Key) -> Result<(), Vec<FieldError>> {
        let refused = |field: String, code: &'static str, message: &'static str| Invalid::field(field, code, message).0;
        let place = |refuses: &dyn Fn(&Scope) -> bool| key.scopes.iter().position(refuses);
        if let Some(i) = place(&|scope| !self.giver.grants.allow(scope)) {
            let message = "nobody brings in a scope that they don't hold themselves";
            return Err(refused(format!("scopes[{i}]"), "scope_not_held", message));
        }
        if let Some(i) = place(&|scope| self.unwanted.contains(scope)) {
            let message = "not in the project's catalogue, nor a wildcard over what is";
            return Err(refused(format!("scopes[{i}]"), "unknown_scope", message));
        }
        rules::known(key.scopes.iter()).map_err(|invalid| invalid.0)?;
        match key.expires_at {
            Some(_) => self.terms.allow_end(key.expires_at, self.now).map_err(|late| late.of("expires_at").0)?,
            None if self.terms.allow_end(None, self.now).is_err() => key.expires_at = self.terms.usual_end(self.now),
            None => {}
        }
        if let Some(own) = self.giver.own() {
            let looser = |_| {
                let message = "a key brings in none that is restricted less than itself";
                refused("hash".to_owned(), "restriction_not_held", message)
            };
            key.expires_at = inherit::end(own.expires_at, key.expires_at, None).map_err(looser)?;
            inherit::settings(&own.settings, &mut key.settings).map_err(looser)?;
        }
        if self.room == Some(0) {
            return Err(refused(
                "hash".to_owned(),
                "too_many_keys",
                "the project, or the person in it, has as many keys as it may",
            ));
        }
        Ok(())
    }

    fn make(&self, line: Line) -> NewKey {
        let Line { hash, older, key: moved } = line;
        let secret = |hash, prefix: Option<String>, start: Option<String>, end: Option<String>, expires_at| NewSecret {
            id: SecretId::generate(self.now, &*self.ctx.rng),
            hash,
            prefix: prefix.unwrap_or_default(),
            first_four: start.unwrap_or_default(),
            last_four: end.unwrap_or_default(),
            expires_at,
        };
        let mut secrets: Vec<NewSecret> = moved
            .older
            .into_iter()
            .zip(older)
            .map(|(older, hash)| secret(hash, older.prefix, older.start, older.end, Some(older.expires_at)))
            .collect();
        secrets.push(secret(hash, moved.prefix.clone(), moved.start.clone(), moved.end.clone(), None));
        let MovedKey { prefix, start, end, name, description, owner, scopes, metadata, .. } = moved;
        let key = Key {
            id: KeyId::generate(self.now, &*self.ctx.rng),
            project_id: self.importing.project,
            user_id: self.importing.responsible,
            created_by: self.created_by.clone(),
            name: name.unwrap_or_default(),
            description,
            owner,
            scopes: Scopes::new(scopes.unwrap_or_default().iter().cloned()),
            metadata: metadata.unwrap_or_default(),
            disabled_at: moved.disabled.and_then(|disabled| disabled.then_some(self.now)),
            revoked_at: moved.revoked_at,
            revoked_reason: moved.revoked_at.map(|_| moved.revoked_reason.unwrap_or_default().word().to_owned()),
            revoked_note: moved.revoked_note,
            expires_at: moved.expires_at,
            first_used_at: None,
            last_used_at: None,
            created_at: moved.created_at.unwrap_or(self.now),
            updated_at: self.now,
            prefix: prefix.unwrap_or_default(),
            first_four: start.unwrap_or_default(),
            last_four: end.unwrap_or_default(),
            settings: Settings {
                limits: moved.limits,
                concurrency: moved.concurrency,
                ip_allow: moved.ip_allow,
                schedule: moved.schedule,
                method_allow: moved.method_allow,
                path_allow: moved.path_allow,
            },
        };
        NewKey { key, secrets }
    }
}
