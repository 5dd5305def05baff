//! `elton gc`

use gateway::admin::shape::{Collect, Collected};
use http::Method;

use crate::Failure;
use crate::cli::GcArgs;
use crate::client::{Client, Path, Patience};
use crate::output::units::{ByteSize, count, counted};
use crate::output::{self, Output, Table, progress};

/// Collects; asks first where that ends numbers that the buckets' rules would keep.
pub async fn run(arguments: &GcArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let bucket = arguments.bucket.as_ref().map(ToString::to_string);
    let request = Collect { now: arguments.now, bucket, dry: false };
    let dry = Collect { dry: true, ..request.clone() };
    let output = Output::new(arguments.client.json);
    if arguments.dry_run {
        let report = collect(&client, &dry, "counting numbers").await?;
        output.show(&report, |report| format!("{} would end\n", numbers(report.numbers_ended)))?;
        return Ok(());
    }
    if arguments.now && !arguments.yes {
        let report = collect(&client, &dry, "counting numbers").await?;
        if report.numbers_ended > 0 {
            confirm(report.numbers_ended)?;
        }
    }
    let report = collect(&client, &request, "collecting").await?;
    output.show(&report, human)?;
    Ok(())
}

async fn collect(client: &Client, request: &Collect, what: &'static str) -> Result<Collected, Failure> {
    let _progress = progress::spinner(what);
    Ok(client.call(Method::POST, &Path::new(&["gc"]), request, Patience::Endless).await?)
}

fn confirm(ended: u64) -> Result<(), Failure> {
    let question = format!("This ends {} for good; tags and what is there now stay. Go on?", numbers(ended));
    match output::ask(&question)? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::Declined),
        None => Err(Failure::Usage(format!(
            "this would end {} for good, and there is no terminal to ask on: say --yes if that is meant",
            numbers(ended)
        ))),
    }
}

fn numbers(count_of_them: u64) -> String {
    match count_of_them {
        1 => "1 number".to_owned(),
        more => format!("{} numbers", count(more)),
    }
}

fn human(report: &Collected) -> String {
    let mut facts = vec![
        ("numbers ended", count(report.numbers_ended)),
        ("versions dropped", count(report.versions)),
        ("given back", format!("{} in {}", ByteSize(report.bytes_freed), counted(report.files_removed, "file"))),
    ];
    if report.bytes_waiting > 0 {
        facts.push(("waiting for readers", ByteSize(report.bytes_waiting).to_string()));
    }
    if let Some(warning) = &report.warning {
        facts.push(("warning", warning.clone()));
    }
    Table::facts(facts)
}
