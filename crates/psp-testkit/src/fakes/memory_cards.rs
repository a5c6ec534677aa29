use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::SealedCard;
use psp_domain::ports::{CardPlace, KeptCard, SealedCards, StoreError, VaultKeyStore};
use uuid::Uuid;

use super::Memory;

#[async_trait]
impl SealedCards for Memory {
    async fn list(&self, place: CardPlace, after: Option<Uuid>, limit: u32) -> Result<Vec<KeptCard>, StoreError> {
        let state = self.state();
        let kept: Vec<_> = match place {
            CardPlace::Transactions => state.transactions.iter().map(|(id, (_, card))| (*id, card.clone())).collect(),
            CardPlace::Tokens => state.tokens.iter().map(|(id, token)| (*id, Some(token.card.clone()))).collect(),
        };
        let kept = kept.into_iter().filter(|(id, _)| after.is_none_or(|after| *id > after));
        let kept = kept.filter_map(|(id, card)| card.map(|sealed| KeptCard { id, sealed }));
        Ok(kept.take(limit as usize).collect())
    }

    async fn replace(&self, place: CardPlace, old: &KeptCard, new: &SealedCard) -> Result<bool, StoreError> {
        let mut state = self.state();
        let kept = match place {
            CardPlace::Transactions => state.transactions.get_mut(&old.id).and_then(|(_, card)| card.as_mut()),
            CardPlace::Tokens => state.tokens.get_mut(&old.id).map(|token| &mut token.card),
        };
        let kept = kept.filter(|card| **card == old.sealed);
        Ok(kept.map(|card| *card = new.clone()).is_some())
    }

    async fn shred(&self, created_before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut state = self.state();
        let old = state.transactions.values_mut().filter(|(t, card)| card.is_some() && t.created_at < created_before);
        let erased = old.take(limit as usize).map(|(_, card)| *card = None).count();
        Ok(erased as u64)
    }
}

#[async_trait]
impl VaultKeyStore for Memory {
    async fn find(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().vault_keys.get(name).cloned())
    }

    async fn load_or_insert(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.state().vault_keys.entry(name.to_owned()).or_insert_with(|| sealed.to_vec()).clone())
    }

    async fn replace(&self, name: &str, old: &[u8], new: &[u8]) -> Result<bool, StoreError> {
        let mut state = self.state();
        let kept = state.vault_keys.get_mut(name).filter(|kept| *kept == old);
        Ok(kept.map(|kept| *kept = new.to_vec()).is_some())
    }
}
