use std::collections::BTreeMap;
use std::sync::Arc;

use psp_domain::ports::{Clock, UuidV7Generator};
use psp_domain::{
    ChangeSet, CountSubject, Order, OrderId, OrderPaymentStatus, OrderStatus, OrderWrite, PageRequest, Position,
    QueueName, RefundFeePolicy, StatusCount, Transaction, TransactionKind, TransactionStatus, Verdict,
};
use uuid::Uuid;

use super::races::race;
use super::{load, messages, payables, received};
use crate::{Ports, fixtures};

/// Places an order.
pub(super) async fn place(ports: &Ports, customer: &str, minor: i64) -> Order {
    let (order, change) = fixtures::place(&fixtures::new_order(customer, minor), ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    order
}

pub(super) async fn load_order(ports: &Ports, order: &Order) -> Order {
    ports.orders.load_order(order.id).await.unwrap().expect("the order")
}

/// Places an order and creates its payment.
pub(super) async fn place_and_pay(ports: &Ports, customer: &str, minor: i64) -> (Order, Transaction) {
    let order = place(ports, customer, minor).await;
    let (payment, change) = fixtures::pay_order(&order, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    (load_order(ports, &order).await, payment)
}

/// The transition of that number from an order, and its change set.
fn step(order: &Order, number: u64, ports: &Ports) -> Option<(Order, ChangeSet)> {
    let (now, order) = (ports.clock.now(), order.clone());
    let next = match number {
        0 => Ok(order.create(now, &UuidV7Generator)),
        1 => order.pay(now, &UuidV7Generator),
        2 => order.fail("failed", now, &UuidV7Generator),
        3 => order.request_cancel(now, &UuidV7Generator),
        _ => order.cancel("requested", now, &UuidV7Generator),
    };
    let next = next.ok().filter(|next| *next != psp_domain::OrderTransition::AlreadyApplied);
    next.map(fixtures::stepped)
}

/// Writes that transition.
pub(super) async fn go(ports: &Ports, order: &Order, number: u64) -> Order {
    let (next, change) = step(order, number, ports).expect("a transition");
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    assert_eq!(load_order(ports, order).await, next);
    next
}

/// Status, number and sum of a customer's counts.
async fn counts(ports: &Ports, customer: &str, subject: CountSubject) -> Vec<(String, i64, i64)> {
    let counts = ports.orders.counts(&fixtures::customer(customer), subject).await.unwrap();
    counts.into_iter().map(|count| (count.status, count.count, count.amount)).collect()
}

pub async fn an_order_is_read_back_with_its_message_and_counted(ports: Ports) {
    let (order, change) = fixtures::place(&fixtures::new_order("123", 2500), ports.clock.now());
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(load_order(&ports, &order).await, order);
    assert_eq!(ports.orders.find_order(&order.customer_id, order.id).await.unwrap().as_ref(), Some(&order));
    let sent = received(&ports, QueueName::Orders).await;
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].id, sent[0].aggregate_id), (change.events[0].id, order.id.0));
    assert_eq!((sent[0].kind.as_str(), &sent[0].body), ("order.create.requested", &change.events[0].data));
    assert_eq!(counts(&ports, "123", CountSubject::Order).await, [("pending_payment".into(), 1, 2500)]);
    assert_eq!(counts(&ports, "123", CountSubject::Payment).await, []);
    assert_eq!(ports.orders.load_order(OrderId(Uuid::max())).await.unwrap(), None);
}

pub async fn orders_go_through_their_states(ports: Ports) {
    let order = place(&ports, "123", 1000).await;
    let order = go(&ports, &order, 0).await;
    let (payment, change) = fixtures::pay_order(&order, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    let found = load(&ports, &payment).await;
    assert_eq!(found, payment, "joined to its order");
    assert_eq!(ports.transactions.load_for_authorization(&[payment.id]).await.unwrap()[0].transaction, payment);
    let order = load_order(&ports, &order).await;
    assert_eq!((order.payment_id, order.version, order.sequence), (Some(payment.id), 3, 2));
    assert_eq!(counts(&ports, "123", CountSubject::Payment).await, [("processing".into(), 1, 1000)]);

    let approval = fixtures::approve(&payment, ports.clock.now());
    assert_eq!(approval.events.len(), 2, "said twice");
    assert_eq!(ports.store.apply(approval.clone()).await.unwrap(), Verdict::Applied);
    let approved = fixtures::written(&approval).clone();
    assert_eq!(load(&ports, &payment).await, approved, "an update keeps the order");
    assert_eq!(counts(&ports, "123", CountSubject::Payment).await, [("approved".into(), 1, 1000)]);
    let order = go(&ports, &order, 1).await;
    let order = go(&ports, &order, 3).await;
    let order = go(&ports, &order, 4).await;
    assert_eq!((order.status, order.status_reason.as_deref()), (OrderStatus::Cancelled, Some("requested")));
    assert_eq!(counts(&ports, "123", CountSubject::Order).await, [("cancelled".into(), 1, 1000)]);

    let asked = fixtures::ask_refund(&approved, None, ports.clock.now());
    assert_eq!(ports.store.apply(asked.clone()).await.unwrap(), Verdict::Applied);
    let of = ports.refunds.load_refund(asked.refunds[0].id).await.unwrap().expect("the refund");
    let (now, policy) = (ports.clock.now(), RefundFeePolicy::Kept);
    let next = of.transaction.complete_refund(of.refund, &of.payables, policy, now, &UuidV7Generator).unwrap();
    assert_eq!(ports.store.apply(fixtures::executed(next)).await.unwrap(), Verdict::Applied);
    assert_eq!(load(&ports, &payment).await.order, payment.order);
    assert_eq!(counts(&ports, "123", CountSubject::Payment).await, [("refunded".into(), 1, 1000)]);
    // order.create.requested, order.created, payment.approved, order.cancel.requested, order.cancelled, payment.refunded
    assert_eq!(messages(&ports, QueueName::Orders).await, 6);
}

pub async fn an_order_and_its_payment_are_written_together_or_not_at_all(ports: Ports) {
    let now = ports.clock.now();
    let order = place(&ports, "123", 1000).await;
    let (late, late_change) = fixtures::pay_order(&order, now);
    let (first, change) = fixtures::pay_order(&order, now);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::AlreadyApplied);
    for _ in 0..2 {
        // Had the first try left an event, the second would be told that it was applied before.
        assert_eq!(ports.store.apply(late_change.clone()).await.unwrap(), Verdict::StaleVersion);
    }
    assert_eq!(ports.transactions.find(&late.customer_id, late.id).await.unwrap(), None);
    assert_eq!(load_order(&ports, &order).await.payment_id, Some(first.id));
    assert_eq!(counts(&ports, "123", CountSubject::Payment).await, [("processing".into(), 1, 1000)]);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);

    // The order is as expected, and its payment is not.
    let order = place(&ports, "456", 1000).await;
    let (_, change) = fixtures::pay_order(&order, now);
    let approval = fixtures::approve(&fixtures::create(&fixtures::new_transaction(), now).0, now);
    let refused = ChangeSet { order: change.order, counts: change.counts, ..approval };
    let (_, other) = fixtures::place(&fixtures::new_order("456", 1), now);
    let verdicts = ports.store.apply_all(vec![refused, other]).await.unwrap();
    assert_eq!(verdicts, [Verdict::StaleVersion, Verdict::Applied]);
    assert_eq!(load_order(&ports, &order).await, order);
    assert_eq!(counts(&ports, "456", CountSubject::Order).await, [("pending_payment".into(), 2, 1001)]);
    assert_eq!(counts(&ports, "456", CountSubject::Payment).await, []);
}

pub async fn an_order_that_is_there_is_a_duplicate_and_the_same_again_is_applied(ports: Ports) {
    let now = ports.clock.now();
    let (order, change) = fixtures::place(&fixtures::new_order("123", 1000), now);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::AlreadyApplied);
    let (_, mut other) = fixtures::place(&fixtures::new_order("123", 7), now);
    other.order = Some(OrderWrite::Insert(Box::new(order.clone())));
    for _ in 0..2 {
        assert_eq!(ports.store.apply(other.clone()).await.unwrap(), Verdict::Duplicate);
    }
    let (missing, _) = fixtures::place(&fixtures::new_order("123", 1000), now);
    let (_, update) = step(&missing, 0, &ports).expect("a transition");
    assert_eq!(ports.store.apply(update).await.unwrap(), Verdict::StaleVersion, "of an order that does not exist");
    assert_eq!(ports.orders.load_order(missing.id).await.unwrap(), None);
    let (_, twice) = fixtures::place(&fixtures::new_order("twice", 1000), now);
    let verdicts = ports.store.apply_all(vec![twice.clone(), twice]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::AlreadyApplied], "within one batch, too");
    assert_eq!(counts(&ports, "123", CountSubject::Order).await, [("pending_payment".into(), 1, 1000)]);
    assert_eq!(counts(&ports, "twice", CountSubject::Order).await, [("pending_payment".into(), 1, 1000)]);
    assert_eq!(messages(&ports, QueueName::Orders).await, 2);
}

pub async fn an_order_with_a_taken_key_is_not_written(ports: Ports) {
    let now = ports.clock.now();
    let keyed = |mut change: ChangeSet| {
        change.idempotency = Some(fixtures::idempotency(&change, "key", now));
        change
    };
    let place = || fixtures::place(&fixtures::new_order("123", 1000), now);
    let ((order, first), (second, other)) = (place(), place());
    let (_, unrelated) = fixtures::create(&fixtures::new_transaction(), now);
    assert_eq!(ports.store.apply(keyed(first.clone())).await.unwrap(), Verdict::Applied);
    let verdicts = ports.store.apply_all(vec![keyed(other), unrelated, place().1]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Duplicate, Verdict::Applied, Verdict::Applied]);
    assert_eq!(ports.orders.load_order(second.id).await.unwrap(), None);
    let (_, cancel) = step(&order, 3, &ports).expect("a transition");
    assert_eq!(ports.store.apply(keyed(cancel)).await.unwrap(), Verdict::Duplicate);
    assert_eq!(load_order(&ports, &order).await, order);
    assert_eq!(ports.store.apply(keyed(first)).await.unwrap(), Verdict::AlreadyApplied);
    assert_eq!(counts(&ports, "123", CountSubject::Order).await, [("pending_payment".into(), 2, 2000)]);
    assert_eq!(messages(&ports, QueueName::Orders).await, 2);
}

pub async fn orders_of_one_batch_are_taken_in_order_and_a_refused_one_harms_no_other(ports: Ports) {
    const COUNT: usize = 100;
    let now = ports.clock.now();
    let customer = |n: usize| format!("c{}", n % 3);
    let new = |n: usize| fixtures::place(&fixtures::new_order(&customer(n), 100), now);
    let (orders, changes): (Vec<_>, Vec<_>) = (0..COUNT).map(new).unzip();
    assert_eq!(ports.store.apply_all(changes).await.unwrap(), vec![Verdict::Applied; COUNT]);
    go(&ports, &orders[50], 4).await;
    let (payments, mut batch): (Vec<_>, Vec<_>) = orders.iter().map(|order| fixtures::pay_order(order, now)).unzip();
    batch.extend(payments.iter().map(|payment| fixtures::approve(payment, now)));
    batch.push(fixtures::create(&fixtures::new_transaction(), now).1);
    let mut expected = vec![Verdict::Applied; 2 * COUNT + 1];
    (expected[50], expected[COUNT + 50]) = (Verdict::StaleVersion, Verdict::StaleVersion);
    assert_eq!(ports.store.apply_all(batch.clone()).await.unwrap(), expected);
    assert_eq!(ports.orders.load_order(orders[50].id).await.unwrap().expect("the order").payment_id, None);
    for (n, payment) in payments.iter().enumerate().filter(|(n, _)| *n != 50) {
        assert_eq!(&load(&ports, payment).await, fixtures::written(&batch[COUNT + n]), "{n}");
        assert_eq!(load_order(&ports, &orders[n]).await.payment_id, Some(payment.id), "{n}");
    }
    for n in 0..3 {
        let all = i64::try_from((0..COUNT).filter(|i| i % 3 == n && *i != 50).count()).unwrap();
        let approved = vec![("approved".to_owned(), all, 100 * all)];
        assert_eq!(counts(&ports, &customer(n), CountSubject::Payment).await, approved);
        assert_eq!(payables(&ports, &customer(n)).await.len(), usize::try_from(all).unwrap());
    }
}

pub async fn an_order_delivered_to_many_at_once_has_one_effect(ports: Ports) {
    let ports = Arc::new(ports);
    let (order, placed) = fixtures::place(&fixtures::new_order("123", 1000), ports.clock.now());
    let (payment, paid) = fixtures::pay_order(&order, ports.clock.now());
    let approval = fixtures::approve(&payment, ports.clock.now());
    for change in [placed, paid, approval] {
        let verdicts = race(&ports, std::iter::repeat_n(change, 32)).await;
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1, "{verdicts:?}");
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::AlreadyApplied).count(), 31, "{verdicts:?}");
    }
    assert_eq!(counts(&ports, "123", CountSubject::Order).await, [("pending_payment".into(), 1, 1000)]);
    assert_eq!(counts(&ports, "123", CountSubject::Payment).await, [("approved".into(), 1, 1000)]);
    assert_eq!(messages(&ports, QueueName::Orders).await, 2);
    assert_eq!(payables(&ports, "123").await.len(), 1);
}

pub async fn a_race_of_outcomes_of_an_order_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    for round in 0..10 {
        let order = place(&ports, "123", 1000).await;
        let step = |n: u64| step(&order, 1 + (n + round) % 4, &ports).expect("a transition");
        let (states, mut changes): (Vec<_>, Vec<_>) = (0..32).map(step).unzip();
        // Some would create its payment, too.
        changes[0] = fixtures::pay_order(&order, ports.clock.now()).1;
        changes[31] = fixtures::pay_order(&order, ports.clock.now()).1;
        let verdicts = race(&ports, changes.iter().cloned()).await;
        let winners: Vec<_> = (0..32).filter(|n| verdicts[*n] == Verdict::Applied).collect();
        assert_eq!(winners.len(), 1, "{verdicts:?}");
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::StaleVersion).count(), 31, "{verdicts:?}");
        let found = load_order(&ports, &order).await;
        match winners[0] {
            0 | 31 => assert!(found.payment_id.is_some()),
            n => assert_eq!(found, states[n]),
        }
    }
    assert_counts(&ports, &["123"]).await;
}

/// The counts of a customer are what a recount of its orders and their payments finds.
async fn assert_counts(ports: &Ports, customers: &[&str]) {
    for customer in customers.iter().map(|name| fixtures::customer(name)) {
        let mut recount: BTreeMap<(CountSubject, &str, &str), (i64, i64)> = BTreeMap::new();
        let mut page = PageRequest::default();
        loop {
            let part = ports.orders.list_orders(&customer, page).await.unwrap();
            for order in part.items {
                let key = (CountSubject::Order, order.status.as_str(), order.total.currency().code());
                let (count, amount) = recount.entry(key).or_default();
                (*count, *amount) = (*count + 1, *amount + order.total.minor());
            }
            let Some(next) = part.next else { break };
            page = PageRequest::new(Position::After(next), 100).unwrap();
        }
        let mut page = PageRequest::default();
        loop {
            let part = ports.orders.list_order_payments(&customer, page).await.unwrap();
            for payment in part.items {
                let status = OrderPaymentStatus::from(payment.status).as_str();
                let key = (CountSubject::Payment, status, payment.amount.currency().code());
                let (count, amount) = recount.entry(key).or_default();
                (*count, *amount) = (*count + 1, *amount + payment.amount.minor());
            }
            let Some(next) = part.next else { break };
            page = PageRequest::new(Position::After(next), 100).unwrap();
        }
        for subject in [CountSubject::Order, CountSubject::Payment] {
            let of_subject = recount.iter().filter(|((counted, ..), _)| *counted == subject);
            let expected = of_subject.map(|((_, status, currency), (count, amount))| StatusCount {
                customer_id: customer.clone(),
                subject,
                status: (*status).to_owned(),
                currency: currency.parse().unwrap(),
                count: *count,
                amount: *amount,
            });
            assert_eq!(ports.orders.counts(&customer, subject).await.unwrap(), expected.collect::<Vec<_>>());
        }
    }
}

/// What may happen next to an order or its payment, one of many things.
fn next(order: &Order, payment: Option<&Transaction>, number: u64, ports: &Ports) -> Option<ChangeSet> {
    let now = ports.clock.now();
    match (number, payment) {
        (0..=4, _) => step(order, number, ports).map(|(_, change)| change),
        (5.., None) => (order.status == OrderStatus::PendingPayment).then(|| fixtures::pay_order(order, now).1),
        (5.., Some(payment)) if payment.status == TransactionStatus::Processing => Some(match number {
            5 => fixtures::decline(payment, now),
            6 => fixtures::fail(payment, now),
            7 => fixtures::executed(payment.clone().cancel(now, &UuidV7Generator).unwrap()),
            _ => fixtures::approve(payment, now),
        }),
        (5.., Some(payment)) if payment.status == TransactionStatus::PendingPayment => {
            Some(fixtures::ask_refund(payment, None, now))
        }
        (5.., Some(_)) => None,
    }
}

/// Writes 15 batches of things that may happen, decided on what was read just before.
async fn happen(ports: &Ports, orders: &[Order], seed: u64) -> Vec<Verdict> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut verdicts = Vec::new();
    for _ in 0..15 {
        let mut batch = Vec::new();
        for _ in 0..random.usize(1..8) {
            let order = load_order(ports, &orders[random.usize(..orders.len())]).await;
            let payment = match order.payment_id {
                Some(id) => ports.transactions.find(&order.customer_id, id).await.unwrap(),
                None => None,
            };
            batch.extend(next(&order, payment.as_ref(), random.u64(0..12), ports));
        }
        verdicts.extend(ports.store.apply_all(batch).await.unwrap());
    }
    verdicts
}

pub async fn counts_are_what_a_recount_finds(ports: Ports) {
    let ports = Arc::new(ports);
    let mut orders = Vec::new();
    for n in 0..12 {
        let mut new = fixtures::new_order(["a", "b"][n % 2], 1000 + i64::try_from(n).unwrap());
        new.total = psp_domain::Money::new(new.total.minor(), ["BRL", "USD", "JPY"][n % 3].parse().unwrap());
        let (order, change) = fixtures::place(&new, ports.clock.now());
        assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
        orders.push(order);
    }
    let many = (0..8).map(|seed| {
        let (ports, orders) = (Arc::clone(&ports), orders.clone());
        tokio::spawn(async move { happen(&ports, &orders, seed).await })
    });
    let mut verdicts = Vec::new();
    for task in many.collect::<Vec<_>>() {
        verdicts.extend(task.await.unwrap());
    }
    assert!(verdicts.contains(&Verdict::Applied) && !verdicts.contains(&Verdict::Duplicate), "{verdicts:?}");
    assert_counts(&ports, &["a", "b"]).await;
}

pub async fn a_customer_sees_its_own_orders_only(ports: Ports) {
    let (order, payment) = place_and_pay(&ports, "123", 1000).await;
    let (own, other) = (fixtures::customer("123"), fixtures::customer("1234"));
    let page = PageRequest::default();
    assert_eq!(ports.orders.list_orders(&own, page).await.unwrap().items, std::slice::from_ref(&order));
    assert_eq!(ports.orders.list_order_payments(&own, page).await.unwrap().items, [payment]);
    assert_eq!(ports.orders.find_order(&other, order.id).await.unwrap(), None);
    assert_eq!(ports.orders.list_orders(&other, page).await.unwrap().items, []);
    assert_eq!(ports.orders.list_order_payments(&other, page).await.unwrap().items, []);
    assert_eq!(counts(&ports, "1234", CountSubject::Order).await, []);
    // What pays no order that was placed here is no payment of one.
    let mut new = fixtures::payment("1234", 1000, 1);
    new.named.order_id = Some("elsewhere".parse().unwrap());
    let (_, change) = fixtures::create(&new, ports.clock.now());
    assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.orders.list_order_payments(&other, page).await.unwrap().items, []);
    assert_eq!(ports.transactions.list(&other, TransactionKind::Payment, page).await.unwrap().items.len(), 1);
}

pub async fn pages_of_orders_and_their_payments_are_newest_first_without_gaps_or_repeats(ports: Ports) {
    let (mut orders, mut payments) = (Vec::new(), Vec::new());
    for _ in 0..13 {
        let (order, payment) = place_and_pay(&ports, "123", 1000).await;
        orders.push(order.id.0);
        payments.push(payment.id.0);
        place_and_pay(&ports, "other", 1000).await;
    }
    orders.reverse();
    payments.reverse();
    let customer = fixtures::customer("123");
    let mut numbered = (Vec::new(), Vec::new());
    for number in 1..=3 {
        let page = PageRequest::new(Position::Page(number), 5).unwrap();
        let part = ports.orders.list_orders(&customer, page).await.unwrap();
        assert_eq!(part.next.is_some(), number < 3);
        numbered.0.extend(part.items.iter().map(|order| order.id.0));
        let part = ports.orders.list_order_payments(&customer, page).await.unwrap();
        assert_eq!(part.next.is_some(), number < 3);
        numbered.1.extend(part.items.iter().map(|payment| payment.id.0));
    }
    assert_eq!(numbered, (orders.clone(), payments.clone()));
    let (mut walked, mut page) = (Vec::new(), PageRequest::new(Position::Page(1), 5).unwrap());
    loop {
        let part = ports.orders.list_orders(&customer, page).await.unwrap();
        walked.extend(part.items.iter().map(|order| order.id.0));
        // What arrives during the walk does not shift it.
        place(&ports, "123", 1000).await;
        let Some(next) = part.next else { break };
        page = PageRequest::new(Position::After(next), 5).unwrap();
    }
    assert_eq!(walked, orders);
    let (mut walked, mut page) = (Vec::new(), PageRequest::new(Position::Page(1), 5).unwrap());
    loop {
        let part = ports.orders.list_order_payments(&customer, page).await.unwrap();
        walked.extend(part.items.iter().map(|payment| payment.id.0));
        place_and_pay(&ports, "123", 1000).await;
        let Some(next) = part.next else { break };
        page = PageRequest::new(Position::After(next), 5).unwrap();
    }
    assert_eq!(walked, payments);
}
