//! What traffic shows and somebody should know: limits that refuse, rules that refuse, quotas that run out, and what looks
//! like an attack. Counted in memory, written twice a second, told as events once a key and window.

pub mod store;

pub use crate::gate::noticed::Wrong;
