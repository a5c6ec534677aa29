use async_trait::async_trait;
use psp_domain::ports::{PayableReader, StoreError};
use psp_domain::{CustomerId, Money, Page, PageRequest, Payable, PayableId, PayableStatus, TransactionId};
use rust_decimal::Decimal;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use uuid::Uuid;

use crate::bulk::Bulk;
use crate::connection::{SqliteStore, damaged, millis, time, unavailable};

/// The columns of [`decode`], in its order.
macro_rules! columns {
    () => {
        "id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, payment_date, \
         created_at, updated_at, refund"
    };
}

const INSERT: Bulk = Bulk::new(concat!("INSERT INTO payables (", columns!(), ") {values}"), 13);

pub(crate) const FIND: &str = concat!("SELECT ", columns!(), " FROM payables WHERE id = ? AND customer_id = ?");

pub(crate) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM payables WHERE id IN (SELECT id FROM payables WHERE customer_id = ?1 AND id < ?2 \
             ORDER BY id DESC LIMIT ?3 OFFSET ?4) ORDER BY id DESC"
);

pub(crate) const OF_TRANSACTION: &str =
    concat!("SELECT ", columns!(), " FROM payables WHERE transaction_id = ? ORDER BY id");

pub(crate) async fn insert(connection: &mut SqliteConnection, rows: &[&Payable]) -> Result<(), sqlx::Error> {
    let bind = |values: &mut crate::bulk::Values, p: &&Payable| {
        values.push(p.id.0).push(p.transaction_id.0).push(i64::from(p.installment)).push(p.customer_id.as_str());
        values.push(p.receivable.currency().code()).push(p.fee_percent.to_string()).push(p.fee.minor());
        values.push(p.receivable.minor()).push(p.status.as_str()).push(millis(p.payment_date));
        values.push(millis(p.created_at)).push(millis(p.updated_at)).push(i64::from(p.refund));
    };
    INSERT.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// The payables of a transaction, oldest first.
pub(crate) async fn of_transaction(
    readers: &SqlitePool,
    transaction: TransactionId,
) -> Result<Vec<Payable>, StoreError> {
    let rows = sqlx::query(OF_TRANSACTION).bind(transaction.0).fetch_all(readers).await.map_err(unavailable)?;
    rows.iter().map(decode).collect()
}

#[async_trait]
impl PayableReader for SqliteStore {
    async fn find(&self, customer: &CustomerId, id: PayableId) -> Result<Option<Payable>, StoreError> {
        let query = sqlx::query(FIND).bind(id.0).bind(customer.as_str());
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn list(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Payable>, StoreError> {
        let query = sqlx::query(LIST)
            .bind(customer.as_str())
            .bind(page.after().unwrap_or(Uuid::max()))
            .bind(i64::from(page.limit()) + 1)
            .bind(i64::from(page.offset()));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let payables = rows.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(payables, page, |p| p.id.0))
    }
}

fn decode(row: &SqliteRow) -> Result<Payable, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let currency = text(4)?.parse().map_err(|_| damaged("currency"))?;
    Ok(Payable {
        id: PayableId(row.try_get(0).map_err(unavailable)?),
        transaction_id: TransactionId(row.try_get(1).map_err(unavailable)?),
        installment: u8::try_from(number(2)?).map_err(|_| damaged("installment"))?,
        refund: u16::try_from(number(12)?).map_err(|_| damaged("refund"))?,
        customer_id: text(3)?.parse().map_err(|_| damaged("customer_id"))?,
        fee_percent: Decimal::from_str_exact(text(5)?).map_err(|_| damaged("fee_percent"))?,
        fee: Money::new(number(6)?, currency),
        receivable: Money::new(number(7)?, currency),
        status: PayableStatus::from_name(text(8)?).ok_or_else(|| damaged("status"))?,
        payment_date: time(number(9)?)?,
        created_at: time(number(10)?)?,
        updated_at: time(number(11)?)?,
    })
}
