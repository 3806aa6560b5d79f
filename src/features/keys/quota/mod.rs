//! How many keys there are, and how many somebody has made lately. What of it is too many is for `terms` and `create`.

pub mod store;
