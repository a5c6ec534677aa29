//! Ports: what the domain needs of the world, as narrow traits named by role.
//!
//! Outcomes have two layers. The outer error is infrastructure ([`StoreError`], [`QueueError`]); what the domain expects
//! (not found, stale, duplicate) is a value. Every port has a contract suite in `psp-testkit` that every adapter runs.

mod attempts;
mod callbacks;
mod card_tokens;
mod clock;
mod gateway;
mod leadership;
mod outbox;
mod queue;
mod routing;
mod store;
mod vault;

pub use attempts::{AttemptStore, CHECK_MESSAGE_KIND, Sweep, check_message};
pub use callbacks::{CALLBACK_MESSAGE_KIND, CallbackStore, callback_message};
pub use card_tokens::{CardTokenStore, TokenizedCard};
pub use clock::{Clock, IdGenerator, SystemClock, UuidV7Generator};
pub use gateway::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, Candidate, ForgedCallback, Gateway, GatewayDirectory,
    GatewayError, RefundRequest, VOIDED,
};
pub use leadership::Leadership;
pub use outbox::Outbox;
pub use queue::{DeadLetter, DeadLetters, Delivery, Message, Queue, QueueDepth, QueueError, QueueName};
pub use routing::GatewayStore;
pub use store::{
    BalanceReader, Health, IdempotencyStore, PayableReader, SettledChunk, SettlementChunk, SettlementProgress,
    SettlementStore, Store, StoreError, TransactionReader, UnauthorizedTransaction,
};
pub use vault::{
    CardPlace, CardVault, FingerprintError, KeptCard, RequestFingerprint, Resealer, SealedCards, VaultError,
    VaultKeyStore,
};
