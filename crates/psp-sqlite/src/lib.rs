//! The embedded store and queue: SQLite through sqlx, the default of the product.
//!
//! # How it writes
//!
//! One connection writes, a few read (WAL lets them run beside it). [`SqliteStore`] implements every store port and, on
//! the outbox table, the queue ports. A write is one `BEGIN IMMEDIATE … COMMIT` with `synchronous = FULL`: one fsync of the
//! log, after which the answer may be given. Rows travel as multi-row statements, so a batch of change sets costs a fixed
//! number of statements whatever its size: begin, one per table that it touches, commit. Group commit above the port
//! (`psp-batch`) makes the batches.
//!
//! Leases and acknowledgements need no fsync: losing them to a power cut redelivers a message, which handlers bear. They
//! commit with `synchronous = NORMAL`, and the next full commit carries them to the disk.
//!
//! Several processes may open one file. Writers wait for each other up to the busy timeout; a queue wakes its receivers on
//! commits of its own process and looks for those of others every [`SqliteOptions::poll_interval`].

mod apply;
mod attempts;
mod balances;
mod bulk;
mod callbacks;
mod card_tokens;
mod connection;
mod counts;
mod dead_letters;
mod deliveries;
mod endpoints;
mod events;
mod gateways;
mod idempotency;
mod ids;
mod options;
mod orders;
mod payables;
#[cfg(test)]
mod plans;
mod queue;
mod refunds;
mod sealed_cards;
mod settlement;
mod transactions;
mod vault_keys;

pub use connection::{OpenError, SqliteStore};
pub use options::{InvalidAddress, SqliteOptions};
