use std::sync::Arc;
use std::time::Duration;

use psp_domain::ConcludedDelivery;
use psp_domain::ports::DeliveryStore;
use tokio::sync::mpsc;

/// The most deliveries of one write.
const MAX_BATCH: usize = 256;
/// How often a write that failed is made again, and the first pause: it doubles. All of them are within every lease.
const MAX_TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(100);

/// Writes what has ended, in batches: while one is written, the next one gathers.
pub(crate) async fn conclude(store: Arc<dyn DeliveryStore>, mut ended: mpsc::Receiver<ConcludedDelivery>) {
    let mut batch = Vec::new();
    while ended.recv_many(&mut batch, MAX_BATCH).await > 0 {
        write(&*store, &batch).await;
        batch.clear();
    }
}

/// Writes a batch; again where that fails, because what is not written is delivered a second time. A batch that was written all the
/// same has lost its leases.
async fn write(store: &dyn DeliveryStore, batch: &[ConcludedDelivery]) {
    for tried in 1..=MAX_TRIES {
        let Err(error) = store.conclude_deliveries(batch).await else { return };
        tracing::error!(
            error = &error as &dyn std::error::Error,
            deliveries = batch.len(),
            tried,
            "what became of deliveries was not written"
        );
        if tried < MAX_TRIES {
            tokio::time::sleep(PAUSE * 2u32.pow(tried - 1)).await;
        }
    }
    tracing::error!(deliveries = batch.len(), "deliveries are left to their leases and will be made again");
}
