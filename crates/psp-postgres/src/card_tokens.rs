use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{CardTokenStore, StoreError, TokenizedCard};
use psp_domain::{CardToken, CustomerId, SealedCard};

use crate::classify::repeat;
use crate::connection::PgStore;
use crate::transactions::{card_summary, stored_expiry};

#[async_trait]
impl CardTokenStore for PgStore {
    async fn put_token(&self, card: &TokenizedCard) -> Result<(), StoreError> {
        let stored = repeat(|| {
            // The token is there already when the answer to an earlier attempt was lost.
            let query = sqlx::query!(
                "INSERT INTO card_tokens (token, customer_id, card_holder_name, card_expiry, card_last_four, card_brand, \
                 sealed_card, created_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
                 ON CONFLICT (token) DO NOTHING",
                card.token.0,
                card.customer_id.as_str(),
                card.summary.holder_name.as_str(),
                stored_expiry(&card.summary),
                card.summary.last_four,
                card.summary.brand.as_str(),
                card.card.0,
                card.created_at,
                card.expires_at
            );
            query.execute(&self.writes)
        });
        stored.await?;
        Ok(())
    }

    async fn find_token(
        &self,
        customer: &CustomerId,
        token: CardToken,
        now: DateTime<Utc>,
    ) -> Result<Option<TokenizedCard>, StoreError> {
        let row = repeat(|| {
            let query = sqlx::query!(
                "SELECT card_holder_name, card_expiry, card_last_four, card_brand, sealed_card, created_at, expires_at \
                 FROM card_tokens WHERE token = $1 AND customer_id = $2 AND expires_at > $3",
                token.0,
                customer.as_str(),
                now
            );
            query.fetch_optional(&self.reads)
        });
        let Some(row) = row.await? else { return Ok(None) };
        Ok(Some(TokenizedCard {
            token,
            customer_id: customer.clone(),
            summary: card_summary(&row.card_holder_name, row.card_expiry, row.card_last_four, &row.card_brand)?,
            card: SealedCard(row.sealed_card),
            created_at: row.created_at,
            expires_at: row.expires_at,
        }))
    }

    async fn purge_tokens(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let purged = repeat(|| {
            let query = sqlx::query!(
                "DELETE FROM card_tokens WHERE token = ANY (ARRAY (SELECT token FROM card_tokens \
                 WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
                now,
                i64::from(limit)
            );
            query.execute(&self.writes)
        });
        Ok(purged.await?.rows_affected())
    }
}
