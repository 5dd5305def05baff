//! Elton's Docker volumes: `docker run -v photos@42:/data --volume-driver elton …`.
//!
//! dockerd calls this plugin over a Unix socket. A volume is a name for a part of a numbered state of a bucket, read-only
//! for everybody; each such part is mounted once on a host, by a process of its own, for all volumes and containers that
//! use it. What the crate promises:
//!
//! - `Get`, `List` and `Path` are answered from memory: no network, no disk, no mount is touched.
//! - A use is on disk before it is acknowledged, so that plugin and dockerd may be restarted in any order.
//! - What a container uses stays mounted; what nobody uses is unmounted, even where dockerd forgot to say so: what counts in
//!   the end is what the kernel says (`reconcile`).
//! - A mountpoint is answered only once the mount there answers.
//!
//! It never calls Docker's API: dockerd waits for the plugin while it holds its own locks. What mounts, what finds
//! snapshots and where the state is kept come in through traits.

pub mod error;
pub mod mountinfo;
pub mod mounts;
pub mod name;
pub mod process;
pub mod protocol;
mod reconcile;
pub mod server;
pub mod state;
pub mod store;
pub mod volumes;
