use async_trait::async_trait;
use chrono::Datelike;
use psp_domain::ports::{StoreError, TransactionReader, UnauthorizedTransaction};
use psp_domain::{
    CardBrand, CardExpiry, CardSummary, Country, CustomerId, GatewayName, GatewayReference, Installments, Money, Named,
    OrderId, OrderLink, OrderName, Page, PageRequest, PaymentMethod, RefundTotals, SealedCard, Transaction,
    TransactionId, TransactionKind, TransactionStatus, TransactionWrite, UserId,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection, SqlitePool};
use uuid::Uuid;

use crate::attempts;
use crate::bulk::{Bulk, Values};
use crate::connection::{SqliteStore, damaged, millis, parse, time, unavailable};

/// The columns of [`decode`], in its order.
macro_rules! columns {
    () => {
        "id, kind, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry, \
         card_last_four, card_brand, installments, order_id, user_id, country, requested_gateway, status, status_reason, \
         gateway, gateway_reference, version, sequence, created_at, updated_at"
    };
}

/// Further columns of [`decode`]: few transactions have other values than the defaults, so they are not written with the others.
macro_rules! rare_columns {
    () => {
        ", placed_order, correlation_id, refund_count, refund_pending, refunded"
    };
}

const INSERT: Bulk = Bulk::new(concat!("INSERT INTO transactions (", columns!(), ", sealed_card) {values}"), 25);

/// The sealed card stays while authorization goes on.
pub(crate) const UPDATE: Bulk = Bulk::new(
    "WITH new AS ({values}) UPDATE transactions SET status = new.column3, status_reason = new.column4, \
     gateway = new.column5, gateway_reference = new.column6, version = new.column7, sequence = new.column8, \
     updated_at = new.column9, sealed_card = CASE WHEN new.column10 THEN sealed_card END \
     FROM new WHERE transactions.id = new.column1 AND transactions.version = new.column2",
    10,
);

/// What of a new transaction is written only where it pays an order.
pub(crate) const LINK: Bulk = Bulk::new(
    "WITH new AS ({values}) UPDATE transactions SET placed_order = new.column2, correlation_id = new.column3 \
     FROM new WHERE transactions.id = new.column1",
    3,
);

/// What of a new state is written only with refunds.
pub(crate) const UPDATE_REFUNDS: Bulk = Bulk::new(
    "WITH new AS ({values}) UPDATE transactions SET refund_count = new.column2, refund_pending = new.column3, \
     refunded = new.column4 FROM new WHERE transactions.id = new.column1",
    4,
);

/// Whether one of some transactions waits for payables of which none waits.
pub(crate) const ARE_SETTLED: Bulk = Bulk::new(
    "WITH new AS ({values}) SELECT EXISTS (SELECT 1 FROM new CROSS JOIN transactions ON transactions.id = new.column1 \
     WHERE transactions.status = 'pending_payment' AND NOT EXISTS (SELECT 1 FROM payables \
         WHERE payables.transaction_id = transactions.id AND payables.status = 'waiting_funds'))",
    1,
);

pub(crate) const FIND: &str =
    concat!("SELECT ", columns!(), rare_columns!(), " FROM transactions WHERE id = ? AND customer_id = ?");

pub(crate) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    rare_columns!(),
    " FROM transactions WHERE id IN (SELECT id FROM transactions WHERE customer_id = ?1 AND kind = ?2 AND id < ?3 \
             ORDER BY id DESC LIMIT ?4 OFFSET ?5) ORDER BY id DESC"
);

pub(crate) const LIST_OF_ORDERS: &str = concat!(
    "SELECT ",
    columns!(),
    rare_columns!(),
    " FROM transactions WHERE id IN (SELECT id FROM transactions INDEXED BY transactions_of_orders \
             WHERE customer_id = ?1 AND placed_order IS NOT NULL AND id < ?2 ORDER BY id DESC LIMIT ?3 OFFSET ?4) ORDER BY id DESC"
);

/// A row for each attempt; one with NULLs where there is none. One statement, so that a transaction is never read with the
/// attempts of another version.
pub(crate) const LOAD: &str = concat!(
    "SELECT t.*, a.number, a.gateway, a.reference, a.state, a.gateway_reference, a.reason, a.check_at, a.created_at, \
     a.updated_at FROM (SELECT ",
    columns!(),
    rare_columns!(),
    ", sealed_card FROM (SELECT DISTINCT unhex(value) AS wanted FROM json_each(?)) CROSS JOIN transactions ON id = wanted) AS t \
     LEFT JOIN gateway_attempts AS a ON a.transaction_id = t.id ORDER BY t.id, a.number"
);

/// Where the sealed card and the attempt's columns stand in a row of [`LOAD`].
const SEALED_CARD: usize = 29;
const ATTEMPT: usize = 30;

pub(crate) async fn insert(
    connection: &mut SqliteConnection,
    rows: &[(&Transaction, Option<&SealedCard>)],
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, (t, sealed): &(&Transaction, Option<&SealedCard>)| {
        let (card, named, gateway) = (t.card.as_ref(), &t.named, t.gateway.as_ref());
        values.push(t.id.0).push(t.kind.as_str()).push(t.customer_id.as_str()).push(&*t.description);
        values.push(t.amount.minor()).push(t.amount.currency().code()).push(t.payment_method.as_str());
        values.push(card.map(|c| c.holder_name.as_str())).push(card.map(stored_expiry));
        values.push(card.map(|c| &*c.last_four)).push(card.map(|c| c.brand.as_str()));
        values.push(i64::from(t.installments.get())).push(named.order_id.as_ref().map(OrderName::as_str));
        values.push(named.user_id.as_ref().map(UserId::as_str)).push(named.country.map(Country::as_str));
        values.push(named.gateway.as_ref().map(GatewayName::as_str)).push(t.status.as_str());
        values.push(t.status_reason.as_deref()).push(gateway.map(|g| g.gateway.as_str()));
        values.push(gateway.map(|g| &*g.reference)).push(t.version).push(t.sequence);
        values.push(millis(t.created_at)).push(millis(t.updated_at)).push(sealed.map(|card| &*card.0));
    };
    INSERT.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// Writes new states; `false` when one of the rows has another version than expected.
pub(crate) async fn update(
    connection: &mut SqliteConnection,
    rows: &[(&TransactionWrite, i64)],
) -> Result<bool, sqlx::Error> {
    let bind = |values: &mut Values, (write, expected): &(&TransactionWrite, i64)| {
        let t = write.transaction();
        let gateway = t.gateway.as_ref();
        values.push(t.id.0).push(*expected).push(t.status.as_str()).push(t.status_reason.as_deref());
        values.push(gateway.map(|g| g.gateway.as_str())).push(gateway.map(|g| &*g.reference));
        values.push(t.version).push(t.sequence).push(millis(t.updated_at)).push(write.keeps_card());
    };
    let changed = UPDATE.execute(connection, rows.iter(), bind).await?;
    Ok(changed == rows.len() as u64)
}

/// Joins new transactions to the orders that they pay.
pub(crate) async fn link(
    connection: &mut SqliteConnection,
    rows: &[(TransactionId, &OrderLink)],
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, (id, order): &(TransactionId, &OrderLink)| {
        values.push(id.0).push(order.id.0).push(order.correlation_id.as_str());
    };
    LINK.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// Writes what was asked back of transactions, and given.
pub(crate) async fn update_refunds(
    connection: &mut SqliteConnection,
    rows: &[&Transaction],
) -> Result<(), sqlx::Error> {
    let bind = |values: &mut Values, t: &&Transaction| {
        values.push(t.id.0).push(i64::from(t.refunds.count)).push(t.refunds.pending.minor());
        values.push(t.refunds.done.minor());
    };
    UPDATE_REFUNDS.execute(connection, rows.iter(), bind).await?;
    Ok(())
}

/// Whether one of some transactions waits for payables of which none waits: the release before, while it still settles, passes over
/// transactions that wait for a refund, so that its end may have been decided on what waited then.
pub(crate) async fn are_settled(connection: &mut SqliteConnection, rows: &[&Transaction]) -> Result<bool, sqlx::Error> {
    let bind = |values: &mut Values, t: &&Transaction| {
        values.push(t.id.0);
    };
    ARE_SETTLED.execute_and_ask(connection, rows.iter(), bind).await
}

/// A page of the payments of a customer's orders, newest first.
pub(crate) async fn list_of_orders(
    readers: &SqlitePool,
    customer: &CustomerId,
    page: PageRequest,
) -> Result<Page<Transaction>, StoreError> {
    let query = sqlx::query(LIST_OF_ORDERS)
        .bind(customer.as_str())
        .bind(page.after().unwrap_or(Uuid::max()))
        .bind(i64::from(page.limit()) + 1)
        .bind(i64::from(page.offset()));
    let rows = query.fetch_all(readers).await.map_err(unavailable)?;
    let transactions = rows.iter().map(decode).collect::<Result<_, _>>()?;
    Ok(Page::from_rows(transactions, page, |t| t.id.0))
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

    async fn list(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        // The ids come from the index alone, so that skipped rows are never read.
        let query = sqlx::query(LIST)
            .bind(customer.as_str())
            .bind(kind.as_str())
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
        let mut loaded: Vec<UnauthorizedTransaction> = Vec::with_capacity(ids.len());
        for row in &rows {
            let id = TransactionId(row.try_get(0).map_err(unavailable)?);
            if loaded.last().is_none_or(|last| last.transaction.id != id) {
                let card: Option<Vec<u8>> = row.try_get(SEALED_CARD).map_err(unavailable)?;
                let (transaction, card) = (decode(row)?, card.map(SealedCard));
                loaded.push(UnauthorizedTransaction { transaction, card, attempts: Vec::new() });
            }
            let number: Option<i64> = row.try_get(ATTEMPT).map_err(unavailable)?;
            if let (Some(_), Some(last)) = (number, loaded.last_mut()) {
                last.attempts.push(attempts::decode(row, id, ATTEMPT)?);
            }
        }
        Ok(loaded)
    }
}

fn decode(row: &SqliteRow) -> Result<Transaction, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let optional = |i: usize| row.try_get::<Option<&str>, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let installments = u8::try_from(number(11)?).ok().and_then(Installments::new);
    let amount = Money::new(number(4)?, parse(text(5)?, "currency")?);
    let money = |i: usize| Ok::<_, StoreError>(Money::new(number(i)?, amount.currency()));
    let order: Option<Uuid> = row.try_get(24).map_err(unavailable)?;
    Ok(Transaction {
        id: TransactionId(row.try_get(0).map_err(unavailable)?),
        kind: TransactionKind::from_name(text(1)?).ok_or_else(|| damaged("kind"))?,
        customer_id: parse(text(2)?, "customer_id")?,
        description: text(3)?.to_owned(),
        amount,
        payment_method: PaymentMethod::from_name(text(6)?).ok_or_else(|| damaged("payment_method"))?,
        card: optional(9)?.map(|_| card_summary(row, 7)).transpose()?,
        installments: installments.ok_or_else(|| damaged("installments"))?,
        named: Named {
            order_id: optional(12)?.map(|id| parse(id, "order_id")).transpose()?,
            user_id: optional(13)?.map(|id| parse(id, "user_id")).transpose()?,
            country: optional(14)?.map(|country| parse(country, "country")).transpose()?,
            gateway: optional(15)?.map(|gateway| parse(gateway, "requested_gateway")).transpose()?,
        },
        order: order.zip(optional(25)?).map(order_link).transpose()?,
        status: TransactionStatus::from_name(text(16)?).ok_or_else(|| damaged("status"))?,
        status_reason: optional(17)?.map(str::to_owned),
        gateway: optional(18)?.zip(optional(19)?).map(gateway_reference).transpose()?,
        refunds: RefundTotals {
            count: u16::try_from(number(26)?).map_err(|_| damaged("refund_count"))?,
            pending: money(27)?,
            done: money(28)?,
        },
        version: number(20)?,
        sequence: number(21)?,
        created_at: time(number(22)?)?,
        updated_at: time(number(23)?)?,
    })
}

fn order_link((id, correlation_id): (Uuid, &str)) -> Result<OrderLink, StoreError> {
    Ok(OrderLink { id: OrderId(id), correlation_id: parse(correlation_id, "correlation_id")? })
}

fn gateway_reference((gateway, reference): (&str, &str)) -> Result<GatewayReference, StoreError> {
    Ok(GatewayReference { gateway: parse(gateway, "gateway")?, reference: reference.to_owned() })
}

/// The holder's name, expiry, last four digits and brand, in columns from that one on.
pub(crate) fn card_summary(row: &SqliteRow, first: usize) -> Result<CardSummary, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(first + i).map_err(unavailable);
    let expiry: i64 = row.try_get(first + 1).map_err(unavailable)?;
    let month = u32::try_from(expiry % 100).map_err(|_| damaged("card_expiry"))?;
    let year = i32::try_from(expiry / 100).map_err(|_| damaged("card_expiry"))?;
    Ok(CardSummary {
        holder_name: parse(text(0)?, "card_holder_name")?,
        expiry: CardExpiry::new(month, year).map_err(|_| damaged("card_expiry"))?,
        last_four: text(2)?.to_owned(),
        brand: CardBrand::from_name(text(3)?).ok_or_else(|| damaged("card_brand"))?,
    })
}

/// A card's expiry as it is stored: year * 100 + month.
pub(crate) fn stored_expiry(card: &CardSummary) -> i64 {
    let expiry = card.expiry.first_day();
    i64::from(expiry.year()) * 100 + i64::from(expiry.month())
}
