//! The contract, kept with local keys.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use psp_domain::ports::{CardVault, RequestFingerprint, Resealer, SecretVault, VaultError};
use psp_domain::{SealedCard, SealedSecret, TransactionId};
use psp_testkit::fixtures;
use psp_vault::{EnvelopeVault, FingerprintKey, MasterKeys, VaultKeys};

const ID: TransactionId = TransactionId(uuid::Uuid::nil());

/// The example's card, sealed in version 1 for [`ID`] under [`VERSION_1_KEY`].
const VERSION_1: &str = "AWMNzSn1YJK/qGHqaVESCBK47Y3e8AkX1DcRX5PRJdw3yw+97SXdifF6mf4K6epPECK42v6avXRlBiZBXTzRcHuRIm7DRyvk\
                         lWtFPuXLnzcv73mpO71uliFunXLYBuIhLH+4epCC29zpWJwMipqKzcvoInx65ZXCriA0pAOB0jR5";
const VERSION_1_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
/// The fingerprint of `request` under the same key, from before version 2.
const FINGERPRINT: &str = "fiu8uMn0zxsLaqF3ML20tuqEZHPeaeVwg9dQa5/yvkc=";

fn keys(bytes: &[u8]) -> VaultKeys {
    let keys: Vec<_> = bytes.iter().map(|byte| STANDARD.encode([*byte; 32])).collect();
    VaultKeys::parse(&keys.join(",").into()).unwrap()
}

fn with_keys(bytes: &[u8]) -> EnvelopeVault {
    EnvelopeVault::local(keys(bytes))
}

fn parse(text: &str) -> VaultKeys {
    VaultKeys::parse(&text.into()).unwrap()
}

async fn vault() -> EnvelopeVault {
    with_keys(&[1])
}

async fn fingerprints() -> FingerprintKey {
    FingerprintKey::derived(&keys(&[1])).unwrap()
}

psp_testkit::vault_contract!(self::vault);
psp_testkit::fingerprint_contract!(self::fingerprints);

#[tokio::test]
async fn older_keys_open_and_unknown_ones_do_not() {
    let card = fixtures::card();
    let sealed = with_keys(&[1]).seal(ID, &card).await.unwrap();
    assert_eq!(with_keys(&[2, 1]).open(ID, &sealed).await.unwrap(), card);
    assert_eq!(with_keys(&[2]).open(ID, &sealed).await, Err(VaultError::UnknownKey));
}

#[tokio::test]
async fn a_card_that_was_sealed_anew_needs_the_old_key_no_more() {
    let card = fixtures::card();
    let old = with_keys(&[1]).seal(ID, &card).await.unwrap();
    let new = with_keys(&[2, 1]).reseal(ID, &old).await.unwrap().expect("it was under the old key");
    assert_eq!(with_keys(&[2]).open(ID, &new).await.unwrap(), card);
    assert_eq!(with_keys(&[1]).open(ID, &new).await, Err(VaultError::UnknownKey));
    assert_eq!(with_keys(&[2]).reseal(ID, &old).await, Err(VaultError::UnknownKey));
    let stranger = TransactionId(uuid::Uuid::max());
    assert_eq!(with_keys(&[2, 1]).reseal(stranger, &old).await, Err(VaultError::Damaged));
}

#[tokio::test]
async fn version_1_opens_and_is_sealed_anew_as_version_2() {
    let (old, card) = (SealedCard(STANDARD.decode(VERSION_1).unwrap()), fixtures::card());
    let vault = EnvelopeVault::local(parse(VERSION_1_KEY));
    assert_eq!(vault.open(ID, &old).await.unwrap(), card);
    assert_eq!(vault.open(TransactionId(uuid::Uuid::max()), &old).await, Err(VaultError::Damaged));
    assert_eq!(with_keys(&[1]).open(ID, &old).await, Err(VaultError::UnknownKey));
    // Under the same key, too.
    let new = vault.reseal(ID, &old).await.unwrap().expect("another version");
    assert_eq!((new.0[0], vault.open(ID, &new).await.unwrap()), (2, card));
    for place in 0..old.0.len() {
        let mut damaged = old.clone();
        damaged.0[place] ^= 1;
        assert!(vault.open(ID, &damaged).await.is_err(), "byte {place}");
    }
}

#[tokio::test]
async fn a_secret_opens_for_its_own_name_only_and_is_resealed_as_a_key_of_the_vault() {
    let old = with_keys(&[1]);
    let sealed = old.seal_secret("endpoint 1", b"whsec_secret").await.unwrap();
    assert_eq!(*old.open_secret("endpoint 1", &sealed).await.unwrap(), b"whsec_secret");
    assert_eq!(old.open_secret("endpoint 2", &sealed).await, Err(VaultError::Damaged));
    assert!(!sealed.0.windows(6).any(|bytes| bytes == b"secret"));
    assert_eq!(old.reseal_key("endpoint 1", &sealed.0).await.unwrap(), None);
    let both = with_keys(&[2, 1]);
    let resealed = both.reseal_key("endpoint 1", &sealed.0).await.unwrap().expect("under another master key");
    let new = with_keys(&[2]);
    assert_eq!(*new.open_secret("endpoint 1", &SealedSecret(resealed)).await.unwrap(), b"whsec_secret");
    assert_eq!(new.open_secret("endpoint 1", &sealed).await, Err(VaultError::UnknownKey));
}

#[tokio::test]
async fn every_card_has_a_data_key_of_its_own() {
    let vault = with_keys(&[1]);
    let wrapped = |sealed: &SealedCard| sealed.0[..100].to_vec();
    let (one, other) =
        (vault.seal(ID, &fixtures::card()).await.unwrap(), vault.seal(ID, &fixtures::card()).await.unwrap());
    assert_ne!(wrapped(&one), wrapped(&other));
}

#[tokio::test]
async fn no_key_is_shown() {
    let shown = format!("{:?} {:?}", keys(&[0x41]), keys(&[0x41]).data_key().await.unwrap());
    assert!(shown.contains("DataKey(***)") && !shown.contains("65, 65") && !shown.contains("AAAA"), "{shown}");
}

#[tokio::test]
async fn fingerprints_depend_on_the_sealing_key_only_and_stay_over_versions() {
    let fingerprint = async |keys| FingerprintKey::derived(&keys).unwrap().fingerprint(b"request").await.unwrap();
    assert_eq!(fingerprint(keys(&[1])).await, fingerprint(keys(&[1, 2])).await);
    assert_ne!(fingerprint(keys(&[1])).await, fingerprint(keys(&[2, 1])).await);
    let from_before = fingerprint(parse(VERSION_1_KEY)).await;
    assert_eq!(STANDARD.encode(from_before.0), FINGERPRINT);
}

#[tokio::test]
async fn ciphertexts_of_cards_of_usual_length_have_one_length() {
    let vault = with_keys(&[1]);
    let mut lengths = HashSet::new();
    for length in 12..=19 {
        let card = fixtures::card_numbered(&fixtures::card_number_of_length(length));
        lengths.insert(vault.seal(ID, &card).await.unwrap().0.len());
    }
    assert_eq!(lengths.len(), 1);
}
