//! Looks for orders whose message was lost, over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{Clock, DeadLetters, Delivery, OrderReader, Queue, Store, UuidV7Generator};
use psp_domain::{ChangeSet, EventKind, Order, OrderId, QueueName, Transaction};
use psp_jobs::{OrderPlace, StalledOrders, Sweeps, ask_for_stalled_orders};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::Memory;
use psp_testkit::fixtures;
use serde_json::Value;

const BUDGET: Duration = Duration::from_mins(15);

struct World {
    clock: Arc<FixedClock>,
    memory: Arc<Memory>,
    sweeps: Sweeps,
}

fn world() -> World {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let sweeps = Sweeps {
        attempts: memory.clone(),
        refunds: memory.clone(),
        orders: memory.clone(),
        queue: memory.clone(),
        clock: clock.clone(),
        least: TimeDelta::minutes(1),
        budget: TimeDelta::minutes(15),
    };
    World { clock, memory, sweeps }
}

impl World {
    async fn write(&self, change: ChangeSet) {
        self.memory.apply(change).await.unwrap();
    }

    async fn place(&self) -> Order {
        let (order, change) = fixtures::place(&fixtures::new_order("123", 1_000), self.clock.now());
        self.write(change).await;
        order
    }

    /// An order with a payment, which no gateway has answered yet.
    async fn paying(&self) -> (Order, Transaction) {
        let (payment, change) = fixtures::pay_order(&self.place().await, self.clock.now());
        let order = change.order.as_ref().unwrap().order().clone();
        self.write(change).await;
        (order, payment)
    }

    /// The payment is approved, and the order is told nothing.
    async fn approve(&self, payment: &Transaction) -> Transaction {
        let approval = fixtures::approve(payment, self.clock.now());
        let approved = fixtures::written(&approval).clone();
        self.write(approval).await;
        approved
    }

    async fn cancel(&self, order: Order) {
        let cancelled = order.cancel("requested", self.clock.now(), &UuidV7Generator).unwrap();
        self.write(fixtures::stepped(cancelled).1).await;
    }

    async fn fail_refund(&self, payment: &Transaction) -> Transaction {
        let asked = fixtures::ask_refund(payment, None, self.clock.now());
        let (pending, refund) = (fixtures::written(&asked).clone(), asked.refunds[0].clone());
        self.write(asked).await;
        let failed = pending.fail_refund(refund, "no", &[], self.clock.now(), &UuidV7Generator).unwrap();
        let failed = fixtures::executed(failed);
        let payment = fixtures::written(&failed).clone();
        self.write(failed).await;
        payment
    }

    async fn received(&self) -> Vec<Delivery> {
        self.memory.receive(QueueName::Orders, usize::MAX, Duration::ZERO).await.unwrap()
    }

    /// Does away with every message.
    async fn lose(&self) {
        self.memory.ack(&self.received().await).await.unwrap();
    }

    /// Looks through all.
    async fn look(&self) -> u64 {
        let (mut count, mut place) = (0, Some(OrderPlace::default()));
        while let Some(from) = place {
            let stalled = ask_for_stalled_orders(&self.sweeps, from).await.unwrap();
            (count, place) = (count + stalled.count, stalled.next);
        }
        count
    }
}

/// The order and the event that a message is about, as the handler of orders reads it.
fn said(delivery: &Delivery) -> (OrderId, EventKind) {
    let message = &delivery.message;
    let data: Value = serde_json::from_str(&message.body).unwrap();
    assert!(data["correlation_id"].is_string());
    let kind = EventKind::from_name(&message.kind).unwrap();
    let order = data["order_id"].as_str().unwrap().parse().unwrap();
    assert!(!message.kind.starts_with("order.") || OrderId(message.aggregate_id) == order);
    (order, kind)
}

#[tokio::test]
async fn orders_that_miss_an_event_hear_it_again_after_twice_the_budget() {
    let world = world();
    let now = || world.clock.now();
    let mut expected = Vec::new();
    expected.push((world.place().await.id, EventKind::OrderCreateRequested));
    let (created, change) = fixtures::stepped(world.place().await.create(now(), &UuidV7Generator));
    world.write(change).await;
    expected.push((created.id, EventKind::OrderCreated));
    let (order, payment) = world.paying().await;
    world.approve(&payment).await;
    expected.push((order.id, EventKind::PaymentApproved));
    for (kind, end) in [
        (EventKind::PaymentDeclined, Transaction::decline as fn(_, _, _, _) -> _),
        (EventKind::PaymentFailed, Transaction::fail),
    ] {
        let (order, payment) = world.paying().await;
        world.write(fixtures::executed(end(payment, "no", now(), &UuidV7Generator).unwrap())).await;
        expected.push((order.id, kind));
    }
    let (order, payment) = world.paying().await;
    world.write(fixtures::executed(payment.cancel(now(), &UuidV7Generator).unwrap())).await;
    expected.push((order.id, EventKind::PaymentCancelled));
    let (order, payment) = world.paying().await;
    world.approve(&payment).await;
    let (paid, change) = fixtures::stepped(order.pay(now(), &UuidV7Generator).unwrap());
    world.write(change).await;
    world.write(fixtures::stepped(paid.clone().request_cancel(now(), &UuidV7Generator).unwrap()).1).await;
    expected.push((paid.id, EventKind::OrderCancelRequested));
    for failed in 0..4 {
        let (order, payment) = world.paying().await;
        let mut payment = world.approve(&payment).await;
        for _ in 0..failed {
            payment = world.fail_refund(&payment).await;
        }
        let id = order.id;
        world.cancel(order).await;
        match failed {
            0 => expected.push((id, EventKind::OrderCancelled)),
            1 | 2 => expected.push((id, EventKind::PaymentRefundFailed)),
            // Somebody knows of it.
            _ => {}
        }
    }

    // These are as they should be: a payment that waits for its gateway or for its refund, and an order that was paid.
    world.paying().await;
    let (order, payment) = world.paying().await;
    let approved = world.approve(&payment).await;
    world.cancel(order).await;
    world.write(fixtures::ask_refund(&approved, None, now())).await;
    let (order, payment) = world.paying().await;
    world.approve(&payment).await;
    world.write(fixtures::stepped(order.pay(now(), &UuidV7Generator).unwrap()).1).await;

    world.lose().await;
    world.clock.advance(2 * BUDGET);
    assert_eq!(world.look().await, 0, "not older");
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.look().await, expected.len() as u64);
    let mut found: Vec<_> = world.received().await.iter().map(said).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn what_was_cancelled_long_ago_is_left_to_people() {
    let world = world();
    let (order, payment) = world.paying().await;
    world.approve(&payment).await;
    world.cancel(order).await;
    world.lose().await;
    world.clock.advance_days(7);
    assert_eq!(world.look().await, 1);
    world.clock.advance(Duration::from_secs(1));
    assert_eq!(world.look().await, 0);
}

#[tokio::test]
async fn an_event_is_said_again_only_once_its_message_is_gone() {
    let world = world();
    let order = world.place().await;
    world.lose().await;
    world.clock.advance(3 * BUDGET);
    for _ in 0..3 {
        assert_eq!(world.look().await, 1);
    }
    let first = world.received().await;
    assert_eq!(first.len(), 1);
    world.memory.dead_letter(&first[0], "in vain").await.unwrap();
    world.look().await;
    assert!(world.received().await.is_empty(), "a dead letter waits for a person");
    assert!(world.memory.discard(first[0].message.id).await.unwrap());
    world.look().await;
    assert_eq!(
        world.received().await.iter().map(said).collect::<Vec<_>>(),
        [(order.id, EventKind::OrderCreateRequested)]
    );
}

#[tokio::test]
async fn looks_go_on_where_the_one_before_ended() {
    let world = world();
    for _ in 0..1_000 {
        world.place().await;
    }
    let (order, payment) = world.paying().await;
    world.approve(&payment).await;
    let last = world.place().await;
    world.cancel(order).await;
    world.lose().await;
    world.clock.advance(3 * BUDGET);
    let waiting = world.memory.waiting_orders(world.clock.now(), None, 1_000).await.unwrap();
    let second = OrderPlace::Waiting(waiting.last().map(|order| order.id));
    let look = async |place| ask_for_stalled_orders(&world.sweeps, place).await.unwrap();
    assert_eq!(look(OrderPlace::default()).await, StalledOrders { count: 1_000, next: Some(second) });
    world.lose().await;
    let third = OrderPlace::Cancelled(None);
    assert_eq!(look(second).await, StalledOrders { count: 1, next: Some(third) });
    assert_eq!(world.received().await.iter().map(said).next().unwrap().0, last.id);
    assert_eq!(look(third).await, StalledOrders { count: 1, next: None });
}
