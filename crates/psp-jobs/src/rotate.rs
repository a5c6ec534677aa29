use std::fmt;

use psp_domain::TransactionId;
use psp_domain::ports::{CardPlace, KeptCard, Resealer, SealedCards, StoreError, VaultError, VaultKeyStore};

/// The most cards of one read.
const BATCH: u32 = 500;

/// What a rotation did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rotation {
    /// The name of the master key under which everything is afterwards.
    pub key: String,
    /// Cards that were sealed anew.
    pub cards: u64,
    /// Keys of the vault that were sealed anew.
    pub keys: u64,
    /// Cards and keys that were under the current master key before.
    pub current: u64,
    /// Cards and keys that were erased or replaced meanwhile.
    pub gone: u64,
    /// Cards and keys that do not open: their master key is not among ours or may not be used, or they are damaged. They stay as
    /// they are.
    pub unopened: u64,
}

impl fmt::Display for Rotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "key       {}", self.key)?;
        writeln!(f, "cards     {}", self.cards)?;
        writeln!(f, "keys      {}", self.keys)?;
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

/// Seals every card, and the vault's keys of those names, anew that are not under the current master key. Others may write
/// and rotate meanwhile: what was read is replaced only where it is still the same.
///
/// # Errors
/// [`RotationError`].
pub async fn rotate_vault(
    vault: &dyn Resealer,
    cards: &dyn SealedCards,
    keys: &dyn VaultKeyStore,
    names: &[&str],
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
    tracing::info!(
        key = rotation.key,
        cards = rotation.cards,
        keys = rotation.keys,
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
