use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{StoreError, TransactionReader, UnauthorizedTransaction};
use psp_domain::{
    CardBrand, CardExpiry, CardSummary, CustomerId, GatewayReference, Installments, Money, Page, PageRequest,
    PaymentMethod, SealedCard, Transaction, TransactionId, TransactionStatus,
};
use uuid::Uuid;

use crate::classify::{damaged, repeat};
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    customer_id: String,
    description: String,
    amount: i64,
    currency: String,
    payment_method: String,
    card_holder_name: String,
    card_expiry: i32,
    card_last_four: String,
    card_brand: String,
    installments: i16,
    status: String,
    status_reason: Option<String>,
    gateway: Option<String>,
    gateway_reference: Option<String>,
    version: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    sealed_card: Option<Vec<u8>>,
}

impl TryFrom<Row> for Transaction {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let month = u32::try_from(row.card_expiry % 100).map_err(|_| damaged("card_expiry"))?;
        let installments = u8::try_from(row.installments).ok().and_then(Installments::new);
        let gateway = row.gateway.zip(row.gateway_reference);
        Ok(Self {
            id: TransactionId(row.id),
            customer_id: row.customer_id.parse().map_err(|_| damaged("customer_id"))?,
            description: row.description,
            amount: Money::new(row.amount, row.currency.parse().map_err(|_| damaged("currency"))?),
            payment_method: PaymentMethod::from_name(&row.payment_method).ok_or_else(|| damaged("payment_method"))?,
            card: CardSummary {
                holder_name: row.card_holder_name.parse().map_err(|_| damaged("card_holder_name"))?,
                expiry: CardExpiry::new(month, row.card_expiry / 100).map_err(|_| damaged("card_expiry"))?,
                last_four: row.card_last_four,
                brand: CardBrand::from_name(&row.card_brand).ok_or_else(|| damaged("card_brand"))?,
            },
            installments: installments.ok_or_else(|| damaged("installments"))?,
            status: TransactionStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            status_reason: row.status_reason,
            gateway: gateway.map(|(gateway, reference)| GatewayReference { gateway, reference }),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Selects whole rows; the first argument is the sealed card, or NULL where it is not asked for.
macro_rules! select {
    ($card:tt, $rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry, \
             card_last_four, card_brand, installments, status, status_reason, gateway, gateway_reference, version, \
             created_at, updated_at, " + $card + " AS sealed_card FROM transactions " + $rest,
            $($argument),*
        )
    };
}

#[async_trait]
impl TransactionReader for PgStore {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        let row = repeat(|| {
            let query = select!("NULL::bytea", "WHERE id = $1 AND customer_id = $2", id.0, customer.as_str());
            query.fetch_optional(&self.reads)
        });
        row.await?.map(Transaction::try_from).transpose()
    }

    async fn list(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Transaction>, StoreError> {
        let (after, limit) = (page.after().unwrap_or(Uuid::max()), i64::from(page.limit()) + 1);
        let rows = if page.offset() == 0 {
            repeat(|| {
                let query = select!(
                    "NULL::bytea",
                    "WHERE customer_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                    customer.as_str(),
                    after,
                    limit
                );
                query.fetch_all(&self.reads)
            })
            .await?
        } else {
            // The ids come from the index alone, so that skipped rows are never read.
            repeat(|| {
                let query = select!(
                    "NULL::bytea",
                    "WHERE id = ANY (ARRAY (SELECT id FROM transactions WHERE customer_id = $1 AND id < $2 \
                     ORDER BY id DESC LIMIT $3 OFFSET $4)) ORDER BY id DESC",
                    customer.as_str(),
                    after,
                    limit,
                    i64::from(page.offset())
                );
                query.fetch_all(&self.reads)
            })
            .await?
        };
        let transactions = rows.into_iter().map(Transaction::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(transactions, page, |t: &Transaction| t.id.0))
    }

    async fn load_for_authorization(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let rows = repeat(|| select!("sealed_card", "WHERE id = ANY ($1)", &ids).fetch_all(&self.reads));
        let load = |mut row: Row| {
            let card = row.sealed_card.take().map(SealedCard);
            Ok(UnauthorizedTransaction { transaction: row.try_into()?, card })
        };
        rows.await?.into_iter().map(load).collect()
    }
}
