//! Looks for orders whose message was lost.

use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{Clock, OrderProgress, PaymentProgress, UuidV7Generator};
use psp_domain::{Order, OrderStatus, Transaction, TransactionStatus, Verdict};

use super::load;
use super::orders::{go, place, place_and_pay};
use crate::{Ports, fixtures};

const MINUTE: Duration = Duration::from_mins(1);
const CREATE: u64 = 0;
const PAY: u64 = 1;
const FAIL: u64 = 2;
const REQUEST_CANCEL: u64 = 3;
const CANCEL: u64 = 4;

async fn approve(ports: &Ports, payment: &Transaction) -> Transaction {
    let change = fixtures::approve(payment, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    load(ports, payment).await
}

/// Asks for a refund of the whole, which fails.
async fn fail_refund(ports: &Ports, payment: &Transaction) {
    let (now, asked) = (ports.clock.now(), fixtures::ask_refund(&load(ports, payment).await, None, ports.clock.now()));
    let id = asked.refunds[0].id;
    assert_eq!(ports.store.apply(asked).await.unwrap(), Verdict::Applied);
    let of = ports.refunds.load_refund(id).await.unwrap().expect("the refund");
    let next = of.transaction.fail_refund(of.refund, "no", &of.payables, now, &UuidV7Generator).unwrap();
    assert_eq!(ports.store.apply(fixtures::executed(next)).await.unwrap(), Verdict::Applied);
}

/// How far an order is that has no payment.
fn progress(order: &Order) -> OrderProgress {
    OrderProgress {
        id: order.id,
        status: order.status,
        is_created: order.is_created,
        is_cancel_requested: order.is_cancel_requested,
        correlation_id: order.correlation_id.clone(),
        payment: None,
        updated_at: order.updated_at,
    }
}

/// How far an order is with a payment of which nothing was given back.
async fn with_payment(ports: &Ports, order: &Order, payment: &Transaction, failed_refunds: usize) -> OrderProgress {
    let payment = load(ports, payment).await;
    let (status, refundable) = (payment.status, payment.amount.minor());
    let updated_at = order.updated_at.max(payment.updated_at);
    let payment = PaymentProgress { id: payment.id, status, refundable, failed_refunds };
    OrderProgress { payment: Some(payment), updated_at, ..progress(order) }
}

pub async fn orders_that_wait_are_found_with_how_far_their_payments_are(ports: Ports) {
    let begun = ports.clock.now();
    let mut waiting = vec![progress(&place(&ports, "123", 1000).await)];
    let created = place(&ports, "456", 1000).await;
    waiting.push(progress(&go(&ports, &created, CREATE).await));
    let (order, payment) = place_and_pay(&ports, "123", 1000).await;
    waiting.push(with_payment(&ports, &order, &payment, 0).await);
    ports.clock.advance(MINUTE);
    let (order, payment) = place_and_pay(&ports, "123", 1000).await;
    ports.clock.advance(MINUTE);
    approve(&ports, &payment).await;
    waiting.push(with_payment(&ports, &order, &payment, 0).await);
    assert_eq!(waiting[3].payment.unwrap().status, TransactionStatus::PendingPayment);
    assert_eq!(waiting[3].updated_at, begun + 2 * MINUTE, "when its payment changed");
    let (order, payment) = place_and_pay(&ports, "123", 1000).await;
    approve(&ports, &payment).await;
    let paid = go(&ports, &order, PAY).await;
    waiting.push(with_payment(&ports, &go(&ports, &paid, REQUEST_CANCEL).await, &payment, 0).await);
    for end in [PAY, FAIL, CANCEL] {
        let (order, _) = place_and_pay(&ports, "123", 1000).await;
        go(&ports, &order, end).await;
    }
    ports.clock.advance(MINUTE);
    let now = ports.clock.now();
    place(&ports, "123", 1000).await;

    let found = async |before, after, limit| ports.orders.waiting_orders(before, after, limit).await.unwrap();
    assert_eq!(found(now, None, 100).await, waiting);
    assert_eq!(found(now, None, 2).await, waiting[..2]);
    assert_eq!(found(now, Some(waiting[1].id), 2).await, waiting[2..4]);
    assert_eq!(found(now, Some(waiting[4].id), 2).await, []);
    assert_eq!(found(begun + TimeDelta::minutes(1), None, 100).await, waiting[..3]);
    assert_eq!(found(begun, None, 100).await, []);
}

pub async fn orders_that_were_cancelled_are_found_by_when_and_with_what_is_kept(ports: Ports) {
    let without_payment = place(&ports, "123", 1000).await;
    let (last, of_last) = place_and_pay(&ports, "123", 1000).await;
    ports.clock.advance(MINUTE);
    let begun = ports.clock.now();
    go(&ports, &without_payment, CANCEL).await;
    let mut cancelled = Vec::new();
    for failed in 0..3 {
        let (order, payment) = place_and_pay(&ports, "123", 1000).await;
        approve(&ports, &payment).await;
        for _ in 0..failed {
            fail_refund(&ports, &payment).await;
        }
        let order = go(&ports, &order, CANCEL).await;
        cancelled.push(with_payment(&ports, &order, &payment, failed).await);
    }
    ports.clock.advance(MINUTE);
    let last = go(&ports, &last, CANCEL).await;
    cancelled.push(with_payment(&ports, &last, &of_last, 0).await);
    assert!(cancelled.iter().all(|order| order.status == OrderStatus::Cancelled));
    let (paid, payment) = place_and_pay(&ports, "123", 1000).await;
    approve(&ports, &payment).await;
    go(&ports, &paid, PAY).await;
    ports.clock.advance(MINUTE);
    let now = ports.clock.now();

    let found =
        async |since, before, after, limit| ports.orders.cancelled_orders(since, before, after, limit).await.unwrap();
    assert_eq!(found(begun, now, None, 100).await, cancelled);
    assert_eq!(found(begun, now, None, 2).await, cancelled[..2]);
    assert_eq!(found(begun, now, Some(cancelled[1].id), 1).await, cancelled[2..3]);
    assert_eq!(found(begun, now, Some(cancelled[2].id), 2).await, cancelled[3..]);
    assert_eq!(found(begun, now, Some(cancelled[3].id), 2).await, []);
    assert_eq!(found(begun, begun + MINUTE, None, 100).await, cancelled[..3]);
    assert_eq!(found(begun + MINUTE, now, None, 100).await, cancelled[3..]);
    assert_eq!(found(begun, begun, None, 100).await, []);
}
