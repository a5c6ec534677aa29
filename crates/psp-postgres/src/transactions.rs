use async_trait::async_trait;
use chrono::{DateTime, Datelike, Utc};
use psp_domain::ports::{StoreError, TransactionReader, UnauthorizedTransaction};
use psp_domain::{
    CardBrand, CardExpiry, CardSummary, CustomerId, GatewayReference, Installments, Money, Named, OrderId, OrderLink,
    Page, PageRequest, PaymentMethod, RefundTotals, SealedCard, Transaction, TransactionId, TransactionKind,
    TransactionStatus,
};
use uuid::Uuid;

use crate::attempts;
use crate::classify::{damaged, parse, repeat};
use crate::connection::PgStore;

struct Row {
    id: Uuid,
    kind: String,
    customer_id: String,
    description: String,
    amount: i64,
    currency: String,
    payment_method: String,
    card_holder_name: Option<String>,
    card_expiry: Option<i32>,
    card_last_four: Option<String>,
    card_brand: Option<String>,
    installments: i16,
    order_id: Option<String>,
    user_id: Option<String>,
    country: Option<String>,
    requested_gateway: Option<String>,
    status: String,
    status_reason: Option<String>,
    gateway: Option<String>,
    gateway_reference: Option<String>,
    version: i64,
    sequence: i64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    placed_order: Option<Uuid>,
    correlation_id: Option<String>,
    refund_count: i16,
    refund_pending: i64,
    refunded: i64,
}

impl TryFrom<Row> for Transaction {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let card = match (row.card_holder_name, row.card_expiry, row.card_last_four, row.card_brand) {
            (Some(name), Some(expiry), Some(last_four), Some(brand)) => {
                Some(card_summary(&name, expiry, last_four, &brand)?)
            }
            _ => None,
        };
        let installments = u8::try_from(row.installments).ok().and_then(Installments::new);
        let amount = Money::new(row.amount, parse(&row.currency, "currency")?);
        let order = row.placed_order.zip(row.correlation_id);
        let order = order.map(|(id, correlation_id)| {
            Ok(OrderLink { id: OrderId(id), correlation_id: parse(&correlation_id, "correlation_id")? })
        });
        let gateway = row.gateway.zip(row.gateway_reference);
        let gateway = gateway
            .map(|(gateway, reference)| Ok(GatewayReference { gateway: parse(&gateway, "gateway")?, reference }));
        Ok(Self {
            id: TransactionId(row.id),
            kind: TransactionKind::from_name(&row.kind).ok_or_else(|| damaged("kind"))?,
            customer_id: parse(&row.customer_id, "customer_id")?,
            description: row.description,
            amount,
            payment_method: PaymentMethod::from_name(&row.payment_method).ok_or_else(|| damaged("payment_method"))?,
            card,
            installments: installments.ok_or_else(|| damaged("installments"))?,
            named: Named {
                order_id: row.order_id.map(|id| parse(&id, "order_id")).transpose()?,
                user_id: row.user_id.map(|id| parse(&id, "user_id")).transpose()?,
                country: row.country.map(|country| parse(&country, "country")).transpose()?,
                gateway: row.requested_gateway.map(|name| parse(&name, "requested_gateway")).transpose()?,
            },
            order: order.transpose()?,
            status: TransactionStatus::from_name(&row.status).ok_or_else(|| damaged("status"))?,
            status_reason: row.status_reason,
            gateway: gateway.transpose()?,
            refunds: RefundTotals {
                count: u16::try_from(row.refund_count).map_err(|_| damaged("refund_count"))?,
                pending: Money::new(row.refund_pending, amount.currency()),
                done: Money::new(row.refunded, amount.currency()),
            },
            version: row.version,
            sequence: row.sequence,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What is kept of a card, from its columns.
pub(crate) fn card_summary(
    holder_name: &str,
    expiry: i32,
    last_four: String,
    brand: &str,
) -> Result<CardSummary, StoreError> {
    let month = u32::try_from(expiry % 100).map_err(|_| damaged("card_expiry"))?;
    Ok(CardSummary {
        holder_name: parse(holder_name, "card_holder_name")?,
        expiry: CardExpiry::new(month, expiry / 100).map_err(|_| damaged("card_expiry"))?,
        last_four,
        brand: CardBrand::from_name(brand).ok_or_else(|| damaged("card_brand"))?,
    })
}

/// A card's expiry as it is stored: year * 100 + month.
pub(crate) fn stored_expiry(card: &CardSummary) -> i32 {
    let expiry = card.expiry.first_day();
    expiry.year() * 100 + expiry.month().cast_signed()
}

/// Selects whole rows.
macro_rules! select {
    ($rest:tt, $($argument:expr),*) => {
        sqlx::query_as!(
            Row,
            "SELECT id, kind, customer_id, description, amount, currency, payment_method, card_holder_name, card_expiry, \
             card_last_four, card_brand, installments, order_id, user_id, country, requested_gateway, status, \
             status_reason, gateway, gateway_reference, version, sequence, created_at, updated_at, placed_order, correlation_id, \
             refund_count, refund_pending, refunded FROM transactions " + $rest,
            $($argument),*
        )
    };
}

impl PgStore {
    /// A page of the payments of a customer's orders, newest first.
    pub(crate) async fn list_of_orders(
        &self,
        customer: &CustomerId,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        let (after, limit) = (page.after().unwrap_or(Uuid::max()), i64::from(page.limit()) + 1);
        // The ids come from the index alone, so that skipped rows are never read.
        let rows = repeat(|| {
            let query = select!(
                "WHERE id = ANY (ARRAY (SELECT id FROM transactions WHERE customer_id = $1 AND placed_order IS NOT NULL \
                 AND id < $2 ORDER BY id DESC LIMIT $3 OFFSET $4)) ORDER BY id DESC",
                customer.as_str(),
                after,
                limit,
                i64::from(page.offset())
            );
            query.fetch_all(&self.reads)
        });
        let transactions = rows.await?.into_iter().map(Transaction::try_from).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(transactions, page, |t: &Transaction| t.id.0))
    }
}

/// Takes the columns of a row out of a record that has more.
macro_rules! row {
    ($record:ident: $($column:ident),*) => {
        Row { $($column: $record.$column),* }
    };
}

#[async_trait]
impl TransactionReader for PgStore {
    async fn find(&self, customer: &CustomerId, id: TransactionId) -> Result<Option<Transaction>, StoreError> {
        let row = repeat(|| {
            select!("WHERE id = $1 AND customer_id = $2", id.0, customer.as_str()).fetch_optional(&self.reads)
        });
        row.await?.map(Transaction::try_from).transpose()
    }

    async fn list(
        &self,
        customer: &CustomerId,
        kind: TransactionKind,
        page: PageRequest,
    ) -> Result<Page<Transaction>, StoreError> {
        let (after, limit) = (page.after().unwrap_or(Uuid::max()), i64::from(page.limit()) + 1);
        let rows = if page.offset() == 0 {
            repeat(|| {
                let query = select!(
                    "WHERE customer_id = $1 AND kind = $2 AND id < $3 ORDER BY id DESC LIMIT $4",
                    customer.as_str(),
                    kind.as_str(),
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
                    "WHERE id = ANY (ARRAY (SELECT id FROM transactions WHERE customer_id = $1 AND kind = $2 AND id < $3 \
                     ORDER BY id DESC LIMIT $4 OFFSET $5)) ORDER BY id DESC",
                    customer.as_str(),
                    kind.as_str(),
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
        // A row for each attempt; one with NULLs where there is none.
        let records = repeat(|| {
            let query = sqlx::query!(
                r#"SELECT t.id, t.kind, t.customer_id, t.description, t.amount, t.currency, t.payment_method,
                    t.card_holder_name, t.card_expiry, t.card_last_four, t.card_brand, t.installments, t.order_id,
                    t.user_id, t.country, t.requested_gateway, t.status, t.status_reason, t.gateway, t.gateway_reference,
                    t.version, t.sequence, t.created_at, t.updated_at, t.placed_order, t.correlation_id, t.refund_count,
                    t.refund_pending, t.refunded, t.sealed_card,
                    a.number AS "number?", a.gateway AS "asked?", a.reference AS "reference?", a.state AS "state?",
                    a.gateway_reference AS "answered?", a.reason AS "reason?", a.check_at AS "check_at?",
                    a.created_at AS "opened_at?", a.updated_at AS "changed_at?"
                FROM transactions AS t
                LEFT JOIN gateway_attempts AS a ON a.transaction_id = t.id AND a.transaction_id = ANY ($1)
                WHERE t.id = ANY ($1) ORDER BY t.id, a.number"#,
                &ids
            );
            query.fetch_all(&self.reads)
        });
        let mut loaded: Vec<UnauthorizedTransaction> = Vec::with_capacity(ids.len());
        for r in records.await? {
            let attempt = match (r.number, r.asked, r.reference, r.state, r.opened_at, r.changed_at) {
                (Some(number), Some(gateway), Some(reference), Some(state), Some(created_at), Some(updated_at)) => {
                    let (transaction_id, gateway_reference) = (r.id, r.answered);
                    let (reason, check_at) = (r.reason, r.check_at);
                    Some(attempts::Row {
                        transaction_id,
                        number,
                        gateway,
                        reference,
                        state,
                        gateway_reference,
                        reason,
                        check_at,
                        created_at,
                        updated_at,
                    })
                }
                _ => None,
            };
            if loaded.last().is_none_or(|last| last.transaction.id.0 != r.id) {
                let card = r.sealed_card.map(SealedCard);
                let row = row!(r: id, kind, customer_id, description, amount, currency, payment_method, card_holder_name,
                    card_expiry, card_last_four, card_brand, installments, order_id, user_id, country,
                    requested_gateway, status, status_reason, gateway, gateway_reference, version, sequence, created_at,
                    updated_at, placed_order, correlation_id, refund_count, refund_pending, refunded);
                loaded.push(UnauthorizedTransaction { transaction: row.try_into()?, card, attempts: Vec::new() });
            }
            if let (Some(attempt), Some(last)) = (attempt, loaded.last_mut()) {
                last.attempts.push(attempt.try_into()?);
            }
        }
        Ok(loaded)
    }
}
