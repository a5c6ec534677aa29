use async_trait::async_trait;
use chrono::{DateTime, Utc};
use psp_domain::ports::{OrderProgress, OrderReader, PaymentProgress, StoreError};
use psp_domain::{
    CountSubject, CustomerId, Money, Order, OrderId, OrderStatus, Page, PageRequest, PaymentMethod, StatusCount,
    Transaction, TransactionId, TransactionStatus,
};
use uuid::Uuid;

use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    customer_id: String,
    user_id: String,
    total: i64,
    currency: String,
    payment_method: String,
    status: String,
    status_reason: Option<String>,
    is_created: bool,
    is_cancel_requested: bool,
    payment_id: Option<Uuid>,
    correlation_id: String,
    version: i64,
    sequence: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for Order {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: OrderId(row.id),
            customer_id: parse(&row.customer_id, "customer_id")?,
            user_id: parse(&row.user_id, "user_id")?,
            total: Money::new(row.total, parse(&row.currency, "currency")?),
            payment_method: PaymentMethod::from_name(&row.payment_method).ok_or_else(|| damaged("payment_method"))?,
            status: OrderStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            status_reason: row.status_reason,
            is_created: row.is_created,
            is_cancel_requested: row.is_cancel_requested,
            payment_id: row.payment_id.map(TransactionId),
            correlation_id: parse(&row.correlation_id, "correlation_id")?,
            version: row.version,
            sequence: row.sequence,
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
            "SELECT id, customer_id, user_id, total, currency, payment_method, status, status_reason, is_created, \
             is_cancel_requested, payment_id, correlation_id, version, sequence, created_at, updated_at FROM orders " + $rest,
            $($argument),*
        )
    };
}

struct Progress {
    id: Uuid,
    status: String,
    is_created: bool,
    is_cancel_requested: bool,
    correlation_id: String,
    updated_at: DateTime<Utc>,
    payment_id: Option<Uuid>,
    payment_status: Option<String>,
    refundable: Option<i64>,
    failed_refunds: Option<i64>,
}

impl TryFrom<Progress> for OrderProgress {
    type Error = StoreError;

    fn try_from(row: Progress) -> Result<Self, StoreError> {
        let payment = |id| {
            let status = row.payment_status.as_deref().and_then(TransactionStatus::from_name);
            Ok::<_, StoreError>(PaymentProgress {
                id: TransactionId(id),
                status: status.ok_or_else(|| damaged("status"))?,
                refundable: row.refundable.ok_or_else(|| damaged("amount"))?,
                failed_refunds: row.failed_refunds.and_then(|count| count.try_into().ok()).unwrap_or_default(),
            })
        };
        Ok(Self {
            id: OrderId(row.id),
            status: OrderStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            is_created: row.is_created,
            is_cancel_requested: row.is_cancel_requested,
            correlation_id: parse(&row.correlation_id, "correlation_id")?,
            payment: row.payment_id.map(payment).transpose()?,
            updated_at: row.updated_at,
        })
    }
}

/// Selects orders with their payments. Each payment is looked up by itself: a join would tempt the planner to read all.
macro_rules! progress {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Progress,
            r#"SELECT o.id, o.status, o.is_created, o.is_cancel_requested, o.correlation_id,
                GREATEST(o.updated_at, t.updated_at) AS "updated_at!", t.id AS "payment_id?",
                t.status AS "payment_status?", t.refundable AS "refundable?", t.failed_refunds AS "failed_refunds?"
            FROM orders AS o LEFT JOIN LATERAL (
                SELECT p.id, p.status, p.updated_at, p.amount - p.refund_pending - p.refunded AS refundable,
                    (SELECT count(*) FROM refunds AS r WHERE r.transaction_id = p.id AND r.status = 'failed')
                        AS failed_refunds
                FROM transactions AS p WHERE p.id = o.payment_id LIMIT 1
            ) AS t ON true "# + $rest,
            $($argument),*
        )
    };
}

#[async_trait]
impl OrderReader for PgStore {
    async fn find_order(&self, customer: &CustomerId, id: OrderId) -> Result<Option<Order>, StoreError> {
        let row = repeat(|| {
            select!("WHERE id = $1 AND customer_id = $2", id.0, customer.as_str()).fetch_optional(&self.reads)
        });
        row.await?.map(Order::try_from).transpose()
    }

    async fn list_orders(&self, customer: &CustomerId, page: PageRequest) -> Result<Page<Order>, StoreError> {
        let (after, limit) = (page.after().unwrap_or(Uuid::max()), i64::from(page.limit()) + 1);
        // The ids come from the index alone, so that skipped rows are never read.
        let rows = repeat(|| {
            let query = select!(
                "WHERE id = ANY (ARRAY (SELECT id FROM orders WHERE customer_id = $1 AND id < $2 \
                 ORDER BY id DESC LIMIT $3 OFFSET $4)) ORDER BY id DESC",
                customer.as_str(),
                after,
                limit,
                i64::from(page.offset())
            );
            query.fetch_all(&self.reads)
        });
        let orders = rows.await?.into_iter().map(Order::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(orders, page, |order: &Order| order.id.0))
    }

    async fn list_order_payments(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        self.list_of_orders(customer, page).await
    }

    async fn counts(&self, customer: &CustomerId, subject: CountSubject) -> Result<Vec<StatusCount>, StoreError> {
        let rows = repeat(|| {
            let query = sqlx::query!(
                "SELECT status, currency, count, amount FROM status_counts \
                 WHERE customer_id = $1 AND subject = $2 AND count <> 0 ORDER BY status, currency",
                customer.as_str(),
                subject.as_str()
            );
            query.fetch_all(&self.reads)
        });
        let mut counts = Vec::new();
        for row in rows.await? {
            counts.push(StatusCount {
                customer_id: customer.clone(),
                subject,
                status: row.status,
                currency: parse(&row.currency, "currency")?,
                count: row.count,
                amount: row.amount,
            });
        }
        Ok(counts)
    }

    async fn load_order(&self, id: OrderId) -> Result<Option<Order>, StoreError> {
        let row = repeat(|| select!("WHERE id = $1", id.0).fetch_optional(&self.reads));
        row.await?.map(Order::try_from).transpose()
    }

    async fn waiting_orders(
        &self,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError> {
        let rows = repeat(|| {
            let query = progress!(
                "WHERE (o.status = 'pending_payment' OR (o.status = 'paid' AND o.is_cancel_requested)) \
                 AND o.id > $1 AND o.created_at < $2 ORDER BY o.id LIMIT $3",
                after.map_or(Uuid::nil(), |id| id.0),
                before,
                i64::from(limit)
            );
            query.fetch_all(&self.reads)
        });
        rows.await?.into_iter().map(OrderProgress::try_from).collect()
    }

    async fn cancelled_orders(
        &self,
        since: DateTime<Utc>,
        before: DateTime<Utc>,
        after: Option<OrderId>,
        limit: u32,
    ) -> Result<Vec<OrderProgress>, StoreError> {
        let rows = repeat(|| {
            let query = progress!(
                "WHERE o.status = 'cancelled' AND o.payment_id IS NOT NULL AND o.updated_at >= $1 AND o.updated_at < $2 \
                 AND (o.updated_at, o.id) > (COALESCE((SELECT a.updated_at FROM orders AS a WHERE a.id = $3), '-infinity'), $3) \
                 ORDER BY o.updated_at, o.id LIMIT $4",
                since,
                before,
                after.map_or(Uuid::nil(), |id| id.0),
                i64::from(limit)
            );
            query.fetch_all(&self.reads)
        });
        rows.await?.into_iter().map(OrderProgress::try_from).collect()
    }
}
