use std::sync::Arc;

use async_trait::async_trait;
use backon::Retryable;
use metrics::Counter;
use psp_domain::ports::{CHECK_REFUND_MESSAGE_KIND, Delivery, Message};
use psp_domain::usecases::{RefundError, RefundOutcome, RefundTransaction};
use psp_domain::{EventKind, QueueName, RefundId, RefundStatus};
use serde_json::Value;

use crate::consumer::{Disposition, Handler, Job};
use crate::retry::in_place;
use crate::transactions::{is_passing, ready};

/// Asks gateways for the refunds of `transaction.refund_requested` messages, and of those that ask for another look.
///
/// Bound the gateways' answers with [`crate::TimeoutGateway`], and let the use case write through [`crate::RetryingStore`].
pub fn refunds_handler(refunds: Arc<RefundTransaction>) -> Arc<dyn Handler> {
    let count = |s: RefundStatus| (s, metrics::counter!("psp_refunds_total", "status" => s.as_str()));
    Arc::new(RefundsHandler { refunds, ended: Arc::new(RefundStatus::ALL.into_iter().map(count).collect()) })
}

#[derive(Clone)]
struct RefundsHandler {
    refunds: Arc<RefundTransaction>,
    ended: Arc<Vec<(RefundStatus, Counter)>>,
}

#[async_trait]
impl Handler for RefundsHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let job = |delivery: &Delivery| match Asked::of(&delivery.message) {
            Ok(asked) => self.job(asked, delivery.receive_count >= QueueName::MAX_RECEIVES),
            Err(reason) => ready(Disposition::Dead(reason)),
        };
        deliveries.iter().map(job).collect()
    }
}

/// What a message asks for.
struct Asked {
    refund: RefundId,
    correlation_id: Option<String>,
}

impl Asked {
    fn of(message: &Message) -> Result<Self, String> {
        if message.kind == CHECK_REFUND_MESSAGE_KIND {
            return Ok(Self { refund: RefundId(message.aggregate_id), correlation_id: None });
        }
        if message.kind != EventKind::TransactionRefundRequested.as_str() {
            return Err(format!("not a message for this queue: {}", message.kind));
        }
        let data: Value = serde_json::from_str(&message.body).map_err(|error| format!("not an event: {error}"))?;
        let refund = data["refund"]["id"].as_str().and_then(|id| id.parse().ok()).ok_or("it names no refund")?;
        Ok(Self { refund, correlation_id: data["correlation_id"].as_str().map(str::to_owned) })
    }
}

impl RefundsHandler {
    fn job(&self, asked: Asked, is_last: bool) -> Job {
        let handler = self.clone();
        Box::pin(async move {
            let Asked { refund, correlation_id } = asked;
            let perform = || handler.refunds.perform(refund, is_last);
            match perform.retry(in_place()).when(is_passing_for_refund).await {
                Ok(RefundOutcome::Done(status)) => {
                    if let Some((_, counter)) = handler.ended.iter().find(|(s, _)| *s == status) {
                        counter.increment(1);
                    }
                    tracing::info!(%refund, correlation_id, status = status.as_str(), "a refund has ended");
                    Disposition::Done
                }
                Ok(RefundOutcome::Waiting(reason)) => {
                    tracing::info!(%refund, correlation_id, reason, "waits for its gateway");
                    Disposition::Done
                }
                Ok(RefundOutcome::Retry(reason)) => Disposition::Retry(reason),
                // A sweep asks for it.
                Ok(RefundOutcome::Overtaken) if is_last => Disposition::Done,
                Ok(RefundOutcome::Overtaken) => Disposition::Retry("the transaction changes too often".into()),
                Ok(RefundOutcome::Unknown) => Disposition::Dead("there is no such refund".into()),
                Err(error) => Disposition::Retry(error.to_string()),
            }
        })
    }
}

/// Whether trying again soon may help.
pub(crate) fn is_passing_for_refund(error: &RefundError) -> bool {
    matches!(error, RefundError::Store(error) if is_passing(error))
}
