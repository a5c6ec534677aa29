//! Rotation and shredding over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use psp_domain::ports::{
    CardPlace, CardTokenStore, Clock, EndpointStore, EndpointVerdict, IdGenerator, Resealer, SealedCards, Store,
    TokenizedCard, UuidV7Generator, VaultError, VaultKeyStore,
};
use psp_domain::{CardToken, EndpointId, EndpointStatus, SealedCard, SealedSecret, TransactionId, WebhookEndpoint};
use psp_jobs::{Rotation, RotationError, Shredded, rotate_vault, shred_cards};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::Memory;
use psp_testkit::fixtures;

const KEY: &str = "key of a test";
/// Under the current master key, and damaged.
const CURRENT: &[u8] = b"current";
const DAMAGED: &[u8] = b"damaged";
/// Under a master key that may not be used.
const REFUSED: &[u8] = b"refused";

/// Seals anew by writing [`CURRENT`], as often as it may; erases every card first, where that is told.
struct Script {
    left: AtomicI64,
    erases: Option<Arc<Memory>>,
}

impl Script {
    fn of(left: i64) -> Self {
        Self { left: AtomicI64::new(left), erases: None }
    }
}

#[async_trait]
impl Resealer for Script {
    async fn current_key(&self) -> Result<String, VaultError> {
        Ok("new".into())
    }

    async fn reseal(&self, id: TransactionId, sealed: &SealedCard) -> Result<Option<SealedCard>, VaultError> {
        if let Some(memory) = &self.erases {
            memory.shred(FixedClock::default().now() + TimeDelta::days(1), 1_000).await.unwrap();
        }
        Ok(self.reseal_key(&id.to_string(), &sealed.0).await?.map(SealedCard))
    }

    async fn reseal_key(&self, _: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        match sealed {
            DAMAGED => Err(VaultError::Damaged),
            REFUSED => Err(VaultError::Refused),
            CURRENT => Ok(None),
            _ if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 => Err(VaultError::Unavailable),
            _ => Ok(Some(CURRENT.to_vec())),
        }
    }
}

async fn processing(count: usize) -> (Arc<Memory>, Arc<FixedClock>) {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    for _ in 0..count {
        let (_, change) = fixtures::create(&fixtures::new_transaction(), clock.now());
        memory.apply(change).await.unwrap();
    }
    (memory, clock)
}

async fn rotate(script: &Script, memory: &Memory) -> Result<Rotation, RotationError> {
    rotate_vault(script, memory, memory, &[KEY], memory).await
}

#[tokio::test]
async fn every_card_and_key_is_sealed_anew_once_over_many_batches() {
    let (memory, _) = processing(1_001).await;
    memory.load_or_insert(KEY, b"old").await.unwrap();
    let done = rotate(&Script::of(i64::MAX), &memory).await.unwrap();
    assert_eq!(done, Rotation { key: "new".into(), cards: 1_001, keys: 1, ..Rotation::default() });
    let again = rotate(&Script::of(0), &memory).await.unwrap();
    assert_eq!(again, Rotation { key: "new".into(), current: 1_002, ..Rotation::default() });
    assert_eq!(VaultKeyStore::find(&*memory, KEY).await.unwrap().unwrap(), CURRENT);
}

#[tokio::test]
async fn a_rotation_that_was_broken_off_goes_on_with_the_rest() {
    let (memory, _) = processing(10).await;
    let stopped = rotate(&Script::of(4), &memory).await;
    assert!(matches!(stopped, Err(RotationError::Vault(VaultError::Unavailable))), "{stopped:?}");
    let rest = rotate(&Script::of(i64::MAX), &memory).await.unwrap();
    assert_eq!((rest.cards, rest.current), (6, 4));
}

#[tokio::test]
async fn what_does_not_open_stays_and_holds_no_other_back() {
    let (memory, _) = processing(4).await;
    let unopened = [DAMAGED, REFUSED].map(|bytes| SealedCard(bytes.to_vec()));
    let first = memory.list(CardPlace::Transactions, None, 2).await.unwrap();
    for (card, bytes) in first.iter().zip(&unopened) {
        assert!(SealedCards::replace(&*memory, CardPlace::Transactions, card, bytes).await.unwrap());
    }
    memory.load_or_insert(KEY, REFUSED).await.unwrap();
    let done = rotate(&Script::of(i64::MAX), &memory).await.unwrap();
    assert_eq!((done.cards, done.keys, done.unopened), (2, 0, 3));
    let kept = memory.list(CardPlace::Transactions, None, 2).await.unwrap();
    assert!(kept.iter().map(|card| &card.sealed).eq(&unopened));
}

#[tokio::test]
async fn a_card_that_is_erased_meanwhile_does_not_come_back() {
    let (memory, _) = processing(2).await;
    let script = Script { erases: Some(Arc::clone(&memory)), ..Script::of(i64::MAX) };
    let done = rotate(&script, &memory).await.unwrap();
    assert_eq!((done.cards, done.gone), (0, 2));
    assert_eq!(memory.list(CardPlace::Transactions, None, 10).await.unwrap(), []);
}

/// An endpoint with two secrets.
fn endpoint(secrets: [&[u8]; 2], clock: &FixedClock) -> WebhookEndpoint {
    let [secret, previous] = secrets.map(|bytes| SealedSecret(bytes.to_vec()));
    WebhookEndpoint {
        id: EndpointId(UuidV7Generator.next_id()),
        customer_id: fixtures::customer("123"),
        url: "https://shop.example/".into(),
        events: Vec::new(),
        description: String::new(),
        status: EndpointStatus::Disabled,
        disabled_reason: Some("failing".into()),
        secret,
        previous_secret: Some((previous, clock.now())),
        failing_since: None,
        version: 1,
        sequence: 1,
        created_at: clock.now(),
        updated_at: clock.now(),
    }
}

#[tokio::test]
async fn both_secrets_of_a_webhook_endpoint_are_sealed_anew_and_all_else_stays() {
    let (memory, clock) = processing(0).await;
    let old = endpoint([b"old", b"older"], &clock);
    let damaged = endpoint([DAMAGED, b"older"], &clock);
    for one in [&old, &damaged, &endpoint([CURRENT, CURRENT], &clock)] {
        assert_eq!(memory.insert_endpoint(one, None).await.unwrap(), EndpointVerdict::Written);
    }
    let done = rotate(&Script::of(i64::MAX), &memory).await.unwrap();
    assert_eq!((done.secrets, done.current, done.unopened), (3, 2, 1));
    let rotated = |sealed: [&[u8]; 2], one: &WebhookEndpoint| {
        let [secret, previous] = sealed.map(|bytes| SealedSecret(bytes.to_vec()));
        WebhookEndpoint { secret, previous_secret: Some((previous, clock.now())), version: 2, ..one.clone() }
    };
    let kept = memory.all_endpoints(None, 2).await.unwrap();
    assert_eq!(kept, [rotated([CURRENT, CURRENT], &old), rotated([DAMAGED, CURRENT], &damaged)]);
    let again = rotate(&Script::of(0), &memory).await.unwrap();
    assert_eq!((again.secrets, again.current, again.unopened), (0, 5, 1));
}

/// Changes the endpoint, or deletes it, before it seals for the first time.
struct Meddling {
    memory: Arc<Memory>,
    deletes: bool,
    done: AtomicI64,
}

#[async_trait]
impl Resealer for Meddling {
    async fn current_key(&self) -> Result<String, VaultError> {
        Ok("new".into())
    }

    async fn reseal(&self, _: TransactionId, _: &SealedCard) -> Result<Option<SealedCard>, VaultError> {
        Ok(None)
    }

    async fn reseal_key(&self, _: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, VaultError> {
        let found = self.memory.all_endpoints(None, 1).await.unwrap();
        if let Some(found) = found.into_iter().next().filter(|_| self.done.fetch_add(1, Ordering::SeqCst) == 0) {
            if self.deletes {
                assert!(self.memory.delete_endpoint(&found.customer_id, found.id).await.unwrap());
            } else {
                let other = WebhookEndpoint { description: "changed".into(), version: 2, ..found };
                assert_eq!(self.memory.update_endpoint(&other, 1, &[], None).await.unwrap(), EndpointVerdict::Written);
            }
        }
        Ok((sealed != CURRENT).then(|| CURRENT.to_vec()))
    }
}

#[tokio::test]
async fn an_endpoint_that_changes_meanwhile_keeps_the_change_and_a_deleted_one_does_not_come_back() {
    for deletes in [false, true] {
        let (memory, clock) = processing(0).await;
        memory.insert_endpoint(&endpoint([b"old", b"older"], &clock), None).await.unwrap();
        let meddling = Meddling { memory: Arc::clone(&memory), deletes, done: AtomicI64::new(0) };
        let done = rotate_vault(&meddling, &*memory, &*memory, &[], &*memory).await.unwrap();
        assert_eq!((done.secrets, done.gone), if deletes { (0, 2) } else { (2, 0) });
        let kept = memory.all_endpoints(None, 1).await.unwrap();
        let shown = kept.iter().map(|e| (e.description.as_str(), e.version, e.secret.0.as_slice()));
        assert!(if deletes { kept.is_empty() } else { shown.eq([("changed", 3, CURRENT)]) });
    }
}

#[tokio::test]
async fn cards_that_are_kept_too_long_are_erased_to_the_last() {
    let (memory, clock) = processing(5_001).await;
    let retention = TimeDelta::hours(168);
    clock.advance(Duration::from_hours(168));
    let shred = async || shred_cards(&*memory, &*memory, &*clock, retention).await.unwrap();
    assert_eq!(shred().await, Shredded::default());
    let card = fixtures::card();
    let token = TokenizedCard {
        token: CardToken(UuidV7Generator.next_id()),
        customer_id: fixtures::new_transaction().customer_id,
        summary: card.summary(),
        card: SealedCard(CURRENT.to_vec()),
        created_at: clock.now(),
        expires_at: clock.now(),
    };
    memory.put_token(&token, None).await.unwrap();
    clock.advance(Duration::from_millis(1));
    assert_eq!(shred().await, Shredded { cards: 5_001, tokens: 1 });
    assert_eq!(memory.list(CardPlace::Tokens, None, 10).await.unwrap(), []);
    assert_eq!(memory.list(CardPlace::Transactions, None, 10).await.unwrap(), []);
}
