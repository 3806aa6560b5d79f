//! The operations of a document, in order, with those that stand elsewhere in it. May not name anything.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use super::catalogue::squeeze;
use super::document::{Document, Item, Operation};
use super::options::NotAMethod;
use super::{DocumentError, MAX_OPERATIONS};

/// How many references after another are followed; so a circle ends, too.
const MAX_STEPS: usize = 16;

/// The methods that OpenAPI knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum Method {
    Get,
    Head,
    Options,
    Post,
    Put,
    Patch,
    Delete,
    Trace,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Get, Self::Head, Self::Options, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Trace];

    /// As OpenAPI writes it, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Options => "options",
            Self::Post => "post",
            Self::Put => "put",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for Method {
    type Err = NotAMethod;

    fn from_str(text: &str) -> Result<Self, NotAMethod> {
        Self::ALL.into_iter().find(|method| method.as_str() == text).ok_or(NotAMethod)
    }
}

impl fmt::Display for Method {
    /// As HTTP writes it, in upper case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().chars().try_for_each(|letter| write!(f, "{}", letter.to_ascii_uppercase()))
    }
}

/// An operation and where it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed<'d> {
    pub(super) method: Method,
    pub(super) path: &'d str,
    pub(super) operation: &'d Operation<'d>,
}

/// What no scope covers: one operation of a path, or all of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left<'d> {
    pub(super) method: Option<Method>,
    pub(super) path: &'d str,
    pub(super) reason: &'static str,
}

/// All operations by path and method, and the paths of which not all operations are known.
pub(super) fn of<'d>(document: &'d Document<'d>) -> Result<(Vec<Placed<'d>>, Vec<Left<'d>>), DocumentError> {
    let known = Known { paths: document.paths.iter().collect(), shared: document.shared.iter().collect() };
    let mut paths: Vec<_> = document.paths.iter().collect();
    paths.sort_by_key(|(path, _)| *path);
    if let Some([(path, _), _]) = paths.array_windows().find(|[a, b]| a.0 == b.0) {
        return Err(DocumentError::RepeatedPath(squeeze(path, 200)));
    }
    let (mut operations, mut left) = (Vec::new(), Vec::new());
    for (path, item) in paths {
        let start = operations.len();
        let mut add = |item: &'d Item<'d>| {
            for (method, operation) in &item.operations {
                // What stands nearer comes first, and counts.
                if !operations[start..].iter().any(|known: &Placed<'_>| known.method == *method) {
                    operations.push(Placed { method: *method, path, operation });
                }
            }
        };
        if let Err(reason) = known.follow(item, &mut add) {
            left.push(Left { method: None, path, reason });
        }
        if operations.len() > MAX_OPERATIONS {
            return Err(DocumentError::TooMany("operations"));
        }
        operations[start..].sort_by_key(|placed| placed.method);
    }
    Ok((operations, left))
}

/// What references can lead to.
struct Known<'d> {
    paths: HashMap<&'d str, &'d Item<'d>>,
    shared: HashMap<&'d str, &'d Item<'d>>,
}

impl<'d> Known<'d> {
    /// Visits an item and those that it refers to, one after another.
    fn follow(&self, mut item: &'d Item<'d>, visit: &mut impl FnMut(&'d Item<'d>)) -> Result<(), &'static str> {
        for _ in 0..=MAX_STEPS {
            visit(item);
            let Some(reference) = item.reference.get() else { return Ok(()) };
            item = self.find(reference)?;
        }
        Err("its $ref leads in a circle, or over more than 16 others")
    }

    fn find(&self, reference: &str) -> Result<&'d Item<'d>, &'static str> {
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err("its $ref leads out of the document");
        };
        let places = [("/paths/", &self.paths), ("/components/pathItems/", &self.shared)];
        places
            .into_iter()
            .find_map(|(start, items)| {
                let name = percent_encoding::percent_decode_str(pointer.strip_prefix(start)?).decode_utf8().ok()?;
                items.get(name.replace("~1", "/").replace("~0", "~").as_str()).copied()
            })
            .ok_or("its $ref leads to no path item")
    }
}
