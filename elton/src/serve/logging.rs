//! The log: structured, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::cli::LogFormat;

/// Always in front of what the operator says: s3s calls every refusal an error, and the line that each request gets
/// says the same once. `--log info,s3s=debug` goes over it.
const QUIET: &str = "s3s=off";

/// The filter for what the operator wants to see.
pub fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{directives}"))
}

/// Begins to log. Only the first call in a process counts.
pub fn start(directives: &str, format: LogFormat) {
    let filter = filter(directives).expect("the configuration was checked");
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().flatten_event(true).with_span_list(false).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "the log was started before");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_checked() {
        assert!(filter("info,federation=debug").is_ok());
        assert!(filter("federation=loud").is_err());
    }
}
