//! The same on Postgres, with the database as its queue.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

#[path = "../e2e/acquirers.rs"]
mod acquirers;
#[path = "../e2e/bad_input.rs"]
mod bad_input;
#[path = "../e2e/callbacks.rs"]
mod callbacks;
#[path = "../e2e/clients.rs"]
mod clients;
#[path = "../e2e/durability.rs"]
mod durability;
#[path = "../e2e/examples.rs"]
mod examples;
#[path = "../e2e/examples_orders.rs"]
mod examples_orders;
#[path = "../e2e/gateways.rs"]
mod gateways;
#[path = "../e2e/kills.rs"]
mod kills;
#[path = "../e2e/kms.rs"]
mod kms;
mod leading;
mod logins;
#[path = "../e2e/main_job.rs"]
mod main_job;
#[path = "../e2e/operations.rs"]
mod operations;
#[path = "../e2e/orders.rs"]
mod orders;
#[path = "../e2e/receiver.rs"]
mod receiver;
#[path = "../e2e/refunds.rs"]
mod refunds;
#[path = "../e2e/routing.rs"]
mod routing;
#[path = "../e2e/secrecy.rs"]
mod secrecy;
#[path = "../e2e/settlement.rs"]
mod settlement;
#[path = "../e2e/stopping.rs"]
mod stopping;
#[path = "../e2e/support.rs"]
mod support;
#[path = "../e2e/vault.rs"]
mod vault;
#[path = "../e2e/webhooks.rs"]
mod webhooks;

/// What the processes under test run on.
const BACKEND: support::Backend = support::Backend::Postgres;
