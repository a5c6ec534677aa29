//! Authorization over several gateways, with fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

mod doubts;
mod rounds;
mod support;
