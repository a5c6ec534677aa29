use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{PayableReader, StoreError};
use psp_domain::{CustomerId, Money, Page, PageRequest, Payable, PayableId, PayableStatus, TransactionId};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::classify::{damaged, repeat};
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    transaction_id: Uuid,
    installment: i16,
    refund: i16,
    customer_id: String,
    currency: String,
    fee_percent: Decimal,
    fee: i64,
    receivable: i64,
    status: String,
    payment_date: DateTime<Utc>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Payable {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let currency = row.currency.parse().map_err(|_| damaged("currency"))?;
        Ok(Self {
            id: PayableId(row.id),
            transaction_id: TransactionId(row.transaction_id),
            installment: u8::try_from(row.installment).map_err(|_| damaged("installment"))?,
            refund: u16::try_from(row.refund).map_err(|_| damaged("refund"))?,
            customer_id: row.customer_id.parse().map_err(|_| damaged("customer_id"))?,
            fee_percent: row.fee_percent,
            fee: Money::new(row.fee, currency),
            receivable: Money::new(row.receivable, currency),
            status: PayableStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            payment_date: row.payment_date,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Selects whole rows.
macro_rules! select {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, transaction_id, installment, refund, customer_id, currency, fee_percent, fee, receivable, status, \
             payment_date, created_at, updated_at FROM payables " + $rest,
            $($argument),*
        )
    };
}

impl PgStore {
    /// The payables of a transaction, oldest first.
    pub(crate) async fn payables_of(&self, transaction: TransactionId) -> Result<Vec<Payable>, StoreError> {
        let rows = repeat(|| select!("WHERE transaction_id = $1 ORDER BY id", transaction.0).fetch_all(&self.reads));
        rows.await?.into_iter().map(Payable::try_from).collect()
    }
}

#[async_trait]
impl PayableReader for PgStore {
    async fn find(&self, customer: &CustomerId, id: PayableId) -> Result<Option<Payable>, StoreError> {
        let row = repeat(|| {
            select!("WHERE id = $1 AND customer_id = $2", id.0, customer.as_str()).fetch_optional(&self.reads)
        });
        row.await?.map(Payable::try_from).transpose()
    }

    async fn list(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Payable>, StoreError> {
        let (after, limit) = (page.after().unwrap_or(Uuid::max()), i64::from(page.limit()) + 1);
        let rows = if page.offset() == 0 {
            repeat(|| {
                let query = select!(
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
                    "WHERE id = ANY (ARRAY (SELECT id FROM payables WHERE customer_id = $1 AND id < $2 \
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
        let payables = rows.into_iter().map(Payable::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(payables, page, |p: &Payable| p.id.0))
    }
}
