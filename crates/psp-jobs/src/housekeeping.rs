use chrono::TimeDelta;
use psp_domain::ports::{CardTokenStore, Clock, EventStore, IdempotencyStore, SealedCards, StoreError};

/// The most rows of one write.
const BATCH: u32 = 5_000;

/// Deletes expired idempotency keys, batch after batch, so that no write is long. Returns how many.
///
/// # Errors
/// [`StoreError`]: the batches before it stay deleted.
pub async fn purge_idempotency_keys(keys: &dyn IdempotencyStore, clock: &dyn Clock) -> Result<u64, StoreError> {
    let (now, mut purged) = (clock.now(), 0);
    loop {
        let batch = keys.purge_expired(now, BATCH).await?;
        purged += batch;
        if batch < u64::from(BATCH) {
            return Ok(purged);
        }
    }
}

/// Deletes events older than `retention` with their deliveries, batch after batch. Returns how many.
///
/// # Errors
/// [`StoreError`]: the batches before it stay deleted.
pub async fn purge_events(events: &dyn EventStore, clock: &dyn Clock, retention: TimeDelta) -> Result<u64, StoreError> {
    let (before, mut purged) = (clock.now() - retention, 0);
    loop {
        let batch = events.purge_events(before, BATCH).await?;
        purged += batch;
        if batch < u64::from(BATCH) {
            return Ok(purged);
        }
    }
}

/// What shredding erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shredded {
    /// Sealed cards of transactions.
    pub cards: u64,
    /// Tokens that expired, with their sealed cards.
    pub tokens: u64,
}

/// Erases the sealed cards of transactions older than `retention` whose authorization has not ended, and tokens of cards that
/// have expired, batch after batch. A payment whose card is erased is sent to no other gateway any more.
///
/// # Errors
/// [`StoreError`]: what was erased before it stays erased.
pub async fn shred_cards(
    cards: &dyn SealedCards,
    tokens: &dyn CardTokenStore,
    clock: &dyn Clock,
    retention: TimeDelta,
) -> Result<Shredded, StoreError> {
    let (now, mut shredded) = (clock.now(), Shredded::default());
    loop {
        let batch = cards.shred(now - retention, BATCH).await?;
        metrics::counter!("psp_cards_shredded_total", "kept_with" => "transaction").increment(batch);
        shredded.cards += batch;
        if batch < u64::from(BATCH) {
            break;
        }
    }
    loop {
        let batch = tokens.purge_tokens(now, BATCH).await?;
        metrics::counter!("psp_cards_shredded_total", "kept_with" => "token").increment(batch);
        shredded.tokens += batch;
        if batch < u64::from(BATCH) {
            return Ok(shredded);
        }
    }
}
