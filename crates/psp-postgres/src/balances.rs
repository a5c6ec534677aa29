use async_trait::async_trait;
use psp_domain::ports::{BalanceReader, StoreError};
use psp_domain::{Balance, Currency, CustomerId, Money};

use crate::classify::repeat;
use crate::connection::PgStore;

#[async_trait]
impl BalanceReader for PgStore {
    async fn balance(&self, customer: &CustomerId, currency: Currency) -> Result<Balance, StoreError> {
        let row = repeat(|| {
            let query = sqlx::query!(
                "SELECT available, waiting_funds FROM balances WHERE customer_id = $1 AND currency = $2",
                customer.as_str(),
                currency.code()
            );
            query.fetch_optional(&self.reads)
        });
        let (available, waiting) = row.await?.map_or((0, 0), |row| (row.available, row.waiting_funds));
        Ok(Balance { available: Money::new(available, currency), waiting_funds: Money::new(waiting, currency) })
    }
}
