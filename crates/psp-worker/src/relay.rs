use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use psp_domain::QueueName;
use psp_domain::ports::{Delivery, Outbox, Queue, QueueError};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::RetryPolicy;
use crate::consumer::LAST_CLAIM;

/// What a relay may use.
#[derive(Debug, Clone, Copy)]
pub struct RelayOptions {
    /// The most messages of one claim.
    pub page: usize,
    /// How long one claim waits for messages.
    pub wait: Duration,
    /// The delays after the broker failed.
    pub retry: RetryPolicy,
}

impl Default for RelayOptions {
    fn default() -> Self {
        Self { page: 400, wait: Duration::from_secs(20), retry: RetryPolicy::default() }
    }
}

/// Moves messages of a queue from the outbox to the broker until stopped; then finishes those in hand.
///
/// Any number of relays may run at once: a message is leased to one of them, and the next event of its aggregate only after
/// it was sent. What a relay had in hand when it died is sent again when the lease runs out. While the broker fails, the
/// relay claims nothing and asks again at growing intervals: the outbox keeps what waits.
pub async fn relay(
    outbox: Arc<dyn Outbox>,
    broker: Arc<dyn Queue>,
    name: QueueName,
    options: RelayOptions,
    stop: CancellationToken,
) {
    let sent = metrics::counter!("psp_relay_sent_total", "queue" => name.as_str());
    let failed = metrics::counter!("psp_relay_failures_total", "queue" => name.as_str());
    let mut failures = 0;
    while !stop.is_cancelled() {
        let outcome = match claim(&*outbox, name, options, &stop).await {
            Ok(messages) if messages.is_empty() => continue,
            Ok(messages) => {
                // No longer than the pause: what waits must go when the broker is back.
                let delay = options.retry.delay(failures + 1).min(MAX_PAUSE);
                pass_on(&*outbox, &*broker, messages, delay).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(count) => {
                failures = 0;
                sent.increment(count as u64);
            }
            Err(error) => {
                failures += 1;
                failed.increment(1);
                let delay = options.retry.delay(failures).min(MAX_PAUSE);
                tracing::error!(queue = %name, error = &error as &dyn std::error::Error, ?delay, "relaying failed");
                let _ = timeout(delay, stop.cancelled()).await;
            }
        }
    }
}

/// The longest pause of a relay whose broker fails: it must notice soon when the broker is back.
const MAX_PAUSE: Duration = Duration::from_secs(15);

async fn claim(
    outbox: &dyn Outbox,
    name: QueueName,
    options: RelayOptions,
    stop: &CancellationToken,
) -> Result<Vec<Delivery>, QueueError> {
    let mut claim = outbox.claim(name, options.page, options.wait);
    tokio::select! {
        claimed = &mut claim => claimed,
        // Messages that are just being claimed would wait for the end of their lease if nobody took them.
        () = stop.cancelled() => timeout(LAST_CLAIM, claim).await.unwrap_or(Ok(Vec::new())),
    }
}

/// Sends what was claimed. What the broker did not take is put back for a while; the rest is marked. Returns how many were
/// sent.
async fn pass_on(
    outbox: &dyn Outbox,
    broker: &dyn Queue,
    claimed: Vec<Delivery>,
    delay: Duration,
) -> Result<usize, QueueError> {
    let messages = claimed.iter().map(|delivery| delivery.message.clone()).collect();
    let error = match broker.send(messages).await {
        Ok(()) => {
            outbox.mark_sent(&claimed).await?;
            return Ok(claimed.len());
        }
        Err(error) => error,
    };
    let refused: HashMap<_, _> = match &error {
        QueueError::Refused(refused) => refused.iter().cloned().collect(),
        QueueError::Unavailable(_) => {
            claimed.iter().map(|d| (d.message.id, "the broker is unavailable".into())).collect()
        }
    };
    let (back, sent): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|d| refused.contains_key(&d.message.id));
    outbox.mark_sent(&sent).await?;
    let reason = back.first().and_then(|delivery| refused.get(&delivery.message.id)).cloned().unwrap_or_default();
    outbox.put_back(&back, delay, &reason).await?;
    Err(error)
}
