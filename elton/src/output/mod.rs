//! What commands print: results on standard output, everything else on standard error.

pub mod progress;
mod table;
pub mod units;

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

pub use table::{Align, Table};

/// Prints results, for people or as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
}

impl Output {
    /// Prints as JSON if `json`.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Output { json }
    }

    /// Prints `value` as JSON, or what `human` makes of it.
    pub fn show<T: Serialize>(self, value: &T, human: impl FnOnce(&T) -> String) -> io::Result<()> {
        let text = if self.json { serde_json::to_string_pretty(value)? + "\n" } else { human(value) };
        print(&text)
    }
}

/// Prints text as it is.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Prints the items of a long list as they come, one per line, or as the elements of a JSON array.
pub struct Listing {
    json: bool,
    printed: usize,
}

impl Listing {
    /// Begins a list. Nothing is printed before its first item or its end, so that a failure is no half of an array.
    #[must_use]
    pub fn begin(output: Output) -> Self {
        Listing { json: output.json, printed: 0 }
    }

    /// Prints an item.
    pub fn item<T: Serialize>(&mut self, value: &T, human: impl FnOnce(&T) -> String) -> io::Result<()> {
        let text = if self.json {
            let separator = if self.printed == 0 { "[\n" } else { ",\n" };
            format!("{separator}{}", serde_json::to_string(value)?)
        } else {
            human(value)
        };
        self.printed += 1;
        print(&text)
    }

    /// Ends the list; says how many items it had.
    pub fn end(self) -> io::Result<usize> {
        if self.json {
            print(if self.printed == 0 { "[\n]\n" } else { "\n]\n" })?;
        }
        Ok(self.printed)
    }
}

/// Says something to the person in front, on standard error.
pub fn complain(text: &str) {
    // Nothing can be done if standard error is gone.
    let _ = writeln!(io::stderr(), "elton: {text}");
}

/// Says why a command failed, on standard error: as `{"error": …}` where the result would have been JSON.
pub fn fail(text: &str, as_json: bool) {
    if !as_json {
        return complain(text);
    }
    let _ = writeln!(io::stderr(), "{}", serde_json::json!({ "error": text }));
}

/// Asks a question that is answered with yes or no; anything but yes is no. `None` where nobody can be asked.
pub fn ask(question: &str) -> io::Result<Option<bool>> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Ok(None);
    }
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")))
}
