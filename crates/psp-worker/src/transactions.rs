use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use backon::Retryable;
use metrics::Counter;
use psp_domain::ports::{CHECK_MESSAGE_KIND, Delivery, StoreError, TransactionReader, UnauthorizedTransaction};
use psp_domain::usecases::{AuthorizeError, AuthorizeOutcome, AuthorizeTransaction};
use psp_domain::{EventKind, QueueName, TransactionId, TransactionStatus};

use crate::consumer::{Disposition, Handler, Job};
use crate::retry::in_place;

/// Authorizes the transactions of `transaction.created` messages, and of those that ask for another look. Each batch is
/// loaded with one read.
///
/// Bound the gateways' answers with [`crate::TimeoutGateway`], and let the use case write through [`crate::RetryingStore`].
pub fn transactions_handler(
    authorize: Arc<AuthorizeTransaction>,
    transactions: Arc<dyn TransactionReader>,
) -> Arc<dyn Handler> {
    let count = |s: TransactionStatus| (s, metrics::counter!("psp_transactions_total", "status" => s.as_str()));
    let ended = TransactionStatus::ALL.into_iter().map(count).collect();
    Arc::new(TransactionsHandler { authorize, transactions, ended: Arc::new(ended) })
}

/// The most rounds of a last delivery.
const LAST_ROUNDS: u32 = 3;

#[derive(Clone)]
struct TransactionsHandler {
    authorize: Arc<AuthorizeTransaction>,
    transactions: Arc<dyn TransactionReader>,
    ended: Arc<Vec<(TransactionStatus, Counter)>>,
}

#[async_trait]
impl Handler for TransactionsHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let ids: Vec<_> = deliveries.iter().map(|d| TransactionId(d.message.aggregate_id)).collect();
        let loaded = match self.load(&ids).await {
            Ok(loaded) => loaded,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "loading a batch failed");
                // A row that makes no sense holds no other back.
                if matches!(error, StoreError::Damaged(_)) && deliveries.len() > 1 {
                    let apart = deliveries.iter().map(|delivery| self.prepare(std::slice::from_ref(delivery)));
                    return futures::future::join_all(apart).await.into_iter().flatten().collect();
                }
                return deliveries.iter().map(|_| ready(Disposition::Retry(error.to_string()))).collect();
            }
        };
        let loaded: HashMap<_, _> = loaded.into_iter().map(|l| (l.transaction.id, l)).collect();
        let job = |delivery: &Delivery| {
            let kind = delivery.message.kind.as_str();
            if kind != EventKind::TransactionCreated.as_str() && kind != CHECK_MESSAGE_KIND {
                return ready(Disposition::Dead(format!("not a message for this queue: {kind}")));
            }
            // A transaction can be in a batch twice: messages are delivered at least once.
            match loaded.get(&TransactionId(delivery.message.aggregate_id)) {
                Some(transaction) => self.job(transaction.clone(), delivery.receive_count >= QueueName::MAX_RECEIVES),
                None => ready(Disposition::Dead("there is no such transaction".into())),
            }
        };
        deliveries.iter().map(job).collect()
    }
}

impl TransactionsHandler {
    async fn load(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError> {
        (|| self.transactions.load_for_authorization(ids)).retry(in_place()).when(is_passing).await
    }

    fn job(&self, loaded: UnauthorizedTransaction, is_last: bool) -> Job {
        let handler = self.clone();
        Box::pin(async move {
            let id = loaded.transaction.id;
            match handler.rounds(loaded, is_last).await {
                Ok(AuthorizeOutcome::Done(status)) => {
                    if let Some((_, counter)) = handler.ended.iter().find(|(s, _)| *s == status) {
                        counter.increment(1);
                    }
                    Disposition::Done
                }
                Ok(AuthorizeOutcome::Waiting(reason)) => {
                    tracing::info!(transaction = %id, reason, "waits for its gateway");
                    Disposition::Done
                }
                Ok(AuthorizeOutcome::Retry(reason)) => Disposition::Retry(reason),
                Ok(AuthorizeOutcome::Overtaken) => Disposition::Retry("another worker was faster".into()),
                Err(error) => Disposition::Retry(error.to_string()),
            }
        })
    }

    /// One round; at the last delivery another one where somebody else wrote meanwhile, because nobody would come back.
    async fn rounds(
        &self,
        mut loaded: UnauthorizedTransaction,
        is_last: bool,
    ) -> Result<AuthorizeOutcome, AuthorizeError> {
        let id = loaded.transaction.id;
        for _ in 1..LAST_ROUNDS {
            let outcome = self.authorize.execute(loaded, is_last).await?;
            if !is_last || outcome != AuthorizeOutcome::Overtaken {
                return Ok(outcome);
            }
            let Some(again) = self.load(&[id]).await?.pop() else { return Ok(outcome) };
            loaded = again;
        }
        self.authorize.execute(loaded, is_last).await
    }
}

/// Whether asking the store again soon may help.
pub(crate) fn is_passing(error: &StoreError) -> bool {
    !matches!(error, StoreError::Damaged(_))
}

pub(crate) fn ready(disposition: Disposition) -> Job {
    Box::pin(std::future::ready(disposition))
}
