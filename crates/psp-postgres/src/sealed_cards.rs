use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::SealedCard;
use psp_domain::ports::{CardPlace, KeptCard, SealedCards, StoreError};
use uuid::Uuid;

use crate::classify::repeat;
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    sealed_card: Vec<u8>,
}

impl From<Row> for KeptCard {
    fn from(row: Row) -> Self {
        Self { id: row.id, sealed: SealedCard(row.sealed_card) }
    }
}

#[async_trait]
impl SealedCards for PgStore {
    async fn list(&self, place: CardPlace, after: Option<Uuid>, limit: u32) -> Result<Vec<KeptCard>, StoreError> {
        let after = after.unwrap_or(Uuid::nil());
        let rows = match place {
            CardPlace::Transactions => self.with_transactions(after, limit.into()).await?,
            CardPlace::Tokens => self.with_tokens(after, limit.into()).await?,
        };
        Ok(rows.into_iter().map(KeptCard::from).collect())
    }

    async fn replace(&self, place: CardPlace, old: &KeptCard, new: &SealedCard) -> Result<bool, StoreError> {
        // Done twice, when an answer was lost, it finds the new card in place.
        match place {
            CardPlace::Transactions => self.replace_with_transaction(old, new).await,
            CardPlace::Tokens => self.replace_with_token(old, new).await,
        }
    }

    async fn shred(&self, created_before: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let erased = repeat(|| {
            let query = sqlx::query!(
                "UPDATE transactions SET sealed_card = NULL WHERE id = ANY (ARRAY (SELECT id FROM transactions \
                 WHERE status = 'processing' AND sealed_card IS NOT NULL AND created_at < $1 ORDER BY id LIMIT $2 \
                 FOR UPDATE SKIP LOCKED))",
                created_before,
                i64::from(limit)
            );
            query.execute(&self.writes)
        });
        Ok(erased.await?.rows_affected())
    }
}

impl PgStore {
    async fn with_transactions(&self, after: Uuid, limit: i64) -> Result<Vec<Row>, StoreError> {
        repeat(|| {
            let query = sqlx::query_as!(
                Row,
                r#"SELECT id, sealed_card AS "sealed_card!" FROM transactions
                WHERE status = 'processing' AND sealed_card IS NOT NULL AND id > $1 ORDER BY id LIMIT $2"#,
                after,
                limit
            );
            query.fetch_all(&self.reads)
        })
        .await
    }

    async fn with_tokens(&self, after: Uuid, limit: i64) -> Result<Vec<Row>, StoreError> {
        repeat(|| {
            let query = sqlx::query_as!(
                Row,
                "SELECT token AS id, sealed_card FROM card_tokens WHERE token > $1 ORDER BY token LIMIT $2",
                after,
                limit
            );
            query.fetch_all(&self.reads)
        })
        .await
    }

    async fn replace_with_transaction(&self, old: &KeptCard, new: &SealedCard) -> Result<bool, StoreError> {
        let replaced = repeat(|| {
            let query = sqlx::query!(
                "UPDATE transactions SET sealed_card = $3 WHERE id = $1 AND sealed_card IN ($2, $3)",
                old.id,
                &old.sealed.0,
                &new.0
            );
            query.execute(&self.writes)
        });
        Ok(replaced.await?.rows_affected() == 1)
    }

    async fn replace_with_token(&self, old: &KeptCard, new: &SealedCard) -> Result<bool, StoreError> {
        let replaced = repeat(|| {
            let query = sqlx::query!(
                "UPDATE card_tokens SET sealed_card = $3 WHERE token = $1 AND sealed_card IN ($2, $3)",
                old.id,
                &old.sealed.0,
                &new.0
            );
            query.execute(&self.writes)
        });
        Ok(replaced.await?.rows_affected() == 1)
    }
}
