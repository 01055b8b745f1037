//! The composition root: from checked settings to listeners, workers and their end.

use std::process::ExitCode;

use crate::config::live::Sources;

/// Runs the proxy until it is told to stop.
///
/// # Errors
/// Faults of the settings, and listeners that can't be opened.
pub fn serve(_sources: Sources) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired yet")
}
