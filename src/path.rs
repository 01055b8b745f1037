//! The path of a request: the seven phases in one function.

pub mod explain;
