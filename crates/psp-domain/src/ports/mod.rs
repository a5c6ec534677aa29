//! Ports: what the domain needs of the world, as narrow traits named by role.
//!
//! Outcomes have two layers. The outer error is infrastructure ([`StoreError`], [`QueueError`]); what the domain expects
//! (not found, stale, duplicate) is a value. Every port has a contract suite in `psp-testkit` that every adapter runs.

mod attempts;
mod callbacks;
mod card_tokens;
mod clock;
mod events;
mod gateway;
mod leadership;
mod orders;
mod outbox;
mod queue;
mod refunds;
mod routing;
mod store;
mod vault;
mod webhooks;

pub use attempts::{AttemptStore, CHECK_MESSAGE_KIND, Sweep, check_message};
pub use callbacks::{CALLBACK_MESSAGE_KIND, CallbackStore, callback_message};
pub use card_tokens::{CardTokenStore, TokenizedCard};
pub use clock::{Clock, IdGenerator, SystemClock, UuidV7Generator};
pub use events::{EventStore, Replay, ReplayTo, Replayed};
pub use gateway::{
    AuthorizationRequest, AuthorizationResult, CallbackSignature, Candidate, ForgedCallback, Gateway, GatewayDirectory,
    GatewayError, RefundRequest, VOIDED,
};
pub use leadership::Leadership;
pub use orders::{OrderProgress, OrderReader, PaymentProgress, order_message};
pub use outbox::Outbox;
pub use queue::{DeadLetter, DeadLetters, Delivery, Message, Queue, QueueDepth, QueueError, QueueName};
pub use refunds::{CHECK_REFUND_MESSAGE_KIND, LoadedRefund, RefundStore, check_refund_message};
pub use routing::GatewayStore;
pub use store::{
    BalanceReader, Health, IdempotencyStore, PayableReader, SettledChunk, SettlementChunk, SettlementProgress,
    SettlementStore, Store, StoreError, TransactionReader, UnauthorizedTransaction,
};
pub use vault::{
    CardPlace, CardVault, FingerprintError, KeptCard, RequestFingerprint, Resealer, SealedCards, SecretVault,
    VaultError, VaultKeyStore,
};
pub use webhooks::{
    DeliveryBacklog, DeliveryClaim, DeliveryStore, EndpointStore, EndpointVerdict, SecretSource, UrlPolicy,
};
