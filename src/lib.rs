//! Cutover moves the live users of one Supabase project to another, and back, without a deploy and
//! without the clients noticing.
//!
//! A request goes through seven phases, and each has a room (a folder) of its own, listed here in the
//! order of the path. [`path`] is the one function that calls them.
//!
//! | phase | room | what it answers |
//! |---|---|---|
//! | accept | [`accept`] | is this a request we serve, and within the limits? |
//! | identify | [`identify`] | who asks: a user, a service key, or nobody? |
//! | decide | [`decide`] | which side, and why? |
//! | rewrite | [`rewrite`] | how does that side say this request? |
//! | forward | [`forward`] | what does the side answer? |
//! | restore | [`restore`] | how does the client's own project say that answer? |
//! | observe | [`observe`] | what do we count and log of it? |
//!
//! Around the path: [`config`] makes and replaces the [`snapshot`] that a request works with, [`checks`] asks both
//! projects, [`admin`] and [`cli`] are the operator's surface, and [`app`] wires everything together.
//! `docs/architecture.md` tells the whole story with a picture.

#![cfg_attr(
    test,
    allow(clippy::duplicate_mod, reason = "`models` compiles what it models a second time")
)]

// Vocabulary: imports nothing of ours.
mod chance;
pub mod counted;
mod file;
pub mod http1;
pub mod live;
mod local;
mod outbound;
pub mod route;
pub mod secret;
pub mod side;
mod sync;
pub mod trace;

// The path, in its order.
pub mod accept;
pub mod identify;

pub mod tokens;

pub mod decide;

pub mod rewrite;

pub mod realtime;

pub mod forward;

pub mod restore;

pub mod observe;

pub mod telemetry;

// What the path works with, and the path itself.
pub mod snapshot;

pub mod path;

// Control and operators.
pub mod config;

pub mod k8s;

pub mod checks;

pub mod admin;

pub mod app;

pub mod cli;

#[cfg(test)]
mod models;
