//! A mount that goes on after the command that made it: a process of its own, started by this one.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::{MountError, MountRecord, StateDir, announce, serve, table};
use crate::Failure;
use crate::cli::MountArgs;

/// What the process says of itself, once, on its standard output.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Mounted(MountRecord),
    Failed { reason: String, usage: bool },
}

/// Starts the process, and returns once its mount answers.
pub(super) fn start(arguments: &MountArgs) -> Result<(), Failure> {
    let state = StateDir::find(arguments.places.state.state.as_deref())?;
    let path = state.log(&table::absolute(&arguments.directory)?);
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let log: File = log.map_err(|source| MountError::State { path: path.clone(), source })?;
    let failed =
        |error: std::io::Error| MountError::Daemon(format!("the mount's process could not be started: {error}"));
    let mut child = Command::new(std::env::current_exe().map_err(failed)?)
        .args(std::env::args_os().skip(1))
        .arg("--daemon")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output.take(1024 * 1024)).read_line(&mut line).map_err(failed)?;
    }
    match serde_json::from_str(&line) {
        Ok(Outcome::Mounted(record)) => Ok(announce(arguments, &record)?),
        Ok(Outcome::Failed { reason, usage: true }) => Err(Failure::Usage(reason)),
        Ok(Outcome::Failed { reason, usage: false }) => Err(MountError::Daemon(reason).into()),
        Err(_) => {
            let status = child.wait().map_err(failed)?;
            let log = path.display();
            Err(MountError::Daemon(format!("the mount's process ended ({status}) before it mounted; {log} says more"))
                .into())
        }
    }
}

/// Serves a mount as the process that was started.
pub(super) fn serve(arguments: &MountArgs) -> Result<(), Failure> {
    // A terminal that closes is none of its business. It fails where it leads a session already.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of its own");
    }
    let served = serve::run(arguments, |record| say(&Outcome::Mounted(record.clone())));
    if let Err(failure) = &served {
        let usage = failure.is_usage();
        // Whoever waited may have gone; the log has it, too.
        if let Err(error) = say(&Outcome::Failed { reason: failure.to_string(), usage }) {
            tracing::debug!(%error, "nobody waits");
        }
    }
    served
}

fn say(outcome: &Outcome) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{}", serde_json::to_string(outcome)?)?;
    output.flush()
}
