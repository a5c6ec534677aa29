use std::sync::Arc;

use async_trait::async_trait;
use metrics::Counter;
use psp_domain::ports::{CALLBACK_MESSAGE_KIND, Delivery};
use psp_domain::usecases::{Applied, Callbacks};
use psp_domain::{CallbackId, CallbackOutcome};

use crate::consumer::{Disposition, Handler, Job};
use crate::transactions::ready;

/// Applies the callbacks of `apply_callback` messages.
pub fn callbacks_handler(callbacks: Arc<Callbacks>) -> Arc<dyn Handler> {
    let count = |o: CallbackOutcome| (o, metrics::counter!("psp_callbacks_total", "outcome" => o.as_str()));
    let concluded = CallbackOutcome::ALL.into_iter().map(count).collect();
    Arc::new(CallbacksHandler { callbacks, concluded: Arc::new(concluded) })
}

struct CallbacksHandler {
    callbacks: Arc<Callbacks>,
    concluded: Arc<Vec<(CallbackOutcome, Counter)>>,
}

#[async_trait]
impl Handler for CallbacksHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let job = |delivery: &Delivery| {
            if delivery.message.kind == CALLBACK_MESSAGE_KIND {
                self.job(CallbackId(delivery.message.aggregate_id))
            } else {
                ready(Disposition::Dead(format!("not a message for this queue: {}", delivery.message.kind)))
            }
        };
        deliveries.iter().map(job).collect()
    }
}

impl CallbacksHandler {
    fn job(&self, id: CallbackId) -> Job {
        let (callbacks, concluded) = (Arc::clone(&self.callbacks), Arc::clone(&self.concluded));
        Box::pin(async move {
            match callbacks.apply(id).await {
                Ok(Applied::Concluded(outcome)) => {
                    if let Some((_, counter)) = concluded.iter().find(|(o, _)| *o == outcome) {
                        counter.increment(1);
                    }
                    if matches!(
                        outcome,
                        CallbackOutcome::WrongAmount | CallbackOutcome::Foreign | CallbackOutcome::TooLate
                    ) {
                        tracing::error!(callback = %id, outcome = outcome.as_str(), "a callback needs a look");
                    }
                    Disposition::Done
                }
                Ok(Applied::Unknown) => Disposition::Dead("there is no such callback".into()),
                Ok(Applied::Retry(reason)) => Disposition::Retry(reason),
                Err(error) => Disposition::Retry(error.to_string()),
            }
        })
    }
}
