//! What is told of an import.

use serde::Serialize;

use crate::base::invalid::FieldError;

/// The most errors that a report tells one by one.
pub const MAX_TOLD: usize = 1_000;

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = ImportError)]
pub struct LineError {
    /// Which key, from 0 on; blank lines aren't counted.
    pub index: u64,
    /// On which line, from 1 on.
    #[schema(minimum = 1)]
    pub line: u64,
    /// What is wrong and where; the field is `line` where it is the whole.
    #[serde(flatten)]
    pub error: FieldError,
}

/// What came of an import.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(as = KeysImported, example = json!({
    "total_processed": 3, "created": 1, "skipped": 1, "failed": 1, "dry_run": false,
    "errors": [{"index": 2, "line": 3, "field": "hash", "code": "hash_taken", "message": "is in use already"}]
}))]
pub struct Report {
    /// Lines that aren't blank.
    pub total_processed: u64,
    /// Keys that were taken over; of a dry run, that would be.
    pub created: u64,
    /// Keys that the project had already; nothing of them was changed.
    pub skipped: u64,
    /// Lines with errors.
    pub failed: u64,
    /// What is wrong with them: the first 1,000 things.
    #[schema(max_items = 1000)]
    pub errors: Vec<LineError>,
    /// Whether nothing was to be done.
    pub dry_run: bool,
}

impl Report {
    /// Notes what is wrong with a line.
    pub(super) fn refuse(&mut self, place: Place, errors: Vec<FieldError>) {
        self.failed += 1;
        let room = MAX_TOLD.saturating_sub(self.errors.len());
        let told = errors.into_iter().map(|error| LineError { index: place.index, line: place.line, error });
        self.errors.extend(told.take(room));
    }

    /// Adds what came of a later part.
    pub fn add(&mut self, later: Self) {
        self.total_processed += later.total_processed;
        self.created += later.created;
        self.skipped += later.skipped;
        self.failed += later.failed;
        let room = MAX_TOLD.saturating_sub(self.errors.len());
        self.errors.extend(later.errors.into_iter().take(room));
    }
}

/// Where a line stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) index: u64,
    pub(super) line: u64,
}
