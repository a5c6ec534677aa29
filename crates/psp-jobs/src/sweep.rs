//! Sweeps: for attempts and refunds that a gateway has not answered, and for transactions and orders whose message was lost.
//! Workers do the asking.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{
    AttemptStore, Clock, OrderReader, Queue, QueueError, RefundStore, StoreError, Sweep, check_message,
};
use psp_domain::{MessageId, TransactionId};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::stalled_orders::{OrderPlace, ask_for_stalled_orders};

/// The most rows of one write, and of one look.
pub(crate) const BATCH: u32 = 1_000;
/// The longest time between two questions about one attempt or refund.
const MOST_BETWEEN: TimeDelta = TimeDelta::hours(1);
/// How long after it was opened an attempt may have charged before it counts as overdue.
const OVERDUE: TimeDelta = TimeDelta::minutes(15);
/// How long after it was asked for a refund may be pending before it counts as overdue: a gateway may take its time, and says so.
const OVERDUE_REFUND: TimeDelta = TimeDelta::hours(24);
/// The shortest pause between two looks for lost messages.
const LEAST_LOOK: Duration = Duration::from_secs(1);
/// How many pauses pass before the log says again what is overdue.
const WARN_AGAIN: u32 = 10;

/// What sweeps need.
pub struct Sweeps {
    /// Where attempts are.
    pub attempts: Arc<dyn AttemptStore>,
    /// Where refunds are.
    pub refunds: Arc<dyn RefundStore>,
    /// Where orders are.
    pub orders: Arc<dyn OrderReader>,
    /// The store's own queue: the outbox, where there is a broker behind it.
    pub queue: Arc<dyn Queue>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// The shortest time between two questions about one attempt or refund.
    pub least: TimeDelta,
    /// How old a transaction may be that no gateway answers for.
    pub budget: TimeDelta,
}

/// What a gateway may owe an answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unanswered {
    /// Attempts to have a transaction authorized.
    Attempts,
    /// Refunds.
    Refunds,
}

impl Unanswered {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Attempts, Self::Refunds];
}

/// What one sweep found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Those whose time had come: they are asked for.
    pub asked: u64,
    /// Attempts that may have charged, or refunds that may have been given back, and that nobody has answered for long.
    pub overdue: u64,
}

impl Swept {
    /// Alarms look for these lines.
    pub fn warn_if_overdue(&self, what: Unanswered) {
        match what {
            _ if self.overdue == 0 => {}
            Unanswered::Attempts => tracing::warn!(count = self.overdue, "attempts are overdue"),
            Unanswered::Refunds => tracing::warn!(count = self.overdue, "refunds are overdue"),
        }
    }
}

/// One look for transactions whose message was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stalled {
    /// How many there were.
    pub count: u64,
    /// Where the next look goes on; `None` where this one saw the last.
    pub last: Option<TransactionId>,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
pub enum StalledError {
    /// They could not be found.
    #[error("what lost its message cannot be looked for")]
    Store(#[from] StoreError),
    /// They could not be asked for.
    #[error("what lost its message cannot be asked for")]
    Queue(#[from] QueueError),
}

/// Asks for everything of that kind that is unresolved although its time has come: a callback did not come, a void failed, or a
/// worker was killed. Whatever stays unresolved is asked for again, after [`Sweeps::least`] at first and an hour at last.
///
/// # Errors
/// [`StoreError`]: the batches before it were asked for.
pub async fn sweep_unanswered(sweeps: &Sweeps, what: Unanswered) -> Result<Swept, StoreError> {
    let now = sweeps.clock.now();
    let (overdue, gauge) = match what {
        Unanswered::Attempts => {
            (sweeps.attempts.count_overdue(now - OVERDUE).await?, metrics::gauge!("psp_attempts_overdue"))
        }
        Unanswered::Refunds => {
            let overdue = sweeps.refunds.count_overdue_refunds(now - OVERDUE_REFUND).await?;
            (overdue, metrics::gauge!("psp_refunds_overdue"))
        }
    };
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; counts fit 52 bits")]
    gauge.set(overdue as f64);
    let mut swept = Swept { asked: 0, overdue };
    loop {
        let sweep = Sweep { now, limit: BATCH, least: sweeps.least, most: MOST_BETWEEN.max(sweeps.least) };
        let batch = match what {
            Unanswered::Attempts => sweeps.attempts.sweep(sweep).await?,
            Unanswered::Refunds => sweeps.refunds.sweep_refunds(sweep).await?,
        };
        swept.asked += batch;
        if batch < u64::from(BATCH) {
            return Ok(swept);
        }
    }
}

/// Asks for one batch of transactions that are older than twice the budget, `processing`, and with no gateway: they would have
/// ended long ago, so their message was lost. The oldest first, after the one named.
///
/// # Errors
/// [`StalledError`]: none of the batch was asked for.
pub async fn ask_for_stalled(sweeps: &Sweeps, after: Option<TransactionId>) -> Result<Stalled, StalledError> {
    let created = sweeps.clock.now() - sweeps.budget * 2;
    let ids = sweeps.attempts.stalled(created, after, BATCH).await?;
    if ids.is_empty() {
        return Ok(Stalled::default());
    }
    let messages = ids.iter().map(|id| check_message(stalled_message_id(id.0), *id)).collect();
    sweeps.queue.send(messages).await?;
    let is_full = ids.len() == BATCH as usize;
    Ok(Stalled { count: ids.len() as u64, last: ids.last().copied().filter(|_| is_full) })
}

/// The id of the message that asks for a stalled transaction or order. It is always the same, and a queue takes no message twice:
/// while one waits, or is a dead letter, no look sends another. What it asks for has a `UUIDv7`, as other messages have, and this
/// one is a `UUIDv8` of the same bits: no two are equal.
pub(crate) fn stalled_message_id(of: Uuid) -> MessageId {
    const FROM_7_TO_8: u128 = 0xf << 76;
    MessageId(Uuid::from_u128(of.as_u128() ^ FROM_7_TO_8))
}

/// Sweeps with that pause until stopped, and looks for lost messages once per budget, for a batch at a look. Several processes may:
/// each attempt and each refund is asked for by one of them.
pub async fn sweep_until(sweeps: &Sweeps, pause: Duration, stop: CancellationToken) {
    let mut ticks = delaying(pause);
    let mut looks = delaying(sweeps.budget.to_std().unwrap_or_default().max(LEAST_LOOK));
    let (mut warned, mut after, mut place) = ([None; 2], None, OrderPlace::default());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = ticks.tick() => {
                for (what, warned) in Unanswered::ALL.into_iter().zip(&mut warned) {
                    sweep(sweeps, what, warned, pause * WARN_AGAIN).await;
                }
            }
            _ = looks.tick() => {
                look(sweeps, &mut after).await;
                look_for_orders(sweeps, &mut place).await;
            }
        }
    }
}

/// Ticks that never catch up.
fn delaying(pause: Duration) -> Interval {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn sweep(sweeps: &Sweeps, what: Unanswered, warned: &mut Option<Instant>, between: Duration) {
    let swept = match sweep_unanswered(sweeps, what).await {
        Ok(swept) => swept,
        Err(error) => return tracing::error!(error = &error as &dyn std::error::Error, "the sweep failed"),
    };
    match what {
        _ if swept.asked == 0 => {}
        Unanswered::Attempts => {
            tracing::info!(attempts = swept.asked, "gateways are asked for what they have not answered");
        }
        Unanswered::Refunds => tracing::info!(refunds = swept.asked, "gateways are asked for what they owe back"),
    }
    if swept.overdue > 0 && warned.is_none_or(|at| at.elapsed() >= between) {
        *warned = Some(Instant::now());
        swept.warn_if_overdue(what);
    }
}

async fn look(sweeps: &Sweeps, after: &mut Option<TransactionId>) {
    match ask_for_stalled(sweeps, *after).await {
        Ok(stalled) => {
            *after = stalled.last;
            if stalled.count > 0 {
                tracing::warn!(transactions = stalled.count, "transactions whose message was lost are asked for");
            }
        }
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "the look for lost messages failed");
        }
    }
}

/// Sees all there are, or until a batch was asked for.
async fn look_for_orders(sweeps: &Sweeps, place: &mut OrderPlace) {
    let mut count = 0;
    loop {
        match ask_for_stalled_orders(sweeps, *place).await {
            Ok(stalled) => {
                count += stalled.count;
                *place = stalled.next.unwrap_or_default();
                if stalled.next.is_none() || count >= u64::from(BATCH) {
                    break;
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the look for lost messages failed");
                break;
            }
        }
    }
    if count > 0 {
        tracing::warn!(orders = count, "orders whose message was lost are asked for");
    }
}
