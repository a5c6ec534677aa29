use std::sync::Arc;

use async_trait::async_trait;
use backon::Retryable;
use psp_domain::ports::{Delivery, SettlementChunk};
use psp_domain::usecases::SettlePayables;

use crate::consumer::{Disposition, Handler, Job};
use crate::retry::in_place;
use crate::transactions::{is_passing, ready};

/// Settles the chunks of `settle_payables` messages.
pub fn settlement_handler(settle: SettlePayables) -> Arc<dyn Handler> {
    Arc::new(SettlementHandler { settle })
}

struct SettlementHandler {
    settle: SettlePayables,
}

#[async_trait]
impl Handler for SettlementHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let job = |delivery: &Delivery| {
            if delivery.message.kind != SettlementChunk::MESSAGE_KIND {
                return ready(Disposition::Dead(format!("not a message for this queue: {}", delivery.message.kind)));
            }
            match serde_json::from_str(&delivery.message.body) {
                Ok(chunk) => self.job(chunk),
                Err(error) => ready(Disposition::Dead(format!("not a settlement chunk: {error}"))),
            }
        };
        deliveries.iter().map(job).collect()
    }
}

impl SettlementHandler {
    fn job(&self, chunk: SettlementChunk) -> Job {
        let settle = self.settle.clone();
        Box::pin(async move {
            match (|| settle.settle(chunk)).retry(in_place()).when(is_passing).await {
                Ok(Some(settled)) => {
                    tracing::debug!(run = %chunk.run_id, chunk = chunk.number, payables = settled.payables, "settled");
                    metrics::counter!("psp_settled_payables_total").increment(settled.payables);
                    Disposition::Done
                }
                Ok(None) => Disposition::Dead("there is no such settlement chunk".into()),
                Err(error) => Disposition::Retry(error.to_string()),
            }
        })
    }
}
