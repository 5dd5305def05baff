//! Progress where a person waits: on standard error, and only if that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A spinner beside `what`, until it is dropped.
#[must_use]
pub fn spinner(what: &'static str) -> Progress {
    // indicatif draws nothing where standard error is no terminal.
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(TICK);
    Progress(bar)
}

/// A bar that knows how far there is to go.
#[must_use]
pub fn bar(what: &'static str) -> Progress {
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg} [{bar:30}] {human_pos}/{human_len} {eta}");
    bar.set_style(style.expect("a lawful template, checked by a test").progress_chars("=> "));
    bar.set_message(what);
    Progress(bar)
}

/// Something that is going on. Its line goes when it is dropped.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// `done` of `total` steps are done.
    pub fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_template_is_lawful() {
        super::bar("checking").at(1, 2);
    }
}
