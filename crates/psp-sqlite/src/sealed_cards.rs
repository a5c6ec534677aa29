use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::SealedCard;
use psp_domain::ports::{CardPlace, KeptCard, SealedCards, StoreError};
use sqlx::Row;
use uuid::Uuid;

use crate::connection::{Durability, SqliteStore, commit, millis, unavailable};

/// What each place is asked: for a page, and to replace a card.
pub(crate) struct Statements {
    pub(crate) list: &'static str,
    pub(crate) replace: &'static str,
}

pub(crate) const TRANSACTIONS: Statements = Statements {
    list: "SELECT id, sealed_card FROM transactions INDEXED BY transactions_processing \
           WHERE status = 'processing' AND sealed_card IS NOT NULL AND id > ? ORDER BY id LIMIT ?",
    replace: "UPDATE transactions SET sealed_card = ?3 WHERE id = ?1 AND sealed_card = ?2",
};

pub(crate) const TOKENS: Statements = Statements {
    list: "SELECT token, sealed_card FROM card_tokens WHERE token > ? ORDER BY token LIMIT ?",
    replace: "UPDATE card_tokens SET sealed_card = ?3 WHERE token = ?1 AND sealed_card = ?2",
};

/// The index of what is processing is walked from the oldest.
pub(crate) const SHRED: &str = "UPDATE transactions SET sealed_card = NULL WHERE id IN \
    (SELECT id FROM transactions INDEXED BY transactions_processing \
     WHERE status = 'processing' AND sealed_card IS NOT NULL AND created_at < ? ORDER BY id LIMIT ?)";

fn statements(place: CardPlace) -> Statements {
    match place {
        CardPlace::Transactions => TRANSACTIONS,
        CardPlace::Tokens => TOKENS,
    }
}

#[async_trait]
impl SealedCards for SqliteStore {
    async fn list(&self, place: CardPlace, after: Option<Uuid>, limit: u32) -> Result<Vec<KeptCard>, StoreError> {
        let query = sqlx::query(statements(place).list).bind(after.unwrap_or(Uuid::nil())).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let kept = |row: &sqlx::sqlite::SqliteRow| {
            let sealed = SealedCard(row.try_get(1).map_err(unavailable)?);
            Ok(KeptCard { id: row.try_get(0).map_err(unavailable)?, sealed })
        };
        rows.iter().map(kept).collect()
    }

    async fn replace(&self, place: CardPlace, old: &KeptCard, new: &SealedCard) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query(statements(place).replace).bind(old.id).bind(&*old.sealed.0).bind(&*new.0);
        let replaced = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(replaced == 1)
    }

    async fn shred(&self, created_before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query(SHRED).bind(millis(created_before)).bind(limit);
        let erased = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(erased)
    }
}
