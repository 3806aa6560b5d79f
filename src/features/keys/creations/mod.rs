//! When people made keys, which outlives the keys: the limit on how many one person makes in 24 hours.

pub mod store;
