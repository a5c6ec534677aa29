//! The contract, kept by AES-256-GCM.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use psp_domain::TransactionId;
use psp_domain::ports::{CardVault, RequestFingerprint, VaultError};
use psp_testkit::fixtures;
use psp_vault::{AesGcmVault, VaultKeys};

fn with_keys(bytes: &[u8]) -> AesGcmVault {
    let keys: Vec<_> = bytes.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
    AesGcmVault::new(VaultKeys::parse(&keys.join(",").into()).unwrap()).unwrap()
}

async fn vault() -> AesGcmVault {
    with_keys(&[1])
}

psp_testkit::vault_contract!(self::vault);

#[tokio::test]
async fn older_keys_open_and_unknown_ones_do_not() {
    let (id, card) = (TransactionId(uuid::Uuid::nil()), fixtures::card());
    let sealed = with_keys(&[1]).seal(id, &card).await.unwrap();
    assert_eq!(with_keys(&[2, 1]).open(id, &sealed).await.unwrap(), card);
    assert_eq!(with_keys(&[2]).open(id, &sealed).await, Err(VaultError::UnknownKey));
}

#[test]
fn fingerprints_depend_on_the_sealing_key_only() {
    let fingerprint = |keys| with_keys(keys).fingerprint(b"request");
    assert_eq!(fingerprint(&[1]), fingerprint(&[1, 2]));
    assert_ne!(fingerprint(&[1]), fingerprint(&[2, 1]));
}

#[tokio::test]
async fn ciphertexts_of_cards_of_usual_length_have_one_length() {
    let (id, vault) = (TransactionId(uuid::Uuid::nil()), with_keys(&[1]));
    let mut lengths = HashSet::new();
    for length in 12..=19 {
        let card = fixtures::card_numbered(&fixtures::card_number_of_length(length));
        lengths.insert(vault.seal(id, &card).await.unwrap().0.len());
    }
    assert_eq!(lengths.len(), 1);
}
