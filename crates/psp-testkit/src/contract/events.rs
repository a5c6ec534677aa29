//! What every store writes of events. The product reads them through no port yet, so a case brings its own way to do so.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use std::collections::{BTreeMap, HashSet};
use std::pin::Pin;

use psp_domain::ports::{Clock, SettlementChunk, UuidV7Generator};
use psp_domain::usecases::SettlePayables;
use psp_domain::{ChangeSet, Event, EventKind, TransactionStatus, Verdict};
use serde_json::Value;

use crate::{Ports, fixtures};

/// Runs the event contract over the [`EventCase`] that an async function makes.
#[macro_export]
macro_rules! event_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::events,
            a_change_set_writes_its_events_as_they_are
            a_refused_change_set_writes_no_event
            settlement_writes_each_event_once_in_its_place
            settlement_writes_events_of_the_shape_of_the_domains
            settlement_names_the_order_of_a_payment_as_the_domain_does
            the_payment_of_an_order_says_everything_twice_and_leaves_no_gap
            attempts_leave_no_gap_in_the_events
        }
    };
}

/// The ports of a store, and a way to read all its events, in any order.
pub struct EventCase {
    /// The ports.
    pub ports: Ports,
    /// Reads every event; messages that are no events are left out.
    pub read: Box<ReadEvents>,
}

/// Reads every event.
pub type ReadEvents = dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Event>> + Send>> + Send + Sync;

impl EventCase {
    /// Every event, by its place in its aggregate.
    async fn events(&self) -> Vec<Event> {
        let mut events = (self.read)().await;
        events.sort_by_key(|event| (event.aggregate_id, event.sequence));
        events
    }

    /// Settles what is due in that many days, every chunk twice.
    async fn settle(&self, days: u64, chunk_size: u32) {
        let date = (self.ports.clock.now() + chrono::Days::new(days)).date_naive();
        let settle = SettlePayables::new(self.ports.settlement.clone(), self.ports.sources());
        let run = settle.plan(Some(date), chunk_size).await.unwrap();
        for number in (1..=run.chunks).chain(1..=run.chunks) {
            settle.settle(SettlementChunk { run_id: run.id, number }).await.unwrap().expect("the chunk");
        }
    }
}

pub async fn a_change_set_writes_its_events_as_they_are(case: EventCase) {
    let now = case.ports.clock.now();
    let mut expected = Vec::new();
    for (new, end) in [
        (fixtures::debit("123", 999), fixtures::approve as fn(&_, _) -> _),
        (fixtures::payment("456", 1001, 12), fixtures::approve),
        (fixtures::new_transaction(), fixtures::decline),
        (fixtures::new_transaction(), fixtures::fail),
    ] {
        let (transaction, created) = fixtures::create(&new, now);
        for change in [created, end(&transaction, now)] {
            expected.extend(change.events.clone());
            assert_eq!(case.ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
            assert_eq!(case.ports.store.apply(change).await.unwrap(), Verdict::AlreadyApplied);
        }
    }
    expected.sort_by_key(|event| (event.aggregate_id, event.sequence));
    assert_eq!(case.events().await, expected);
}

pub async fn a_refused_change_set_writes_no_event(case: EventCase) {
    let now = case.ports.clock.now();
    let (transaction, mut created) = fixtures::create(&fixtures::new_transaction(), now);
    created.idempotency = Some(fixtures::idempotency(&created, "key", now));
    let (_, mut duplicate) = fixtures::create(&fixtures::new_transaction(), now);
    duplicate.idempotency = Some(fixtures::idempotency(&duplicate, "key", now));
    let approval = fixtures::approve(&transaction, now);
    let stale = fixtures::decline(&transaction, now);
    let expected = [created.events.clone(), approval.events.clone()].concat();
    let verdicts = case.ports.store.apply_all(vec![created, approval, stale, duplicate]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Applied, Verdict::StaleVersion, Verdict::Duplicate]);
    assert_eq!(case.events().await, expected);
}

pub async fn settlement_writes_each_event_once_in_its_place(case: EventCase) {
    let now = case.ports.clock.now();
    for _ in 0..3 {
        let (transaction, created) = fixtures::create(&fixtures::payment("123", 1001, 3), now);
        case.ports.store.apply_all(vec![created, fixtures::approve(&transaction, now)]).await.unwrap();
    }
    let count = async |kind| case.events().await.iter().filter(|event| event.kind == kind).count();
    for (days, payables, transactions) in [(29, 0, 0), (30, 3, 0), (60, 6, 0), (90, 9, 3), (360, 9, 3)] {
        case.settle(days, 2).await;
        assert_eq!(count(EventKind::PayablePaid).await, payables, "after {days} days");
        assert_eq!(count(EventKind::TransactionPaid).await, transactions, "after {days} days");
    }
    let events = case.events().await;
    let ids: HashSet<_> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids.len(), events.len(), "ids are unique");
    let mut places: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    for event in &events {
        places.entry(event.aggregate_id).or_default().push(event.sequence);
    }
    // Nine payables with one event each, three transactions that were created, approved and paid.
    assert_eq!(places.values().filter(|sequences| **sequences == [1]).count(), 9);
    assert_eq!(places.values().filter(|sequences| **sequences == [1, 2, 3]).count(), 3);
}

pub async fn settlement_writes_events_of_the_shape_of_the_domains(case: EventCase) {
    let now = case.ports.clock.now();
    // A debit card is paid at once: its events are the domain's own.
    let (debit, created) = fixtures::create(&fixtures::debit("123", 1000), now);
    let debit_paid = fixtures::approve(&debit, now);
    let (credit, other) = fixtures::create(&fixtures::payment("123", 1000, 1), now);
    let approval = fixtures::approve(&credit, now);
    let payable = approval.payables[0].clone();
    case.ports.store.apply_all(vec![created, debit_paid.clone(), other, approval]).await.unwrap();
    case.ports.clock.advance_days(31);
    case.settle(0, 10).await;
    let events = case.events().await;
    let of_kind = |kind, model: &ChangeSet| {
        let model = model.events.iter().find(|event| event.kind == kind).unwrap().clone();
        let settled = events.iter().find(|event| event.kind == kind && event.id != model.id).unwrap().clone();
        assert_eq!((&settled.customer_id, settled.occurred_at), (&model.customer_id, case.ports.clock.now()));
        (settled, json(&model))
    };

    let (paid, model) = of_kind(EventKind::PayablePaid, &debit_paid);
    assert_eq!((paid.aggregate_id, paid.sequence), (payable.id.0, 1));
    let keys = |data: &Value| data.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&json(&paid)), keys(&model));
    assert_eq!(json(&paid)["transaction_id"], credit.id.to_string());
    assert_eq!(json(&paid)["receivable_amount"], payable.receivable.minor());
    assert_eq!((&json(&paid)["installment"], &json(&paid)["currency"]), (&model["installment"], &model["currency"]));

    let (paid, model) = of_kind(EventKind::TransactionPaid, &debit_paid);
    assert_eq!((paid.aggregate_id, paid.sequence), (credit.id.0, 3));
    assert_eq!(json(&paid), model, "the amounts are the same");
}

pub async fn settlement_names_the_order_of_a_payment_as_the_domain_does(case: EventCase) {
    let now = case.ports.clock.now();
    let mut named = fixtures::payment("123", 1000, 1);
    named.named.order_id = Some(r#"a"b\c/d'e%s\u0041{}"#.parse().unwrap());
    let (order, _) = fixtures::place(&fixtures::new_order("123", 1000), now);
    assert!(order.correlation_id.as_str().contains(['"']) && order.correlation_id.as_str().contains('\\'));
    for new in [fixtures::payment("123", 1000, 1), named, fixtures::order_payment(&order)] {
        let (transaction, created) = fixtures::create(&new, now);
        let approval = fixtures::approve(&transaction, now);
        let approved = fixtures::written(&approval).clone();
        case.ports.store.apply_all(vec![created, approval]).await.unwrap();
        case.settle(31, 10).await;
        let model = fixtures::executed(approved.settle(now, &UuidV7Generator).unwrap()).events.remove(0);
        let events = case.events().await;
        let of_kind =
            |event: &&Event| event.aggregate_id == transaction.id.0 && event.kind == EventKind::TransactionPaid;
        let paid = events.iter().find(of_kind).unwrap();
        assert_eq!(paid.data, model.data, "to the byte");
        assert_eq!(paid.sequence, model.sequence);
    }
}

pub async fn the_payment_of_an_order_says_everything_twice_and_leaves_no_gap(case: EventCase) {
    let now = case.ports.clock.now();
    let (order, placed) = fixtures::place(&fixtures::new_order("123", 1000), now);
    let (payment, created) = fixtures::pay_order(&order, now);
    let approval = fixtures::approve(&payment, now);
    let asked = fixtures::ask_refund(fixtures::written(&approval), Some(100), now);
    let mut expected = Vec::new();
    for change in [placed, created, approval, asked.clone()] {
        expected.extend(change.events.clone());
        assert_eq!(case.ports.store.apply(change).await.unwrap(), Verdict::Applied);
    }
    // Its only payable is paid meanwhile, of which only the payable tells.
    case.settle(31, 10).await;
    let of = case.ports.refunds.load_refund(asked.refunds[0].id).await.unwrap().expect("the refund");
    let next = of.transaction.fail_refund(of.refund, "refused", &of.payables, now, &UuidV7Generator).unwrap();
    let end = fixtures::executed(next);
    expected.extend(end.events.clone());
    assert_eq!(case.ports.store.apply(end).await.unwrap(), Verdict::Applied);
    expected.sort_by_key(|event| (event.aggregate_id, event.sequence));
    let mut events = case.events().await;
    events.retain(|event| event.kind != EventKind::PayablePaid);
    assert_eq!(events, expected);
    let of_payment: Vec<_> = events.iter().filter(|event| event.aggregate_id == payment.id.0).collect();
    assert_eq!(of_payment.iter().map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(of_payment[6].kind, EventKind::TransactionPaid);
}

pub async fn attempts_leave_no_gap_in_the_events(case: EventCase) {
    let now = case.ports.clock.now();
    let (mut transaction, created) = fixtures::create(&fixtures::payment("123", 1000, 1), now);
    let mut changes = vec![created];
    for number in 1..=3 {
        let attempt = fixtures::attempt(&transaction, number, now);
        changes.push(ChangeSet::of_attempts(transaction.clone(), vec![attempt]));
        transaction.version += 1;
    }
    changes.push(fixtures::approve(&transaction, now));
    for change in changes {
        assert_eq!(case.ports.store.apply(change).await.unwrap(), Verdict::Applied);
    }
    case.settle(31, 10).await;
    let events = case.events().await;
    let of_transaction = events.iter().filter(|event| event.aggregate_id == transaction.id.0);
    assert_eq!(of_transaction.map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3]);
    let settled = case.ports.transactions.find(&transaction.customer_id, transaction.id).await.unwrap().unwrap();
    assert_eq!((settled.status, settled.version, settled.sequence), (TransactionStatus::Paid, 6, 3));
}

fn json(event: &Event) -> Value {
    serde_json::from_str(&event.data).unwrap()
}
