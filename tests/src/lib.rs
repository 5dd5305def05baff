//! What the tests and benches of Elton share. `tests/README.md` says what is tested where.
//!
//! - `tests/`: tests over the crates, in process.
//! - `clients/`: real clients against the real binary.
//! - [`s3_client`], `src/bin/`: the load generator and the filler of large buckets, which `tests/bench` runs.

pub mod s3_client;
