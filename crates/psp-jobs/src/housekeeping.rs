use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{AttemptStore, CardTokenStore, Clock, IdempotencyStore, SealedCards, StoreError, Sweep};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

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

/// The most attempts of one sweep's write, and the longest time between two questions about one attempt.
const SWEEP_BATCH: u32 = 1_000;
const MOST_BETWEEN: TimeDelta = TimeDelta::hours(1);
/// How long after its time an attempt may be unresolved before it counts as overdue.
const OVERDUE: TimeDelta = TimeDelta::minutes(15);

/// Asks for every attempt that is unresolved although its time has come: a callback did not come, a void failed, or a worker
/// was killed. Workers do the asking. Whatever stays unresolved is asked for again, after `least` at first and an hour at
/// last. Returns how many.
///
/// # Errors
/// [`StoreError`]: the batches before it were asked for.
pub async fn sweep_attempts(
    attempts: &dyn AttemptStore,
    clock: &dyn Clock,
    least: TimeDelta,
) -> Result<u64, StoreError> {
    let (now, mut swept) = (clock.now(), 0);
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts of attempts fit 52 bits")]
    let overdue = attempts.count_overdue(now - OVERDUE).await? as f64;
    metrics::gauge!("psp_attempts_overdue").set(overdue);
    loop {
        let sweep = Sweep { now, limit: SWEEP_BATCH, least, most: MOST_BETWEEN.max(least) };
        let batch = attempts.sweep(sweep).await?;
        swept += batch;
        if batch < u64::from(SWEEP_BATCH) {
            return Ok(swept);
        }
    }
}

/// Sweeps with that pause until stopped. Several processes may: each attempt is asked for by one of them.
pub async fn sweep_until(
    attempts: &dyn AttemptStore,
    clock: &dyn Clock,
    pause: Duration,
    least: TimeDelta,
    stop: CancellationToken,
) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match sweep_attempts(attempts, clock, least).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(attempts = swept, "gateways are asked for what they have not answered"),
            Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "the sweep failed"),
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
