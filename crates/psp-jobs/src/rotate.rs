use std::fmt;

use psp_domain::ports::{
    CardPlace, EndpointStore, EndpointVerdict, KeptCard, Resealer, SealedCards, StoreError, VaultError, VaultKeyStore,
};
use psp_domain::{SealedSecret, TransactionId, WebhookEndpoint};

/// The most cards, or webhook endpoints, of one read.
const BATCH: u32 = 500;
/// How often the secrets of an endpoint are sealed again because it changed meanwhile.
const MAX_TRIES: usize = 5;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotation {
    /// The name of the master key under which everything is afterwards.
    pub key: String,
    /// Cards that were sealed anew.
    pub cards: u64,
    /// Keys of the vault that were sealed anew.
    pub keys: u64,
    /// Secrets of webhook endpoints that were sealed anew.
    pub secrets: u64,
    /// What was under the current master key before.
    pub current: u64,
    /// What was erased or replaced meanwhile.
    pub gone: u64,
    /// What does not open: their master key is not among ours or may not be used, or they are damaged. They stay as
    /// they are.
    pub unopened: u64,
}

impl Rotation {
    /// Counts what was done to an endpoint.
    fn add(&mut self, tried: &Self) {
        self.secrets += tried.secrets;
        self.current += tried.current;
        self.unopened += tried.unopened;
    }
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key       {}", self.key)?;
        writeln!(f, "cards     {}", self.cards)?;
        writeln!(f, "keys      {}", self.keys)?;
        writeln!(f, "secrets   {}", self.secrets)?;
        writeln!(f, "current   {}", self.current)?;
        writeln!(f, "gone      {}", self.gone)?;
        write!(f, "unopened  {}", self.unopened)
    }
}

/// Why a rotation did not end. What it sealed anew stays so: the next one goes on with the rest.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The store failed.
    #[error("the rotation stopped before its end, and can be run again")]
    Store(#[from] StoreError),
    /// The master keys cannot be used.
    #[error("the rotation stopped before its end, and can be run again")]
    Vault(#[from] VaultError),
}

/// Seals every card, the vault's keys of those names, and the secrets of webhook endpoints anew that are not under the current
/// master key. Others may write and rotate meanwhile: what was read is replaced only where it is still the same.
///
/// # Errors
/// [`RotationError`].
pub async fn rotate_vault(
    vault: &dyn Resealer,
    cards: &dyn SealedCards,
    keys: &dyn VaultKeyStore,
    names: &[&str],
    endpoints: &dyn EndpointStore,
) -> Result<Rotation, RotationError> {
    let mut rotation = Rotation { key: vault.current_key().await?, ..Rotation::default() };
    for name in names {
        rotate_key(vault, keys, name, &mut rotation).await?;
    }
    for place in CardPlace::ALL {
        let mut after = None;
        loop {
            let batch = cards.list(place, after, BATCH).await?;
            for card in &batch {
                rotate_card(vault, cards, place, card, &mut rotation).await?;
            }
            after = batch.last().map(|card| card.id);
            if batch.len() < BATCH as usize {
                break;
            }
        }
    }
    rotate_endpoints(vault, endpoints, &mut rotation).await?;
    tracing::info!(
        key = rotation.key,
        cards = rotation.cards,
        keys = rotation.keys,
        secrets = rotation.secrets,
        current = rotation.current,
        gone = rotation.gone,
        unopened = rotation.unopened,
        "vault rotated"
    );
    Ok(rotation)
}

async fn rotate_card(
    vault: &dyn Resealer,
    cards: &dyn SealedCards,
    place: CardPlace,
    card: &KeptCard,
    rotation: &mut Rotation,
) -> Result<(), RotationError> {
    let resealed = vault.reseal(TransactionId(card.id), &card.sealed).await;
    let Some(new) = opened(resealed, rotation, &card.id)? else { return Ok(()) };
    let replaced = cards.replace(place, card, &new).await?;
    *(if replaced { &mut rotation.cards } else { &mut rotation.gone }) += 1;
    Ok(())
}

async fn rotate_key(
    vault: &dyn Resealer,
    keys: &dyn VaultKeyStore,
    name: &str,
    rotation: &mut Rotation,
) -> Result<(), RotationError> {
    let Some(old) = keys.find(name).await? else { return Ok(()) };
    let Some(new) = opened(vault.reseal_key(name, &old).await, rotation, &name)? else { return Ok(()) };
    let replaced = keys.replace(name, &old, &new).await?;
    *(if replaced { &mut rotation.keys } else { &mut rotation.gone }) += 1;
    Ok(())
}

async fn rotate_endpoints(
    vault: &dyn Resealer,
    endpoints: &dyn EndpointStore,
    rotation: &mut Rotation,
) -> Result<(), RotationError> {
    let mut after = None;
    loop {
        let batch = endpoints.all_endpoints(after, BATCH).await?;
        let is_last = batch.len() < BATCH as usize;
        after = batch.last().map(|endpoint| endpoint.id);
        for endpoint in batch {
            rotate_endpoint(vault, endpoints, endpoint, rotation).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

async fn rotate_endpoint(
    vault: &dyn Resealer,
    endpoints: &dyn EndpointStore,
    mut endpoint: WebhookEndpoint,
    rotation: &mut Rotation,
) -> Result<(), RotationError> {
    for _ in 0..MAX_TRIES {
        let mut tried = Rotation::default();
        let next = resealed_endpoint(vault, &endpoint, &mut tried).await?;
        let is_done = match &next {
            None => true,
            Some(next) => {
                endpoints.update_endpoint(next, endpoint.version, &[], None).await? == EndpointVerdict::Written
            }
        };
        if is_done {
            rotation.add(&tried);
            return Ok(());
        }
        let Some(found) = endpoints.find_endpoint(&endpoint.customer_id, endpoint.id).await? else {
            rotation.gone += tried.secrets;
            return Ok(());
        };
        endpoint = found;
    }
    Err(StoreError::Overloaded.into())
}

/// The same endpoint with what is not under the current master key sealed anew; `None` where there is nothing such.
async fn resealed_endpoint(
    vault: &dyn Resealer,
    endpoint: &WebhookEndpoint,
    tried: &mut Rotation,
) -> Result<Option<WebhookEndpoint>, VaultError> {
    let (name, mut next) = (WebhookEndpoint::secret_name(endpoint.id), endpoint.clone());
    let previous = next.previous_secret.as_mut().map(|(secret, _)| secret);
    for secret in std::iter::once(&mut next.secret).chain(previous) {
        if let Some(new) = opened(vault.reseal_key(&name, &secret.0).await, tried, &name)? {
            *secret = SealedSecret(new);
            tried.secrets += 1;
        }
    }
    next.version += 1;
    Ok((tried.secrets > 0).then_some(next))
}

/// What is to be written. One that does not open holds no other back.
fn opened<T>(
    resealed: Result<Option<T>, VaultError>,
    rotation: &mut Rotation,
    what: &dyn fmt::Display,
) -> Result<Option<T>, VaultError> {
    match resealed {
        Ok(Some(new)) => return Ok(Some(new)),
        Ok(None) => rotation.current += 1,
        Err(error @ (VaultError::UnknownKey | VaultError::Refused | VaultError::Damaged)) => {
            tracing::error!(%what, %error, "not sealed anew");
            rotation.unopened += 1;
        }
        Err(error) => return Err(error),
    }
    Ok(None)
}
