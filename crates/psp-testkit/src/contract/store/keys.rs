use psp_domain::ports::Clock;
use psp_domain::{IdempotencyRecord, QueueName, Verdict};

use super::messages;
use crate::{Ports, fixtures};

pub async fn an_idempotency_key_is_taken_once(ports: Ports) {
    let now = ports.clock.now();
    let keyed = |customer: &str, key: &str| {
        let (_, mut change) = fixtures::create(&fixtures::payment(customer, 2500, 1), now);
        change.idempotency = Some(fixtures::idempotency(&change, key, now));
        change
    };
    let first = keyed("123", "key");
    let batch = vec![first.clone(), keyed("123", "key"), keyed("456", "key"), keyed("123", "other")];
    let verdicts = ports.store.apply_all(batch).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::Duplicate, Verdict::Applied, Verdict::Applied]);
    let batch = vec![keyed("123", "key"), keyed("123", "fresh")];
    assert_eq!(ports.store.apply_all(batch).await.unwrap(), [Verdict::Duplicate, Verdict::Applied]);
    let key = "key".parse().unwrap();
    let record = ports.keys.find(&fixtures::customer("123"), &key, now).await.unwrap();
    assert_eq!(record, first.idempotency);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 4);
    let unknown = "unknown".parse().unwrap();
    assert_eq!(ports.keys.find(&fixtures::customer("123"), &unknown, now).await.unwrap(), None);
}

pub async fn a_change_with_a_taken_key_or_a_stale_version_writes_neither(ports: Ports) {
    let now = ports.clock.now();
    let (transaction, mut created) = fixtures::create(&fixtures::new_transaction(), now);
    created.idempotency = Some(fixtures::idempotency(&created, "taken", now));
    assert_eq!(ports.store.apply(created).await.unwrap(), Verdict::Applied);
    let keyed = |key: &str| {
        let mut change = fixtures::fail(&transaction, now);
        change.idempotency = Some(fixtures::idempotency(&change, key, now));
        change
    };
    assert_eq!(ports.store.apply(keyed("taken")).await.unwrap(), Verdict::Duplicate);
    assert_eq!(super::load(&ports, &transaction).await, transaction, "the key was taken");
    // Of two in one batch the second is stale.
    let verdicts = ports.store.apply_all(vec![keyed("first"), keyed("second")]).await.unwrap();
    assert_eq!(verdicts, [Verdict::Applied, Verdict::StaleVersion]);
    for (key, is_there) in [("first", true), ("second", false)] {
        let found = ports.keys.find(&transaction.customer_id, &key.parse().unwrap(), now).await.unwrap();
        assert_eq!(found.is_some(), is_there, "{key}");
    }
}

pub async fn an_expired_idempotency_key_is_free_again(ports: Ports) {
    let keyed = |now| {
        let (_, mut change) = fixtures::create(&fixtures::new_transaction(), now);
        change.idempotency = Some(fixtures::idempotency(&change, "key", now));
        change
    };
    let (customer, key) = (fixtures::customer("123"), "key".parse().unwrap());
    assert_eq!(ports.store.apply(keyed(ports.clock.now())).await.unwrap(), Verdict::Applied);
    ports.clock.advance_days(1);
    assert_eq!(ports.keys.find(&customer, &key, ports.clock.now()).await.unwrap(), None);
    let second = keyed(ports.clock.now());
    assert_eq!(ports.store.apply(second.clone()).await.unwrap(), Verdict::Applied);
    let now = ports.clock.now();
    assert_eq!(ports.keys.find(&customer, &key, now).await.unwrap(), second.idempotency);
    assert_eq!(ports.keys.purge_expired(now, 10).await.unwrap(), 0);
    ports.clock.advance_days(1);
    assert_eq!(ports.keys.purge_expired(ports.clock.now(), 10).await.unwrap(), 1);
}

pub async fn expired_idempotency_keys_are_purged_a_few_at_a_time(ports: Ports) {
    for i in 0..5 {
        let (_, mut change) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
        change.idempotency = Some(fixtures::idempotency(&change, &format!("key-{i}"), ports.clock.now()));
        assert_eq!(ports.store.apply(change).await.unwrap(), Verdict::Applied);
    }
    assert_eq!(ports.keys.purge_expired(ports.clock.now(), 10).await.unwrap(), 0, "none has expired");
    ports.clock.advance_days(2);
    let mut purged = Vec::new();
    for _ in 0..4 {
        purged.push(ports.keys.purge_expired(ports.clock.now(), 2).await.unwrap());
    }
    assert_eq!(purged, [2, 2, 1, 0]);
}

pub async fn a_record_is_kept_where_its_key_is_free(ports: Ports) {
    let now = ports.clock.now();
    let record = |customer: &str, now| {
        let (_, change) = fixtures::create(&fixtures::payment(customer, 2500, 1), now);
        fixtures::idempotency(&change, "key", now)
    };
    let (first, late, foreign) = (record("123", now), record("123", now), record("456", now));
    for _ in 0..2 {
        assert!(ports.keys.keep(&first).await.unwrap(), "the same again is kept");
        assert!(!ports.keys.keep(&late).await.unwrap());
        assert!(ports.keys.keep(&foreign).await.unwrap());
    }
    let found = async |record: &IdempotencyRecord| {
        ports.keys.find(&record.customer_id, &record.key, ports.clock.now()).await.unwrap()
    };
    assert_eq!((found(&late).await, found(&foreign).await), (Some(first.clone()), Some(foreign)));
    ports.clock.advance_days(1);
    let fresh = record("123", ports.clock.now());
    assert!(ports.keys.keep(&fresh).await.unwrap(), "an expired key is free again");
    assert_eq!(found(&fresh).await, Some(fresh));
}
