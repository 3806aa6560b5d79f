//! What a question asks of a key's scopes: a list that is needed whole, or a query of `all`, `any` and `not`.
//!
//! Read once, within bounds, into a tree that answers without allocating. It knows no key: whoever asks says which scopes are
//! covered.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Schema};
use utoipa::openapi::{Ref, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::scope::{MAX_SCOPES, Scope, Scopes};

/// How deep `all`, `any` and `not` may nest; a list nests nothing.
pub const MAX_DEPTH: usize = 8;

/// The most objects (`all`, `any`, `not`) that one query holds.
pub const MAX_OBJECTS: usize = 256;

/// A list of scopes, which are all needed, or a query: `{"all": […]}`, `{"any": […]}` or `{"not": …}`, of scopes and queries,
/// at most 8 deep, with at most 256 scopes and 256 objects.
///
/// - An empty list and an empty `all` hold always, an empty `any` never.
/// - A scope holds if what the key has is enough for it: `orders:*` is enough for `orders:read`. A wildcard that is asked for
///   needs the same or a wider one.
/// - `not` is the exact opposite of what stands in it. So `{"not": "orders:read"}` refuses a key with `orders:*`, and
///   `{"not": "orders:*"}` refuses only keys that have all of `orders`; one with `orders:read` passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeQuery(Query);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Query {
    /// Nearly every question. Repetitions do no harm, and looking for them would cost more than they do.
    List(Vec<Scope>),
    Tree(Node),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    Scope(Scope),
    All(Box<[Node]>),
    Any(Box<[Node]>),
    Not(Box<Node>),
}

impl ScopeQuery {
    /// Whether it holds for somebody of whom `covers` says for which scopes they have enough. Asks no more than it must to
    /// know, in the order in which the scopes stand.
    pub fn holds(&self, mut covers: impl FnMut(&str) -> bool) -> bool {
        match &self.0 {
            Query::List(scopes) => scopes.iter().all(|scope| covers(scope.as_str())),
            Query::Tree(node) => node.holds(&mut covers),
        }
    }

    /// Tells of each scope that is asked for and isn't covered; of those that must not be held, none.
    pub fn lacking<'a>(&'a self, covers: &mut dyn FnMut(&str) -> bool, tell: &mut dyn FnMut(&'a str)) {
        match &self.0 {
            Query::List(scopes) => {
                scopes.iter().map(Scope::as_str).filter(|scope| !covers(scope)).for_each(tell);
            }
            Query::Tree(node) => node.lacking(covers, tell),
        }
    }

    /// Whether it is the list without scopes, which asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(&self.0, Query::List(scopes) if scopes.is_empty())
    }
}

impl Node {
    /// Calls itself as deep as it was read, 8 levels at most.
    fn holds<F: FnMut(&str) -> bool>(&self, covers: &mut F) -> bool {
        match self {
            Self::Scope(scope) => covers(scope.as_str()),
            Self::All(nodes) => nodes.iter().all(|node| node.holds(covers)),
            Self::Any(nodes) => nodes.iter().any(|node| node.holds(covers)),
            Self::Not(node) => !node.holds(covers),
        }
    }

    fn lacking<'a>(&'a self, covers: &mut dyn FnMut(&str) -> bool, tell: &mut dyn FnMut(&'a str)) {
        match self {
            Self::Scope(scope) if !covers(scope.as_str()) => tell(scope.as_str()),
            Self::Scope(_) | Self::Not(_) => {}
            Self::All(nodes) | Self::Any(nodes) => nodes.iter().for_each(|node| node.lacking(covers, tell)),
        }
    }
}

impl Default for ScopeQuery {
    /// Asks for nothing.
    fn default() -> Self {
        Self(Query::List(Vec::new()))
    }
}

impl From<Scopes> for ScopeQuery {
    /// All of them.
    fn from(scopes: Scopes) -> Self {
        Self(Query::List(scopes.into_iter().collect()))
    }
}

impl Serialize for ScopeQuery {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Query::List(scopes) => scopes.serialize(serializer),
            Query::Tree(node) => node.serialize(serializer),
        }
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn object<S: Serializer>(
            serializer: S,
            name: &str,
            value: &(impl Serialize + ?Sized),
        ) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(name, value)?;
            map.end()
        }
        match self {
            Self::Scope(scope) => scope.serialize(serializer),
            Self::All(nodes) => object(serializer, "all", nodes),
            Self::Any(nodes) => object(serializer, "any", nodes),
            Self::Not(node) => object(serializer, "not", node),
        }
    }
}

impl<'de> Deserialize<'de> for ScopeQuery {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = ScopeQuery;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of scopes, or an object with all, any or not")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ScopeQuery, A::Error> {
                let (mut scopes, mut left) = (Vec::new(), Left::default());
                while let Some(scope) = list.next_element()? {
                    left.scope()?;
                    scopes.push(scope);
                }
                Ok(ScopeQuery(Query::List(scopes)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ScopeQuery, A::Error> {
                let mut left = Left::default();
                NodeSeed { depth: 0, left: &mut left }.object(map).map(|node| ScopeQuery(Query::Tree(node)))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// How much more may be read.
struct Left {
    scopes: usize,
    objects: usize,
}

impl Default for Left {
    fn default() -> Self {
        Self { scopes: MAX_SCOPES, objects: MAX_OBJECTS }
    }
}

impl Left {
    fn scope<E: de::Error>(&mut self) -> Result<(), E> {
        let too_many = || E::custom(format_args!("expected at most {MAX_SCOPES} scopes in all"));
        self.scopes = self.scopes.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }

    fn object<E: de::Error>(&mut self) -> Result<(), E> {
        let too_many = || E::custom(format_args!("expected at most {MAX_OBJECTS} objects in all"));
        self.objects = self.objects.checked_sub(1).ok_or_else(too_many)?;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Operator {
    All,
    Any,
    Not,
}

impl Operator {
    fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
            Self::Not => "not",
        }
    }
}

/// Reads a scope or an object, inside of `depth` objects.
struct NodeSeed<'a> {
    depth: usize,
    left: &'a mut Left,
}

impl NodeSeed<'_> {
    fn object<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        use de::Error as _;

        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            return Err(A::Error::custom(format_args!("expected at most {MAX_DEPTH} levels of all, any and not")));
        }
        self.left.object()?;
        let Some(operator) = map.next_key::<Operator>()? else {
            return Err(A::Error::custom("expected one of all, any and not"));
        };
        let inner = NodeSeed { depth, left: self.left };
        let node = match operator {
            Operator::All => Node::All(map.next_value_seed(ListSeed(inner))?),
            Operator::Any => Node::Any(map.next_value_seed(ListSeed(inner))?),
            Operator::Not => Node::Not(Box::new(map.next_value_seed(inner)?)),
        };
        match map.next_key::<Operator>()? {
            None => Ok(node),
            Some(again) if again == operator => Err(A::Error::duplicate_field(operator.name())),
            Some(_) => Err(A::Error::custom("expected only one of all, any and not in an object")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeSeed<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> de::Visitor<'de> for NodeSeed<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a scope, or an object with all, any or not")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Node, E> {
        self.left.scope()?;
        text.parse().map(Node::Scope).map_err(E::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Node, A::Error> {
        self.object(map)
    }
}

/// Reads what stands in `all` and `any`.
struct ListSeed<'a>(NodeSeed<'a>);

impl<'de> DeserializeSeed<'de> for ListSeed<'_> {
    type Value = Box<[Node]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Box<[Node]>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> de::Visitor<'de> for ListSeed<'_> {
    type Value = Box<[Node]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of scopes and queries")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Box<[Node]>, A::Error> {
        let Self(NodeSeed { depth, left }) = self;
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element_seed(NodeSeed { depth, left })? {
            nodes.push(node);
        }
        Ok(nodes.into())
    }
}

impl PartialSchema for ScopeQuery {
    fn schema() -> RefOr<Schema> {
        let list = ArrayBuilder::new()
            .items(Ref::from_schema_name(Scope::name()))
            .max_items(Some(MAX_SCOPES))
            .description(Some("Scopes that are all needed."));
        OneOfBuilder::new()
            .item(list)
            .item(Ref::from_schema_name(Condition::name()))
            .description(Some(
                "A list of scopes, which are all needed, or a query of `all`, `any` and `not`, at most 8 deep, with at most \
                 256 scopes and 256 objects.",
            ))
            .examples([serde_json::json!(["orders:read"])])
            .into()
    }
}

impl ToSchema for ScopeQuery {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((Scope::name().into(), Scope::schema()));
        schemas.push((Condition::name().into(), Condition::schema()));
    }
}

/// The schema of what stands in a query; it refers to itself by name.
struct Condition;

impl PartialSchema for Condition {
    fn schema() -> RefOr<Schema> {
        let inner =
            || OneOfBuilder::new().item(Ref::from_schema_name(Scope::name())).item(Ref::from_schema_name(Self::name()));
        let list = || ArrayBuilder::new().items(inner()).max_items(Some(MAX_SCOPES));
        let object = |name: &str, value: RefOr<Schema>| {
            ObjectBuilder::new()
                .property(name, value)
                .required(name)
                .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        };
        OneOfBuilder::new()
            .item(object("all", list().into()))
            .item(object("any", list().into()))
            .item(object("not", inner().into()))
            .description(Some(
                "Exactly one of `all` (empty: always), `any` (empty: never) and `not` (the exact opposite), of scopes and \
                 queries.",
            ))
            .examples([serde_json::json!({"any": ["orders:write", {"all": ["orders:read", {"not": "guests:read"}]}]})])
            .into()
    }
}

impl ToSchema for Condition {
    fn name() -> std::borrow::Cow<'static, str> {
        "ScopeCondition".into()
    }
}

#[cfg(test)]
mod tests;
