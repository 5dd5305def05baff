//! A panic is a bug of ours: it says where to report it and ends the process.
//!
//! Through the hook rather than through `panic = "abort"`, which builds every dependency twice.

use std::io::Write as _;

/// Where bugs are reported.
const ISSUES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/issues");

/// From now on a panic in any thread aborts the process, unless the catalog turns it into an error.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        if federation::catalog::panic_is_contained() {
            return;
        }
        let backtrace = std::backtrace::Backtrace::force_capture();
        // Nothing can be done if standard error is gone as well.
        let _ = writeln!(
            std::io::stderr(),
            "elton {}: {panic}\n{backtrace}\n\
             This is a bug in Elton, and the process ends here so that it does no harm. What was acknowledged is on \
             disk; start Elton again.\nPlease report it with the lines above at {ISSUES}",
            env!("CARGO_PKG_VERSION"),
        );
        std::process::abort();
    }));
}
