//! The contract, kept with master keys in KMS: a real server.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::io;
use std::sync::{Arc, Mutex};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::Credentials;
use aws_sdk_kms::primitives::Blob;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use psp_domain::ports::{CardVault, FingerprintError, RequestFingerprint, Resealer, SystemClock, VaultError};
use psp_domain::{SealedCard, TransactionId};
use psp_testkit::servers::{Fault, FaultyProxy};
use psp_testkit::{fakes, fixtures, servers};
use psp_vault::{EnvelopeVault, FingerprintKey, KmsKeys, MasterKeys, ReusedKeys, VaultKeys, WrappedKey};

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

/// A proxy before the server that answers calls of that operation itself, and its config.
async fn answering(operation: &'static str, status: &str, body: &str) -> (FaultyProxy, SdkConfig) {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\nx-amzn-requestid: asked-1");
    let answer = &*format!("{head}\r\n\r\n{body}").leak();
    let is_asked = move |piece: &[u8]| String::from_utf8_lossy(piece).contains(&format!("TrentService.{operation}"));
    let decide = move |piece: &[u8]| if is_asked(piece) { Fault::Answer(answer) } else { Fault::None };
    let proxy = FaultyProxy::start(servers::kms().await.trim_start_matches("http://"), decide).await;
    let config = config(&format!("http://{}", proxy.address)).await;
    (proxy, config)
}

async fn vault() -> EnvelopeVault {
    let config = server().await;
    with_key(&config, &new_key(&config).await)
}

async fn fingerprints() -> FingerprintKey {
    FingerprintKey::stored(Arc::new(vault().await), fakes::ports().await.vault_keys)
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
    let keys = ports.vault_keys;
    let stored = |vault: &Arc<EnvelopeVault>| FingerprintKey::stored(Arc::clone(vault), Arc::clone(&keys));
    let old = Arc::new(with_key(&config, &new_key(&config).await));
    let (one, other) = (stored(&old), stored(&old));
    let (one, other) = tokio::join!(one.fingerprint(b"request"), other.fingerprint(b"request"));
    let fingerprint = one.unwrap();
    assert_eq!(other.unwrap(), fingerprint);

    let new = Arc::new(with_key(&config, &new_key(&config).await));
    let sealed = keys.find(FingerprintKey::NAME).await.unwrap().unwrap();
    let resealed = new.reseal_key(FingerprintKey::NAME, &sealed).await.unwrap().expect("it was under the old key");
    assert!(keys.replace(FingerprintKey::NAME, &sealed, &resealed).await.unwrap());
    assert_eq!(stored(&new).fingerprint(b"request").await.unwrap(), fingerprint);
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

#[tokio::test]
async fn a_key_that_may_not_be_used_is_told_from_a_service_that_is_away() {
    let config = server().await;
    let (old, new) = (new_key(&config).await, new_key(&config).await);
    let sealed = with_key(&config, &old).seal(ID, &fixtures::card()).await.unwrap();
    for (status, code, expected) in [
        ("400 Bad Request", "AccessDeniedException", VaultError::Refused),
        ("400 Bad Request", "DisabledException", VaultError::Refused),
        ("400 Bad Request", "KMSInvalidStateException", VaultError::Refused),
        ("400 Bad Request", "NotFoundException", VaultError::UnknownKey),
        ("400 Bad Request", "ThrottlingException", VaultError::Unavailable),
        ("400 Bad Request", "ExpiredTokenException", VaultError::Unavailable),
        ("500 Internal Server Error", "KMSInternalException", VaultError::Unavailable),
    ] {
        let body = format!(r#"{{"__type":"{code}","message":"no"}}"#);
        let (_proxy, config) = answering("Decrypt", status, &body).await;
        let vault = with_key(&config, &new);
        assert_eq!(vault.reseal(ID, &sealed).await, Err(expected), "{code}");
        let fresh = vault.seal(ID, &fixtures::card()).await.unwrap();
        assert_eq!(vault.reseal(ID, &fresh).await, Ok(None), "the current key works");
    }
}

#[tokio::test]
async fn what_a_local_key_sealed_needs_no_answer_of_kms() {
    let local = EnvelopeVault::local(VaultKeys::parse(&"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=".into()).unwrap());
    let sealed = local.seal(ID, &fixtures::card()).await.unwrap();
    let away = config("http://127.0.0.1:1").await;
    assert_eq!(with_key(&away, "alias/psp").open(ID, &sealed).await, Err(VaultError::UnknownKey));
}

#[tokio::test]
async fn fingerprints_wait_for_the_vault_and_then_need_it_no_more() {
    let (config, keys) = (server().await, fakes::ports().await.vault_keys);
    let key = new_key(&config).await;
    let proxy = FaultyProxy::start("127.0.0.1:1", |_| Fault::None).await;
    let vault = Arc::new(with_key(&self::config(&format!("http://{}", proxy.address)).await, &key));
    let fingerprints = FingerprintKey::stored(vault, keys);
    let refused = fingerprints.fingerprint(b"request").await.unwrap_err();
    assert!(matches!(refused, FingerprintError::Vault(VaultError::Unavailable)), "{refused:?}");
    proxy.point_to(config.endpoint_url().unwrap().trim_start_matches("http://"));
    let fingerprint = fingerprints.fingerprint(b"request").await.unwrap();
    drop(proxy);
    assert_eq!(fingerprints.fingerprint(b"request").await.unwrap(), fingerprint);
}

/// What is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_says_what_kms_refused_and_never_what_it_answered() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    // An answer with a data key in the clear, cut short.
    let body = r#"{"KeyId":"key","Plaintext":"cGxhaW50ZXh0IGRhdGEga2V5IG9mIDMyIGJ5dGVzLi4="#;
    for (status, body) in [("200 OK", body), ("400 Bad Request", body)] {
        let (_proxy, config) = answering("GenerateDataKey", status, body).await;
        let unavailable = with_key(&config, "alias/psp").seal(ID, &fixtures::card()).await;
        assert_eq!(unavailable, Err(VaultError::Unavailable));
    }
    let body = r#"{"__type":"DisabledException","message":"the key is disabled"}"#;
    let (_proxy, config) = answering("GenerateDataKey", "400 Bad Request", body).await;
    with_key(&config, "alias/psp").seal(ID, &fixtures::card()).await.unwrap_err();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(!text.contains("cGxhaW50ZXh0") && !text.contains("Plaintext"), "{text}");
    let lines: Vec<_> = text.lines().filter(|line| line.contains("KMS gives no data key")).collect();
    assert_eq!(lines.len(), 3, "{text}");
    for told in ["DisabledException", "the key is disabled", "asked-1"] {
        assert!(lines[2].contains(told), "{}", lines[2]);
    }
}
