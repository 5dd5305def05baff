//! The client commands: one call or a few, and what came of them for people or as JSON.

pub mod bucket;
pub mod check;
pub mod completions;
pub mod du;
pub mod gc;
pub mod locate;
pub mod peer;
pub mod snapshot;
pub mod status;

use crate::Failure;
use crate::client::ClientError;

/// Runs a command to its end.
pub fn run(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClientError::Offline(format!("no runtime could be made: {error}")))?;
    let result = runtime.block_on(command);
    // A connection that is still open is of no use to anybody.
    runtime.shutdown_background();
    result
}

/// A time without its fraction, which nobody reads in a table.
fn short_time(time: &str) -> String {
    match time.split_once('.') {
        Some((seconds, _)) => format!("{seconds}Z"),
        None => time.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_lose_their_fraction() {
        assert_eq!(super::short_time("2026-11-20T10:00:00.123Z"), "2026-11-20T10:00:00Z");
        assert_eq!(super::short_time("2026-11-20T10:00:00Z"), "2026-11-20T10:00:00Z");
    }
}
