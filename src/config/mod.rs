//! Settings: where they come from, what is wrong with them, and how they change while the proxy runs.

pub mod audit;
pub mod fault;
pub mod live;
pub mod startup;
