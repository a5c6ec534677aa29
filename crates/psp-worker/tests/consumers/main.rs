//! Consumers over fakes. Tokio's time is paused, so waiting costs nothing.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod authorization;
mod callbacks;
mod consuming;
mod orders;
mod refunds;
mod support;
