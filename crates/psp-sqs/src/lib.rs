//! Queues on Amazon SQS: one standard queue for each of the product's, and its dead-letter queue.
//!
//! Requests carry up to ten messages and 256 KiB; a few run at once. What SQS refuses of a batch is handled entry by entry.
//! Credentials, region and endpoint come from the environment as every AWS SDK takes them (`AWS_REGION`,
//! `AWS_ENDPOINT_URL`, …).
//!
//! SQS delivers at least once and in no strict order, and a receipt of an earlier delivery may still delete a message that
//! somebody else has by now. So this adapter remembers when each lease ends, and does not use a receipt whose lease is over.

mod connection;
mod dead_letters;
mod entry;
mod leases;
mod queue;

pub use connection::{OpenError, SqsOptions, SqsQueue, config};
