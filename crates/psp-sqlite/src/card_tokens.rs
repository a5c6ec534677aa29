use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{CardTokenStore, StoreError, TokenizedCard};
use psp_domain::{CardToken, CustomerId, IdempotencyRecord, SealedCard};
use sqlx::{Row, SqliteConnection};

use crate::bulk::{Bulk, Values};
use crate::connection::{Durability, SqliteStore, commit, millis, time, unavailable};
use crate::idempotency;
use crate::transactions::{card_summary, stored_expiry};

const INSERT: &str = "INSERT INTO card_tokens (token, customer_id, card_holder_name, card_expiry, card_last_four, card_brand, \
                      sealed_card, created_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (token) DO NOTHING";

pub(crate) const IS_THERE: &str = "SELECT count(*) FROM card_tokens WHERE token = ?";

pub(crate) const SPEND: Bulk =
    Bulk::new("WITH spent AS ({values}) DELETE FROM card_tokens WHERE token IN (SELECT column1 FROM spent)", 1);

pub(crate) const FIND: &str = "SELECT card_holder_name, card_expiry, card_last_four, card_brand, sealed_card, created_at, \
                    expires_at FROM card_tokens WHERE token = ? AND customer_id = ? AND expires_at > ?";

pub(crate) const PURGE: &str = "DELETE FROM card_tokens WHERE token IN \
                     (SELECT token FROM card_tokens WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)";

/// Spends tokens; `false` when one of them is not there.
pub(crate) async fn spend(connection: &mut SqliteConnection, tokens: &[CardToken]) -> Result<bool, sqlx::Error> {
    let bind = |values: &mut Values, token: &CardToken| {
        values.push(token.0);
    };
    let spent = SPEND.execute(connection, tokens.iter(), bind).await?;
    Ok(spent == tokens.len() as u64)
}

/// Writes the key that a token comes with; where the key is taken, whether it came with this token.
async fn take_key(
    connection: &mut SqliteConnection,
    token: CardToken,
    record: Option<&IdempotencyRecord>,
    now: i64,
) -> Result<Option<bool>, sqlx::Error> {
    if idempotency::take(connection, record, now).await? {
        return Ok(None);
    }
    let count: i64 = sqlx::query_scalar(IS_THERE).bind(token.0).fetch_one(connection).await?;
    Ok(Some(count > 0))
}

#[async_trait]
impl CardTokenStore for SqliteStore {
    async fn put_token(&self, card: &TokenizedCard, record: Option<&IdempotencyRecord>) -> Result<bool, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let refused = take_key(&mut database, card.token, record, millis(self.now())).await.map_err(unavailable)?;
        if let Some(is_there) = refused {
            database.rollback().await.map_err(unavailable)?;
            return Ok(is_there);
        }
        let query = sqlx::query(INSERT)
            .bind(card.token.0)
            .bind(card.customer_id.as_str())
            .bind(card.summary.holder_name.as_str())
            .bind(stored_expiry(&card.summary))
            .bind(&*card.summary.last_four)
            .bind(card.summary.brand.as_str())
            .bind(&*card.card.0)
            .bind(millis(card.created_at))
            .bind(millis(card.expires_at));
        query.execute(&mut *database).await.map_err(unavailable)?;
        commit(database).await?;
        Ok(true)
    }

    async fn find_token(
        &self,
        customer: &CustomerId,
        token: CardToken,
        now: DateTime<Utc>,
    ) -> Result<Option<TokenizedCard>, StoreError> {
        let query = sqlx::query(FIND).bind(token.0).bind(customer.as_str()).bind(millis(now));
        let Some(row) = query.fetch_optional(&self.readers).await.map_err(unavailable)? else { return Ok(None) };
        Ok(Some(TokenizedCard {
            token,
            customer_id: customer.clone(),
            summary: card_summary(&row, 0)?,
            card: SealedCard(row.try_get(4).map_err(unavailable)?),
            created_at: time(row.try_get(5).map_err(unavailable)?)?,
            expires_at: time(row.try_get(6).map_err(unavailable)?)?,
        }))
    }

    async fn purge_tokens(&self, now: DateTime<Utc>, limit: u32) -> Result<u64, StoreError> {
        let mut writer = self.writer().await?;
        let mut database = writer.begin(Durability::Full).await?;
        let query = sqlx::query(PURGE).bind(millis(now)).bind(limit);
        let purged = query.execute(&mut *database).await.map_err(unavailable)?.rows_affected();
        commit(database).await?;
        Ok(purged)
    }
}
