//! How counted requests become rows: for whom, and by which spans of time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use serde::{Serialize, Serializer};

use crate::base::id::{KeyId, ProjectId};
use crate::gate::{Counts, GRAINS, Grain, OTHER, Row};

/// Endpoints of one key in one hour.
pub const KEY_ENDPOINTS: usize = crate::gate::MAX_ENDPOINTS;
/// Endpoints of a project, or of all, in one hour.
pub const PROJECT_ENDPOINTS: usize = 1_000;

/// Whose requests a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everybody's.
    All,
    /// Those of a key.
    Key(KeyId),
    /// Those of a project's keys.
    Project(ProjectId),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Key(key) => key.fmt(f),
            Self::Project(project) => project.fmt(f),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Scope {
    /// How many endpoints are told apart in one hour.
    #[must_use]
    pub fn endpoints(self) -> usize {
        match self {
            Self::Key(_) => KEY_ENDPOINTS,
            Self::Project(_) | Self::All => PROJECT_ENDPOINTS,
        }
    }
}

/// What a key has counted.
#[derive(Clone, Copy, Debug)]
pub struct Delta<'a> {
    /// The key.
    pub key: KeyId,
    /// Its project.
    pub project: ProjectId,
    /// Requests of one kind.
    pub row: Row<'a>,
}

impl Delta<'_> {
    fn scopes(&self) -> [Scope; 3] {
        [Scope::All, Scope::Key(self.key), Scope::Project(self.project)]
    }
}

/// What tells the rows of one span apart: whose, endpoint, status, code.
pub type RequestKey<'a> = (Scope, &'a str, u16, &'static str);

/// What is added to one span's rows.
#[derive(Debug, Default)]
pub struct Span<'a> {
    /// By endpoint, status and code.
    pub requests: BTreeMap<RequestKey<'a>, Counts>,
    /// All of them, with the project of a key.
    pub totals: BTreeMap<Scope, (Option<ProjectId>, Counts)>,
}

/// Endpoints that aren't told apart from others: by hour and scope.
pub type Folded<'a> = HashSet<(i64, Scope, &'a str)>;

/// The endpoints that would be told apart, by hour and scope.
#[must_use]
pub fn endpoints<'a>(deltas: &[Delta<'a>]) -> BTreeMap<i64, BTreeMap<Scope, BTreeSet<&'a str>>> {
    let mut hours: BTreeMap<i64, BTreeMap<Scope, BTreeSet<&'a str>>> = BTreeMap::new();
    for delta in deltas.iter().filter(|delta| delta.row.grain <= Grain::Hour && delta.row.endpoint != OTHER) {
        let hour = hours.entry(Grain::Hour.floor(delta.row.at)).or_default();
        for scope in delta.scopes() {
            hour.entry(scope).or_default().insert(delta.row.endpoint);
        }
    }
    hours
}

/// The endpoints that find no room beside those that are known already.
#[must_use]
pub fn surplus<'a>(scope: Scope, known: &BTreeSet<String>, asked: &BTreeSet<&'a str>) -> Vec<&'a str> {
    let room = scope.endpoints().saturating_sub(known.iter().filter(|name| *name != OTHER).count());
    asked.iter().copied().filter(|name| !known.contains(*name)).skip(room).collect()
}

/// Everything that is to be added, by span: its grain, and its beginning in microseconds since 1970.
#[must_use]
pub fn spans<'a>(deltas: &[Delta<'a>], folded: &Folded<'a>) -> BTreeMap<(Grain, i64), Span<'a>> {
    let mut spans: BTreeMap<(Grain, i64), Span<'a>> = BTreeMap::new();
    for delta in deltas {
        let row = &delta.row;
        let hour = Grain::Hour.floor(row.at);
        let code = row.code.map_or("", crate::gate::Code::word);
        for grain in GRAINS.into_iter().filter(|grain| *grain >= row.grain) {
            let span = spans.entry((grain, grain.floor(row.at))).or_default();
            for scope in delta.scopes() {
                let is_folded = !folded.is_empty() && folded.contains(&(hour, scope, row.endpoint));
                let endpoint = if is_folded { OTHER } else { row.endpoint };
                let key = (scope, endpoint, row.status.unwrap_or(0), code);
                span.requests.entry(key).or_default().merge(row.counts);
                let project = matches!(scope, Scope::Key(_)).then_some(delta.project);
                span.totals.entry(scope).or_insert((project, Counts::default())).1.merge(row.counts);
            }
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surplus_is_what_has_no_room() {
        let known: BTreeSet<String> = (0..99).map(|n| format!("/{n}")).chain([OTHER.to_owned()]).collect();
        let asked: BTreeSet<&str> = ["/5", "/a", "/b", "/c"].into();
        assert_eq!(surplus(Scope::Key(KeyId::from_bits(1)), &known, &asked), ["/b", "/c"]);
        assert!(surplus(Scope::All, &known, &asked).is_empty());
    }

    #[test]
    fn a_coarse_row_is_in_its_own_span_and_longer_ones() {
        let counts = Counts { allowed: 3, ..Counts::default() };
        let row = |grain, endpoint| Row { at: 0, grain, endpoint, status: Some(200), code: None, counts: &counts };
        let delta = |row| Delta { key: KeyId::from_bits(1), project: ProjectId::from_bits(2), row };
        let deltas = [delta(row(Grain::Minute, "/a")), delta(row(Grain::Hour, OTHER)), delta(row(Grain::Day, OTHER))];
        let folded: Folded<'_> = [(0, Scope::All, "/a")].into();
        let spans = spans(&deltas, &folded);
        let total = |grain| spans[&(grain, 0)].totals[&Scope::All].1.requests();
        assert_eq!([total(Grain::Minute), total(Grain::Hour), total(Grain::Day)], [3, 6, 9]);
        let minute = &spans[&(Grain::Minute, 0)].requests;
        assert!(minute.contains_key(&(Scope::All, OTHER, 200, "")) && minute.len() == 3);
        assert_eq!(endpoints(&deltas)[&0][&Scope::All].len(), 1);
    }
}
