//! The S3 gateway of Elton: S3 over HTTP, the admin API, health and metrics.
//!
//! [`server::Server`] accepts connections and bounds what a client can make grow; [`server::Front`] answers health
//! and metrics itself and hands everything else to the S3 service of [`s3`], which passes requests of the
//! [`admin`] API on after it has checked their signature. All of them stand on `federation` and on nothing else
//! of this workspace.

pub mod admin;
pub mod credentials;
pub mod digest;
pub mod health;
pub mod metrics;
pub mod request_id;
pub mod s3;
pub mod server;
pub mod tls;
