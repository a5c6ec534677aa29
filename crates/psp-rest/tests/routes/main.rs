//! The routes over fakes: what needs no process.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod bad_input;
mod bodies;
mod callbacks;
mod card_numbers;
mod card_tokens;
mod documents;
mod events;
mod failures;
mod gateways;
mod idempotency;
mod metrics;
mod orders;
mod pages;
mod payments;
mod processes;
mod refunds;
mod server;
mod support;
mod transfers;
mod webhook_endpoints;
mod webhook_keys;
mod webhooks_at_rest;
mod xml;
