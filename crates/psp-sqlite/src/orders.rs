use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{OrderProgress, OrderReader, PaymentProgress, StoreError};
use psp_domain::{
    CountSubject, CustomerId, Money, Order, OrderId, OrderStatus, OrderWrite, Page, PageRequest, PaymentMethod,
    StatusCount, Transaction, TransactionId, TransactionStatus,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use crate::bulk::{Bulk, Values};
use crate::connection::{SqliteStore, damaged, millis, parse, time, unavailable};
use crate::transactions;

/// The columns of [`decode`], in its order.
macro_rules! columns {
    () => {
        "id, customer_id, user_id, total, currency, payment_method, status, status_reason, is_created, \
         is_cancel_requested, payment_id, correlation_id, version, sequence, created_at, updated_at"
    };
}

const INSERT: Bulk = Bulk::new(concat!("INSERT INTO orders (", columns!(), ") {values}"), 16);

pub(crate) const UPDATE: Bulk = Bulk::new(
    "WITH new AS ({values}) UPDATE orders SET status = new.column3, status_reason = new.column4, \
     is_created = new.column5, is_cancel_requested = new.column6, payment_id = new.column7, version = new.column8, \
     sequence = new.column9, updated_at = new.column10 \
     FROM new WHERE orders.id = new.column1 AND orders.version = new.column2",
    10,
);

pub(crate) const FIND: &str = concat!("SELECT ", columns!(), " FROM orders WHERE id = ? AND customer_id = ?");

pub(crate) const LOAD: &str = concat!("SELECT ", columns!(), " FROM orders WHERE id = ?");

pub(crate) const LIST: &str = concat!(
    "SELECT ",
    columns!(),
    " FROM orders WHERE id IN (SELECT id FROM orders WHERE customer_id = ?1 AND id < ?2 \
             ORDER BY id DESC LIMIT ?3 OFFSET ?4) ORDER BY id DESC"
);

/// Selects what [`decode_progress`] takes.
macro_rules! progress {
    ($index:literal, $rest:literal) => {
        concat!(
            "SELECT orders.id, orders.status, is_created, is_cancel_requested, orders.correlation_id, \
             max(orders.updated_at, coalesce(transactions.updated_at, 0)), payment_id, transactions.status, \
             amount - refund_pending - refunded, (SELECT count(*) FROM refunds \
                 WHERE refunds.transaction_id = orders.payment_id AND refunds.status = 'failed') \
             FROM orders INDEXED BY ",
            $index,
            " LEFT JOIN transactions ON transactions.id = orders.payment_id WHERE ",
            $rest
        )
    };
}

pub(crate) const WAITING: &str = progress!(
    "orders_waiting",
    "(orders.status = 'pending_payment' OR (orders.status = 'paid' AND orders.is_cancel_requested = 1)) \
     AND orders.id > ?1 AND orders.created_at < ?2 ORDER BY orders.id LIMIT ?3"
);

pub(crate) const CANCELLED: &str = progress!(
    "orders_cancelled",
    "orders.status = 'cancelled' AND orders.payment_id IS NOT NULL AND orders.updated_at < ?2 \
     AND (orders.updated_at, orders.id) > (coalesce((SELECT updated_at FROM orders WHERE id = ?3), ?1 - 1), ?3) \
     ORDER BY orders.updated_at, orders.id LIMIT ?4"
);

/// Writes orders that are new or changed; `false` when one of the rows has another version than expected.
pub(crate) async fn write(connection: &mut SqliteConnection, writes: &[&OrderWrite]) -> Result<bool, sqlx::Error> {
    let (mut inserts, mut updates) = (Vec::new(), Vec::new());
    for write in writes {
        match write {
            OrderWrite::Insert(order) => inserts.push(&**order),
            OrderWrite::Update { order, expected_version } => updates.push((&**order, *expected_version)),
        }
    }
    let bind = |values: &mut Values, o: &&Order| {
        values.push(o.id.0).push(o.customer_id.as_str()).push(o.user_id.as_str()).push(o.total.minor());
        values.push(o.total.currency().code()).push(o.payment_method.as_str()).push(o.status.as_str());
        values.push(o.status_reason.as_deref()).push(o.is_created).push(o.is_cancel_requested);
        values.push(o.payment_id.map(|id| id.0)).push(o.correlation_id.as_str()).push(o.version).push(o.sequence);
        values.push(millis(o.created_at)).push(millis(o.updated_at));
    };
    INSERT.execute(connection, inserts.iter(), bind).await?;
    let bind = |values: &mut Values, (o, expected): &(&Order, i64)| {
        values.push(o.id.0).push(*expected).push(o.status.as_str()).push(o.status_reason.as_deref());
        values.push(o.is_created).push(o.is_cancel_requested).push(o.payment_id.map(|id| id.0));
        values.push(o.version).push(o.sequence).push(millis(o.updated_at));
    };
    let changed = UPDATE.execute(connection, updates.iter(), bind).await?;
    Ok(changed == updates.len() as u64)
}

pub(crate) async fn version(connection: &mut SqliteConnection, id: OrderId) -> Result<Option<i64>, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT version FROM orders WHERE id = ?").bind(id.0);
    query.fetch_optional(connection).await
}

#[async_trait]
impl OrderReader for SqliteStore {
    async fn find_order(&self, customer: &CustomerId, id: OrderId) -> Result<Option<Order>, StoreError> {
        let query = sqlx::query(FIND).bind(id.0).bind(customer.as_str());
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn list_orders(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Order>, StoreError> {
        let query = sqlx::query(LIST)
            .bind(customer.as_str())
            .bind(page.after().unwrap_or(Uuid::max()))
            .bind(i64::from(page.limit()) + 1)
            .bind(i64::from(page.offset()));
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        let orders = rows.iter().map(decode).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(orders, page, |order| order.id.0))
    }

    async fn list_order_payments(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        transactions::list_of_orders(&self.readers, customer, page).await
    }

    async fn counts(&self, customer: &CustomerId, subject: CountSubject) -> Result<Vec<StatusCount>, StoreError> {
        crate::counts::list(&self.readers, customer, subject).await
    }

    async fn load_order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let row = sqlx::query(LOAD).bind(id.0).fetch_optional(&self.readers).await.map_err(unavailable)?;
        row.as_ref().map(decode).transpose()
    }

    async fn waiting_orders(
        &self,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError> {
        let query = sqlx::query(WAITING).bind(after.map_or(Uuid::nil(), |id| id.0)).bind(millis(before)).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(decode_progress).collect()
    }

    async fn cancelled_orders(
        &self,
        since: DateTime<Utc>,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError> {
        // Without an order the one before all that are looked for: the largest id a moment before.
        let query = sqlx::query(CANCELLED).bind(millis(since)).bind(millis(before));
        let query = query.bind(after.map_or(Uuid::max(), |id| id.0)).bind(limit);
        let rows = query.fetch_all(&self.readers).await.map_err(unavailable)?;
        rows.iter().map(decode_progress).collect()
    }
}

fn decode_progress(row: &SqliteRow) -> Result<OrderProgress, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let payment_id: Option<Uuid> = row.try_get(6).map_err(unavailable)?;
    let payment = |id: Uuid| {
        Ok::<_, StoreError>(PaymentProgress {
            id: TransactionId(id),
            status: TransactionStatus::from_name(text(7)?).ok_or_else(|| damaged("status"))?,
            refundable: number(8)?,
            failed_refunds: usize::try_from(number(9)?).map_err(|_| damaged("count"))?,
        })
    };
    Ok(OrderProgress {
        id: OrderId(row.try_get(0).map_err(unavailable)?),
        status: OrderStatus::from_name(text(1)?).ok_or_else(|| damaged("status"))?,
        is_created: row.try_get(2).map_err(unavailable)?,
        is_cancel_requested: row.try_get(3).map_err(unavailable)?,
        correlation_id: parse(text(4)?, "correlation_id")?,
        updated_at: time(number(5)?)?,
        payment: payment_id.map(payment).transpose()?,
    })
}

fn decode(row: &SqliteRow) -> Result<Order, StoreError> {
    let text = |i: usize| row.try_get::<&str, _>(i).map_err(unavailable);
    let number = |i: usize| row.try_get::<i64, _>(i).map_err(unavailable);
    let payment: Option<Uuid> = row.try_get(10).map_err(unavailable)?;
    Ok(Order {
        id: OrderId(row.try_get(0).map_err(unavailable)?),
        customer_id: parse(text(1)?, "customer_id")?,
        user_id: parse(text(2)?, "user_id")?,
        total: Money::new(number(3)?, parse(text(4)?, "currency")?),
        payment_method: PaymentMethod::from_name(text(5)?).ok_or_else(|| damaged("payment_method"))?,
        status: OrderStatus::from_name(text(6)?).ok_or_else(|| damaged("status"))?,
        status_reason: row.try_get(7).map_err(unavailable)?,
        is_created: row.try_get(8).map_err(unavailable)?,
        is_cancel_requested: row.try_get(9).map_err(unavailable)?,
        payment_id: payment.map(TransactionId),
        correlation_id: parse(text(11)?, "correlation_id")?,
        version: number(12)?,
        sequence: number(13)?,
        created_at: time(number(14)?)?,
        updated_at: time(number(15)?)?,
    })
}
