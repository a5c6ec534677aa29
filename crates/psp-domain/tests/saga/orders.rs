use std::collections::BTreeSet;
use std::sync::Arc;

use psp_domain::ports::{OrderReader, StoreError, TransactionReader};
use psp_domain::usecases::{
    CancelOrder, CancelOrderOutcome, CreateOutcome, IdempotentRequest, PlaceOrder, PlaceOrderError, Sources,
};
use psp_domain::{
    Currency, Fingerprint, IdempotencyRecord, InvalidOrder, Money, Order, OrderStatus, PaymentMethod, StoredAnswer,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{FailingStore, Memory};
use psp_testkit::fixtures;

use crate::interruptions::Interruption;
use crate::support::{Mood, World, new_order};

fn answer(order: &Order) -> StoredAnswer {
    StoredAnswer { status: 202, body: order.id.to_string() }
}

fn keyed(fingerprint: u8) -> IdempotentRequest {
    IdempotentRequest { key: "key".parse().unwrap(), fingerprint: Fingerprint([fingerprint; 32]) }
}

fn world() -> (Arc<Memory>, Arc<FailingStore>, Sources) {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let store = Arc::new(FailingStore::new(memory.clone()));
    (memory, store, Sources { clock, ..Sources::default() })
}

#[tokio::test]
async fn the_same_key_and_request_place_one_order() {
    let (memory, store, sources) = world();
    let place = PlaceOrder::new(store.clone(), memory.clone(), sources);
    let first = place.execute(&new_order(), Some(keyed(1)), answer).await.unwrap();
    let CreateOutcome::Created(first) = first else { panic!("{first:?}") };
    let again = place.execute(&new_order(), Some(keyed(1)), answer).await.unwrap();
    assert_eq!(again, CreateOutcome::Replayed(first.clone()));
    assert_eq!(place.execute(&new_order(), Some(keyed(2)), answer).await.unwrap(), CreateOutcome::KeyReused);
    let order = memory.load_order(first.body.parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((order.status, order.payment_id), (OrderStatus::PendingPayment, None));
    assert_eq!(memory.events().len(), 1);
    for after_writing in [true, false] {
        store.fail_next(StoreError::OutcomeUnknown("the connection broke".into()), after_writing);
        let outcome = place.execute(&new_order(), None, answer).await.unwrap();
        assert!(matches!(outcome, CreateOutcome::Created(_)));
    }
    assert_eq!(memory.events().len(), 3, "one each");
}

#[tokio::test]
async fn an_order_tells_every_rule_that_it_breaks() {
    let (memory, store, sources) = world();
    let place = PlaceOrder::new(store, memory, sources);
    let mut new = new_order();
    (new.total, new.payment_method) = (Money::new(0, Currency::BRL), PaymentMethod::CreditCard);
    match place.execute(&new, None, answer).await {
        Err(PlaceOrderError::Invalid(faults)) => assert_eq!(faults, [InvalidOrder::Total, InvalidOrder::Method]),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn cancelling_is_asked_for_once_and_is_told_where_it_is_too_late() {
    let (memory, store, sources) = world();
    let place = PlaceOrder::new(store.clone(), memory.clone(), sources.clone());
    let CreateOutcome::Created(placed) = place.execute(&new_order(), None, answer).await.unwrap() else {
        panic!("not placed")
    };
    let (id, customer) = (placed.body.parse().unwrap(), fixtures::customer("123"));
    let cancel = CancelOrder::new(store, memory.clone(), sources.clone());
    let others = cancel.execute(&fixtures::customer("456"), id, |_| None).await.unwrap();
    assert_eq!(others, CancelOrderOutcome::Unknown);
    let expires_at = sources.clock.now() + chrono::TimeDelta::hours(24);
    let record = |_: &CancelOrderOutcome| {
        let IdempotentRequest { key, fingerprint } = keyed(1);
        let answer = StoredAnswer { status: 202, body: String::new() };
        Some(IdempotencyRecord { customer_id: fixtures::customer("123"), key, fingerprint, answer, expires_at })
    };
    for _ in 0..2 {
        let outcome = cancel.execute(&customer, id, record).await.unwrap();
        let CancelOrderOutcome::Requested(order) = outcome else { panic!("{outcome:?}") };
        assert!(order.is_cancel_requested && order.status == OrderStatus::PendingPayment);
    }
    assert_eq!(memory.events().len(), 2, "asked for once");
    let CreateOutcome::Created(another) = place.execute(&new_order(), None, answer).await.unwrap() else {
        panic!("not placed")
    };
    let taken = cancel.execute(&customer, another.body.parse().unwrap(), record).await.unwrap();
    assert_eq!(taken, CancelOrderOutcome::KeyTaken);

    let mut failed = World::new(Interruption::Kill, BTreeSet::new(), Vec::new());
    Mood::IsDown.tell(&failed.gateway);
    failed.place().await;
    failed.run_in_order().await;
    let cancel = CancelOrder::new(failed.memory.clone(), failed.memory.clone(), sources);
    let late = cancel.execute(&customer, failed.order, |_| None).await.unwrap();
    assert_eq!(late, CancelOrderOutcome::TooLate(OrderStatus::Failed));
}

#[tokio::test]
async fn the_payment_of_an_order_says_which_order_it_pays() {
    let mut world = World::new(Interruption::Kill, BTreeSet::new(), Vec::new());
    world.place().await;
    world.run_in_order().await;
    let customer = fixtures::customer("123");
    let payment = world.payment().await.unwrap();
    let payment = TransactionReader::find(&*world.memory, &customer, payment).await.unwrap().unwrap();
    assert_eq!(payment.description, format!("Order {}", world.order));
    assert_eq!(payment.named.order_id.unwrap().as_str(), world.order.to_string());
    assert_eq!((payment.payment_method, payment.amount), (new_order().payment_method, new_order().total));
    assert_eq!(payment.order.unwrap().correlation_id, new_order().correlation_id);
}
