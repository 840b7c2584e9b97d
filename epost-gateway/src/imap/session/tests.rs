//! Placeholder until the dialogue tests are written.
