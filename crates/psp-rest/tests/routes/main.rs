//! The routes over fakes: what needs no process.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod bad_input;
mod bodies;
mod documents;
mod failures;
mod gateways;
mod idempotency;
mod metrics;
mod pages;
mod server;
mod support;
