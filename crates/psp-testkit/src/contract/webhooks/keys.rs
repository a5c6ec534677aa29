use std::sync::Arc;

use chrono::TimeDelta;
use psp_domain::ports::{Clock, EndpointVerdict};
use psp_domain::{Fingerprint, IdempotencyRecord, StoredAnswer, WebhookEndpoint};

use super::{endpoint, find};
use crate::{Ports, fixtures};

/// The record of a key that comes with a write of an endpoint.
fn record(ports: &Ports, endpoint: &WebhookEndpoint, key: &str) -> IdempotencyRecord {
    IdempotencyRecord {
        customer_id: endpoint.customer_id.clone(),
        key: key.parse().unwrap(),
        fingerprint: Fingerprint([3; 32]),
        answer: StoredAnswer { status: 201, body: format!("{} {}", endpoint.id.0, endpoint.version) },
        expires_at: ports.clock.now() + TimeDelta::hours(24),
    }
}

/// What is kept with the key of a record.
async fn kept_with(ports: &Ports, record: &IdempotencyRecord) -> Option<IdempotencyRecord> {
    ports.keys.find(&record.customer_id, &record.key, ports.clock.now()).await.unwrap()
}

fn next(endpoint: &WebhookEndpoint) -> WebhookEndpoint {
    WebhookEndpoint { version: endpoint.version + 1, description: "next".into(), ..endpoint.clone() }
}

pub async fn a_write_of_an_endpoint_takes_its_key(ports: Ports) {
    let new = fixtures::endpoint("123", &[], ports.clock.now());
    let of_insert = record(&ports, &new, "insert");
    assert_eq!(ports.endpoints.insert_endpoint(&new, Some(&of_insert)).await.unwrap(), EndpointVerdict::Written);
    assert_eq!(kept_with(&ports, &of_insert).await, Some(of_insert));
    let next = next(&new);
    let of_update = record(&ports, &next, "update");
    let updated = ports.endpoints.update_endpoint(&next, new.version, &[], Some(&of_update)).await.unwrap();
    assert_eq!(updated, EndpointVerdict::Written);
    assert_eq!(kept_with(&ports, &of_update).await, Some(of_update));
    assert_eq!(find(&ports, &new).await, next);
}

pub async fn a_write_with_a_taken_key_changes_no_endpoint(ports: Ports) {
    let there = endpoint(&ports, "123", &[]).await;
    let taken = record(&ports, &there, "key");
    assert!(ports.keys.keep(&taken).await.unwrap());
    let (late, next) = (fixtures::endpoint("123", &[], ports.clock.now()), next(&there));
    let insert = async |key: IdempotencyRecord| ports.endpoints.insert_endpoint(&late, Some(&key)).await.unwrap();
    assert_eq!(insert(record(&ports, &late, "key")).await, EndpointVerdict::KeyTaken);
    let key = record(&ports, &next, "key");
    let updated = ports.endpoints.update_endpoint(&next, 1, &[], Some(&key)).await.unwrap();
    assert_eq!(updated, EndpointVerdict::KeyTaken);
    assert_eq!(ports.endpoints.find_endpoint(&late.customer_id, late.id).await.unwrap(), None);
    assert_eq!(find(&ports, &there).await, there);
    assert_eq!(kept_with(&ports, &taken).await, Some(taken));
    ports.clock.advance_days(1);
    let free = record(&ports, &late, "key");
    assert_eq!(insert(free.clone()).await, EndpointVerdict::Written, "an expired key is free again");
    assert_eq!(kept_with(&ports, &free).await, Some(free));
}

pub async fn a_write_that_is_refused_takes_no_key(ports: Ports) {
    let mut last = endpoint(&ports, "123", &[]).await;
    for _ in 1..WebhookEndpoint::MAX_PER_CUSTOMER {
        last = endpoint(&ports, "123", &[]).await;
    }
    let one_more = fixtures::endpoint("123", &[], ports.clock.now());
    let key = record(&ports, &one_more, "key");
    let verdict = ports.endpoints.insert_endpoint(&one_more, Some(&key)).await.unwrap();
    assert_eq!(verdict, EndpointVerdict::TooMany);
    let verdict = ports.endpoints.update_endpoint(&next(&last), 7, &[], Some(&key)).await.unwrap();
    assert_eq!(verdict, EndpointVerdict::Stale);
    assert_eq!(kept_with(&ports, &key).await, None);
}

pub async fn a_race_for_the_key_of_an_endpoint_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    let racers: Vec<_> = (0..16)
        .map(|_| {
            let (ports, new) = (Arc::clone(&ports), fixtures::endpoint("123", &[], ports.clock.now()));
            let record = record(&ports, &new, "key");
            tokio::spawn(async move { (ports.endpoints.insert_endpoint(&new, Some(&record)).await.unwrap(), record) })
        })
        .collect();
    let mut winners = Vec::new();
    for racer in racers {
        let (verdict, record) = racer.await.unwrap();
        assert!(matches!(verdict, EndpointVerdict::Written | EndpointVerdict::KeyTaken), "{verdict:?}");
        winners.extend((verdict == EndpointVerdict::Written).then_some(record));
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(kept_with(&ports, &winners[0]).await.as_ref(), winners.first());
}
