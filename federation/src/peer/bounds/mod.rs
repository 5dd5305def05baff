//! How far others can go: places that are taken and given back, and log lines that they cause.

mod places;
mod quiet;

pub(super) use places::{Place, Places};
pub(super) use quiet::Quiet;
