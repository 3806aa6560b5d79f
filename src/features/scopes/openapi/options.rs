//! What can be chosen: how scopes are named.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::Method;
use crate::base::scope::{OWN_PREFIX, Scope};

/// The most parts of a namespace: one for the resource and one for the action are left.
const MAX_NAMESPACE_PARTS: usize = 6;

/// The longest namespace in bytes.
const MAX_NAMESPACE_LENGTH: usize = 100;

/// The longest action in bytes.
const MAX_ACTION_LENGTH: usize = 50;

/// What a scope stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = ScopeStrategy)]
pub enum Strategy {
    /// A resource, the first fixed part of the path: `GET /v1/orders/{id}/items` is `orders:read`.
    #[default]
    PathResource,
    /// A path with its method: `GET /v1/orders/{id}/items` is `orders:items:get`.
    PathMethod,
    /// A tag: an operation with the tag `Pet Store` is `pet-store:read`.
    Tag,
    /// An operation: `getPetById` is `get-pet-by-id:read`.
    OperationId,
}

/// The word isn't a strategy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected path_resource, path_method, tag or operation_id")]
pub struct NotAStrategy;

impl Strategy {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::PathResource, Self::PathMethod, Self::Tag, Self::OperationId];

    /// As text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PathResource => "path_resource",
            Self::PathMethod => "path_method",
            Self::Tag => "tag",
            Self::OperationId => "operation_id",
        }
    }
}

impl FromStr for Strategy {
    type Err = NotAStrategy;

    fn from_str(text: &str) -> Result<Self, NotAStrategy> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == text).ok_or(NotAStrategy)
    }
}

/// What the names begin with: 1 to 6 parts of `[a-z0-9_.-]+` joined by `:`, the first of them not `keyward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(String);

/// The text isn't a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 6 parts of a-z, 0-9, _, . or - joined by : such as shop or acme:shop; keyward is taken")]
pub struct NotANamespace;

impl Namespace {
    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How many parts it has.
    pub(super) fn parts(&self) -> usize {
        self.0.split(':').count()
    }
}

impl FromStr for Namespace {
    type Err = NotANamespace;

    fn from_str(text: &str) -> Result<Self, NotANamespace> {
        // What goes before a part of a scope is a namespace.
        let scope = format!("{text}:x");
        let valid = text.len() <= MAX_NAMESPACE_LENGTH
            && text.split(':').count() <= MAX_NAMESPACE_PARTS
            && scope.parse::<Scope>().is_ok()
            && !scope.starts_with(OWN_PREFIX);
        if valid { Ok(Self(text.to_owned())) } else { Err(NotANamespace) }
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for Namespace {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("1 to 6 parts of `[a-z0-9_.-]+` joined by `:`, the first of them not `keyward`."))
            .pattern(Some("^(?!keyward(:|$))[a-z0-9_.-]+(:[a-z0-9_.-]+){0,5}$"))
            .max_length(Some(MAX_NAMESPACE_LENGTH))
            .examples(["shop"])
            .into()
    }
}

impl utoipa::ToSchema for Namespace {
    fn name() -> std::borrow::Cow<'static, str> {
        "ScopeNamespace".into()
    }
}

/// What the names end with: 1 to 50 of `[a-z0-9_.-]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Action(String);

/// The text isn't an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 50 of a-z, 0-9, _, . and - such as create")]
pub struct NotAnAction;

impl FromStr for Action {
    type Err = NotAnAction;

    fn from_str(text: &str) -> Result<Self, NotAnAction> {
        let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-');
        let valid = (1..=MAX_ACTION_LENGTH).contains(&text.len()) && text.bytes().all(plain);
        if valid { Ok(Self(text.to_owned())) } else { Err(NotAnAction) }
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for Action {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[a-z0-9_.-]+$"))
            .min_length(Some(1))
            .max_length(Some(MAX_ACTION_LENGTH))
            .examples(["create"])
            .into()
    }
}

impl utoipa::ToSchema for Action {
    fn name() -> std::borrow::Cow<'static, str> {
        "ScopeAction".into()
    }
}

/// Other words for the methods that are named. Otherwise `path_method` takes the method itself, and the other strategies
/// `read` (GET, HEAD, OPTIONS, TRACE: the methods that RFC 9110 calls safe), `write` (POST, PUT, PATCH) and `delete`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScopeActions, example = json!({"post": "create"}))]
pub struct Actions {
    /// For GET.
    pub get: Option<Action>,
    /// For HEAD.
    pub head: Option<Action>,
    /// For OPTIONS.
    pub options: Option<Action>,
    /// For POST.
    pub post: Option<Action>,
    /// For PUT.
    pub put: Option<Action>,
    /// For PATCH.
    pub patch: Option<Action>,
    /// For DELETE.
    pub delete: Option<Action>,
    /// For TRACE.
    pub trace: Option<Action>,
}

/// The word isn't a method that OpenAPI knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected get, head, options, post, put, patch, delete or trace")]
pub struct NotAMethod;

impl Actions {
    /// Takes another word for a method.
    pub fn set(&mut self, method: Method, action: Action) {
        let slot = match method {
            Method::Get => &mut self.get,
            Method::Head => &mut self.head,
            Method::Options => &mut self.options,
            Method::Post => &mut self.post,
            Method::Put => &mut self.put,
            Method::Patch => &mut self.patch,
            Method::Delete => &mut self.delete,
            Method::Trace => &mut self.trace,
        };
        *slot = Some(action);
    }

    fn of(&self, method: Method) -> Option<&str> {
        let slot = match method {
            Method::Get => &self.get,
            Method::Head => &self.head,
            Method::Options => &self.options,
            Method::Post => &self.post,
            Method::Put => &self.put,
            Method::Patch => &self.patch,
            Method::Delete => &self.delete,
            Method::Trace => &self.trace,
        };
        slot.as_ref().map(|action| action.0.as_str())
    }
}

/// How scopes are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What a scope stands for.
    pub strategy: Strategy,
    /// What all names begin with.
    pub namespace: Option<Namespace>,
    /// Other words for some methods.
    pub actions: Actions,
}

impl Options {
    /// What a name ends with.
    pub(super) fn action(&self, method: Method) -> &str {
        self.actions.of(method).unwrap_or(match (self.strategy, method) {
            (Strategy::PathMethod, method) => method.as_str(),
            (_, Method::Get | Method::Head | Method::Options | Method::Trace) => "read",
            (_, Method::Post | Method::Put | Method::Patch) => "write",
            (_, Method::Delete) => "delete",
        })
    }
}
