//! Damage that an engine answers with a panic.
//!
//! redb trusts its pages: one that does not hold what it should makes it panic. Inside [`contain`] the panic becomes an
//! error of that one call, so that a damaged page costs the keys in it and not the process.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::CatalogError;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread, now, becomes an error. A panic hook that ends the process asks this first.
#[must_use]
pub fn panic_is_contained() -> bool {
    CONTAINED.get()
}

/// A page of the catalog does not hold what it should.
#[derive(Debug, thiserror::Error)]
#[error("its file is damaged ({0}); put back a copy of the data directory")]
struct DamagedFile(String);

/// Runs one call of the engine; a panic in it is an error. The engine's own locks may stay poisoned, which makes later
/// calls fail in the same way until the file is opened anew.
pub(super) fn contain<T>(
    doing: &'static str,
    call: impl FnOnce() -> Result<T, CatalogError>,
) -> Result<T, CatalogError> {
    let before = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    CONTAINED.set(before);
    result.unwrap_or_else(|panic| Err(CatalogError::engine(doing, DamagedFile(message(&*panic)))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_of_its_call_only() {
        assert!(!panic_is_contained());
        let failed = contain("reading", || -> Result<(), _> {
            assert!(panic_is_contained());
            panic!("page {} is odd", 7)
        });
        let error = failed.expect_err("it panicked");
        let source = std::error::Error::source(&error).expect("the damage").to_string();
        assert!(source.contains("page 7 is odd"), "{source}");
        assert!(!panic_is_contained());
        assert!(contain("reading", || Ok(1)).is_ok());
    }
}
