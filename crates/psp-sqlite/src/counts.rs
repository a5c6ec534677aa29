use std::collections::BTreeMap;

use psp_domain::ports::StoreError;
use psp_domain::{CountSubject, CustomerId, StatusCount};
use sqlx::{SqliteConnection, SqlitePool};

use crate::bulk::{Bulk, Values};
use crate::connection::{parse, unavailable};

const ADD: Bulk = Bulk::new(
    "INSERT INTO status_counts (customer_id, subject, status, currency, count, amount) {values} \
     ON CONFLICT (customer_id, subject, status, currency) DO UPDATE SET count = count + excluded.count, \
     amount = amount + excluded.amount",
    6,
);

pub(crate) const LIST: &str = "SELECT status, currency, count, amount FROM status_counts \
                    WHERE customer_id = ? AND subject = ? AND count <> 0 ORDER BY status, currency";

/// Adds to counts: one row for each customer, subject, status and currency of the batch.
pub(crate) async fn add(connection: &mut SqliteConnection, counts: &[&StatusCount]) -> Result<(), sqlx::Error> {
    let mut sums: BTreeMap<[&str; 4], (i64, i64)> = BTreeMap::new();
    for added in counts {
        let key = [added.customer_id.as_str(), added.subject.as_str(), &added.status, added.currency.code()];
        let (count, amount) = sums.entry(key).or_default();
        *count += added.count;
        *amount += added.amount;
    }
    let bind = |values: &mut Values, (key, (count, amount)): ([&str; 4], (i64, i64))| {
        for text in key {
            values.push(text);
        }
        values.push(count).push(amount);
    };
    ADD.execute(connection, sums.into_iter(), bind).await?;
    Ok(())
}

/// A customer's counts, without the empty ones.
pub(crate) async fn list(
    readers: &SqlitePool,
    customer: &CustomerId,
    subject: CountSubject,
) -> Result<Vec<StatusCount>, StoreError> {
    let query = sqlx::query_as(LIST).bind(customer.as_str()).bind(subject.as_str());
    let rows: Vec<(String, String, i64, i64)> = query.fetch_all(readers).await.map_err(unavailable)?;
    let count = |(status, currency, count, amount): (String, String, i64, i64)| {
        let (customer_id, currency) = (customer.clone(), parse(&currency, "currency")?);
        Ok(StatusCount { customer_id, subject, status, currency, count, amount })
    };
    rows.into_iter().map(count).collect()
}
