//! What every vault does.

#![expect(missing_docs, clippy::unused_async, reason = "the names of tests are sentences, and their factories async")]

use psp_domain::TransactionId;
use psp_domain::ports::{CardVault, IdGenerator, RequestFingerprint, UuidV7Generator};

use crate::fixtures;

/// Runs the vault contract over what an async function makes.
#[macro_export]
macro_rules! vault_contract {
    ($make:path) => {
        $crate::contract_tests! { $make, $crate::contract::vault,
            a_sealed_card_opens_for_its_own_transaction_only
            a_damaged_card_does_not_open
            equal_requests_have_equal_fingerprints
        }
    };
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

pub async fn equal_requests_have_equal_fingerprints(vault: impl RequestFingerprint) {
    assert_eq!(vault.fingerprint(b"one"), vault.fingerprint(b"one"));
    assert_ne!(vault.fingerprint(b"one"), vault.fingerprint(b"other"));
}
