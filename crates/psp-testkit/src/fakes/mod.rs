//! In-memory adapters that keep the contracts, and scripted ones.

mod gateway;
mod memory_cards;
mod memory_events;
mod memory_gateways;
mod memory_orders;
mod memory_queue;
mod memory_refunds;
mod memory_settlement;
mod memory_store;
mod memory_webhooks;
mod vault;

pub use gateway::{FixedDirectory, ScriptedGateway};
pub use memory_store::{FailingStore, Memory};
pub use vault::PlainVault;

use std::sync::Arc;

use crate::Ports;
use crate::clock::FixedClock;

/// The ports of a fresh memory.
#[expect(clippy::unused_async, reason = "the contract suites take async factories")]
pub async fn ports() -> Ports {
    let clock = Arc::new(FixedClock::default());
    Ports::of(Arc::new(Memory::new(clock.clone())), clock, ())
}
