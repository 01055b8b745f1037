//! Tasks of one worker: they share its thread and never leave it, so what they share needs no lock.

use std::future::Future;

use hyper::rt::Executor;

/// Runs HTTP/2's tasks on the worker's own thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalExecutor;

impl<F> Executor<F> for LocalExecutor
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}
