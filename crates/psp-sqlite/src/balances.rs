use std::collections::BTreeMap;

use async_trait::async_trait;
use psp_domain::ports::{BalanceReader, StoreError};
use psp_domain::{Balance, Currency, CustomerId, Money, Payable, PayableStatus};
use sqlx::{Row, SqliteConnection};

use crate::bulk::Bulk;
use crate::connection::{SqliteStore, unavailable};

const ADD: Bulk = Bulk::new(
    "INSERT INTO balances (customer_id, currency, available, waiting_funds) {values} \
     ON CONFLICT (customer_id, currency) DO UPDATE SET available = available + excluded.available, \
     waiting_funds = waiting_funds + excluded.waiting_funds",
    4,
);

/// Adds the receivables of new payables to the balances: one row for each customer and currency of the batch.
pub(crate) async fn add(connection: &mut SqliteConnection, payables: &[&Payable]) -> Result<(), sqlx::Error> {
    let mut sums: BTreeMap<(&CustomerId, &'static str), (i64, i64)> = BTreeMap::new();
    for payable in payables {
        let key = (&payable.customer_id, payable.receivable.currency().code());
        let (available, waiting) = sums.entry(key).or_default();
        let sum = if payable.status == PayableStatus::Paid { available } else { waiting };
        // A batch holds few payables of at most 10^12 minor units each, far below an i64.
        *sum += payable.receivable.minor();
    }
    let bind = |values: &mut crate::bulk::Values,
                ((customer, currency), (available, waiting)): ((&CustomerId, &str), _)| {
        values.push(customer.as_str()).push(currency).push::<i64>(available).push::<i64>(waiting);
    };
    ADD.execute(connection, sums.into_iter(), bind).await?;
    Ok(())
}

#[async_trait]
impl BalanceReader for SqliteStore {
    async fn balance(&self, customer: &CustomerId, currency: Currency) -> Result<Balance, StoreError> {
        let sql = "SELECT available, waiting_funds FROM balances WHERE customer_id = ? AND currency = ?";
        let query = sqlx::query(sql).bind(customer.as_str()).bind(currency.code());
        let row = query.fetch_optional(&self.readers).await.map_err(unavailable)?;
        let column = |i: usize| row.as_ref().map_or(Ok(0), |row| row.try_get(i).map_err(unavailable));
        Ok(Balance { available: Money::new(column(0)?, currency), waiting_funds: Money::new(column(1)?, currency) })
    }
}
