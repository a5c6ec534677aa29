//! The real binary, from outside.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod acquirers;
mod bad_input;
mod callbacks;
mod clients;
mod commands;
mod disk;
mod durability;
mod examples;
mod examples_orders;
mod gateways;
mod kills;
mod kms;
mod main_job;
mod operations;
mod orders;
mod receiver;
mod refunds;
mod routing;
mod secrecy;
mod settlement;
mod stopping;
mod support;
mod vault;
mod webhooks;

/// What the processes under test run on.
const BACKEND: support::Backend = support::Backend::Sqlite;
