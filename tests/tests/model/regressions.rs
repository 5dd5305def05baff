//! What the generated sequences found, shrunk.
