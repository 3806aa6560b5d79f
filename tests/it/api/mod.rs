//! The HTTP contract, a file a route or a subject; every test on both engines.

mod keys;
