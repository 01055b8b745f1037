//! Sessions as the SDKs hold them, and the laws that no script may break.

mod fixture;
mod laws;
mod model;
mod moves;
mod sdk;
