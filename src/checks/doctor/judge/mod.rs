//! What each answer means: pure, a function of what was seen. The same answers always lead to the same lines.

pub(crate) mod answer;
pub(crate) mod columns;
pub(crate) mod database;
pub(crate) mod keys;
pub(crate) mod reach;
pub(crate) mod realtime;
pub(crate) mod rest;
pub(crate) mod services;
pub(crate) mod shape;
pub(crate) mod sql;
pub(crate) mod storage;
pub(crate) mod tokens;
