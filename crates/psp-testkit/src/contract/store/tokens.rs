use std::sync::Arc;

use chrono::TimeDelta;
use psp_domain::ports::{Clock, IdGenerator, TokenizedCard, UuidV7Generator};
use psp_domain::{CardToken, ChangeSet, Fingerprint, IdempotencyRecord, QueueName, SealedCard, StoredAnswer, Verdict};

use super::messages;
use super::races::race;
use crate::{Ports, fixtures};

/// A card of a customer's, to be kept for 15 minutes.
fn card(ports: &Ports, customer: &str) -> TokenizedCard {
    TokenizedCard {
        token: CardToken(UuidV7Generator.next_id()),
        customer_id: fixtures::customer(customer),
        summary: fixtures::card().summary(),
        card: SealedCard(vec![9; 120]),
        created_at: ports.clock.now(),
        expires_at: ports.clock.now() + TimeDelta::minutes(15),
    }
}

async fn keep(ports: &Ports, customer: &str) -> TokenizedCard {
    let card = card(ports, customer);
    assert!(ports.tokens.put_token(&card, None).await.unwrap());
    card
}

/// The record of the key that a card comes with.
fn record(ports: &Ports, card: &TokenizedCard, key: &str) -> IdempotencyRecord {
    IdempotencyRecord {
        customer_id: card.customer_id.clone(),
        key: key.parse().unwrap(),
        fingerprint: Fingerprint([2; 32]),
        answer: StoredAnswer { status: 201, body: card.token.to_string() },
        expires_at: ports.clock.now() + TimeDelta::hours(24),
    }
}

/// What is kept with the key of a record.
async fn kept_with(ports: &Ports, record: &IdempotencyRecord) -> Option<IdempotencyRecord> {
    ports.keys.find(&record.customer_id, &record.key, ports.clock.now()).await.unwrap()
}

/// Whether the card is there to be paid with.
async fn is_there(ports: &Ports, card: &TokenizedCard) -> bool {
    let found = ports.tokens.find_token(&card.customer_id, card.token, ports.clock.now()).await.unwrap();
    assert!(found.as_ref().is_none_or(|found| found == card));
    found.is_some()
}

/// A new payment of customer 123 with that token.
fn pay(ports: &Ports, token: CardToken) -> ChangeSet {
    let (_, change) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    ChangeSet { spends: Some(token), ..change }
}

async fn is_written(ports: &Ports, change: &ChangeSet) -> bool {
    let found = ports.transactions.find(&fixtures::customer("123"), fixtures::written(change).id).await.unwrap();
    found.is_some()
}

pub async fn a_card_is_found_by_its_token_until_it_expires(ports: Ports) {
    let card = keep(&ports, "123").await;
    let found = async |now| ports.tokens.find_token(&card.customer_id, card.token, now).await.unwrap();
    assert_eq!(found(card.created_at).await, Some(card.clone()));
    assert_eq!(found(card.expires_at - TimeDelta::milliseconds(1)).await, Some(card.clone()));
    assert_eq!(found(card.expires_at).await, None);
}

pub async fn a_card_is_found_by_its_customer_only(ports: Ports) {
    let (card, now) = (keep(&ports, "123").await, ports.clock.now());
    assert_eq!(ports.tokens.find_token(&fixtures::customer("1234"), card.token, now).await.unwrap(), None);
    let unknown = CardToken(uuid::Uuid::max());
    assert_eq!(ports.tokens.find_token(&card.customer_id, unknown, now).await.unwrap(), None);
    assert!(is_there(&ports, &card).await);
}

pub async fn expired_cards_are_purged_a_few_at_a_time(ports: Ports) {
    for _ in 0..5 {
        keep(&ports, "123").await;
    }
    assert_eq!(ports.tokens.purge_tokens(ports.clock.now(), 10).await.unwrap(), 0, "none has expired");
    ports.clock.advance_days(1);
    let fresh = keep(&ports, "123").await;
    let mut purged = Vec::new();
    for _ in 0..4 {
        purged.push(ports.tokens.purge_tokens(ports.clock.now(), 2).await.unwrap());
    }
    assert_eq!(purged, [2, 2, 1, 0]);
    assert!(is_there(&ports, &fresh).await);
}

pub async fn a_token_is_spent_with_its_payment(ports: Ports) {
    let (card, other) = (keep(&ports, "123").await, keep(&ports, "123").await);
    let change = pay(&ports, card.token);
    assert_eq!(ports.store.apply(change.clone()).await.unwrap(), Verdict::Applied);
    assert!(is_written(&ports, &change).await);
    assert!(!is_there(&ports, &card).await);
    assert!(is_there(&ports, &other).await);
}

pub async fn a_payment_with_a_spent_token_writes_nothing(ports: Ports) {
    let card = keep(&ports, "123").await;
    assert_eq!(ports.store.apply(pay(&ports, card.token)).await.unwrap(), Verdict::Applied);
    let now = ports.clock.now();
    let mut keyed = pay(&ports, card.token);
    keyed.idempotency = Some(fixtures::idempotency(&keyed, "key", now));
    let never_there = pay(&ports, CardToken(UuidV7Generator.next_id()));
    for refused in [pay(&ports, card.token), keyed, never_there] {
        for _ in 0..2 {
            assert_eq!(ports.store.apply(refused.clone()).await.unwrap(), Verdict::Duplicate);
        }
        assert!(!is_written(&ports, &refused).await);
    }
    let key = "key".parse().unwrap();
    assert_eq!(ports.keys.find(&fixtures::customer("123"), &key, now).await.unwrap(), None, "the key is free");
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);
}

pub async fn a_payment_with_a_taken_key_spends_no_token(ports: Ports) {
    let (first, second) = (keep(&ports, "123").await, keep(&ports, "123").await);
    let keyed = |token| {
        let mut change = pay(&ports, token);
        change.idempotency = Some(fixtures::idempotency(&change, "key", ports.clock.now()));
        change
    };
    assert_eq!(ports.store.apply(keyed(first.token)).await.unwrap(), Verdict::Applied);
    assert_eq!(ports.store.apply(keyed(second.token)).await.unwrap(), Verdict::Duplicate);
    let batch = vec![keyed(second.token), fixtures::created_change()];
    assert_eq!(ports.store.apply_all(batch).await.unwrap(), [Verdict::Duplicate, Verdict::Applied]);
    assert!(is_there(&ports, &second).await);
}

pub async fn the_same_payment_with_a_token_again_has_one_effect(ports: Ports) {
    let ports = Arc::new(ports);
    let card = keep(&ports, "123").await;
    let mut change = pay(&ports, card.token);
    change.idempotency = Some(fixtures::idempotency(&change, "key", ports.clock.now()));
    let verdicts = race(&ports, std::iter::repeat_n(change.clone(), 16)).await;
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1);
    assert_eq!(verdicts.iter().filter(|v| **v == Verdict::AlreadyApplied).count(), 15);
    let verdicts = ports.store.apply_all(vec![change.clone(), change]).await.unwrap();
    assert_eq!(verdicts, [Verdict::AlreadyApplied, Verdict::AlreadyApplied]);
    assert_eq!(messages(&ports, QueueName::Transactions).await, 1);
}

pub async fn a_token_is_spent_once_in_a_batch(ports: Ports) {
    use Verdict::{AlreadyApplied, Applied, Duplicate};
    let (card, other) = (keep(&ports, "123").await, keep(&ports, "123").await);
    let first = pay(&ports, card.token);
    let batch = vec![
        first.clone(),
        pay(&ports, card.token),
        fixtures::create(&fixtures::new_transaction(), ports.clock.now()).1,
        first,
        pay(&ports, other.token),
        pay(&ports, card.token),
    ];
    let expected = [Applied, Duplicate, Applied, AlreadyApplied, Applied, Duplicate];
    assert_eq!(ports.store.apply_all(batch.clone()).await.unwrap(), expected);
    for (change, verdict) in batch.iter().zip(expected).filter(|(change, _)| change.spends.is_some()) {
        assert_eq!(is_written(&ports, change).await, verdict != Duplicate);
    }
    assert_eq!(messages(&ports, QueueName::Transactions).await, 3);
}

pub async fn a_race_for_a_token_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    for round in 0..5 {
        let card = keep(&ports, "123").await;
        let mut changes: Vec<_> = (0..16).map(|_| pay(&ports, card.token)).collect();
        for (i, change) in changes.iter_mut().enumerate().skip(8) {
            let key = format!("key-{round}-{i}");
            change.idempotency = Some(fixtures::idempotency(change, &key, ports.clock.now()));
        }
        let verdicts = race(&ports, changes.iter().cloned()).await;
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Applied).count(), 1, "{verdicts:?}");
        assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Duplicate).count(), 15, "{verdicts:?}");
        for (change, verdict) in changes.iter().zip(verdicts) {
            let is_applied = verdict == Verdict::Applied;
            assert_eq!(is_written(&ports, change).await, is_applied);
            let Some(record) = &change.idempotency else { continue };
            let found = ports.keys.find(&record.customer_id, &record.key, ports.clock.now()).await.unwrap();
            assert_eq!(found.as_ref(), Some(record).filter(|_| is_applied));
        }
        assert!(!is_there(&ports, &card).await);
    }
}

pub async fn a_card_is_kept_with_its_key(ports: Ports) {
    let (first, foreign) = (card(&ports, "123"), card(&ports, "1234"));
    for card in [first, foreign] {
        let record = record(&ports, &card, "key");
        assert!(ports.tokens.put_token(&card, Some(&record)).await.unwrap());
        assert!(is_there(&ports, &card).await);
        assert_eq!(kept_with(&ports, &record).await, Some(record));
    }
}

pub async fn a_card_with_a_taken_key_is_not_kept(ports: Ports) {
    let payment = {
        let (_, change) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
        ChangeSet { idempotency: Some(fixtures::idempotency(&change, "of-a-payment", ports.clock.now())), ..change }
    };
    assert_eq!(ports.store.apply(payment.clone()).await.unwrap(), Verdict::Applied);
    let first = card(&ports, "123");
    let of_a_card = record(&ports, &first, "of-a-card");
    assert!(ports.tokens.put_token(&first, Some(&of_a_card)).await.unwrap());
    for taken in [payment.idempotency.unwrap(), of_a_card.clone()] {
        let late = card(&ports, "123");
        let refused = record(&ports, &late, taken.key.as_str());
        assert!(!ports.tokens.put_token(&late, Some(&refused)).await.unwrap());
        assert!(!is_there(&ports, &late).await);
        assert_eq!(kept_with(&ports, &taken).await, Some(taken));
    }
    ports.clock.advance_days(1);
    let late = card(&ports, "123");
    let free = record(&ports, &late, "of-a-card");
    assert!(ports.tokens.put_token(&late, Some(&free)).await.unwrap(), "an expired key is free again");
    assert!(is_there(&ports, &late).await);
    assert_eq!(kept_with(&ports, &free).await, Some(free));
}

pub async fn the_same_card_with_its_key_again_has_one_effect(ports: Ports) {
    let (card, other) = (card(&ports, "123"), keep(&ports, "123").await);
    let key = record(&ports, &card, "key");
    for _ in 0..3 {
        assert!(ports.tokens.put_token(&card, Some(&key)).await.unwrap());
        assert!(ports.tokens.put_token(&other, None).await.unwrap());
    }
    assert!(is_there(&ports, &card).await && is_there(&ports, &other).await);
    assert_eq!(kept_with(&ports, &key).await, Some(key));
}

pub async fn a_race_for_the_key_of_a_card_has_one_winner(ports: Ports) {
    let ports = Arc::new(ports);
    for round in 0..5 {
        let cards: Vec<_> = (0..16).map(|_| card(&ports, "123")).collect();
        let key = format!("key-{round}");
        let racers: Vec<_> = cards
            .iter()
            .map(|card| {
                let (ports, card, record) = (Arc::clone(&ports), card.clone(), record(&ports, card, &key));
                tokio::spawn(async move { ports.tokens.put_token(&card, Some(&record)).await.unwrap() })
            })
            .collect();
        let mut winners = Vec::new();
        for (racer, card) in racers.into_iter().zip(&cards) {
            let has_won = racer.await.unwrap();
            assert_eq!(is_there(&ports, card).await, has_won);
            winners.extend(has_won.then_some(card));
        }
        assert_eq!(winners.len(), 1);
        let record = record(&ports, winners[0], &key);
        assert_eq!(kept_with(&ports, &record).await, Some(record));
    }
}
