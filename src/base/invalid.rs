//! What is wrong with a value that somebody sent.

use std::borrow::Cow;

use serde::Serialize;

/// One thing wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where it stands: a name, or a path such as `scopes[3]`.
    pub field: Cow<'static, str>,
    /// A stable machine word.
    pub code: Cow<'static, str>,
    /// A sentence for people. Never holds the value.
    pub message: Cow<'static, str>,
}

/// A request that breaks rules; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(|e| format!("{}: {}", e.field, e.message)).collect::<Vec<_>>().join("; "))]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    /// One error.
    pub fn field(
        field: impl Into<Cow<'static, str>>,
        code: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self(vec![FieldError { field: field.into(), code: code.into(), message: message.into() }])
    }
}

/// Collects errors, so that a caller learns of all at once.
#[derive(Debug, Default)]
pub struct Check(Vec<FieldError>);

impl Check {
    /// Notes an error of one field; of two of one kind the first.
    pub fn refuse(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) {
        self.note(FieldError { field: field.into(), code: code.into(), message: message.into() });
    }

    fn note(&mut self, error: FieldError) {
        if !self.0.iter().any(|known| known.field == error.field && known.code == error.code) {
            self.0.push(error);
        }
    }

    /// Notes the errors of a part that checked itself; gives its value if there were none.
    pub fn part<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|invalid| invalid.0.into_iter().for_each(|error| self.note(error))).ok()
    }

    /// # Errors
    /// Whatever was noted.
    pub fn finish(self) -> Result<(), Invalid> {
        if self.0.is_empty() { Ok(()) } else { Err(Invalid(self.0)) }
    }
}
