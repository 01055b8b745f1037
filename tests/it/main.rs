//! The integration tests: one binary, one module per feature.

/// The binary as an operator meets it.
mod cli;
/// The house rules.
mod tidy;
