//! Elton's one binary: parses the command line, wires up the server or calls one, and says how it went.
//!
//! Exit status: 0 done, 1 failed, 2 the command line or a configuration is not understood.

mod cli;
mod client;
mod commands;
mod credentials_file;
mod data_dir;
mod docker_plugin;
mod handover;
mod mount;
mod output;
mod panic_hook;
mod serve;
mod socket;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// What ends a command without its result.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// The server could not start or broke.
    #[error(transparent)]
    Serve(#[from] serve::ServeError),
    /// The Docker plugin could not start or broke.
    #[error(transparent)]
    DockerPlugin(#[from] docker_plugin::PluginError),
    /// A mount could not be made, served or ended.
    #[error(transparent)]
    Mount(#[from] mount::MountError),
    /// A command could not be carried out.
    #[error(transparent)]
    Client(#[from] client::ClientError),
    /// The command did what it was to do, and what it found is a failure; it has been printed.
    #[error("")]
    Found,
    /// A person said no.
    #[error("nothing was done")]
    Declined,
    /// The result could not be printed.
    #[error("the output could not be written: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// Whether the way the command was called is to blame.
    fn is_usage(&self) -> bool {
        matches!(self.exit_code(), code if code == ExitCode::from(2))
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Serve(error) if error.is_usage() => ExitCode::from(2),
            Failure::Client(error) if error.is_usage() => ExitCode::from(2),
            Failure::DockerPlugin(error) if error.is_usage() => ExitCode::from(2),
            Failure::Serve(_)
            | Failure::DockerPlugin(_)
            | Failure::Mount(_)
            | Failure::Client(_)
            | Failure::Found
            | Failure::Declined
            | Failure::Output(_) => ExitCode::FAILURE,
        }
    }
}

/// Prints what clap has to say: help and versions on standard output, and what is wrong with a command line as any other
/// failure.
fn not_understood(error: &clap::Error) -> ExitCode {
    let is_failure = error.use_stderr();
    if is_failure && std::env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        output::fail(text.trim_start_matches("error: ").trim_end(), true);
    } else {
        // Nothing can be done if nobody reads it.
        let _ = error.print();
    }
    if is_failure { ExitCode::from(2) } else { ExitCode::SUCCESS }
}

fn main() -> ExitCode {
    panic_hook::install();
    // Several crates could bring a provider of their own; this is the one for the whole process.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        output::complain("another TLS provider was installed before ring");
        return ExitCode::FAILURE;
    }
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return not_understood(&error),
    };
    let as_json = command.prints_json();
    let result = match command {
        Command::Serve(arguments) => serve::serve(&arguments).map_err(Failure::from),
        Command::DockerPlugin(arguments) => docker_plugin::run(&arguments).map_err(Failure::from),
        Command::Completions(arguments) => commands::completions::run(&arguments),
        Command::Bucket(arguments) => commands::run(commands::bucket::run(&arguments)),
        Command::Snapshot(arguments) => commands::run(commands::snapshot::run(&arguments)),
        Command::Mount(arguments) => mount::run(&arguments),
        Command::Umount(arguments) => mount::umount(&arguments),
        Command::Prefetch(arguments) => mount::prefetch(&arguments),
        Command::Where(arguments) => commands::run(commands::locate::run(&arguments)),
        Command::Peer(arguments) => commands::run(commands::peer::run(&arguments)),
        Command::Gc(arguments) => commands::run(commands::gc::run(&arguments)),
        Command::Du(arguments) => commands::run(commands::du::run(&arguments)),
        Command::Check(arguments) => commands::run(commands::check::run(&arguments)),
        Command::Status(arguments) => commands::run(commands::status::run(&arguments)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has seen enough, as `head` does.
        Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.to_string();
            if !text.is_empty() {
                output::fail(&text, as_json);
            }
            failure.exit_code()
        }
    }
}
