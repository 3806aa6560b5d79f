//! `POST /v1/projects/{project}/scopes:from-openapi`.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::base::id::ProjectId;
use crate::base::invalid::Invalid;
use crate::ctx::Ctx;
use crate::features::auth::InProject;
use crate::features::auth::permission::ScopesImport;
use crate::features::scopes::described::{self, DescribedError};
use crate::features::scopes::import::Imported;
use crate::features::scopes::openapi::{Actions, DerivedScope, Namespace, Options, Strategy, Unmapped};
use crate::infra::net::{Fetch, OutboundError, Schemes};
use crate::web::extract::{BulkJson, Query};
use crate::web::problem::Problem;

/// The largest document that is fetched, in bytes.
const MAX_DOCUMENT: usize = 16 * 1024 * 1024;
/// How long fetching one may take: less than a request may.
const FETCH_TIMEOUT: Duration = Duration::from_secs(20);

/// How to import.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WishQuery {
    /// Only say what would be done; the same as in the body.
    #[serde(default)]
    #[param(required = false, default = false)]
    dry_run: bool,
}

/// Where the document is, and how scopes are named.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScopesFromOpenapi, example = json!({
    "document": {
        "openapi": "3.1.0", "info": {"title": "Shop", "version": "1"},
        "paths": {"/orders": {"get": {"summary": "List orders", "responses": {}}}}
    },
    "strategy": "path_resource", "namespace": "shop", "dry_run": true
}))]
pub(super) struct Wish {
    /// The document: the object itself, or a text of JSON or YAML. Either this or `url`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    document: Option<Box<RawValue>>,
    /// Where to fetch it: a public address; up to three redirects are followed, to public addresses.
    #[serde(default)]
    #[schema(max_length = 2048, pattern = "^https?://[^\\s@]+$", example = "https://example.com/openapi.json")]
    url: Option<String>,
    /// What a scope stands for.
    #[serde(default)]
    strategy: Strategy,
    /// What all names begin with.
    #[serde(default)]
    namespace: Option<Namespace>,
    /// Other words for methods than `read`, `write` and `delete`.
    #[serde(default)]
    actions: Option<Actions>,
    /// Only say what would be done.
    #[serde(default)]
    #[schema(default = false)]
    dry_run: bool,
}

/// What became of it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[schema(as = DerivedScopes)]
pub(super) struct Answer {
    #[serde(flatten)]
    imported: Imported,
    /// What the API is called.
    title: Option<String>,
    /// Which version of it.
    version: Option<String>,
    /// How many operations it describes.
    operations: usize,
    /// The scopes, and what each covers.
    scopes: Vec<DerivedScope>,
    /// What no scope covers, and why.
    unmapped: Vec<Unmapped>,
}

/// Make a catalogue from an OpenAPI document
///
/// Reads 3.0 and 3.1, JSON and YAML. Scopes that the catalogue doesn't hold are added; those that it holds stay as they are.
#[utoipa::path(
    post, path = "/v1/projects/{project}/scopes:from-openapi", operation_id = "scopesFromOpenapi", tag = "projects",
    params(("project" = ProjectId, Path, description = "Whose catalogue"), WishQuery),
    request_body(content = Wish, description = "The document, and how scopes are named"),
    responses(
        (status = 200, description = "What was added, or would be", body = Answer),
        (status = 403, description = "The caller may not import scopes here"),
        (status = 404, description = "`project_not_found`: there is no such project for this caller"),
        (status = 409, description = "`too_many_scopes`: the catalogue has no room for them"),
        (status = 422, description = "`document_unreachable`: the document can't be fetched from `url`"),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(super) async fn from_openapi(
    State(ctx): State<Ctx>,
    InProject { by, project, .. }: InProject<ScopesImport>,
    Query(query): Query<WishQuery>,
    BulkJson(wish, _room): BulkJson<Wish>,
) -> Result<Json<Answer>, Problem> {
    let document = match (wish.document, wish.url) {
        (Some(document), None) => text_of(&document)?,
        (None, Some(url)) => fetch(&ctx, &url).await?,
        _ => return Err(Invalid::field("document", "required", "send either document or url").into()),
    };
    let options =
        Options { strategy: wish.strategy, namespace: wish.namespace, actions: wish.actions.unwrap_or_default() };
    let (imported, derived) =
        described::bring(&ctx, &by, project, document, options, query.dry_run || wish.dry_run).await?;
    Ok(Json(Answer {
        imported,
        title: derived.title,
        version: derived.version,
        operations: derived.operations,
        scopes: derived.scopes,
        unmapped: derived.unmapped,
    }))
}

/// The object's own text, or what a text holds.
fn text_of(document: &RawValue) -> Result<Vec<u8>, Problem> {
    let raw = document.get();
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw)
            .map_err(|_| Problem::from(Invalid::field("document", "invalid_document", "isn't text")))?;
        return Ok(text.into_bytes());
    }
    Ok(raw.as_bytes().to_vec())
}

async fn fetch(ctx: &Ctx, url: &str) -> Result<Vec<u8>, Problem> {
    let wanted = Fetch {
        schemes: Schemes::HttpToo,
        max_bytes: MAX_DOCUMENT,
        timeout: FETCH_TIMEOUT,
        max_redirects: 3,
        accept: HeaderValue::from_static("application/json, application/yaml, application/vnd.oai.openapi, */*;q=0.5"),
    };
    match ctx.outbound.get(url, &wanted).await {
        Ok(fetched) => Ok(fetched.body),
        Err(error @ (OutboundError::InvalidUrl(_) | OutboundError::Refused)) => {
            Err(Invalid::field("url", "invalid_url", error.to_string()).into())
        }
        Err(error) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "document_unreachable",
            format!("The document can't be fetched: {error}."),
        )),
    }
}

impl From<DescribedError> for Problem {
    fn from(error: DescribedError) -> Self {
        match error {
            DescribedError::Document(error) => Invalid::field("document", "invalid_document", error.to_string()).into(),
            DescribedError::Scopes(error) => error.into(),
            DescribedError::Gone(error) => Self::internal(&error),
        }
    }
}
