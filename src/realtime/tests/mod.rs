//! Sessions as the SDKs hold them, and the laws that no script may break.

mod bounds;
mod fixture;
mod laws;
mod model;
mod moves;
mod sdk;
