//! What every store of sealed cards and of the vault's keys does.

#![expect(missing_docs, reason = "the names of tests are sentences")]

use std::time::Duration;

use chrono::TimeDelta;
use psp_domain::ports::{CardPlace, Clock, IdGenerator, KeptCard, SealedCards, TokenizedCard, UuidV7Generator};
use psp_domain::{CardToken, SealedCard, Transaction, TransactionId};
use uuid::Uuid;

use crate::{Ports, fixtures};

/// Runs the contract of sealed cards over the ports that an async function makes.
#[macro_export]
macro_rules! sealed_cards_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::sealed_cards,
            cards_are_listed_in_pages_by_their_ids
            only_cards_that_wait_are_listed
            a_card_is_replaced_where_it_is_as_it_was
            cards_of_tokens_are_listed_and_replaced_too
            replacing_disturbs_no_worker
            old_cards_are_shredded_in_batches_and_young_ones_stay
            shredding_disturbs_no_worker
            a_key_of_the_vault_is_stored_once
            a_key_of_the_vault_is_replaced_where_it_is_as_it_was
        }
    };
}

/// A processing transaction, and what is sealed of it.
async fn processing(ports: &Ports) -> (Transaction, KeptCard) {
    let (transaction, change) = fixtures::create(&fixtures::new_transaction(), ports.clock.now());
    ports.store.apply(change).await.unwrap();
    let sealed = card_of(ports, transaction.id).await.expect("it waits");
    let kept = KeptCard { id: transaction.id.0, sealed };
    (transaction, kept)
}

async fn card_of(ports: &Ports, id: TransactionId) -> Option<SealedCard> {
    ports.transactions.load_for_authorization(&[id]).await.unwrap().remove(0).card
}

async fn listed(cards: &dyn SealedCards, after: Option<Uuid>, limit: u32) -> Vec<KeptCard> {
    cards.list(CardPlace::Transactions, after, limit).await.unwrap()
}

fn other() -> SealedCard {
    SealedCard(b"sealed anew".to_vec())
}

pub async fn cards_are_listed_in_pages_by_their_ids(ports: Ports) {
    let mut kept = Vec::new();
    for _ in 0..5 {
        kept.push(processing(&ports).await.1);
    }
    let cards = &*ports.sealed_cards;
    assert_eq!(listed(cards, None, 2).await, kept[..2]);
    assert_eq!(listed(cards, Some(kept[1].id), 2).await, kept[2..4]);
    assert_eq!(listed(cards, Some(kept[3].id), 2).await, kept[4..]);
    assert_eq!(listed(cards, Some(kept[4].id), 2).await, []);
    assert_eq!(cards.list(CardPlace::Tokens, None, 2).await.unwrap(), []);
}

pub async fn only_cards_that_wait_are_listed(ports: Ports) {
    let ((done, _), (_, waiting)) = (processing(&ports).await, processing(&ports).await);
    ports.store.apply(fixtures::approve(&done, ports.clock.now())).await.unwrap();
    assert_eq!(listed(&*ports.sealed_cards, None, 10).await, [waiting]);
}

pub async fn a_card_is_replaced_where_it_is_as_it_was(ports: Ports) {
    let (cards, (transaction, old)) = (&*ports.sealed_cards, processing(&ports).await);
    let (_, bystander) = processing(&ports).await;
    assert!(cards.replace(CardPlace::Transactions, &old, &other()).await.unwrap());
    assert_eq!(card_of(&ports, transaction.id).await, Some(other()));
    assert_eq!(card_of(&ports, TransactionId(bystander.id)).await, Some(bystander.sealed));
    assert!(!cards.replace(CardPlace::Transactions, &old, &SealedCard(b"late".to_vec())).await.unwrap());
    assert_eq!(card_of(&ports, transaction.id).await, Some(other()));
    let missing = KeptCard { id: Uuid::max(), ..old.clone() };
    assert!(!cards.replace(CardPlace::Transactions, &missing, &other()).await.unwrap());
    assert!(!cards.replace(CardPlace::Tokens, &old, &other()).await.unwrap());
}

pub async fn cards_of_tokens_are_listed_and_replaced_too(ports: Ports) {
    let (cards, now) = (&*ports.sealed_cards, ports.clock.now());
    let mut kept = Vec::new();
    for number in 0..3_u8 {
        let id = UuidV7Generator.next_id();
        let token = TokenizedCard {
            token: CardToken(id),
            customer_id: fixtures::new_transaction().customer_id,
            summary: fixtures::card().summary(),
            card: SealedCard(vec![number; 8]),
            created_at: now,
            expires_at: now + TimeDelta::minutes(1),
        };
        ports.tokens.put_token(&token, None).await.unwrap();
        kept.push(KeptCard { id, sealed: token.card });
    }
    assert_eq!(cards.list(CardPlace::Tokens, None, 2).await.unwrap(), kept[..2]);
    assert_eq!(cards.list(CardPlace::Tokens, Some(kept[1].id), 2).await.unwrap(), kept[2..]);
    assert_eq!(listed(cards, None, 2).await, []);
    assert!(cards.replace(CardPlace::Tokens, &kept[0], &other()).await.unwrap());
    assert!(!cards.replace(CardPlace::Tokens, &kept[0], &SealedCard(b"late".to_vec())).await.unwrap());
    assert_eq!(cards.list(CardPlace::Tokens, None, 1).await.unwrap()[0].sealed, other());
    assert_eq!(cards.shred(now + TimeDelta::hours(1), 10).await.unwrap(), 0, "tokens expire by themselves");
}

pub async fn replacing_disturbs_no_worker(ports: Ports) {
    let (cards, (transaction, old)) = (&*ports.sealed_cards, processing(&ports).await);
    // Loaded before, written after.
    let approved = fixtures::approve(&transaction, ports.clock.now());
    assert!(cards.replace(CardPlace::Transactions, &old, &other()).await.unwrap());
    assert_eq!(ports.store.apply(approved).await.unwrap(), psp_domain::Verdict::Applied);
    assert_eq!(card_of(&ports, transaction.id).await, None);
    // What was erased does not come back.
    let sealed = KeptCard { sealed: other(), ..old };
    assert!(!cards.replace(CardPlace::Transactions, &sealed, &other()).await.unwrap());
    assert_eq!(card_of(&ports, transaction.id).await, None);
}

pub async fn old_cards_are_shredded_in_batches_and_young_ones_stay(ports: Ports) {
    let cards = &*ports.sealed_cards;
    for _ in 0..3 {
        processing(&ports).await;
    }
    ports.clock.advance(Duration::from_hours(1));
    let (_, young) = processing(&ports).await;
    let before = ports.clock.now();
    assert_eq!(cards.shred(before, 2).await.unwrap(), 2);
    assert_eq!(cards.shred(before, 2).await.unwrap(), 1);
    assert_eq!(cards.shred(before, 2).await.unwrap(), 0);
    assert_eq!(listed(cards, None, 10).await, [young]);
}

pub async fn shredding_disturbs_no_worker(ports: Ports) {
    let (cards, (transaction, old)) = (&*ports.sealed_cards, processing(&ports).await);
    ports.clock.advance(Duration::from_hours(1));
    assert_eq!(cards.shred(ports.clock.now(), 10).await.unwrap(), 1);
    assert_eq!(card_of(&ports, transaction.id).await, None);
    assert!(!cards.replace(CardPlace::Transactions, &old, &other()).await.unwrap());
    let approved = fixtures::approve(&transaction, ports.clock.now());
    assert_eq!(ports.store.apply(approved).await.unwrap(), psp_domain::Verdict::Applied);
}

pub async fn a_key_of_the_vault_is_stored_once(ports: Ports) {
    let keys = &ports.vault_keys;
    assert_eq!(keys.find("one").await.unwrap(), None);
    let race = (0..8_u8).map(|byte| {
        let keys = std::sync::Arc::clone(keys);
        tokio::spawn(async move { keys.load_or_insert("one", &[byte]).await.unwrap() })
    });
    let mut stored = Vec::new();
    for task in race.collect::<Vec<_>>() {
        stored.push(task.await.unwrap());
    }
    assert!(stored.iter().all(|key| *key == stored[0]), "{stored:?}");
    assert_eq!(keys.find("one").await.unwrap().as_ref(), Some(&stored[0]));
    assert_eq!(keys.load_or_insert("other", b"2").await.unwrap(), b"2");
}

pub async fn a_key_of_the_vault_is_replaced_where_it_is_as_it_was(ports: Ports) {
    let keys = &*ports.vault_keys;
    assert!(!keys.replace("one", b"1", b"2").await.unwrap());
    keys.load_or_insert("one", b"1").await.unwrap();
    assert!(keys.replace("one", b"1", b"2").await.unwrap());
    assert!(!keys.replace("one", b"1", b"3").await.unwrap());
    assert_eq!(keys.find("one").await.unwrap().as_deref(), Some(&b"2"[..]));
}
