use std::sync::Arc;

use psp_domain::ports::{CALLBACK_MESSAGE_KIND, Clock, IdGenerator, UuidV7Generator};
use psp_domain::{Callback, CallbackId, CallbackOutcome, Currency, Money, QueueName, TransactionId};

use super::{messages, received};
use crate::Ports;

/// A callback of some transaction.
fn callback(ports: &Ports) -> Callback {
    Callback {
        id: CallbackId(UuidV7Generator.next_id()),
        transaction_id: TransactionId(UuidV7Generator.next_id()),
        gateway: "test".parse().unwrap(),
        gateway_reference: "ref-1".into(),
        status: "completed".into(),
        amount: Some(Money::new(2500, Currency::BRL)),
        received_at: ports.clock.now(),
        outcome: None,
    }
}

/// The same once more, as it comes: under an id of its own.
fn again(callback: &Callback) -> Callback {
    Callback { id: CallbackId(UuidV7Generator.next_id()), ..callback.clone() }
}

pub async fn a_callback_is_stored_with_its_message(ports: Ports) {
    let first = callback(&ports);
    let yen = Money::new(-1, "JPY".parse().unwrap());
    let others = [Callback { amount: None, ..callback(&ports) }, Callback { amount: Some(yen), ..callback(&ports) }];
    for callback in [&first, &others[0], &others[1]] {
        assert_eq!(ports.callbacks.find_callback(callback.id).await.unwrap(), None);
        assert!(!ports.callbacks.is_known(callback).await.unwrap());
        assert!(ports.callbacks.receive(callback).await.unwrap());
        assert!(ports.callbacks.is_known(&again(callback)).await.unwrap());
        assert_eq!(ports.callbacks.find_callback(callback.id).await.unwrap().as_ref(), Some(callback));
    }
    let mut messages = received(&ports, QueueName::GatewayCallbacks).await;
    messages.sort_by_key(|message| message.id);
    let mut ids: Vec<_> = [&first, &others[0], &others[1]].map(|callback| callback.id.0).into();
    ids.sort_unstable();
    assert_eq!(messages.iter().map(|message| message.aggregate_id).collect::<Vec<_>>(), ids);
    assert!(messages.iter().all(|m| m.id.0 == m.aggregate_id && m.kind == CALLBACK_MESSAGE_KIND && m.body == "{}"));
}

pub async fn a_callback_that_comes_twice_is_stored_once(ports: Ports) {
    let first = callback(&ports);
    assert!(ports.callbacks.receive(&first).await.unwrap());
    // The time does not tell two apart.
    ports.clock.advance_days(1);
    let same = [first.clone(), again(&first), Callback { received_at: ports.clock.now(), ..again(&first) }];
    for callback in &same {
        assert!(!ports.callbacks.receive(callback).await.unwrap());
    }
    assert_eq!(ports.callbacks.find_callback(first.id).await.unwrap(), Some(first.clone()));
    assert_eq!(ports.callbacks.find_callback(same[1].id).await.unwrap(), None);
    let others = [
        Callback { status: "failed".into(), ..again(&first) },
        // A correction.
        Callback { amount: None, ..again(&first) },
        Callback { gateway_reference: "ref-2".into(), ..again(&first) },
        Callback { gateway: "other".parse().unwrap(), ..again(&first) },
        Callback { transaction_id: TransactionId(UuidV7Generator.next_id()), ..again(&first) },
    ];
    for callback in &others {
        assert!(ports.callbacks.receive(callback).await.unwrap());
    }
    assert_eq!(messages(&ports, QueueName::GatewayCallbacks).await, 6);
}

pub async fn a_callback_that_comes_to_many_at_once_is_stored_once(ports: Ports) {
    let ports = Arc::new(ports);
    let first = callback(&ports);
    let racers = (0..16).map(|_| {
        let (ports, callback) = (Arc::clone(&ports), again(&first));
        tokio::spawn(async move { (ports.callbacks.receive(&callback).await.unwrap(), callback.id) })
    });
    let mut stored = Vec::new();
    for racer in racers.collect::<Vec<_>>() {
        let (is_new, id) = racer.await.unwrap();
        assert_eq!(ports.callbacks.find_callback(id).await.unwrap().is_some(), is_new);
        stored.extend(is_new.then_some(id.0));
    }
    let messages = received(&ports, QueueName::GatewayCallbacks).await;
    assert_eq!(messages.iter().map(|message| message.aggregate_id).collect::<Vec<_>>(), stored);
    assert_eq!(stored.len(), 1);
}

pub async fn a_transaction_has_a_bounded_number_of_callbacks(ports: Ports) {
    let first = callback(&ports);
    let numbered = |n: u32| Callback { gateway_reference: format!("ref-{n}"), ..again(&first) };
    for n in 0..Callback::MAX_PER_TRANSACTION {
        assert!(ports.callbacks.receive(&numbered(n)).await.unwrap(), "number {n}");
    }
    let surplus = numbered(Callback::MAX_PER_TRANSACTION);
    assert!(!ports.callbacks.receive(&surplus).await.unwrap());
    assert!(!ports.callbacks.is_known(&surplus).await.unwrap());
    assert_eq!(ports.callbacks.find_callback(surplus.id).await.unwrap(), None);
    assert!(ports.callbacks.receive(&callback(&ports)).await.unwrap(), "of another transaction");
    let sent = messages(&ports, QueueName::GatewayCallbacks).await;
    assert_eq!(sent, Callback::MAX_PER_TRANSACTION as usize + 1);
}

pub async fn a_callback_keeps_its_first_outcome(ports: Ports) {
    let now = ports.clock.now();
    for outcome in CallbackOutcome::ALL {
        let callback = callback(&ports);
        assert!(ports.callbacks.receive(&callback).await.unwrap());
        ports.callbacks.conclude(callback.id, outcome, now).await.unwrap();
        ports.callbacks.conclude(callback.id, CallbackOutcome::Foreign, now).await.unwrap();
        let concluded = Callback { outcome: Some(outcome), ..callback.clone() };
        assert_eq!(ports.callbacks.find_callback(callback.id).await.unwrap(), Some(concluded));
        assert!(!ports.callbacks.receive(&again(&callback)).await.unwrap());
    }
    let unknown = CallbackId(uuid::Uuid::max());
    ports.callbacks.conclude(unknown, CallbackOutcome::Applied, now).await.unwrap();
    assert_eq!(ports.callbacks.find_callback(unknown).await.unwrap(), None);
}

pub async fn callbacks_are_found_by_their_outcome_newest_first(ports: Ports) {
    let now = ports.clock.now();
    let mut wrong = Vec::new();
    for i in 0..10 {
        let callback = callback(&ports);
        assert!(ports.callbacks.receive(&callback).await.unwrap());
        let outcome = [CallbackOutcome::WrongAmount, CallbackOutcome::Applied][i % 2];
        if i < 8 {
            ports.callbacks.conclude(callback.id, outcome, now).await.unwrap();
            let concluded = Callback { outcome: Some(outcome), ..callback };
            wrong.extend((outcome == CallbackOutcome::WrongAmount).then_some(concluded));
        }
    }
    wrong.reverse();
    let found = async |limit| ports.callbacks.with_outcome(CallbackOutcome::WrongAmount, limit).await.unwrap();
    assert_eq!(found(100).await, wrong);
    assert_eq!(found(3).await, wrong[..3]);
    assert!(ports.callbacks.with_outcome(CallbackOutcome::Foreign, 10).await.unwrap().is_empty());
}
