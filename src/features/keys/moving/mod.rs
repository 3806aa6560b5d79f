//! Moving in and out: keys by the hashes of their secrets, a JSON object a line, so that nobody has to issue keys again.
//!
//! `line` is the form of both directions: what `export` writes, `import` reads. A secret never comes by here.

mod desk;
pub mod export;
pub mod import;
pub mod line;
pub mod report;
pub mod store;
