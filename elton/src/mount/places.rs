//! Where mounts keep things unless they are told.

use std::env;
use std::path::{Path, PathBuf};

/// The state directory.
pub(super) fn state(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| place("/var/lib/elton/mounts", "XDG_STATE_HOME", ".local/state"), absolute)
}

/// The cache directory.
pub(super) fn cache(given: Option<&Path>) -> PathBuf {
    given.map_or_else(|| place("/var/cache/elton", "XDG_CACHE_HOME", ".cache"), absolute)
}

/// A mount leaves the directory that it was started in. A path that cannot be made absolute is empty, and refused where it is used.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Root's place, or the user's as the XDG base directories say.
fn place(of_root: &str, variable: &str, below_home: &str) -> PathBuf {
    if is_root() {
        return of_root.into();
    }
    let named = env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from).join(below_home);
    named.unwrap_or_else(home).join("elton")
}

/// Whether this process may do what root may.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
