//! Statements as data, so that a test can prepare every one of them on both engines.

/// One statement in the words of each engine; for most they are the same.
#[derive(Clone, Copy, Debug)]
pub struct Sql {
    /// For Postgres.
    pub postgres: &'static str,
    /// For SQLite.
    pub sqlite: &'static str,
}

impl Sql {
    /// The text that both engines speak.
    #[must_use]
    pub const fn same(text: &'static str) -> Self {
        Self { postgres: text, sqlite: text }
    }

    /// A text for each, where the engines' dialects differ.
    #[must_use]
    pub const fn pick(postgres: &'static str, sqlite: &'static str) -> Self {
        Self { postgres, sqlite }
    }
}

/// Declares a store's statements and the list `STATEMENTS` of all of them, with their names.
#[macro_export]
macro_rules! sql {
    ($($(#[$doc:meta])* $name:ident = $sql:expr;)*) => {
        $($(#[$doc])* const $name: $crate::infra::db::Sql = $sql;)*

        /// Every statement of this store, for the test that prepares them on both engines.
        pub const STATEMENTS: &[(&str, $crate::infra::db::Sql)] = &[$((stringify!($name), $name)),*];
    };
}
