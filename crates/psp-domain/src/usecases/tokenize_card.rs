use std::sync::Arc;

use chrono::TimeDelta;

use crate::ports::{CardTokenStore, CardVault, StoreError, TokenizedCard, VaultError};
use crate::usecases::Sources;
use crate::{Card, CardToken, CustomerId, IdempotencyRecord, TransactionId};

/// Keeps a card, sealed, until it is paid with once: the customer's systems hold its token and never its number.
///
/// Cost: one write to keep it, one read to pay with it.
pub struct TokenizeCard {
    tokens: Arc<dyn CardTokenStore>,
    vault: Arc<dyn CardVault>,
    sources: Sources,
}

/// Why a card could not be kept or opened.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// It could not be sealed or opened.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl TokenizeCard {
    /// How long a token can be paid with.
    pub const LIFETIME: TimeDelta = TimeDelta::minutes(15);

    /// The use case over its ports.
    pub fn new(tokens: Arc<dyn CardTokenStore>, vault: Arc<dyn CardVault>, sources: Sources) -> Self {
        Self { tokens, vault, sources }
    }

    /// Keeps a card of a customer.
    ///
    /// # Errors
    /// [`TokenizeError`].
    pub async fn keep(&self, customer: CustomerId, card: &Card) -> Result<TokenizedCard, TokenizeError> {
        let kept = self.seal(customer, card).await?;
        self.tokens.put_token(&kept, None).await?;
        Ok(kept)
    }

    /// Keeps a card of a customer, and writes with it the record of an idempotency key, which `record` makes of the kept card;
    /// `None` when the key was taken, and then nothing was kept.
    ///
    /// # Errors
    /// [`TokenizeError`]; asking again with the same key is safe.
    pub async fn keep_once(
        &self,
        customer: CustomerId,
        card: &Card,
        record: impl FnOnce(&TokenizedCard) -> IdempotencyRecord + Send,
    ) -> Result<Option<TokenizedCard>, TokenizeError> {
        let kept = self.seal(customer, card).await?;
        let record = record(&kept);
        Ok(self.tokens.put_token(&kept, Some(&record)).await?.then_some(kept))
    }

    async fn seal(&self, customer: CustomerId, card: &Card) -> Result<TokenizedCard, TokenizeError> {
        let (token, now) = (CardToken(self.sources.ids.next_id()), self.sources.clock.now());
        Ok(TokenizedCard {
            token,
            customer_id: customer,
            summary: card.summary(),
            card: self.vault.seal(TransactionId(token.0), card).await?,
            created_at: now,
            expires_at: now + Self::LIFETIME,
        })
    }

    /// The card of a token, for a change set that [spends](crate::ChangeSet::spends) it; `None` where the customer has none
    /// such, any more.
    ///
    /// # Errors
    /// [`TokenizeError`].
    pub async fn open(&self, customer: &CustomerId, token: CardToken) -> Result<Option<Card>, TokenizeError> {
        let found = self.tokens.find_token(customer, token, self.sources.clock.now()).await?;
        let Some(kept) = found else { return Ok(None) };
        Ok(Some(self.vault.open(TransactionId(token.0), &kept.card).await?))
    }
}
