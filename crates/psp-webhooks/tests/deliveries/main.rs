//! Deliveries over a memory, to receivers on this machine.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod addresses;
mod answers;
mod disabling;
mod fairness;
mod leases;
mod receiver;
mod schedule;
mod signatures;
mod standard_webhooks;
mod stopping;
mod support;
mod tls;
