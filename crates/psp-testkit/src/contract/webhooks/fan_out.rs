use std::sync::Arc;
use std::time::Instant;

use psp_domain::ports::{Clock, EndpointVerdict, SettlementChunk};
use psp_domain::usecases::SettlePayables;
use psp_domain::{DeliveryStatus, EndpointStatus, EventKind, Verdict};

use super::{claim, claim_one, deliveries, delivery, endpoint, event, find, places, set_status};
use crate::contract::PATIENCE;
use crate::{Ports, fixtures};

pub async fn events_become_deliveries_to_the_endpoints_that_ask_for_them(ports: Ports) {
    let before = event(&ports, "123").await;
    let all = endpoint(&ports, "123", &[]).await;
    let created = endpoint(&ports, "123", &[EventKind::PayablePaid, EventKind::TransactionCreated]).await;
    endpoint(&ports, "123", &[EventKind::TransactionPaid, EventKind::TransactionApproved]).await;
    let written = event(&ports, "123").await;
    assert!(deliveries(&ports, &before).await.is_empty(), "it was written before there were endpoints");
    let claimed = claim(&ports).await;
    assert_eq!(places(&claimed), [(written.id, all.id), (written.id, created.id)]);
    for due in &claimed {
        let endpoint = if due.endpoint.id == all.id { &all } else { &created };
        assert_eq!((&due.event, &due.endpoint), (&written, endpoint));
        assert_eq!((due.attempts, due.tries), (0, 0));
    }
}

pub async fn deliveries_go_to_the_customers_own_endpoints(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    let other = endpoint(&ports, "456", &[]).await;
    let [first, second, _] = [event(&ports, "123").await, event(&ports, "456").await, event(&ports, "789").await];
    assert_eq!(places(&claim(&ports).await), [(first.id, own.id), (second.id, other.id)]);
}

pub async fn a_disabled_endpoint_gets_none_of_the_events_meanwhile(ports: Ports) {
    let own = endpoint(&ports, "123", &[]).await;
    set_status(&ports, &own, EndpointStatus::Disabled).await;
    let meanwhile = event(&ports, "123").await;
    set_status(&ports, &own, EndpointStatus::Enabled).await;
    let after = event(&ports, "123").await;
    assert!(deliveries(&ports, &meanwhile).await.is_empty());
    assert_eq!(claim_one(&ports).await.event, after);
}

pub async fn a_large_batch_is_delivered_whole(ports: Ports) {
    let own = [endpoint(&ports, "123", &[]).await, endpoint(&ports, "123", &[EventKind::TransactionCreated]).await];
    let changes: Vec<_> = (0..300)
        .map(|number| {
            let customer = if number % 3 == 0 { "456" } else { "123" };
            fixtures::create(&fixtures::payment(customer, 2500, 1), ports.clock.now()).1
        })
        .collect();
    let events: Vec<_> = changes.iter().map(|change| change.events[0].clone()).collect();
    assert!(ports.store.apply_all(changes).await.unwrap().iter().all(|verdict| *verdict == Verdict::Applied));
    let events = events.iter().filter(|event| event.customer_id.as_str() == "123");
    let mut expected: Vec<_> = events.flat_map(|event| own.each_ref().map(|own| (event.id, own.id))).collect();
    expected.sort_unstable();
    assert_eq!(places(&claim(&ports).await), expected);
}

pub async fn a_change_set_that_comes_twice_is_delivered_once(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let (transaction, created) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    let approval = fixtures::approve(&transaction, ports.clock.now());
    for _ in 0..2 {
        ports.store.apply_all(vec![created.clone(), approval.clone()]).await.unwrap();
    }
    let verdicts = ports.store.apply_all(vec![approval.clone(), created.clone()]).await.unwrap();
    assert_eq!(verdicts, [Verdict::AlreadyApplied; 2]);
    assert_eq!(claim(&ports).await.len(), created.events.len() + approval.events.len());
    assert!(claim(&ports).await.is_empty());
}

pub async fn a_refused_change_set_is_not_delivered(ports: Ports) {
    endpoint(&ports, "123", &[]).await;
    let now = ports.clock.now();
    let (transaction, mut created) = fixtures::create(&fixtures::new_transaction(), now);
    created.idempotency = Some(fixtures::idempotency(&created, "key", now));
    let (_, mut duplicate) = fixtures::create(&fixtures::new_transaction(), now);
    duplicate.idempotency = Some(fixtures::idempotency(&duplicate, "key", now));
    let (decline, stale) = (fixtures::decline(&transaction, now), fixtures::fail(&transaction, now));
    let mut expected: Vec<_> = [&created, &decline].map(|change| change.events[0].id).into();
    expected.sort_unstable();
    let verdicts = ports.store.apply_all(vec![created, decline, stale, duplicate]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Applied, Verdict::StaleVersion, Verdict::Duplicate]);
    let claimed = places(&claim(&ports).await);
    assert_eq!(claimed.into_iter().map(|(event, _)| event).collect::<Vec<_>>(), expected);
}

pub async fn settlement_is_delivered_once(ports: Ports) {
    for customer in ["123", "456"] {
        for _ in 0..3 {
            let (transaction, created) = fixtures::create(&fixtures::payment(customer, 1000, 1), ports.clock.now());
            ports.store.apply_all(vec![created, fixtures::approve(&transaction, ports.clock.now())]).await.unwrap();
        }
    }
    let payables = endpoint(&ports, "123", &[EventKind::PayablePaid]).await;
    let all = endpoint(&ports, "123", &[]).await;
    let disabled = endpoint(&ports, "123", &[]).await;
    set_status(&ports, &disabled, EndpointStatus::Disabled).await;
    ports.clock.advance_days(31);
    let settle = SettlePayables::new(ports.settlement.clone(), ports.sources());
    let run = settle.plan(None, 2).await.unwrap();
    for number in (1..=run.chunks).chain(1..=run.chunks) {
        settle.settle(SettlementChunk { run_id: run.id, number }).await.unwrap().expect("the chunk");
    }
    let claimed = claim(&ports).await;
    let count =
        |endpoint, kind| claimed.iter().filter(|due| due.endpoint.id == endpoint && due.event.kind == kind).count();
    assert_eq!(count(payables.id, EventKind::PayablePaid), 3);
    assert_eq!((count(all.id, EventKind::PayablePaid), count(all.id, EventKind::TransactionPaid)), (3, 3));
    assert_eq!(claimed.len(), 9);
    assert!(claimed.iter().all(|due| due.event.customer_id.as_str() == "123"));
}

pub async fn the_events_of_an_update_are_delivered_to_the_others(ports: Ports) {
    let given_up = endpoint(&ports, "123", &[]).await;
    let other = endpoint(&ports, "123", &[EventKind::WebhookEndpointDisabled]).await;
    endpoint(&ports, "123", &[EventKind::TransactionPaid]).await;
    endpoint(&ports, "456", &[]).await;
    let (disabled, told) = given_up.clone().disable("gone", ports.clock.now(), &psp_domain::ports::UuidV7Generator);
    let events = std::slice::from_ref(&told);
    let stale = ports.endpoints.update_endpoint(&disabled, 7, events, None).await.unwrap();
    assert_eq!(stale, EndpointVerdict::Stale);
    assert_eq!(ports.events.find_event(&given_up.customer_id, told.id).await.unwrap(), None);
    let written = ports.endpoints.update_endpoint(&disabled, given_up.version, events, None).await.unwrap();
    assert_eq!(written, EndpointVerdict::Written);
    assert_eq!(find(&ports, &given_up).await, disabled);
    let due = claim_one(&ports).await;
    assert_eq!((&due.event, &due.endpoint), (&told, &other));
    let own = delivery(&ports, &told).await;
    assert_eq!((own.endpoint_id, own.status), (other.id, DeliveryStatus::Pending));
}

pub async fn a_commit_wakes_who_delivers(ports: Ports) {
    let ports = Arc::new(ports);
    endpoint(&ports, "123", &[]).await;
    let deliverer = tokio::spawn({
        let ports = Arc::clone(&ports);
        async move {
            loop {
                let claimed = claim(&ports).await;
                if !claimed.is_empty() {
                    return claimed;
                }
                ports.deliveries.deliveries_wake(PATIENCE).await;
            }
        }
    });
    let begun = Instant::now();
    let written = event(&ports, "123").await;
    assert_eq!(deliverer.await.unwrap()[0].event, written);
    assert!(begun.elapsed() < PATIENCE, "nobody woke it");
}
