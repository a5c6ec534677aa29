use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::StoreError;
use crate::{CardSummary, CardToken, CustomerId, IdempotencyRecord, SealedCard};

/// A card that waits to be paid with, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenizedCard {
    /// What names it.
    pub token: CardToken,
    /// Whose it is.
    pub customer_id: CustomerId,
    /// What may be shown of it.
    pub summary: CardSummary,
    /// The card, sealed for its token.
    pub card: SealedCard,
    /// When it came.
    pub created_at: DateTime<Utc>,
    /// Until when it can be paid with; erased afterwards.
    pub expires_at: DateTime<Utc>,
}

/// Keeps cards that wait to be paid with; they are spent by change sets.
#[async_trait]
pub trait CardTokenStore: Send + Sync {
    /// Stores a card, and in the same write the record of its request's idempotency key. `false` where the key is taken:
    /// nothing was written. The same card again has one effect and is `true`.
    async fn put_token(&self, card: &TokenizedCard, record: Option<&IdempotencyRecord>) -> Result<bool, StoreError>;

    /// A card of that customer that has not expired at `now`.
    async fn find_token(
        &self,
        customer: &CustomerId,
        token: CardToken,
        now: DateTime<Utc>,
    ) -> Result<Option<TokenizedCard>, StoreError>;

    /// Deletes up to `limit` cards that expired before `now`; says how many.
    async fn purge_tokens(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError>;
}
