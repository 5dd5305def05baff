//! Bringing what a mount would read before it is read.

use std::sync::Arc;
use std::time::Duration;

use federation::types::SnapshotRef;
use fuse::{Fs, Metrics, Options, Source as _, Statistics, View};

use super::source::Server;
use super::{MountError, serve};
use crate::Failure;
use crate::cli::PrefetchArgs;
use crate::client::Client;
use crate::output::units::{ByteSize, count};
use crate::output::{Output, progress};

/// How long the server may be away.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) fn run(arguments: &PrefetchArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| MountError::Daemon(format!("no runtime could be made: {error}")))?;
    runtime.block_on(prefetch(arguments))
}

async fn prefetch(arguments: &PrefetchArgs) -> Result<(), Failure> {
    let metrics = Arc::new(Metrics::default());
    let cache = serve::open_cache(&arguments.places, &metrics)?;
    let client = Client::new(&arguments.client)?;
    let handover = !arguments.places.copy_bodies;
    let server = Arc::new(Server::new(client, arguments.bucket.bucket.clone(), DEADLINE, handover));
    let unread = |source| MountError::Snapshot { what: arguments.bucket.to_string(), source };
    let snapshot = arguments.bucket.snapshot.as_ref().map(SnapshotRef::to_string);
    let tree = server.tree(snapshot.as_deref()).await.map_err(|error| unread(error.into()))?;
    let (number, totals) = (tree.number, tree.root.totals);
    let view = View::Snapshot(tree, Vec::new());
    let fs = Fs::new(server, cache, metrics.clone(), view, Options::default()).await.map_err(unread)?;
    let bar = progress::bar("prefetching objects");
    let wanted = |key: &[u8]| arguments.pattern.as_ref().is_none_or(|pattern| matches(pattern.as_bytes(), key));
    let done = fs.warm(wanted, |done: Statistics| bar.at(done.objects, totals.objects)).await.map_err(unread)?;
    drop(bar);
    let fetched = metrics.counters().body_bytes;
    let bucket = &arguments.bucket.bucket;
    let result = serde_json::json!({
        "bucket": bucket.to_string(), "number": number.0, "objects": done.objects, "bytes": done.bytes, "fetched_bytes": fetched,
    });
    Output::new(arguments.client.json).show(&result, |_| {
        if let (0, Some(pattern)) = (done.objects, &arguments.pattern) {
            return format!("no key of {bucket}@{number} is like {pattern}\n");
        }
        let (objects, bytes) = (count(done.objects), ByteSize(done.bytes));
        format!("{objects} objects of {bucket}@{number} are here ({bytes}); {} were fetched\n", ByteSize(fetched))
    })?;
    Ok(())
}

/// Whether a key is like a pattern: `*` stands for anything within a name, `**` for anything, `?` for one byte of a name.
fn matches(pattern: &[u8], key: &[u8]) -> bool {
    match pattern {
        [] => key.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=key.len()).any(|at| matches(rest, &key[at..])),
        [b'*', rest @ ..] => {
            let name = key.iter().position(|byte| *byte == b'/').unwrap_or(key.len());
            (0..=name).any(|at| matches(rest, &key[at..]))
        }
        [b'?', rest @ ..] => key.first().is_some_and(|byte| *byte != b'/') && matches(rest, &key[1..]),
        [byte, rest @ ..] => key.first() == Some(byte) && matches(rest, &key[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn patterns_are_those_of_shells() {
        for (pattern, key, like) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("**.txt", "d/a.txt", true),
            ("d/**", "d/e/f", true),
            ("d/*", "d/e/f", false),
            ("?b", "ab", true),
            ("?b", "/b", false),
            ("", "a", false),
            ("a", "a", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), key.as_bytes()), like, "{pattern} {key}");
        }
    }
}
