//! `GET /v1/users/me/sessions`.

use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::base::clock::Timestamp;
use crate::base::id::SessionId;
use crate::base::page::{Cursor, Page};
use crate::ctx::Ctx;
use crate::features::auth::PersonCaller;
use crate::features::sessions::store::{self, Session};
use crate::web::extract::{PageQuery, Query};
use crate::web::problem::Problem;

/// A page of sessions, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct SessionPage {
    /// The sessions.
    data: Vec<Session>,
    /// Pass it as `cursor` to get the next page; `null` on the last.
    next_cursor: Option<String>,
}

/// Which page.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionQuery {
    /// How many: 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u64>,
    /// `next_cursor` of the page before.
    #[param(pattern = "^[0-9a-f]{15}ses_[0-7][0-9A-HJKMNP-TV-Z]{25}$")]
    cursor: Option<String>,
}

/// My sessions
#[utoipa::path(
    get, path = "/v1/users/me/sessions", operation_id = "listSessions", tag = "people",
    params(SessionQuery),
    responses(
        (status = 200, description = "A page of the caller's sessions, newest first", body = SessionPage),
        (status = 403, description = "`person_required`: the caller is a key, not a person"),
    ),
    security(("bearer" = [])),
)]
pub(super) async fn list(
    State(ctx): State<Ctx>,
    PersonCaller { person, .. }: PersonCaller,
    Query(query): Query<SessionQuery>,
) -> Result<axum::Json<SessionPage>, Problem> {
    let PageQuery { limit, after } = PageQuery::<SessionId>::read(query.limit, query.cursor.as_deref())?;
    let after = after.unwrap_or(Cursor { at: Timestamp::FAR, id: SessionId::from_bits(u128::MAX) });
    let rows = store::list(ctx.db.reader().await?.conn(), person.user, ctx.now(), &after, limit).await?;
    let page = Page::cut(rows, limit, |session| Cursor { at: session.created_at, id: session.id }).map(|session| {
        let current = session.token_hash == person.token_hash;
        Session { current, ..session }
    });
    Ok(axum::Json(SessionPage { data: page.data, next_cursor: page.next_cursor }))
}
