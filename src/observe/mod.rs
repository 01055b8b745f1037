//! Phase 7: what is counted and logged of a request.
