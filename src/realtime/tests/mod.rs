//! Sessions as the SDKs hold them, and the laws that no script may break.

mod fixture;
mod moves;
mod sdk;
