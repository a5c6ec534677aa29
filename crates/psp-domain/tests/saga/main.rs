//! An order and its payment, over fakes: whatever comes in whatever order, and wherever a worker is killed, they end alike.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod ends;
mod interruptions;
mod orders;
mod runs;
mod support;
