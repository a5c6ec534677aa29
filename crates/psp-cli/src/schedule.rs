//! What the scheduler runs.

use std::sync::Arc;

use psp_domain::usecases::SettlePayables;
use psp_jobs::{CronJob, InvalidSchedule, JobResult};
use tokio_util::sync::CancellationToken;

use crate::wiring::Wiring;

/// The jobs, on the configured schedules.
pub(crate) fn jobs(wiring: &Arc<Wiring>, stop: &CancellationToken) -> Result<Vec<CronJob>, InvalidSchedule> {
    let settle = {
        let (wiring, stop) = (Arc::clone(wiring), stop.clone());
        move || settle(wiring.settle(), wiring.settings.settlement_chunk_size, stop.clone())
    };
    let purge = {
        let (store, clock) = (Arc::clone(&wiring.store.keys), Arc::clone(&wiring.sources.clock));
        move || {
            let (store, clock) = (Arc::clone(&store), Arc::clone(&clock));
            async move {
                let keys = psp_jobs::purge_idempotency_keys(&*store, &*clock).await?;
                tracing::info!(keys, "idempotency keys purged");
                Ok(())
            }
        }
    };
    let shred = {
        let wiring = Arc::clone(wiring);
        move || {
            let wiring = Arc::clone(&wiring);
            async move {
                let (cards, tokens) = (&*wiring.store.sealed_cards, &*wiring.store.tokens);
                let retention = wiring.settings.card_retention;
                let shredded = psp_jobs::shred_cards(cards, tokens, &*wiring.sources.clock, retention).await?;
                tracing::info!(cards = shredded.cards, tokens = shredded.tokens, "sealed cards erased");
                Ok(())
            }
        }
    };
    let purge_events = {
        let wiring = Arc::clone(wiring);
        move || {
            let wiring = Arc::clone(&wiring);
            async move {
                let (events, retention) = (&*wiring.store.events, wiring.settings.event_retention);
                let events = psp_jobs::purge_events(events, &*wiring.sources.clock, retention).await?;
                tracing::info!(events, "events purged");
                Ok(())
            }
        }
    };
    Ok(vec![
        CronJob::new("settle-payables", &wiring.settings.settlement_cron, settle)?,
        CronJob::new("purge-idempotency-keys", &wiring.settings.purge_cron, purge)?,
        CronJob::new("shred-cards", &wiring.settings.shred_cron, shred)?,
        CronJob::new("purge-events", &wiring.settings.event_purge_cron, purge_events)?,
    ])
}

/// Settles what is due. A stop does not wait for its chunks: they are on the queue, and consumers that have stopped, too,
/// would never settle them.
async fn settle(settle: SettlePayables, chunk_size: u32, stop: CancellationToken) -> JobResult {
    // A task of its own, so that a plan that is being written when the stop comes is not broken off.
    let run = tokio::spawn(async move { psp_jobs::settle_payables(&settle, None, chunk_size, |_| {}).await });
    let Some(ended) = stop.run_until_cancelled(run).await else {
        tracing::info!("stopping during a settlement run: its chunks stay on the queue");
        return Ok(());
    };
    // What a panic says may hold what a client sent.
    ended.map_err(|_panic| "the settlement run panicked")??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use psp_domain::QueueName;
    use psp_domain::ports::Clock;
    use psp_testkit::{fakes, fixtures};

    use super::*;

    /// How long a test waits for what must happen.
    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_stop_does_not_wait_for_chunks_that_nobody_settles_any_more() {
        let ports = fakes::ports().await;
        let (transaction, created) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
        let approved = fixtures::approve(&transaction, ports.clock.now());
        ports.store.apply_all(vec![created, approved]).await.unwrap();
        ports.clock.advance_days(31);

        let stop = CancellationToken::new();
        let use_case = SettlePayables::new(Arc::clone(&ports.settlement), ports.sources());
        let running = tokio::spawn(settle(use_case, 10, stop.clone()));
        let planned = ports.queue.receive(QueueName::PayablesSettlement, 1, PATIENCE).await.unwrap();
        assert_eq!(planned.len(), 1, "the run is planned");
        assert!(!running.is_finished(), "it waits for its chunk");
        stop.cancel();
        tokio::time::timeout(PATIENCE, running).await.expect("it stops").unwrap().unwrap();
    }
}
