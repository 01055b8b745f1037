//! `cutover`: parse, run, exit code.

use std::process::ExitCode;

/// A request makes a few dozen small allocations and frees them on the same thread: what mimalloc is best at (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cutover::cli::main()
}
