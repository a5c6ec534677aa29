use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{Message, QueueName, StoreError};
use crate::{Callback, CallbackId, CallbackOutcome, MessageId};

/// Keeps callbacks.
#[async_trait]
pub trait CallbackStore: Send + Sync {
    /// Stores a callback with its [`message`](callback_message) in one database transaction, once per (transaction, gateway,
    /// reference, status, amount): `false` when there is one already, or when
    /// the transaction has [`Callback::MAX_PER_TRANSACTION`]; nothing is written then.
    async fn receive(&self, callback: &Callback) -> Result<bool, StoreError>;

    /// Whether there is one with the same transaction, gateway, reference, status and amount.
    async fn is_known(&self, callback: &Callback) -> Result<bool, StoreError>;

    /// One callback.
    async fn find_callback(&self, id: CallbackId) -> Result<Option<Callback>, StoreError>;

    /// Keeps what became of a callback, unless that is known already.
    async fn conclude(&self, id: CallbackId, outcome: CallbackOutcome, now: DateTime<Utc>) -> Result<(), StoreError>;

    /// Up to `limit` callbacks with that outcome, newest first: for operators.
    async fn with_outcome(&self, outcome: CallbackOutcome, limit: u32) -> Result<Vec<Callback>, StoreError>;
}

/// The kind of messages that ask for a callback to be applied.
pub const CALLBACK_MESSAGE_KIND: &str = "apply_callback";

/// The message on `gateway-callbacks` that asks for a callback to be applied. Its id is the callback's.
pub fn callback_message(id: CallbackId) -> Message {
    Message {
        id: MessageId(id.0),
        queue: QueueName::GatewayCallbacks,
        kind: CALLBACK_MESSAGE_KIND.to_owned(),
        aggregate_id: id.0,
        body: "{}".to_owned(),
    }
}
