//! What every vault does.

#![expect(missing_docs, reason = "the names of tests are sentences, and their factories async")]

use psp_domain::ports::{CardVault, IdGenerator, RequestFingerprint, Resealer, UuidV7Generator};
use psp_domain::{Card, CardHolderName, SealedCard, TransactionId};

use crate::fixtures;

/// Runs the vault contract over what an async function makes.
#[macro_export]
macro_rules! vault_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::vault,
            every_card_comes_back_as_it_was
            a_sealed_card_opens_for_its_own_transaction_only
            a_sealed_card_shows_nothing_of_the_card
            a_damaged_card_does_not_open
            bytes_that_were_never_sealed_do_not_open
            what_is_under_the_current_key_is_not_sealed_anew
        }
    };
}

/// Runs the contract of fingerprints over what an async function makes.
#[macro_export]
macro_rules! fingerprint_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::vault,
            equal_requests_have_equal_fingerprints
        }
    };
}

/// Cards with numbers, codes and names of every length.
fn cards() -> Vec<Card> {
    let names = ["L".to_owned(), "Luke Skywalker".to_owned(), "𝕷".repeat(CardHolderName::MAX_CHARS)];
    let lengths = (12..=19).zip(names.iter().cycle());
    let card = |(length, name): (usize, &String)| Card {
        number: fixtures::card_number_of_length(length).parse().unwrap(),
        holder_name: name.parse().unwrap(),
        expiry: if length % 2 == 0 { "01/2000" } else { "12/99" }.parse().unwrap(),
        verification_code: if length % 2 == 0 { "000" } else { "9999" }.parse().unwrap(),
    };
    lengths.map(card).collect()
}

pub async fn every_card_comes_back_as_it_was(vault: impl CardVault) {
    for card in cards() {
        let id = TransactionId(UuidV7Generator.next_id());
        let sealed = vault.seal(id, &card).await.unwrap();
        assert_eq!(vault.open(id, &sealed).await.unwrap(), card);
    }
}

pub async fn a_sealed_card_shows_nothing_of_the_card(vault: impl CardVault) {
    let (id, card) = (TransactionId(UuidV7Generator.next_id()), fixtures::card());
    let sealed = vault.seal(id, &card).await.unwrap();
    let number = card.number.expose();
    let shown = [number, &number[..6], &number[number.len() - 6..], card.holder_name.as_str()];
    let found = |text: &str| sealed.0.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(!shown.into_iter().any(found));
    assert!(!format!("{sealed:?}").contains("1111"));
}

pub async fn a_sealed_card_opens_for_its_own_transaction_only(vault: impl CardVault) {
    let (id, card) = (TransactionId(UuidV7Generator.next_id()), fixtures::card());
    let sealed = vault.seal(id, &card).await.unwrap();
    assert_eq!(vault.open(id, &sealed).await.unwrap(), card);
    assert!(vault.open(TransactionId(UuidV7Generator.next_id()), &sealed).await.is_err());
    assert_ne!(vault.seal(id, &card).await.unwrap(), sealed, "two seals differ");
}

pub async fn a_damaged_card_does_not_open(vault: impl CardVault) {
    let id = TransactionId(UuidV7Generator.next_id());
    let sealed = vault.seal(id, &fixtures::card()).await.unwrap();
    for place in 0..sealed.0.len() {
        let mut damaged = sealed.clone();
        damaged.0[place] ^= 1;
        assert!(vault.open(id, &damaged).await.is_err(), "byte {place}");
    }
    for length in [0, 1, sealed.0.len() - 1] {
        let mut cut = sealed.clone();
        cut.0.truncate(length);
        assert!(vault.open(id, &cut).await.is_err(), "{length} bytes");
    }
}

pub async fn bytes_that_were_never_sealed_do_not_open(vault: impl CardVault) {
    let id = TransactionId(UuidV7Generator.next_id());
    for byte in [0, 1, 0x31, 0xff] {
        for length in [0, 1, 33, 49, 113, 1000] {
            assert!(vault.open(id, &SealedCard(vec![byte; length])).await.is_err(), "{length} × {byte}");
        }
    }
}

pub async fn what_is_under_the_current_key_is_not_sealed_anew(vault: impl CardVault + Resealer) {
    let id = TransactionId(UuidV7Generator.next_id());
    let sealed = vault.seal(id, &fixtures::card()).await.unwrap();
    assert_eq!(vault.reseal(id, &sealed).await.unwrap(), None);
    assert_eq!(vault.current_key().await.unwrap(), vault.current_key().await.unwrap());
}

pub async fn equal_requests_have_equal_fingerprints(vault: impl RequestFingerprint) {
    let one = vault.fingerprint(b"one").await.unwrap();
    assert_eq!(vault.fingerprint(b"one").await.unwrap(), one);
    for other in [&b"other"[..], b"", b"one ", b"One", &b"one".repeat(100)] {
        assert_ne!(vault.fingerprint(other).await.unwrap(), one);
    }
}
