use std::sync::Arc;

use async_trait::async_trait;
use backon::Retryable;
use metrics::Counter;
use psp_domain::ports::{Delivery, Message};
use psp_domain::usecases::{CancelError, OrderOutcome, OrderSaga, OrderSagaError};
use psp_domain::{EventKind, OrderId, OrderStatus, QueueName};
use serde_json::Value;

use crate::consumer::{Disposition, Handler, Job};
use crate::refunds_handler::is_passing_for_refund;
use crate::retry::in_place;
use crate::transactions::{is_passing, ready};

/// Lets orders and their payments answer each other's events.
///
/// Let the use case write through [`crate::RetryingStore`].
pub fn orders_handler(saga: Arc<OrderSaga>) -> Arc<dyn Handler> {
    let count = |s: OrderStatus| (s, metrics::counter!("psp_orders_total", "status" => s.as_str()));
    Arc::new(OrdersHandler { saga, ended: Arc::new(OrderStatus::ALL.into_iter().map(count).collect()) })
}

#[derive(Clone)]
struct OrdersHandler {
    saga: Arc<OrderSaga>,
    /// Statuses that orders came to; those that were placed are in none.
    ended: Arc<Vec<(OrderStatus, Counter)>>,
}

#[async_trait]
impl Handler for OrdersHandler {
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job> {
        let job = |delivery: &Delivery| match Heard::of(&delivery.message) {
            Ok(heard) => self.job(heard),
            Err(reason) => ready(Disposition::Dead(reason)),
        };
        deliveries.iter().map(job).collect()
    }
}

/// An event of an order or of its payment.
struct Heard {
    kind: EventKind,
    order: OrderId,
    correlation_id: Option<String>,
}

impl Heard {
    fn of(message: &Message) -> Result<Self, String> {
        let kind = EventKind::from_name(&message.kind).filter(|kind| kind.queue() == Some(QueueName::Orders));
        let kind = kind.ok_or_else(|| format!("not a message for this queue: {}", message.kind))?;
        let data: Value = serde_json::from_str(&message.body).map_err(|error| format!("not an event: {error}"))?;
        let order = if kind.as_str().starts_with("order.") {
            OrderId(message.aggregate_id)
        } else {
            data["order_id"].as_str().and_then(|id| id.parse().ok()).ok_or("it names no order")?
        };
        Ok(Self { kind, order, correlation_id: data["correlation_id"].as_str().map(str::to_owned) })
    }
}

impl OrdersHandler {
    fn job(&self, heard: Heard) -> Job {
        let handler = self.clone();
        Box::pin(async move {
            let Heard { kind, order, correlation_id } = heard;
            let event = kind.as_str();
            let handle = || handler.saga.handle(kind, order);
            match handle.retry(in_place()).when(is_passing_for_order).await {
                Ok(OrderOutcome::Became(status)) => {
                    if let Some((_, counter)) = handler.ended.iter().find(|(s, _)| *s == status) {
                        counter.increment(1);
                    }
                    tracing::info!(%order, correlation_id, event, status = status.as_str(), "an order has a new status");
                    Disposition::Done
                }
                Ok(OrderOutcome::Done) => {
                    tracing::debug!(%order, correlation_id, event, "answered");
                    Disposition::Done
                }
                Ok(OrderOutcome::Retry(reason)) => Disposition::Retry(reason),
                Ok(OrderOutcome::NeedsAPerson(reason)) => {
                    tracing::error!(%order, correlation_id, event, reason, "an order needs a look");
                    Disposition::Dead(reason)
                }
                Ok(OrderOutcome::Unknown) => Disposition::Dead("there is no such order".into()),
                Err(error) => {
                    let cause = &error as &dyn std::error::Error;
                    tracing::warn!(%order, correlation_id, event, error = cause, "an event could not be answered");
                    Disposition::Retry(error.to_string())
                }
            }
        })
    }
}

/// Whether trying again soon may help.
fn is_passing_for_order(error: &OrderSagaError) -> bool {
    match error {
        OrderSagaError::Store(error) | OrderSagaError::Cancel(CancelError::Store(error)) => is_passing(error),
        OrderSagaError::Cancel(CancelError::Illegal(_)) => false,
        OrderSagaError::Refund(error) => is_passing_for_refund(error),
    }
}
