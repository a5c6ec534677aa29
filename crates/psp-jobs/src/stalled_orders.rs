use chrono::TimeDelta;
use psp_domain::OrderId;
use psp_domain::ports::order_message;
use psp_domain::usecases::OrderSaga;

use crate::sweep::{BATCH, StalledError, Sweeps, stalled_message_id};

/// How long an order is looked at after it was cancelled: by then its money was given back, or somebody knows that it is kept.
const CANCELLED_FOR: TimeDelta = TimeDelta::days(7);

/// Where a look for orders goes on: through those that wait, then through those that were cancelled, each after the one named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderPlace {
    /// By their ids.
    Waiting(Option<OrderId>),
    /// By when they were cancelled.
    Cancelled(Option<OrderId>),
}

impl Default for OrderPlace {
    /// The beginning.
    fn default() -> Self {
        Self::Waiting(None)
    }
}

/// One look for orders whose message was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StalledOrders {
    /// How many there were.
    pub count: u64,
    /// Where the next look goes on; `None` where this one saw the last.
    pub next: Option<OrderPlace>,
}

/// Asks for those of one batch of orders that have not changed for twice the budget, nor their payments, although an event should
/// have changed them: the message was lost, or the release before ended the payment and said nothing to its order. Says that
/// event again.
///
/// # Errors
/// [`StalledError`]: none of the batch was asked for.
pub async fn ask_for_stalled_orders(sweeps: &Sweeps, place: OrderPlace) -> Result<StalledOrders, StalledError> {
    let now = sweeps.clock.now();
    let before = now - sweeps.budget * 2;
    let seen = match place {
        OrderPlace::Waiting(after) => sweeps.orders.waiting_orders(before, after, BATCH).await?,
        OrderPlace::Cancelled(after) => {
            sweeps.orders.cancelled_orders(now - CANCELLED_FOR, before, after, BATCH).await?
        }
    };
    let unanswered = seen.iter().filter_map(|order| {
        let kind = OrderSaga::unanswered(order, before)?;
        Some(order_message(stalled_message_id(order.id.0), kind, order))
    });
    let messages: Vec<_> = unanswered.collect();
    let count = messages.len() as u64;
    if !messages.is_empty() {
        sweeps.queue.send(messages).await?;
    }
    let last = seen.last().map(|order| order.id).filter(|_| seen.len() == BATCH as usize);
    let next = match (place, last) {
        (OrderPlace::Waiting(_), None) => Some(OrderPlace::Cancelled(None)),
        (OrderPlace::Waiting(_), last) => Some(OrderPlace::Waiting(last)),
        (OrderPlace::Cancelled(_), None) => None,
        (OrderPlace::Cancelled(_), last) => Some(OrderPlace::Cancelled(last)),
    };
    Ok(StalledOrders { count, next })
}
