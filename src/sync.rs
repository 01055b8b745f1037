//! What threads tell each other by, under one name each: `models` puts loom's in their place, and tries every order in which threads may
//! run. Whoever is modelled takes them from here.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use arc_swap::cache::Cache;
pub(crate) use arc_swap::{ArcSwap, Guard};
pub(crate) use tokio::sync::{Notify, watch};
