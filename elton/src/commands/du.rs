//! `elton du`

use gateway::admin::shape::Usage;

use crate::Failure;
use crate::cli::DuArgs;
use crate::client::{Client, Path, Patience};
use crate::output::units::{ByteSize, count, counted};
use crate::output::{Align, Output, Table};

/// Says where the bytes are.
pub async fn run(arguments: &DuArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let usage: Usage = client.get(&Path::new(&["du"]), Patience::Endless).await?;
    Output::new(arguments.client.json).show(&usage, human)?;
    Ok(())
}

fn human(usage: &Usage) -> String {
    let size = |bytes: u64| ByteSize(bytes).to_string();
    let mut parts = Table::new(&[("", Align::Left), ("SIZE", Align::Right), ("", Align::Left)]);
    parts.row(["live objects".into(), size(usage.object_bytes), counted(usage.objects, "object")]);
    parts.row(["large bodies".into(), size(usage.file_bytes), counted(usage.files, "file")]);
    let live = format!("{}, {} of it live", counted(usage.segments, "segment"), size(usage.segment_live_bytes));
    parts.row(["small bodies".into(), size(usage.segment_bytes), live]);
    let free = format!("{} of it free to be used again", size(usage.catalog_free_bytes));
    parts.row(["catalog".into(), size(usage.catalog_bytes), free]);
    let taken = usage.file_bytes + usage.segment_bytes + usage.catalog_bytes;
    parts.row(["on disk in all".into(), size(taken), String::new()]);
    parts.row(["disk free".into(), size(usage.disk_free_bytes), String::new()]);
    if usage.buckets.is_empty() {
        return parts.render();
    }
    let mut buckets = Table::new(&[("BUCKET", Align::Left), ("OBJECTS", Align::Right), ("SIZE", Align::Right)]);
    for bucket in &usage.buckets {
        buckets.row([bucket.name.clone(), count(bucket.objects), size(bucket.bytes)]);
    }
    format!("{}\n{}", parts.render(), buckets.render())
}
