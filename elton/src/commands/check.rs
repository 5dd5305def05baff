//! `elton check`: through the server, or on the data directory itself where none runs.

use federation::master::{CheckOptions, Master, MasterConfig};
use gateway::admin::shape::{Check, CheckLine, Checked};
use gateway::server::describe;

use crate::Failure;
use crate::cli::CheckArgs;
use crate::client::{Client, ClientError, Path};
use crate::data_dir::DataDir;
use crate::output::progress::{self, Progress};
use crate::output::units::{ByteSize, count};
use crate::output::{Output, Table};

/// Checks; findings are a failure.
pub async fn run(arguments: &CheckArgs) -> Result<(), Failure> {
    let report = match online(arguments).await {
        // Without a server there need be no keys either: the directory itself is what is checked.
        Err(Failure::Client(ClientError::NoServer { .. } | ClientError::NoKeys { .. }))
            if arguments.client.data.is_some() =>
        {
            offline(arguments).await?
        }
        report => report?,
    };
    Output::new(arguments.client.json).show(&report, human)?;
    if report.findings.is_empty() { Ok(()) } else { Err(Failure::Found) }
}

async fn online(arguments: &CheckArgs) -> Result<Checked, Failure> {
    let client = Client::new(&arguments.client)?;
    let mut reply = client.lines(&Path::new(&["check"]), &Check { bodies: arguments.bodies }).await?;
    let bar = bar(arguments);
    while let Some(line) = reply.next_line().await? {
        let line = serde_json::from_slice(&line).map_err(|error| ClientError::Offline(error.to_string()))?;
        match line {
            CheckLine::Progress { done, total } => bar.at(done, total),
            CheckLine::Report(report) => return Ok(report),
            CheckLine::Failure(failure) => return Err(ClientError::Refused(failure).into()),
        }
    }
    let cut_off = "the check was cut off before it ended: the server stopped; check again when it runs";
    Err(ClientError::Offline(cut_off.to_owned()).into())
}

async fn offline(arguments: &CheckArgs) -> Result<Checked, Failure> {
    let data = DataDir::new(arguments.client.data.as_deref());
    let failed = |error: federation::Error| {
        let path = data.path().display();
        ClientError::Offline(format!("{path} cannot be checked: {}", describe(&error)))
    };
    // Opening would make a directory of what is none.
    if !data.path().is_dir() {
        let path = data.path().display();
        return Err(ClientError::Offline(format!("{path} is no data directory: look at --data")).into());
    }
    let master = Master::open(MasterConfig::new(data.path())).await.map_err(failed)?;
    let bar = bar(arguments);
    let report = master.check(CheckOptions { bodies: arguments.bodies }, move |done, total| bar.at(done, total)).await;
    master.close().await;
    let report = report.map_err(failed)?;
    Ok(Checked { versions: report.versions, bodies: report.bodies, bytes: report.bytes, findings: report.findings })
}

fn bar(arguments: &CheckArgs) -> Progress {
    progress::bar(if arguments.bodies { "reading bodies" } else { "checking" })
}

fn human(report: &Checked) -> String {
    let mut facts = vec![("versions", count(report.versions))];
    if report.bodies > 0 {
        facts.push(("bodies read", format!("{} ({})", count(report.bodies), ByteSize(report.bytes))));
    }
    let found = if report.findings.is_empty() { "nothing".to_owned() } else { count(report.findings.len() as u64) };
    facts.push(("wrong", found));
    let mut text = Table::facts(facts);
    for finding in &report.findings {
        text.push_str(&format!("- {finding}\n"));
    }
    text
}
