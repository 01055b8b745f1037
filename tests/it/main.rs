//! The integration tests: one binary, one module per feature.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what can't be unwrapped here has failed")]

/// The binary as an operator meets it.
mod cli;
/// The house rules.
mod tidy;
