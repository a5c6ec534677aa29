//! The contract, kept with master keys in KMS: a real server.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Credentials;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use psp_domain::ports::{CardVault, RequestFingerprint, Resealer, SystemClock, VaultError};
use psp_domain::{SealedCard, TransactionId};
use psp_testkit::{fakes, fixtures, servers};
use psp_vault::{EnvelopeVault, FingerprintKey, KmsKeys, MasterKeys, ReusedKeys, WrappedKey};

const ID: TransactionId = TransactionId(uuid::Uuid::nil());

async fn config(endpoint: &str) -> SdkConfig {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let credentials = Credentials::new("test", "test", None, None, "test");
    let config = aws_config::defaults(BehaviorVersion::latest()).http_client(http).endpoint_url(endpoint);
    config.region(Region::new("us-east-1")).credentials_provider(credentials).load().await
}

async fn server() -> SdkConfig {
    config(&servers::kms().await).await
}

/// The ARN of a new key.
async fn new_key(config: &SdkConfig) -> String {
    Client::new(config).create_key().send().await.unwrap().key_metadata.unwrap().arn.unwrap()
}

fn with_key(config: &SdkConfig, key: &str) -> EnvelopeVault {
    EnvelopeVault::new(Arc::new(ReusedKeys::new(Arc::new(KmsKeys::new(config, key)), Arc::new(SystemClock))))
}

async fn vault() -> EnvelopeVault {
    let config = server().await;
    with_key(&config, &new_key(&config).await)
}

async fn fingerprints() -> FingerprintKey {
    FingerprintKey::stored(&vault().await, &*fakes::ports().await.vault_keys).await.unwrap()
}

psp_testkit::vault_contract!(self::vault);
psp_testkit::fingerprint_contract!(self::fingerprints);

#[tokio::test]
async fn a_card_moves_to_another_key_and_needs_the_old_one_no_more() {
    let (config, card) = (server().await, fixtures::card());
    let (old_key, new_key) = (new_key(&config).await, new_key(&config).await);
    let old = with_key(&config, &old_key).seal(ID, &card).await.unwrap();
    let vault = with_key(&config, &new_key);
    assert_eq!(vault.open(ID, &old).await.unwrap(), card, "what an older key wrapped opens");
    let new = vault.reseal(ID, &old).await.unwrap().expect("it was under the old key");
    let names = |sealed: &SealedCard, key: &str| String::from_utf8_lossy(&sealed.0).contains(key);
    assert!(names(&old, &old_key) && names(&new, &new_key) && !names(&new, &old_key));
    assert_eq!(with_key(&config, &new_key).open(ID, &new).await.unwrap(), card);
    assert_eq!(vault.reseal(ID, &new).await.unwrap(), None);
}

#[tokio::test]
async fn an_alias_that_points_to_another_key_rotates() {
    let config = server().await;
    let (kms, first, second) = (Client::new(&config), new_key(&config).await, new_key(&config).await);
    let alias = format!("alias/{}", first.rsplit('/').next().unwrap());
    kms.create_alias().alias_name(&alias).target_key_id(&first).send().await.unwrap();
    let vault = with_key(&config, &alias);
    assert_eq!(vault.current_key().await.unwrap(), first);
    let old = vault.seal(ID, &fixtures::card()).await.unwrap();
    kms.update_alias().alias_name(&alias).target_key_id(&second).send().await.unwrap();
    // A process that begins now.
    let vault = with_key(&config, &alias);
    assert_eq!(vault.current_key().await.unwrap(), second);
    assert!(vault.reseal(ID, &old).await.unwrap().is_some());
}

#[tokio::test]
async fn a_data_key_opens_in_its_encryption_context_only() {
    let config = server().await;
    let (kms, key) = (Client::new(&config), new_key(&config).await);
    let wrapped = KmsKeys::new(&config, &key).data_key().await.unwrap().wrapped.clone();
    let blob = Blob::new(wrapped.bytes.clone());
    assert!(kms.decrypt().ciphertext_blob(blob.clone()).send().await.is_err(), "without a context");
    let (name, value) = KmsKeys::CONTEXT;
    assert!(kms.decrypt().ciphertext_blob(blob).encryption_context(name, value).send().await.is_ok());
    let other = WrappedKey { master: new_key(&config).await, ..wrapped };
    assert!(KmsKeys::new(&config, &key).unwrap_key(&other).await.is_err(), "under the name of another key");
}

#[tokio::test]
async fn every_process_has_the_same_fingerprints_before_and_after_a_rotation() {
    let (config, ports) = (server().await, fakes::ports().await);
    let keys = &*ports.vault_keys;
    let old = with_key(&config, &new_key(&config).await);
    let (one, other) = tokio::join!(FingerprintKey::stored(&old, keys), FingerprintKey::stored(&old, keys));
    let fingerprint = one.unwrap().fingerprint(b"request");
    assert_eq!(other.unwrap().fingerprint(b"request"), fingerprint);

    let new = with_key(&config, &new_key(&config).await);
    let sealed = keys.find(FingerprintKey::NAME).await.unwrap().unwrap();
    let resealed = new.reseal_key(FingerprintKey::NAME, &sealed).await.unwrap().expect("it was under the old key");
    assert!(keys.replace(FingerprintKey::NAME, &sealed, &resealed).await.unwrap());
    assert_eq!(FingerprintKey::stored(&new, keys).await.unwrap().fingerprint(b"request"), fingerprint);
}

#[tokio::test]
async fn what_is_out_of_reach_or_unknown_is_unavailable() {
    let away = config("http://127.0.0.1:1").await;
    assert_eq!(with_key(&away, "alias/psp").seal(ID, &fixtures::card()).await, Err(VaultError::Unavailable));
    let config = server().await;
    assert_eq!(with_key(&config, "alias/missing").seal(ID, &fixtures::card()).await, Err(VaultError::Unavailable));
    let key = new_key(&config).await;
    let sealed = with_key(&config, &key).seal(ID, &fixtures::card()).await.unwrap();
    assert_eq!(with_key(&away, &key).open(ID, &sealed).await, Err(VaultError::Unavailable));
}
