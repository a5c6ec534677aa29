//! Refunds: what they take back of payables, and the use case over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod amounts;
mod performing;
mod requesting;
mod support;
