use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use psp_domain::ports::{SecretVault, VaultError};
use psp_domain::{EndpointId, SealedSecret, WebhookEndpoint};
use tokio::time::timeout;

use crate::secret::SigningSecret;

/// The secrets of endpoints, opened once for each version of one and remembered for a while.
pub(crate) struct Secrets {
    vault: Arc<dyn SecretVault>,
    opened: Mutex<HashMap<EndpointId, Opened>>,
}

#[derive(Clone)]
struct Opened {
    version: i64,
    since: DateTime<Utc>,
    secrets: Arc<EndpointSecrets>,
}

/// The secrets of one endpoint: both sign while there are two.
pub(crate) struct EndpointSecrets {
    current: SigningSecret,
    previous: Option<(SigningSecret, DateTime<Utc>)>,
}

impl EndpointSecrets {
    /// The signatures at that time, with a space between two.
    pub(crate) fn sign(&self, id: &str, body: &[u8], now: DateTime<Utc>) -> String {
        let previous = self.previous.as_ref().filter(|(_, until)| now < *until).map(|(secret, _)| secret);
        let signing = std::iter::once(&self.current).chain(previous);
        let signatures: Vec<_> = signing.map(|secret| secret.sign(id, now.timestamp(), body)).collect();
        signatures.join(" ")
    }
}

impl Secrets {
    const MAX_OPENED: usize = 1_024;
    const LIFETIME: TimeDelta = TimeDelta::minutes(5);
    /// How long the vault may take.
    pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

    pub(crate) fn new(vault: Arc<dyn SecretVault>) -> Self {
        Self { vault, opened: Mutex::default() }
    }

    pub(crate) async fn of(
        &self,
        endpoint: &WebhookEndpoint,
        now: DateTime<Utc>,
    ) -> Result<Arc<EndpointSecrets>, VaultError> {
        if let Some(secrets) = self.remembered(endpoint, now) {
            return Ok(secrets);
        }
        let secrets =
            timeout(Self::PATIENCE, self.open(endpoint, now)).await.unwrap_or(Err(VaultError::Unavailable))?;
        let secrets = Arc::new(secrets);
        self.remember(endpoint, Arc::clone(&secrets), now);
        Ok(secrets)
    }

    async fn open(&self, endpoint: &WebhookEndpoint, now: DateTime<Utc>) -> Result<EndpointSecrets, VaultError> {
        let current = self.open_one(endpoint.id, &endpoint.secret).await?;
        let previous = match &endpoint.previous_secret {
            Some((secret, until)) if now < *until => self.open_previous(endpoint.id, secret).await?.zip(Some(*until)),
            _ => None,
        };
        Ok(EndpointSecrets { current, previous })
    }

    /// `None` for one that never opens again: a rotation is what repairs that, and must.
    async fn open_previous(&self, id: EndpointId, sealed: &SealedSecret) -> Result<Option<SigningSecret>, VaultError> {
        match self.open_one(id, sealed).await {
            Err(error @ (VaultError::UnknownKey | VaultError::Refused | VaultError::Damaged)) => {
                tracing::warn!(endpoint = %id, %error, "the former secret does not sign any more");
                Ok(None)
            }
            opened => opened.map(Some),
        }
    }

    async fn open_one(&self, id: EndpointId, sealed: &SealedSecret) -> Result<SigningSecret, VaultError> {
        let text = self.vault.open_secret(&WebhookEndpoint::secret_name(id), sealed).await?;
        let text = std::str::from_utf8(&text).map_err(|_| VaultError::Damaged)?;
        SigningSecret::parse(text).map_err(|_| VaultError::Damaged)
    }

    fn remembered(&self, endpoint: &WebhookEndpoint, now: DateTime<Utc>) -> Option<Arc<EndpointSecrets>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let found = opened.get(&endpoint.id)?;
        let is_good = found.version == endpoint.version && is_fresh(found, now);
        is_good.then(|| Arc::clone(&found.secrets))
    }

    fn remember(&self, endpoint: &WebhookEndpoint, secrets: Arc<EndpointSecrets>, now: DateTime<Utc>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|_, one| is_fresh(one, now));
        if opened.len() >= Self::MAX_OPENED {
            let oldest = opened.iter().min_by_key(|(_, one)| one.since).map(|(id, _)| *id);
            oldest.and_then(|id| opened.remove(&id));
        }
        opened.insert(endpoint.id, Opened { version: endpoint.version, since: now, secrets });
    }
}

/// A clock that was set back ends its time, too.
fn is_fresh(one: &Opened, now: DateTime<Utc>) -> bool {
    one.since <= now && now - one.since < Secrets::LIFETIME
}
