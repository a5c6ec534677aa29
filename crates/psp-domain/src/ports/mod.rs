//! Ports: what the domain needs of the world, as narrow traits named by role.
//!
//! Outcomes have two layers. The outer error is infrastructure ([`StoreError`], [`QueueError`]); what the domain expects
//! (not found, stale, duplicate) is a value. Every port has a contract suite in `psp-testkit` that every adapter runs.

mod clock;
mod gateway;
mod leadership;
mod outbox;
mod queue;
mod store;
mod vault;

pub use clock::{Clock, IdGenerator, SystemClock, UuidV7Generator};
pub use gateway::{AuthorizationRequest, AuthorizationResult, Gateway, GatewayError, VOIDED};
pub use leadership::Leadership;
pub use outbox::Outbox;
pub use queue::{DeadLetter, DeadLetters, Delivery, Message, Queue, QueueDepth, QueueError, QueueName};
pub use store::{
    BalanceReader, Health, IdempotencyStore, PayableReader, SettledChunk, SettlementChunk, SettlementProgress,
    SettlementStore, Store, StoreError, TransactionReader, UnauthorizedTransaction,
};
pub use vault::{CardVault, RequestFingerprint, VaultError};
