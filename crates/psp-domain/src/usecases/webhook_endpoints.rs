use std::sync::Arc;

use chrono::TimeDelta;

use crate::ports::{
    EndpointStore, EndpointVerdict, IdempotencyStore, SecretSource, SecretVault, StoreError, UrlPolicy, VaultError,
};
use crate::usecases::sealed_answers::SealedAnswers;
use crate::usecases::{CreateOutcome, IdempotentRequest, Sources};
use crate::{
    CardNumber, CustomerId, EndpointId, EndpointStatus, EventKind, IdempotencyRecord, SealedSecret, StoredAnswer,
    WebhookEndpoint, WebhookSecret,
};

/// Keeps a customer's webhook endpoints. Reading them needs no use case; but their secrets are shown once, when they come to be,
/// and again to the same request with the same idempotency key: what is kept with the key is sealed.
///
/// Cost: one write for a new one; one read and one write for a change; one read more with an idempotency key.
pub struct WebhookEndpoints {
    store: Arc<dyn EndpointStore>,
    answers: SealedAnswers,
    vault: Arc<dyn SecretVault>,
    urls: Arc<dyn UrlPolicy>,
    secrets: Arc<dyn SecretSource>,
    sources: Sources,
}

/// Renders what a customer is told of an endpoint with its new secret.
pub type Answer = dyn Fn(&WebhookEndpoint, &WebhookSecret) -> StoredAnswer + Send + Sync;

/// A webhook endpoint as a customer asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewEndpoint {
    /// Where to.
    pub url: String,
    /// The kinds of events that it asks for; empty for all.
    pub events: Vec<EventKind>,
    /// The customer's words; may be empty.
    pub description: String,
}

/// What a customer changes of a webhook endpoint; `None` leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EndpointPatch {
    /// Where to.
    pub url: Option<String>,
    /// The kinds of events that it asks for; empty for all.
    pub events: Option<Vec<EventKind>>,
    /// The customer's words.
    pub description: Option<String>,
    /// Whether it receives. Enabling one forgets why it was disabled, and what waits for it is delivered.
    pub enabled: Option<bool>,
}

/// What is wrong with a field of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpoint {
    /// Nothing may be delivered to this URL.
    #[error("{0}")]
    Url(String),
    /// The description is none that can be kept.
    #[error("must have at most {} characters, none of them U+0000", WebhookEndpoint::DESCRIPTION_MAX_CHARS)]
    Description,
    /// The description would be stored in the clear.
    #[error("must not be a card number")]
    DescriptionIsCardNumber,
}

impl InvalidEndpoint {
    /// The field of the request.
    pub const fn field(&self) -> &'static str {
        match self {
            Self::Url(_) => "url",
            Self::Description | Self::DescriptionIsCardNumber => "description",
        }
    }
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// The request does not make sense: everything that is wrong with it.
    #[error("the webhook endpoint is not valid")]
    Invalid(Vec<InvalidEndpoint>),
    /// The customer has [`WebhookEndpoint::MAX_PER_CUSTOMER`].
    #[error("there are {} webhook endpoints: delete one first", WebhookEndpoint::MAX_PER_CUSTOMER)]
    TooMany,
    /// The secret could not be made or sealed.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The request was carried out before, and what it was answered does not open.
    #[error("the first answer to this idempotency key does not open")]
    SealedAnswer(#[source] VaultError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl WebhookEndpoints {
    /// How long the former secret signs, too, after a rotation.
    pub const PREVIOUS_SIGNS_FOR: TimeDelta = TimeDelta::hours(24);
    /// How often a change is decided again because the endpoint changed meanwhile.
    const MAX_TRIES: usize = 5;

    /// The use case over its ports.
    pub fn new(
        store: Arc<dyn EndpointStore>,
        keys: Arc<dyn IdempotencyStore>,
        vault: Arc<dyn SecretVault>,
        urls: Arc<dyn UrlPolicy>,
        secrets: Arc<dyn SecretSource>,
        sources: Sources,
    ) -> Self {
        let answers = SealedAnswers::new(keys, Arc::clone(&vault), Arc::clone(&sources.clock));
        Self { store, answers, vault, urls, secrets, sources }
    }

    /// What is wrong with what could be read of a request, to be told beside the faults of the rest.
    pub fn faults(&self, patch: EndpointPatch) -> Vec<InvalidEndpoint> {
        match self.checked(patch) {
            Err(EndpointError::Invalid(faults)) => faults,
            _ => Vec::new(),
        }
    }

    /// A new endpoint, enabled, and its secret.
    ///
    /// # Errors
    /// [`EndpointError`]; nothing was written, except with [`StoreError::OutcomeUnknown`].
    pub async fn create(
        &self,
        customer: CustomerId,
        new: NewEndpoint,
    ) -> Result<(WebhookEndpoint, WebhookSecret), EndpointError> {
        self.insert(&customer, new, None).await
    }

    /// The same for a request with an idempotency key. `answer` renders what the customer is told, with the secret: sealed, it is
    /// kept with the key.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn create_once(
        &self,
        customer: &CustomerId,
        new: NewEndpoint,
        request: &IdempotentRequest,
        answer: &Answer,
    ) -> Result<CreateOutcome, EndpointError> {
        if let Some(outcome) = self.answers.replay(customer, request).await? {
            return Ok(outcome);
        }
        match self.insert(customer, new, Some((request, answer))).await {
            Ok((endpoint, secret)) => Ok(CreateOutcome::Created(answer(&endpoint, &secret))),
            Err(refused) => self.told_before(customer, request, refused).await,
        }
    }

    /// What the key came to meanwhile: another process may have been first, and its endpoint the last that there may be. Otherwise
    /// what was refused.
    async fn told_before(
        &self,
        customer: &CustomerId,
        request: &IdempotentRequest,
        refused: EndpointError,
    ) -> Result<CreateOutcome, EndpointError> {
        match self.answers.replay(customer, request).await {
            Ok(Some(outcome)) => Ok(outcome),
            Err(error @ EndpointError::SealedAnswer(_)) => Err(error),
            Ok(None) | Err(_) => Err(refused),
        }
    }

    async fn insert(
        &self,
        customer: &CustomerId,
        new: NewEndpoint,
        keyed: Option<(&IdempotentRequest, &Answer)>,
    ) -> Result<(WebhookEndpoint, WebhookSecret), EndpointError> {
        let NewEndpoint { url, events, description } = new;
        let asked =
            EndpointPatch { url: Some(url), events: Some(events), description: Some(description), enabled: None };
        let asked = self.checked(asked)?;
        let id = EndpointId(self.sources.ids.next_id());
        let (secret, sealed) = self.new_secret(id).await?;
        let endpoint = self.fresh(id, customer.clone(), asked, sealed);
        let record = self.record(&endpoint, &secret, keyed).await?;
        match self.store.insert_endpoint(&endpoint, record.as_ref()).await? {
            EndpointVerdict::Written => Ok((endpoint, secret)),
            EndpointVerdict::TooMany => Err(EndpointError::TooMany),
            EndpointVerdict::KeyTaken => Err(key_taken()),
            EndpointVerdict::Stale => Err(StoreError::Damaged("a new webhook endpoint has a taken id".into()).into()),
        }
    }

    /// The record of the key, where there is one.
    async fn record(
        &self,
        endpoint: &WebhookEndpoint,
        secret: &WebhookSecret,
        keyed: Option<(&IdempotentRequest, &Answer)>,
    ) -> Result<Option<IdempotencyRecord>, EndpointError> {
        let Some((request, answer)) = keyed else { return Ok(None) };
        Ok(Some(self.answers.record(&endpoint.customer_id, request, &answer(endpoint, secret)).await?))
    }

    fn fresh(
        &self,
        id: EndpointId,
        customer_id: CustomerId,
        asked: EndpointPatch,
        secret: SealedSecret,
    ) -> WebhookEndpoint {
        let now = self.sources.clock.now();
        WebhookEndpoint {
            id,
            customer_id,
            url: asked.url.unwrap_or_default(),
            events: asked.events.unwrap_or_default(),
            description: asked.description.unwrap_or_default(),
            status: EndpointStatus::Enabled,
            disabled_reason: None,
            secret,
            previous_secret: None,
            failing_since: None,
            version: 1,
            sequence: 0,
            created_at: now,
            updated_at: now,
        }
    }

    /// Changes an endpoint of a customer; `None` where there is none such. One that is as it is asked for is not written.
    ///
    /// # Errors
    /// [`EndpointError`]; asking again is safe.
    pub async fn update(
        &self,
        customer: &CustomerId,
        id: EndpointId,
        patch: EndpointPatch,
    ) -> Result<Option<WebhookEndpoint>, EndpointError> {
        let patch = self.checked(patch)?;
        for _ in 0..Self::MAX_TRIES {
            let Some(found) = self.store.find_endpoint(customer, id).await? else { return Ok(None) };
            let next = patched(&found, &patch);
            if next == found {
                return Ok(Some(found));
            }
            let next = self.following(next, &found);
            if self.store.update_endpoint(&next, found.version, &[], None).await? == EndpointVerdict::Written {
                return Ok(Some(next));
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// A new secret for an endpoint of a customer; `None` where there is none such. The one before it signs, too, for
    /// [`Self::PREVIOUS_SIGNS_FOR`]; one before that no longer does.
    ///
    /// # Errors
    /// [`EndpointError`]; asking again makes another secret.
    pub async fn rotate_secret(
        &self,
        customer: &CustomerId,
        id: EndpointId,
    ) -> Result<Option<(WebhookEndpoint, WebhookSecret)>, EndpointError> {
        self.rotate(customer, id, None).await
    }

    /// The same for a request with an idempotency key. `answer` renders what the customer is told, with the secret: sealed, it is
    /// kept with the key.
    ///
    /// # Errors
    /// [`EndpointError`]; asking again is safe.
    pub async fn rotate_secret_once(
        &self,
        customer: &CustomerId,
        id: EndpointId,
        request: &IdempotentRequest,
        answer: &Answer,
    ) -> Result<Option<CreateOutcome>, EndpointError> {
        if let Some(outcome) = self.answers.replay(customer, request).await? {
            return Ok(Some(outcome));
        }
        match self.rotate(customer, id, Some((request, answer))).await {
            Ok(written) => Ok(written.map(|(endpoint, secret)| CreateOutcome::Created(answer(&endpoint, &secret)))),
            Err(refused) => self.told_before(customer, request, refused).await.map(Some),
        }
    }

    async fn rotate(
        &self,
        customer: &CustomerId,
        id: EndpointId,
        keyed: Option<(&IdempotentRequest, &Answer)>,
    ) -> Result<Option<(WebhookEndpoint, WebhookSecret)>, EndpointError> {
        let (secret, sealed) = self.new_secret(id).await?;
        let until = self.sources.clock.now() + Self::PREVIOUS_SIGNS_FOR;
        for _ in 0..Self::MAX_TRIES {
            let Some(found) = self.store.find_endpoint(customer, id).await? else { return Ok(None) };
            let previous_secret = Some((found.secret.clone(), until));
            let next = WebhookEndpoint { secret: sealed.clone(), previous_secret, ..found.clone() };
            let next = self.following(next, &found);
            let record = self.record(&next, &secret, keyed).await?;
            match self.store.update_endpoint(&next, found.version, &[], record.as_ref()).await? {
                EndpointVerdict::Written => return Ok(Some((next, secret))),
                EndpointVerdict::KeyTaken => return Err(key_taken()),
                EndpointVerdict::Stale | EndpointVerdict::TooMany => {}
            }
        }
        Err(StoreError::Overloaded.into())
    }

    /// Deletes an endpoint of a customer; `false` where there is none such. What waits for it is not delivered any more.
    ///
    /// # Errors
    /// [`EndpointError::Store`]; asking again is safe.
    pub async fn delete(&self, customer: &CustomerId, id: EndpointId) -> Result<bool, EndpointError> {
        Ok(self.store.delete_endpoint(customer, id).await?)
    }

    /// The state that follows the one that was found.
    fn following(&self, next: WebhookEndpoint, found: &WebhookEndpoint) -> WebhookEndpoint {
        WebhookEndpoint { version: found.version + 1, updated_at: self.sources.clock.now(), ..next }
    }

    async fn new_secret(&self, id: EndpointId) -> Result<(WebhookSecret, SealedSecret), EndpointError> {
        let secret = self.secrets.new_secret()?;
        let sealed = self.vault.seal_secret(&WebhookEndpoint::secret_name(id), secret.expose().as_bytes()).await?;
        Ok((secret, sealed))
    }

    /// The same with its URL normalised and each kind once, or all that is wrong.
    fn checked(&self, patch: EndpointPatch) -> Result<EndpointPatch, EndpointError> {
        let mut faults = Vec::new();
        let url = patch.url.and_then(|url| match self.urls.check(&url) {
            Ok(url) => Some(url),
            Err(fault) => {
                faults.push(InvalidEndpoint::Url(fault));
                None
            }
        });
        let description = patch.description.as_deref().unwrap_or_default();
        if !WebhookEndpoint::is_description(description) {
            faults.push(InvalidEndpoint::Description);
        } else if CardNumber::is_all_of(description) {
            faults.push(InvalidEndpoint::DescriptionIsCardNumber);
        }
        if !faults.is_empty() {
            return Err(EndpointError::Invalid(faults));
        }
        let events = patch.events.map(|mut events| {
            events.sort_unstable();
            events.dedup();
            events
        });
        Ok(EndpointPatch { url, events, ..patch })
    }
}

/// The key was taken, and its record expired before it was read: the client may simply ask again.
fn key_taken() -> EndpointError {
    StoreError::Overloaded.into()
}

fn patched(endpoint: &WebhookEndpoint, patch: &EndpointPatch) -> WebhookEndpoint {
    let mut next = endpoint.clone();
    next.url = patch.url.clone().unwrap_or(next.url);
    next.events = patch.events.clone().unwrap_or(next.events);
    next.description = patch.description.clone().unwrap_or(next.description);
    match (patch.enabled, endpoint.status) {
        (Some(true), EndpointStatus::Disabled) => {
            (next.status, next.disabled_reason, next.failing_since) = (EndpointStatus::Enabled, None, None);
        }
        (Some(false), EndpointStatus::Enabled) => {
            (next.status, next.disabled_reason) = (EndpointStatus::Disabled, None);
        }
        _ => {}
    }
    if next.status == EndpointStatus::Enabled && next.url != endpoint.url {
        next.failing_since = None;
    }
    next
}
