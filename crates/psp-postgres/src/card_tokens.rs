use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{CardTokenStore, StoreError, TokenizedCard};
use psp_domain::{CardToken, CustomerId, IdempotencyRecord, SealedCard};

use crate::classify::repeat;
use crate::connection::PgStore;
use crate::transactions::{card_summary, stored_expiry};

#[async_trait]
impl CardTokenStore for PgStore {
    async fn put_token(&self, card: &TokenizedCard, record: Option<&IdempotencyRecord>) -> Result<bool, StoreError> {
        let now = self.now();
        let stored = repeat(|| {
            // The token is there already when the answer to an earlier attempt was lost; then the key is its own. The key is
            // locked before the token, against the order: nobody else knows a token that is not committed.
            let query = sqlx::query_scalar!(
                r#"WITH known AS (
                    SELECT token FROM card_tokens WHERE token = $1
                ), taken_key AS (
                    INSERT INTO idempotency_keys AS old (customer_id, key, fingerprint, status, body, expires_at)
                    SELECT $10, $11, $12, $13, $14, $15
                    WHERE $11::text IS NOT NULL AND NOT EXISTS (SELECT FROM known)
                    ON CONFLICT (customer_id, key) DO UPDATE SET fingerprint = excluded.fingerprint,
                        status = excluded.status, body = excluded.body, expires_at = excluded.expires_at
                    WHERE old.expires_at <= $16
                    RETURNING old.key
                ), stored AS (
                    INSERT INTO card_tokens (token, customer_id, card_holder_name, card_expiry, card_last_four,
                        card_brand, sealed_card, created_at, expires_at)
                    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9
                    WHERE $11::text IS NULL OR EXISTS (SELECT FROM taken_key)
                    ON CONFLICT (token) DO NOTHING
                )
                SELECT $11::text IS NULL OR EXISTS (SELECT FROM known) OR EXISTS (SELECT FROM taken_key) AS "stored!""#,
                card.token.0,
                card.customer_id.as_str(),
                card.summary.holder_name.as_str(),
                stored_expiry(&card.summary),
                card.summary.last_four,
                card.summary.brand.as_str(),
                card.card.0,
                card.created_at,
                card.expires_at,
                record.map(|record| record.customer_id.as_str()),
                record.map(|record| record.key.as_str()),
                record.map(|record| &record.fingerprint.0[..]),
                record.map(|record| record.answer.status.cast_signed()),
                record.map(|record| &*record.answer.body),
                record.map(|record| record.expires_at),
                now
            );
            query.fetch_one(&self.writes)
        });
        stored.await
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
