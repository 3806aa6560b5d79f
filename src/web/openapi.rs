//! The parts of the OpenAPI document that every route shares: they are added here, once, to what the handlers say of
//! themselves.

use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::problem::ProblemBody;

/// Adds the security schemes, the problem's schema, and to each operation the problems that its layers and extractors
/// answer.
#[must_use]
pub fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_default();
    components.schemas.insert("Problem".to_owned(), ProblemBody::schema());
    let mut inner = Vec::new();
    ProblemBody::schemas(&mut inner);
    components.schemas.extend(inner);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A session token from `POST /login`, or an API key."))
        .build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let key = ApiKeyValue::with_description("X-API-Key", "An API key.");
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(key)));

    for item in document.paths.paths.values_mut() {
        for operation in
            [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete, &mut item.head]
                .into_iter()
                .flatten()
        {
            complete_operation(operation);
        }
    }
    document
}

/// Operations under a limit, which tell how it stands in every answer.
const LIMITED: [&str; 6] = ["register", "login", "changePassword", "generateKey", "createKey", "verifyKey"];

/// Operations that take much at once.
const BULK: [&str; 3] = ["importScopes", "scopesFromOpenapi", "recordRequests"];

fn complete_operation(operation: &mut Operation) {
    let mut shared = vec![
        ("408", "The request took longer than allowed."),
        ("414", "The target is longer than 8 KiB."),
        ("431", "The headers are larger than 16 KiB."),
        ("500", "A defect; the request id leads to it in the log."),
    ];
    // Health is never refused.
    if !operation.tags.iter().flatten().any(|tag| tag == "health") {
        // Also for a query parameter that isn't known.
        shared.push(("400", "The request breaks a rule; `errors` says which field and why."));
        shared.push(("429", "`rate_limited`: a limit refuses the request; `Retry-After` says for how long."));
        shared.push((
            "503",
            "`storage_unavailable`: the storage can't be used just now, or too much is asked at once; `Retry-After` says when to try again.",
        ));
    }
    if operation.request_body.is_some() {
        let is_bulk = operation.operation_id.as_deref().is_some_and(|id| BULK.contains(&id));
        shared
            .push(("413", if is_bulk { "The body is larger than 16 MiB." } else { "The body is larger than 1 MiB." }));
        shared.push(("415", "The body isn't declared as JSON."));
    }
    // An operation that says nothing of security is open to everybody, and says so.
    if !operation.security.get_or_insert_default().is_empty() {
        shared.push(("401", "No credentials, none that are good now, or two of them."));
    }
    let responses = &mut operation.responses.responses;
    for (status, description) in shared {
        responses
            .entry(status.to_owned())
            .or_insert_with(|| RefOr::T(ResponseBuilder::new().description(description).build()));
    }
    for (status, response) in responses.iter_mut() {
        if let RefOr::T(response) = response {
            let limited = status == "429"
                || (status.starts_with('2')
                    && operation.operation_id.as_deref().is_some_and(|id| LIMITED.contains(&id)));
            complete_response(status, response, limited);
        }
    }
}

fn complete_response(status: &str, response: &mut Response, limited: bool) {
    let text = |description: &str| {
        HeaderBuilder::new()
            .description(Some(description))
            .schema(Some(ObjectBuilder::new().schema_type(Type::String).build()))
            .build()
    };
    response.headers.insert("X-Request-Id".to_owned(), RefOr::T(text("Names the request in the service's log.")));
    if status == "429" || status == "503" {
        let mut header = HeaderBuilder::new().description(Some("Seconds to wait."));
        header = header.schema(Some(ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).build()));
        response.headers.insert("Retry-After".to_owned(), RefOr::T(header.build()));
    }
    if status == "401" {
        response.headers.insert("WWW-Authenticate".to_owned(), RefOr::T(text("The challenge of RFC 9110.")));
    }
    if limited {
        for (name, description) in [
            ("RateLimit-Policy", "Each limit's name, amount (`q`) and window in seconds (`w`)."),
            ("RateLimit", "How each stands: what remains (`r`), and seconds until it is free again (`t`)."),
            ("X-RateLimit-Limit", "The tightest limit's amount."),
            ("X-RateLimit-Remaining", "What remains of it."),
            ("X-RateLimit-Reset", "Seconds until it is free again."),
        ] {
            response.headers.insert(name.to_owned(), RefOr::T(text(description)));
        }
    }
    let is_problem = status.starts_with(['4', '5']) && response.content.is_empty();
    if is_problem {
        // A description may begin with the code of its problem, in back quotes.
        let quoted = response.description.strip_prefix('`').and_then(|rest| rest.split_once("`: "));
        let (code, detail) = quoted.unwrap_or((example_code(status), &response.description));
        let mut letters = detail.chars();
        let detail: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
        let mut example = serde_json::json!({
            "type": "about:blank",
            "title": status.parse().ok().and_then(|s| axum::http::StatusCode::from_u16(s).ok()).and_then(|s| s.canonical_reason()),
            "status": status.parse::<u16>().unwrap_or_default(),
            "detail": detail,
            "code": code,
            "error": detail,
            "request_id": "01K5ZV8QXW3M7C2R9T4B6D8F0G",
        });
        match code {
            "rate_limited" => {
                example["detail"] = "Rate limit exceeded. Try again later.".into();
                example["error"] = "Rate limit exceeded. Try again later.".into();
                example["violated"] = serde_json::json!(["keys_per_day"]);
            }
            "idempotency_replay" => example["id"] = "key_01K5ZV8QXW3M7C2R9T4B6D8F0G".into(),
            "invalid_request" => {
                example["detail"] = "limit: must be 1 to 200".into();
                example["error"] = "limit: must be 1 to 200".into();
                example["errors"] =
                    serde_json::json!([{ "field": "limit", "code": "invalid_value", "message": "must be 1 to 200" }]);
            }
            _ => {}
        }
        let mut content = Content::new(Some(Ref::from_schema_name("Problem")));
        content.example = Some(example);
        response.content.insert("application/problem+json".to_owned(), RefOr::T(content));
    }
}

fn example_code(status: &str) -> &'static str {
    match status {
        "400" => "invalid_request",
        "401" => "unauthenticated",
        "403" => "forbidden",
        "404" => "not_found",
        "408" => "timeout",
        "409" => "conflict",
        "413" => "body_too_large",
        "414" => "target_too_long",
        "415" => "unsupported_media_type",
        "422" => "idempotency_mismatch",
        "429" => "rate_limited",
        "431" => "headers_too_large",
        "503" => "storage_unavailable",
        _ => "internal",
    }
}

/// The schema of a duration: whole seconds, or a short form.
#[must_use]
pub fn duration() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{OneOfBuilder, SchemaType};
    let seconds = ObjectBuilder::new()
        .schema_type(Type::Integer)
        .minimum(Some(1))
        .maximum(Some(crate::base::duration::MAX_SECONDS));
    let short = ObjectBuilder::new().schema_type(Type::String).pattern(Some(crate::base::duration::SHORT_FORM));
    let none = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Null));
    OneOfBuilder::new()
        .item(seconds)
        .item(short)
        .item(none)
        .description(Some("Whole seconds, or a short form such as `5s`, `15m`, `12h` or `30d`; at most 99999 days."))
        .examples([serde_json::json!("30d")])
        .build()
        .into()
}

/// The schema of an address of either kind, or `null`.
#[must_use]
pub fn address() -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{AnyOfBuilder, SchemaFormat};
    let text = |format: &str| {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom(format.to_owned())))
    };
    AnyOfBuilder::new()
        .item(text("ipv4"))
        .item(text("ipv6"))
        .item(ObjectBuilder::new().schema_type(Type::Null))
        .description(Some("The client's address."))
        .examples([serde_json::json!("192.0.2.7")])
        .build()
        .into()
}
