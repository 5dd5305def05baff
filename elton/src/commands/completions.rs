//! `elton completions`

use clap::CommandFactory as _;

use crate::Failure;
use crate::cli::{Cli, CompletionsArgs};
use crate::output;

/// Prints the script for a shell.
pub fn run(arguments: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "elton", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(())
}
