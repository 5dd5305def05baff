//! The safety suites of the core: a reference model, and every state that a power failure can leave.
#![allow(clippy::print_stdout, missing_docs, reason = "a test binary: it prints seeds, and nobody imports it")]

mod clusters;
mod crash;
mod model;
mod mount;
mod seeds;
mod store;
mod trees;
mod volumes;
