use psp_domain::ports::{Clock, IdempotencyStore, StoreError};

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
