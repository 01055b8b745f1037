//! The ConfigMap that holds the number, followed and written through the Kubernetes API.
//!
//! | file | what it answers |
//! |---|---|
//! | `api` | what is asked of the API, and what its answers mean |
//! | `watch` | list, watch, back off, list again: the loop that follows it |
//! | `link` | reads and writes for [`Control`], which waits for them |
//!
//! All of it runs on a thread of its own, so that a write of [`Control`] can wait for an answer while the watch goes on, and nothing of
//! it is on the path of a request. The last word of the API stands while the API is away.

mod api;
mod link;
mod watch;

use std::sync::Arc;

use crate::config::fault::Faults;
use crate::config::live::{Control, Follow, Sources};
use crate::config::{self, startup::Startup};
use link::Link;

/// [`Control::start`] with the ConfigMap that the settings name, if they name one. Waits for the API's first word for at most
/// `kubernetes.start_timeout`; without one the other sources count until it comes.
///
/// # Errors
/// Every fault of every source.
pub fn start(sources: Sources) -> Result<(Arc<Control>, Startup, Vec<String>), Faults> {
    let Some(settings) = config::kubernetes(&sources) else { return Control::start(sources) };
    let link = Arc::new(Link::start(settings));
    let follow = Follow {
        name: link.name().to_owned(),
        first: link.first_word(),
        store: Arc::clone(&link) as _,
    };
    let started = Control::start_with(sources, Some(follow))?;
    link.follow(&started.0);
    Ok(started)
}
