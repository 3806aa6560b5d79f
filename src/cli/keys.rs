//! `keyward keys …`.

use std::io::Read as _;
use std::str::FromStr;

use serde_json::json;

use crate::base::id::{KeyId, ProjectId};
use crate::base::page::{Cursor, Limit};
use crate::base::secret::Secret;
use crate::ctx::Ctx;
use crate::features::audit::By;
use crate::features::changes::follow;
use crate::features::keys::change::{self, Target};
use crate::features::keys::create::{self, Making, NewKey};
use crate::features::keys::format;
use crate::features::keys::rules::RevocationReason;
use crate::features::keys::store::{self, Filter};
use crate::features::keys::{KeyState, KeyView, list, secrets};
use crate::features::scopes::Scopes;
use crate::features::users::rules::Username;
use crate::features::{projects, users};

use super::args::{self, Format, Keys, Whose};
use super::{Failure, lifecycle, limits, moving, output};

pub(super) fn usage(text: impl std::fmt::Display) -> Failure {
    Failure::Usage(text.to_string())
}

pub(super) fn no_key() -> Failure {
    Failure::Refused("there is no such key".to_owned())
}

/// A word of the contract, which clap has checked already.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_value(json!(text)).map_err(usage)
}

/// A cursor that an earlier page gave.
pub(super) fn cursor<Id: FromStr>(text: Option<&str>) -> Result<Option<Cursor<Id>>, Failure> {
    text.map(|text| text.parse().map_err(usage)).transpose()
}

/// Says how to go on.
pub(super) fn more(cursor: Option<&str>) {
    if let Some(cursor) = cursor {
        output::complain(&format!("there are more: --cursor {cursor}"));
    }
}

pub(super) async fn run(ctx: &Ctx, command: Keys, format: Format) -> Result<(), Failure> {
    match command {
        Keys::Create(new) => make(ctx, new, format).await?,
        Keys::List { whose, status, page } => {
            let named = whose.user.is_some() || whose.project.is_some() || whose.system;
            let project = if named { Some(project(ctx, &whose).await?.0) } else { None };
            let status: Option<KeyState> = status.as_deref().map(word).transpose()?;
            let filter = Filter { status, ..Filter::default() };
            let after = cursor(page.cursor.as_deref())?;
            let keys = list::list(ctx, project, &filter, after, Limit::new(page.limit).unwrap_or_default()).await?;
            match format {
                Format::Json => output::json(&keys)?,
                Format::Table => {
                    let rows = keys.data.iter().map(|key| {
                        let end = key.expires_at.map_or("never".to_owned(), |at| at.to_string());
                        vec![
                            key.id.to_string(),
                            key.name.clone(),
                            state(key.status).to_owned(),
                            key.display.clone(),
                            end,
                        ]
                    });
                    output::table(&["ID", "NAME", "STATUS", "KEY", "EXPIRES"], rows);
                    more(keys.next_cursor.as_deref());
                }
            }
        }
        Keys::Info { id } => {
            let (id, project) = find(ctx, &id).await?;
            let key = store::find(ctx.db.reader().await?.conn(), id, project).await?.ok_or_else(no_key)?;
            show(&KeyView::at(key, ctx.now()), format)?;
        }
        Keys::Rotate { id, overlap } => lifecycle::rotate(ctx, &id, &overlap, format).await?,
        Keys::Disable { id } => lifecycle::switch(ctx, &id, false, format).await?,
        Keys::Enable { id } => lifecycle::switch(ctx, &id, true, format).await?,
        Keys::Delete { id, force } => lifecycle::delete(ctx, &id, force, format).await?,
        Keys::Revoke { id, reason, note, force } => {
            let (id, project) = find(ctx, &id).await?;
            if !force {
                output::confirm(&format!("Revoke {id} for good?"))?;
            }
            let by = By::system("cli", ctx);
            let reason: RevocationReason = word(&reason)?;
            let key = change::revoke(ctx, Target { by: &by, project, key: id }, reason, note).await?;
            obeyed().await;
            match format {
                Format::Json => output::json(&key)?,
                Format::Table => output::say(&format!("revoked {id}")),
            }
        }
        Keys::Import(args) => moving::import(ctx, &args, named(ctx, &args.whose).await?, format).await?,
        Keys::Export { whose, output } => moving::export(ctx, named(ctx, &whose).await?.0, output.as_deref()).await?,
    }
    super::finish(ctx).await;
    Ok(())
}

/// Running services read the feed of changes every so often: after this wait, what is said of a change is true there too.
pub(super) async fn obeyed() {
    tokio::time::sleep(follow::INTERVAL * 2).await;
}

async fn make(ctx: &Ctx, new: args::NewKey, format: Format) -> Result<(), Failure> {
    let args::NewKey { name, whose, scopes, expires, description, owner, limit, concurrency, allow_ip } = new;
    let scopes: Result<Vec<_>, _> = scopes.iter().map(|scope| scope.parse()).collect();
    let new = NewKey {
        name: Some(name),
        description,
        scopes: Some(Scopes::new(scopes.map_err(|error| usage(format!("--scopes: {error}")))?)),
        expires_in: expires
            .map(|text| text.parse().map_err(|error| usage(format!("--expires: {error}"))))
            .transpose()?,
        owner,
        limits: limits::read(&limit, &ctx.config.keys)?,
        concurrency,
        ip_allow: limits::networks(&allow_ip)?,
        ..NewKey::default()
    };
    let (project, responsible) = named(ctx, &whose).await?;
    let making = Making { by: &By::system("cli", ctx), caller: None, project, responsible, idempotency_key: None };
    let created = create::create(ctx, &making, new).await?;
    match format {
        // The key alone, so that it can be piped where it belongs.
        Format::Table => output::say(created.secret.expose()),
        Format::Json => {
            let mut view = json!(KeyView::at(created.key, ctx.now()));
            if let Some(fields) = view.as_object_mut() {
                fields.insert("key".to_owned(), json!(created.secret.expose()));
            }
            output::json(&view)?;
        }
    }
    Ok(())
}

/// As [`project`], for what must say whose it is.
async fn named(ctx: &Ctx, whose: &Whose) -> Result<(ProjectId, Option<crate::base::id::UserId>), Failure> {
    if whose.user.is_none() && whose.project.is_none() && !whose.system {
        return Err(usage("say whose key it is: --user USERNAME, --project ID, or --system"));
    }
    project(ctx, whose).await
}

/// The project that the flags name, and the person who answers for its keys.
pub(super) async fn project(ctx: &Ctx, whose: &Whose) -> Result<(ProjectId, Option<crate::base::id::UserId>), Failure> {
    let missing = |what: &str| Failure::Refused(format!("there is no such {what}"));
    let mut reader = ctx.db.reader().await?;
    if let Some(username) = &whose.user {
        let username = Username::parse(username).map_err(|_| missing("person"))?;
        let user = users::store::credentials(reader.conn(), &username).await?.ok_or_else(|| missing("person"))?;
        let project = projects::store::personal(reader.conn(), user.id).await?.ok_or_else(|| missing("project"))?;
        return Ok((project, Some(user.id)));
    }
    if let Some(id) = &whose.project {
        let id: ProjectId = id.parse().map_err(|_| missing("project"))?;
        projects::store::prefix(reader.conn(), id).await?.ok_or_else(|| missing("project"))?;
        return Ok((id, None));
    }
    let system = projects::store::system(reader.conn()).await?.ok_or_else(|| missing("project"))?;
    Ok((system, None))
}

/// A key by its id, or by itself on standard input.
pub(super) async fn find(ctx: &Ctx, id: &str) -> Result<(KeyId, ProjectId), Failure> {
    let mut reader = ctx.db.reader().await?;
    if id == "-" {
        let mut text = String::new();
        std::io::stdin().take(64 * 1024).read_to_string(&mut text)?;
        let secret = Secret::new(text.trim().to_owned());
        // Of our form or of another's: the storage knows.
        let hash = format::foreign(secret.expose()).ok_or_else(no_key)?;
        let found = secrets::store::by_hash(reader.conn(), &hash).await?.ok_or_else(no_key)?;
        return Ok((found.key, found.project));
    }
    let id: KeyId = id.parse().map_err(|_| no_key())?;
    let project = store::project_of(reader.conn(), id).await?.ok_or_else(no_key)?;
    Ok((id, project))
}

fn show(key: &KeyView, format: Format) -> Result<(), Failure> {
    if format == Format::Json {
        return output::json(key);
    }
    let time = |at: Option<crate::base::clock::Timestamp>| at.map_or("never".to_owned(), |at| at.to_string());
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let scopes = key.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut rows = vec![
        ("id", key.id.to_string()),
        ("name", key.name.clone()),
        ("key", key.display.clone()),
        ("status", state(key.status).to_owned()),
        ("project", key.project_id.to_string()),
        ("owner", text(&key.owner)),
        ("description", text(&key.description)),
        ("scopes", scopes),
        ("made by", key.created_by.clone()),
        ("answers for it", key.user_id.map_or("nobody".to_owned(), |user| user.to_string())),
        ("made", key.created_at.to_string()),
        ("expires", time(key.expires_at)),
        ("last used", time(key.last_used_at)),
        ("revoked", time(key.revoked_at)),
        ("reason", text(&key.revoked_reason)),
    ];
    rows.extend(limits::set_on(key));
    output::table(&["FIELD", "VALUE"], rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
    Ok(())
}

fn state(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Disabled => "disabled",
        KeyState::Expired => "expired",
        KeyState::Revoked => "revoked",
        KeyState::Rotating => "rotating",
    }
}
