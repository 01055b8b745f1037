//! Sessions as the SDKs hold them, and the laws that no script may break.

mod bounds;
mod bytes;
mod fixture;
mod laws;
mod model;
mod moves;
mod sdk;
