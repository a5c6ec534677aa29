//! The production store, queue and outbox: Postgres through sqlx.
//!
//! # How it writes
//!
//! A batch of change sets is one statement in one trip: every table is written from arrays (`UNNEST`), and the statement is
//! its own database transaction, so its end is the commit. It decides for each change set: where a card's token is spent, an
//! idempotency key is taken or a version is stale, nothing of that change set is written. Only a batch that holds one
//! transaction twice takes several statements and an explicit COMMIT; or one with orders, refunds or counts, which few change
//! sets have, so that the others' statement does not carry their columns. A unique violation rolls the statement back, and the batch is written one
//! change set at a time, to give every one its own verdict.
//!
//! Serialization failures, deadlocks, lock time-outs and lost connections are answered by applying the same batch again.
//! Ids and times are fixed in it, so a batch whose commit had happened, though its answer was lost, is recognized row by
//! row. When even that cannot be asked in time, the outcome is [`psp_domain::ports::StoreError::OutcomeUnknown`].
//!
//! # Locks
//!
//! Always in this order: orders, card tokens, idempotency keys, payables, transactions, their attempts, balances (by customer
//! and currency), refunds, counts by status, the figures of a settlement run. A sweep locks attempts or refunds that nobody
//! holds, and waits for no lock. Events before their deliveries, and these before their endpoints: who starts a delivery anew
//! locks its event against being purged; a claim passes over what others hold. No lock is held across a network call.
//!
//! # Connections
//!
//! Three small pools with settings of their own: writes (plans are made once, sequential scans are off), leases (the same,
//! and a commit does not wait for the disk: losing a lease redelivers a message and nothing else), and reads (read only).

mod apply;
mod attempts;
mod balances;
mod callbacks;
mod card_tokens;
mod classify;
mod columns;
mod connection;
mod dead_letters;
mod deliveries;
mod endpoints;
mod events;
mod gateways;
mod idempotency;
mod ids;
mod leader;
mod options;
mod orders;
mod outbox;
mod payables;
mod queue;
mod refunds;
mod rest;
mod schema;
mod sealed_cards;
mod settlement;
mod transactions;
mod vault_keys;
mod wake;

pub use connection::{OpenError, PgStore};
pub use leader::PgLeadership;
pub use options::{InvalidAddress, Login, PasswordSource, PgOptions};
