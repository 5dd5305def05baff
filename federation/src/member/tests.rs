//! A member and its home in one process, over a line that counts and can be spoilt.

mod answers;
mod line;
mod ranges;
