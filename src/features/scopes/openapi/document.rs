//! Reads of a document what scopes are made of, and skips the rest without keeping it.
//!
//! Lenient where nothing is lost by it: what has the wrong type is taken for absent. Bounded in depth, in what YAML's aliases
//! expand to, and in what is kept. May not name anything, nor follow references.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use super::catalogue::squeeze;
use super::lenient::{Lenient, Part, Text};
use super::{DocumentError, Format, MAX_DEPTH, MAX_OPERATIONS, Method};

/// The most tags of an operation that are kept. Real ones have up to six.
const MAX_TAGS: usize = 8;

/// The longest title and version in characters.
const MAX_TITLE: usize = 200;

/// A document of a version that is understood, with paths.
#[derive(Debug)]
pub(super) struct Document<'a> {
    info: Info<'a>,
    /// `paths`.
    pub(super) paths: Items<'a>,
    /// `components/pathItems`.
    pub(super) shared: Items<'a>,
}

impl Document<'_> {
    pub(super) fn title(&self) -> Option<String> {
        self.info.title.get().map(|text| squeeze(text, MAX_TITLE))
    }

    pub(super) fn version(&self) -> Option<String> {
        self.info.version.get().map(|text| squeeze(text, MAX_TITLE))
    }
}

/// Reads a document.
pub(super) fn read(bytes: &[u8]) -> Result<Document<'_>, DocumentError> {
    let text = str::from_utf8(bytes).map_err(|_| DocumentError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let Lenient(root) = if text.trim_start().starts_with('{') { read_json(text) } else { read_yaml(text) }?;
    check_version(root.openapi.get(), root.swagger.get())?;
    let paths = root.paths.ok_or(DocumentError::NoPaths)?.0;
    let shared = root.components.0.path_items.0;
    if paths.too_many || shared.too_many {
        return Err(DocumentError::TooMany("paths"));
    }
    Ok(Document { info: root.info.0, paths, shared })
}

fn check_version(openapi: Option<&str>, swagger: Option<&str>) -> Result<(), DocumentError> {
    match (openapi, swagger) {
        (Some(version), _) if ["3.0", "3.1"].iter().any(|known| is_of(version, known)) => Ok(()),
        (Some(version), _) => Err(DocumentError::UnknownVersion(squeeze(version, 20))),
        (None, Some(version)) => Err(DocumentError::Swagger(squeeze(version, 20))),
        (None, None) => Err(DocumentError::NoVersion),
    }
}

/// Whether a version is `minor` itself, or one of its patches.
fn is_of(version: &str, minor: &str) -> bool {
    version.strip_prefix(minor).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn read_json(text: &str) -> Result<Lenient<Root<'_>>, DocumentError> {
    // What is skipped isn't followed into by the parser, and so doesn't count against its own bound.
    if is_deeper_than(text.as_bytes(), MAX_DEPTH) {
        return Err(DocumentError::TooDeep);
    }
    serde_json::from_str(text).map_err(|error| {
        let message = error.to_string();
        let reason = message.split(" at line ").next().unwrap_or_default();
        DocumentError::Syntax {
            format: Format::Json,
            line: error.line() as u64,
            column: error.column() as u64,
            reason: squeeze(reason, 200),
        }
    })
}

fn is_deeper_than(text: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn read_yaml(text: &str) -> Result<Lenient<Root<'_>>, DocumentError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            // A value of a real description takes 20 bytes and more. What holds far more values than that was made to cost
            // time.
            max_nodes: text.len() / 8 + 100_000,
            max_events: usize::MAX,
            max_total_scalar_bytes: text.len().saturating_mul(2).saturating_add(64 * 1024 * 1024),
            max_depth: MAX_DEPTH,
            // The parser reads up to 1,024 characters ahead, in search of a key; the bound above is met first all the same.
            flow_nesting_limit: 2_048,
            // One example that a thousand responses share is nothing bad; what it expands to is counted.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 500_000 },
        non_finite_float_policy: serde_saphyr::NonFiniteFloatPolicy::AsString,
        // Otherwise tags and ids such as `on` and `no` would be truth values.
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| yaml_error(&error))
}

fn yaml_error(error: &serde_saphyr::Error) -> DocumentError {
    use serde_saphyr::Error;
    use serde_saphyr::budget::BudgetBreach;

    match error {
        Error::AliasError { error, .. } | Error::WithSnippet { error, .. } => yaml_error(error),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => DocumentError::TooDeep,
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::RecursiveReferencesRequireWeakTypes { .. } => DocumentError::TooMuch,
        error => {
            let (line, column) = error.location().map_or((0, 0), |location| (location.line(), location.column()));
            // The parser's own words for these are for those who program with it.
            let message = match error {
                Error::DuplicateMappingKey { key, .. } => {
                    format!("duplicate mapping key {}", key.as_deref().unwrap_or_default())
                }
                Error::MultipleDocuments { .. } => "it holds more than one document".to_owned(),
                error => error.to_string(),
            };
            let reason = message.split(" at line ").next().unwrap_or_default();
            DocumentError::Syntax { format: Format::Yaml, line, column, reason: squeeze(reason, 200) }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Root<'a> {
    #[serde(borrow)]
    openapi: Lenient<Option<Text<'a>>>,
    #[serde(borrow)]
    swagger: Lenient<Option<Text<'a>>>,
    #[serde(borrow)]
    info: Lenient<Info<'a>>,
    #[serde(borrow)]
    paths: Option<Lenient<Items<'a>>>,
    #[serde(borrow)]
    components: Lenient<Components<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Info<'a> {
    #[serde(borrow)]
    title: Lenient<Option<Text<'a>>>,
    #[serde(borrow)]
    version: Lenient<Option<Text<'a>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Components<'a> {
    #[serde(borrow)]
    path_items: Lenient<Items<'a>>,
}

/// Path items by their names.
#[derive(Debug, Default)]
pub(super) struct Items<'a> {
    items: Vec<(Cow<'a, str>, Item<'a>)>,
    /// There were more than are kept.
    too_many: bool,
}

impl<'a> Items<'a> {
    /// In the order of the document.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Item<'a>)> {
        self.items.iter().map(|(name, item)| (name.as_ref(), item))
    }
}

/// A path item: its operations, and where it says that more stand.
#[derive(Debug, Default)]
pub(super) struct Item<'a> {
    pub(super) reference: Lenient<Option<Text<'a>>>,
    pub(super) operations: Vec<(Method, Operation<'a>)>,
}

/// An operation.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Operation<'a> {
    #[serde(borrow, rename = "operationId")]
    pub(super) id: Lenient<Option<Text<'a>>>,
    #[serde(borrow)]
    pub(super) summary: Lenient<Option<Text<'a>>>,
    #[serde(borrow)]
    pub(super) description: Lenient<Option<Text<'a>>>,
    #[serde(borrow)]
    pub(super) tags: Lenient<Tags<'a>>,
}

/// The first [`MAX_TAGS`] tags of an operation.
#[derive(Debug, Default)]
pub(super) struct Tags<'a>(pub(super) Vec<Text<'a>>);

impl<'de: 'a, 'a> Part<'de> for Root<'a> {
    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de: 'a, 'a> Part<'de> for Info<'a> {
    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de: 'a, 'a> Part<'de> for Components<'a> {
    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Self::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<'de: 'a, 'a> Part<'de> for Items<'a> {
    fn of_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        let mut items = Self::default();
        while let Some(Text(name)) = map.next_key()? {
            if name.starts_with("x-") {
                map.next_value::<IgnoredAny>()?;
            } else if items.items.len() == MAX_OPERATIONS {
                items.too_many = true;
                map.next_value::<IgnoredAny>()?;
            } else {
                let Lenient(item) = map.next_value()?;
                items.items.push((name, item));
            }
        }
        Ok(items)
    }
}

/// What stands in a path item.
enum Field {
    Operation(Method),
    Reference,
    Other,
}

impl<'de: 'a, 'a> Part<'de> for Item<'a> {
    fn of_map<A: MapAccess<'de>>(mut map: A) -> Result<Self, A::Error> {
        use serde::de::Error as _;

        let mut item = Self::default();
        while let Some(Text(name)) = map.next_key()? {
            match name
                .parse()
                .map_or_else(|_| if name == "$ref" { Field::Reference } else { Field::Other }, Field::Operation)
            {
                Field::Operation(method) => {
                    // Only an object is an operation: an empty one is, `null` isn't.
                    let Lenient(Some(operation)) = map.next_value::<Lenient<Option<_>>>()? else { continue };
                    if item.operations.iter().any(|(known, _)| *known == method) {
                        return Err(A::Error::duplicate_field(method.as_str()));
                    }
                    item.operations.push((method, operation));
                }
                Field::Reference => item.reference = map.next_value()?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(item)
    }
}

impl<'de: 'a, 'a> Part<'de> for Option<Operation<'a>> {
    fn of_map<A: MapAccess<'de>>(map: A) -> Result<Self, A::Error> {
        Operation::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

impl<'de: 'a, 'a> Part<'de> for Tags<'a> {
    fn of_list<A: SeqAccess<'de>>(mut list: A) -> Result<Self, A::Error> {
        let mut tags = Vec::new();
        while let Some(tag) = list.next_element::<Lenient<Option<Text<'a>>>>()? {
            if tags.len() < MAX_TAGS {
                tags.extend(tag.0);
            }
        }
        Ok(Self(tags))
    }
}
