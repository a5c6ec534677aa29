use async_trait::async_trait;
use chrono::Datelike;
use psp_domain::ports::{StoreError, TransactionReader, UnauthorizedTransaction};
use psp_domain::{
    CardBrand, CardExpiry, CardSummary, CustomerId, GatewayReference, Installments, Money, Page, PageRequest,
    PaymentMethod, SealedCard, Transaction, TransactionId, TransactionStatus,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::bulk::Bulk;
use crate::connection::{SqliteStore, damaged, millis, time, unavailable};

/// The columns of [`decode`], in its order.
macro_rules! columns {
    () => {
        "id, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry, card_last_four, \
         card_brand, installments, status, status_reason, gateway, gateway_reference, version, created_at, updated_at"
    };
}

const INSERT: Bulk = Bulk::new(concat!("INSERT INTO transactions (", columns!(), ", sealed_card) {values}"), 19);

pub(crate) const UPDATE: Bulk = Bulk::new(
    "WITH new AS ({values}) UPDATE transactions SET status = new.column3, status_reason = new.column4, \
     gateway = new.column5, gateway_reference = new.column6, version = new.column7, updated_at = new.column8, \
     sealed_card = NULL FROM new WHERE transactions.id = new.column1 AND transactions.version = new.column2",
    8,
);

pub(crate) const FIND: &str = concat!("SELECT ", columns!(), " FROM transactions WHERE id = ? AND customer_id = ?");

pub(crate) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM transactions WHERE id IN (SELECT id FROM transactions WHERE customer_id = ?1 AND id < ?2 \
             ORDER BY id DESC LIMIT ?3 OFFSET ?4) ORDER BY id DESC"
);

pub(crate) const LOAD: &str = concat!(
    "SELECT ",
    columns!(),
    ", sealed_card FROM (SELECT unhex(value) AS wanted FROM json_each(?)) CROSS JOIN transactions ON id = wanted"
);

pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    rows: &[(&Transaction, &SealedCard)],
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut crate::bulk::Values, (t, card): &(&Transaction, &SealedCard)| {
        let expiry = t.card.expiry.first_day();
        values.push(t.id.0).push(t.customer_id.as_str()).push(&*t.description).push(t.amount.minor());
        values.push(t.amount.currency().code()).push(t.payment_method.as_str()).push(t.card.holder_name.as_str());
        values.push(i64::from(expiry.year()) * 100 + i64::from(expiry.month())).push(&*t.card.last_four);
        values.push(t.card.brand.as_str()).push(i64::from(t.installments.get())).push(t.status.as_str());
        let gateway = t.gateway.as_ref();
        values.push(t.status_reason.as_deref()).push(gateway.map(|g| &*g.gateway));
        values.push(gateway.map(|g| &*g.reference)).push(t.version);
        values.push(millis(t.created_at)).push(millis(t.updated_at)).push(&*card.0);
    };
    INSERT.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// Writes new states; `false` when one of the rows has another version than expected.
pub(crate) async fn update(
    connection: &mut SqliteConnection,
    rows: &[(&Transaction, i64)],
) -> Result<bool, sqlx::Error> {
    let bind = |values: &mut crate::bulk::Values, (t, expected): &(&Transaction, i64)| {
        let gateway = t.gateway.as_ref();
        values.push(t.id.0).push(*expected).push(t.status.as_str()).push(t.status_reason.as_deref());
        values.push(gateway.map(|g| &*g.gateway)).push(gateway.map(|g| &*g.reference));
        values.push(t.version).push(millis(t.updated_at));
    };
    let changed = UPDATE.execute(connection, rows.iter(), bind).await?;
    Ok(changed == rows.len() as u64)
}

pub(crate) async fn version(connection: &mut SqliteConnection, id: TransactionId) -> Result<Option<i64>, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT version FROM transactions WHERE id = ?").bind(id.0);
    query.fetch_optional(connection).await
}

#[async_trait]
impl TransactionReader for SqliteStore {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        let query = sqlx::query(FIND).bind(id.0).bind(customer.as_str());
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn list(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Transaction>, StoreError> {
        // The ids come from the index alone, so that skipped rows are never read.
        let query = sqlx::query(LIST)
            .bind(customer.as_str())
            .bind(page.after().unwrap_or(Uuid::max()))
            .bind(i64::from(page.limit()) + 1)
            .bind(i64::from(page.offset()));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let transactions = rows.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(transactions, page, |t| t.id.0))
    }

    async fn load_for_authorization(&self, ids: &[TransactionId]) -> Result<Vec<UnauthorizedTransaction>, StoreError> {
        let wanted: Vec<_> = ids.iter().map(|id| id.0.simple().to_string()).collect();
        let query = sqlx::query(LOAD).bind(sqlx::types::Json(wanted));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let load = |row: &SqliteRow| {
            let card: Option<Vec<u8>> = row.try_get(18).map_err(unavailable)?;
            Ok(UnauthorizedTransaction { transaction: decode(row)?, card: card.map(SealedCard) })
        };
        rows.iter().map(load).collect()
    }
}

fn decode(row: &SqliteRow) -> Result<Transaction, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let optional = |i: usize| row.try_get::<Option<String>, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let expiry = number(7)?;
    let month = u32::try_from(expiry % 100).map_err(|_| damaged("card_expiry"))?;
    let year = i32::try_from(expiry / 100).map_err(|_| damaged("card_expiry"))?;
    let installments = u8::try_from(number(10)?).ok().and_then(Installments::new);
    Ok(Transaction {
        id: TransactionId(row.try_get(0).map_err(unavailable)?),
        customer_id: text(1)?.parse().map_err(|_| damaged("customer_id"))?,
        description: text(2)?.to_owned(),
        amount: Money::new(number(3)?, text(4)?.parse().map_err(|_| damaged("currency"))?),
        payment_method: PaymentMethod::from_name(text(5)?).ok_or_else(|| damaged("payment_method"))?,
        card: CardSummary {
            holder_name: text(6)?.parse().map_err(|_| damaged("card_holder_name"))?,
            expiry: CardExpiry::new(month, year).map_err(|_| damaged("card_expiry"))?,
            last_four: text(8)?.to_owned(),
            brand: CardBrand::from_name(text(9)?).ok_or_else(|| damaged("card_brand"))?,
        },
        installments: installments.ok_or_else(|| damaged("installments"))?,
        status: TransactionStatus::from_name(text(11)?).ok_or_else(|| damaged("status"))?,
        status_reason: optional(12)?,
        gateway: optional(13)?.zip(optional(14)?).map(|(gateway, reference)| GatewayReference { gateway, reference }),
        version: number(15)?,
        created_at: time(number(16)?)?,
        updated_at: time(number(17)?)?,
    })
}
