//! The integration tests: one binary, one module per feature. All but `cli`, `models` and `tidy` run the proxy over real sockets
//! against two recording upstreams (`support`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "what can't be unwrapped here has failed"
)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures, and where it failed")]
#![allow(missing_docs, unreachable_pub, reason = "nobody uses this binary from outside")]

/// World, upstreams, clients.
mod support;

/// Who gets in, and with what.
mod access;
/// What one client address may take.
mod addresses;
mod admin_clients;
/// The auth service: one owner, nothing sent twice.
mod auth;
/// What is small to send and large to take.
mod bombs;
/// The binary as an operator meets it.
mod cli;
/// The console: login, sessions, who may change the number from a browser, the stream.
mod console;
/// Very many clients that do nothing.
mod crowd;
/// Which side, and why: over sockets.
mod decision;
/// `cutover doctor` against what real projects can't be made to do.
mod doctor;
/// HTTP/2 as an enemy sends it, to a side that speaks HTTP/1.
mod downgrade;
/// A stop: what is in flight ends well, and nothing new begins.
mod drain;
/// HTTP/1 towards a side, byte by byte.
mod exchange;
/// When a side can't be reached, is slow, or breaks off.
mod failure;
/// Whatever a side does to a connection, at each point of an exchange.
mod faults;
/// Where a side speaks HTTP/2: streams and connections that go wrong.
mod faults_http2;
/// Where a side speaks TLS: handshakes that fail.
mod faults_tls;
/// HTTP/2 floods: each bounded, and not felt by others.
mod floods;
/// Heads and bodies that could be read in two ways.
mod framing;
/// Edge functions: names, owners.
mod functions;
/// A ConfigMap that three replicas follow.
mod k8s;
/// API keys, tokens, and headers that could deceive.
mod keys;
/// Limits, each at its edge.
mod limits;
/// Changes while requests are in flight.
mod live;
/// The fuzzers' workspace.
mod models;
/// Names behind: addresses that change or lead nowhere, name servers that are away.
mod names;
/// What one client does to the others: nothing.
mod neighbours;
/// What happens to settings, and to the audit, at a bad hour.
mod operations;
mod pages;
/// HTTP as such: what must arrive as it was sent.
mod protocol;
/// `cutover ready`: is old needed any more?
mod ready;
/// Realtime: sockets that end at the proxy.
mod realtime;
/// PostgREST through the proxy.
mod rest;
/// One process takes another's place.
mod restart;
/// Which paths are served, by whom; CORS.
mod routes;
/// What must not be seen anywhere.
mod secrets;
/// What docs/security.md promises, and by which test.
mod security;
/// Clients that take nothing, or vanish.
mod slow_clients;
/// HTTP/1 as an enemy sends it.
mod smuggling;
/// Storage through the proxy.
mod storage;
/// Bodies that flow both ways, and what a client's leaving does.
mod streaming;
/// Traces and metrics over OTLP.
mod telemetry;
/// The house rules.
mod tidy;
/// TLS and HTTP/2, towards clients and upstreams.
mod tls;
/// Users' tokens on their way to the other project.
mod tokens;
/// `cutover verify` through PostgREST.
mod verify;
/// WebSockets of functions, tunnelled.
mod websocket;
