//! Webhook endpoints over fakes.

#![expect(clippy::unwrap_used, reason = "test code asserts")]

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use psp_domain::ports::{Clock, EndpointStore, SecretSource, SecretVault, UrlPolicy, UuidV7Generator, VaultError};
use psp_domain::usecases::{
    CreateOutcome, EndpointError, EndpointPatch, IdempotentRequest, InvalidEndpoint, NewEndpoint, Sources,
    WebhookEndpoints,
};
use psp_domain::{
    CustomerId, EndpointStatus, EventKind, Fingerprint, SealedSecret, StoredAnswer, WebhookEndpoint, WebhookSecret,
};
use psp_testkit::clock::FixedClock;
use psp_testkit::fakes::{Memory, PlainVault};
use psp_testkit::fixtures;
use zeroize::Zeroizing;

/// Takes what begins with `https`, in small letters.
struct Https;

impl UrlPolicy for Https {
    fn check(&self, url: &str) -> Result<String, String> {
        if url.starts_with("https") { Ok(url.to_lowercase()) } else { Err("must begin with https".into()) }
    }
}

/// Numbers its secrets.
#[derive(Default)]
struct Numbered(AtomicU32);

impl SecretSource for Numbered {
    fn new_secret(&self) -> Result<WebhookSecret, VaultError> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(WebhookSecret::new(Zeroizing::new(format!("secret {number}"))))
    }
}

struct Case {
    memory: Arc<Memory>,
    clock: Arc<FixedClock>,
    endpoints: WebhookEndpoints,
}

fn case() -> Case {
    let clock = Arc::new(FixedClock::default());
    let memory = Arc::new(Memory::new(clock.clone()));
    let sources = Sources { clock: clock.clone(), ids: Arc::new(UuidV7Generator) };
    let secrets = Arc::new(Numbered::default());
    let endpoints =
        WebhookEndpoints::new(memory.clone(), memory.clone(), Arc::new(PlainVault), Arc::new(Https), secrets, sources);
    Case { memory, clock, endpoints }
}

fn customer() -> CustomerId {
    fixtures::customer("123")
}

fn new() -> NewEndpoint {
    NewEndpoint { url: "https://Shop.example".into(), ..NewEndpoint::default() }
}

/// The secret of an endpoint, and the one before it, opened.
async fn opened(endpoint: &WebhookEndpoint) -> (Vec<u8>, Option<Vec<u8>>) {
    let name = WebhookEndpoint::secret_name(endpoint.id);
    let current = PlainVault.open_secret(&name, &endpoint.secret).await.unwrap().to_vec();
    match &endpoint.previous_secret {
        Some((secret, _)) => (current, Some(PlainVault.open_secret(&name, secret).await.unwrap().to_vec())),
        None => (current, None),
    }
}

#[tokio::test]
async fn a_new_endpoint_is_enabled_and_its_secret_is_sealed() {
    let Case { memory, endpoints, .. } = case();
    let events = vec![EventKind::PayablePaid, EventKind::OrderPaid, EventKind::PayablePaid];
    let asked = NewEndpoint { events, description: "my shop".into(), ..new() };
    let (endpoint, secret) = endpoints.create(customer(), asked).await.unwrap();
    assert_eq!((endpoint.url.as_str(), endpoint.description.as_str()), ("https://shop.example", "my shop"));
    assert_eq!(endpoint.events, [EventKind::PayablePaid, EventKind::OrderPaid]);
    assert_eq!((endpoint.status, endpoint.version, endpoint.sequence), (EndpointStatus::Enabled, 1, 0));
    assert_eq!((secret.expose(), opened(&endpoint).await), ("secret 1", (b"secret 1".to_vec(), None)));
    assert_eq!(format!("{secret:?}"), "WebhookSecret(***)");
    assert_eq!(memory.find_endpoint(&customer(), endpoint.id).await.unwrap(), Some(endpoint));
}

#[tokio::test]
async fn all_that_is_wrong_with_a_request_is_told_at_once() {
    let Case { memory, endpoints, .. } = case();
    let asked = NewEndpoint { url: "ftp://shop.example".into(), description: "x".repeat(501), ..new() };
    let Err(EndpointError::Invalid(faults)) = endpoints.create(customer(), asked).await else { panic!("it is wrong") };
    assert_eq!(faults, [InvalidEndpoint::Url("must begin with https".into()), InvalidEndpoint::Description]);
    assert!(faults.iter().map(InvalidEndpoint::field).eq(["url", "description"]));
    let asked = NewEndpoint { description: "a\0b".into(), ..new() };
    let refused = endpoints.create(customer(), asked).await;
    assert!(matches!(refused, Err(EndpointError::Invalid(faults)) if faults == [InvalidEndpoint::Description]));
    let asked = NewEndpoint { description: "4111 1111 1111 1111".into(), ..new() };
    let refused = endpoints.create(customer(), asked).await;
    assert!(
        matches!(refused, Err(EndpointError::Invalid(faults)) if faults == [InvalidEndpoint::DescriptionIsCardNumber])
    );
    assert_eq!(memory.all_endpoints(None, 10).await.unwrap(), []);
}

#[tokio::test]
async fn a_customer_has_twenty_endpoints_and_no_more() {
    let Case { endpoints, .. } = case();
    let mut last = None;
    for _ in 0..WebhookEndpoint::MAX_PER_CUSTOMER {
        last = Some(endpoints.create(customer(), new()).await.unwrap().0);
    }
    assert!(matches!(endpoints.create(customer(), new()).await, Err(EndpointError::TooMany)));
    endpoints.create(fixtures::customer("other"), new()).await.unwrap();
    assert!(endpoints.delete(&customer(), last.unwrap().id).await.unwrap());
    endpoints.create(customer(), new()).await.unwrap();
}

#[tokio::test]
async fn only_what_is_asked_for_is_changed() {
    let Case { endpoints, clock, .. } = case();
    let (endpoint, _) = endpoints.create(customer(), new()).await.unwrap();
    clock.advance(Duration::from_secs(1));
    let update = async |patch| endpoints.update(&customer(), endpoint.id, patch).await.unwrap().unwrap();
    assert_eq!(update(EndpointPatch::default()).await, endpoint, "nothing");
    let patch = EndpointPatch { url: Some("https://B.example".into()), ..EndpointPatch::default() };
    let moved = update(patch.clone()).await;
    let expected =
        WebhookEndpoint { url: "https://b.example".into(), version: 2, updated_at: clock.now(), ..endpoint.clone() };
    assert_eq!((&moved, &update(patch).await), (&expected, &expected));
    let patch = EndpointPatch {
        events: Some(vec![EventKind::OrderPaid]),
        description: Some("b".into()),
        enabled: Some(false),
        ..EndpointPatch::default()
    };
    let disabled = update(patch).await;
    assert_eq!((disabled.status, disabled.disabled_reason.as_deref()), (EndpointStatus::Disabled, None));
    assert_eq!((disabled.events.as_slice(), disabled.version), ([EventKind::OrderPaid].as_slice(), 3));
    let refused = EndpointPatch { url: Some("x".into()), ..EndpointPatch::default() };
    assert!(matches!(endpoints.update(&customer(), endpoint.id, refused).await, Err(EndpointError::Invalid(_))));
}

#[tokio::test]
async fn enabling_forgets_why_it_was_disabled() {
    let Case { endpoints, memory, clock } = case();
    let (endpoint, _) = endpoints.create(customer(), new()).await.unwrap();
    let failing = WebhookEndpoint { failing_since: Some(clock.now()), ..endpoint.clone() };
    let (disabled, event) = failing.disable("failing", clock.now(), &UuidV7Generator);
    memory.update_endpoint(&disabled, 1, &[event], None).await.unwrap();
    let disable = EndpointPatch { enabled: Some(false), ..EndpointPatch::default() };
    let still = endpoints.update(&customer(), endpoint.id, disable).await.unwrap().unwrap();
    assert_eq!(still.disabled_reason.as_deref(), Some("failing"), "it was disabled before");
    let enable = EndpointPatch { enabled: Some(true), ..EndpointPatch::default() };
    endpoints.update(&customer(), endpoint.id, enable).await.unwrap().unwrap();
    let found = memory.find_endpoint(&customer(), endpoint.id).await.unwrap().unwrap();
    assert_eq!((found.status, found.disabled_reason, found.failing_since), (EndpointStatus::Enabled, None, None));
}

#[tokio::test]
async fn a_rotation_keeps_the_secret_before_it_for_a_day() {
    let Case { endpoints, clock, .. } = case();
    let (endpoint, _) = endpoints.create(customer(), new()).await.unwrap();
    let rotate = async || endpoints.rotate_secret(&customer(), endpoint.id).await.unwrap().unwrap();
    let (rotated, secret) = rotate().await;
    assert_eq!((secret.expose(), rotated.version), ("secret 2", 2));
    assert_eq!(opened(&rotated).await, (b"secret 2".to_vec(), Some(b"secret 1".to_vec())));
    let until = rotated.previous_secret.as_ref().map(|(_, until)| *until);
    assert_eq!(until, Some(clock.now() + WebhookEndpoints::PREVIOUS_SIGNS_FOR));
    let (again, _) = rotate().await;
    assert_eq!(opened(&again).await, (b"secret 3".to_vec(), Some(b"secret 2".to_vec())));
}

#[tokio::test]
async fn another_customers_endpoint_does_not_exist() {
    let Case { endpoints, memory, .. } = case();
    let (endpoint, _) = endpoints.create(customer(), new()).await.unwrap();
    let other = fixtures::customer("other");
    let patch = EndpointPatch { description: Some("mine".into()), ..EndpointPatch::default() };
    assert_eq!(endpoints.update(&other, endpoint.id, patch).await.unwrap(), None);
    assert_eq!(endpoints.rotate_secret(&other, endpoint.id).await.unwrap(), None);
    assert!(!endpoints.delete(&other, endpoint.id).await.unwrap());
    assert_eq!(memory.all_endpoints(None, 10).await.unwrap(), [endpoint]);
}

#[tokio::test]
async fn changes_at_once_are_all_kept() {
    let Case { endpoints, memory, .. } = case();
    let (endpoint, _) = endpoints.create(customer(), new()).await.unwrap();
    let own = customer();
    let url = EndpointPatch { url: Some("https://b.example".into()), ..EndpointPatch::default() };
    let words = EndpointPatch { description: Some("b".into()), ..EndpointPatch::default() };
    let (one, two, three) = tokio::join!(
        endpoints.update(&own, endpoint.id, url),
        endpoints.update(&own, endpoint.id, words),
        endpoints.rotate_secret(&own, endpoint.id),
    );
    assert!(one.unwrap().is_some() && two.unwrap().is_some() && three.unwrap().is_some());
    let found = memory.find_endpoint(&own, endpoint.id).await.unwrap().unwrap();
    assert_eq!((found.url.as_str(), found.description.as_str(), found.version), ("https://b.example", "b", 4));
}

/// A vault that lets somebody else do something before it first seals, and that may have lost its key.
#[derive(Default)]
struct Vault {
    before: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
    is_lost: bool,
}

#[async_trait::async_trait]
impl SecretVault for Vault {
    async fn seal_secret(&self, name: &str, secret: &[u8]) -> Result<SealedSecret, VaultError> {
        let before = self.before.lock().unwrap().take();
        if let Some(before) = before {
            before.await;
        }
        PlainVault.seal_secret(name, secret).await
    }

    async fn open_secret(&self, name: &str, sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, VaultError> {
        if self.is_lost { Err(VaultError::UnknownKey) } else { PlainVault.open_secret(name, sealed).await }
    }
}

/// Another process over the same store, with that vault.
fn process(case: &Case, vault: Vault) -> WebhookEndpoints {
    let sources = Sources { clock: case.clock.clone(), ids: Arc::new(UuidV7Generator) };
    let secrets = Arc::new(Numbered::default());
    WebhookEndpoints::new(case.memory.clone(), case.memory.clone(), Arc::new(vault), Arc::new(Https), secrets, sources)
}

fn keyed() -> IdempotentRequest {
    IdempotentRequest { key: "key-1".parse().unwrap(), fingerprint: Fingerprint([1; 32]) }
}

fn answer(endpoint: &WebhookEndpoint, secret: &WebhookSecret) -> StoredAnswer {
    StoredAnswer { status: 201, body: format!("{} {} {}", endpoint.id, endpoint.version, secret.expose()) }
}

#[tokio::test]
async fn of_two_processes_that_create_with_a_key_both_give_the_first_answer() {
    let case = case();
    for _ in 1..WebhookEndpoint::MAX_PER_CUSTOMER {
        case.endpoints.create(customer(), new()).await.unwrap();
    }
    let first = Arc::new(Mutex::new(None));
    let (rival, told) = (process(&case, Vault::default()), first.clone());
    let before = async move {
        *told.lock().unwrap() = Some(rival.create_once(&customer(), new(), &keyed(), &answer).await.unwrap());
    };
    let overtaken = process(&case, Vault { before: Mutex::new(Some(Box::pin(before))), is_lost: false });
    let second = overtaken.create_once(&customer(), new(), &keyed(), &answer).await.unwrap();
    let Some(CreateOutcome::Created(answered)) = first.lock().unwrap().take() else { panic!("nobody was first") };
    assert_eq!(second, CreateOutcome::Replayed(answered));
    let other = IdempotentRequest { fingerprint: Fingerprint([2; 32]), ..keyed() };
    let reused = case.endpoints.create_once(&customer(), new(), &other, &answer).await.unwrap();
    assert_eq!(reused, CreateOutcome::KeyReused);
}

#[tokio::test]
async fn of_two_processes_that_rotate_with_a_key_one_makes_a_secret() {
    let case = case();
    let id = case.endpoints.create(customer(), new()).await.unwrap().0.id;
    let first = Arc::new(Mutex::new(None));
    let (rival, told) = (process(&case, Vault::default()), first.clone());
    let before = async move {
        *told.lock().unwrap() = rival.rotate_secret_once(&customer(), id, &keyed(), &answer).await.unwrap();
    };
    let overtaken = process(&case, Vault { before: Mutex::new(Some(Box::pin(before))), is_lost: false });
    let second = overtaken.rotate_secret_once(&customer(), id, &keyed(), &answer).await.unwrap();
    let Some(CreateOutcome::Created(answered)) = first.lock().unwrap().take() else { panic!("nobody was first") };
    assert_eq!(second, Some(CreateOutcome::Replayed(answered)));
    assert_eq!(case.memory.find_endpoint(&customer(), id).await.unwrap().unwrap().version, 2);
}

#[tokio::test]
async fn an_answer_whose_master_key_is_gone_is_told_to_be_sealed_and_nothing_is_made() {
    let case = case();
    case.endpoints.create_once(&customer(), new(), &keyed(), &answer).await.unwrap();
    let lost = process(&case, Vault { is_lost: true, ..Vault::default() });
    let refused = lost.create_once(&customer(), new(), &keyed(), &answer).await;
    assert!(matches!(refused, Err(EndpointError::SealedAnswer(VaultError::UnknownKey))), "{refused:?}");
    assert_eq!(case.memory.all_endpoints(None, 10).await.unwrap().len(), 1);
}
