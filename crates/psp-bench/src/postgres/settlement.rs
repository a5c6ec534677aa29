use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::Postgres;
use crate::product::{command, memory_of};
use crate::table::{Row, mib};

/// Payments that are due, with their payables and balances, of 1,000 customers.
fn fill(count: usize) -> String {
    format!(
        "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, \
         card_expiry, card_last_four, card_brand, installments, waiting_payables, status, version, created_at, updated_at) \
         SELECT encode(int8send(n) || int8send(0), 'hex')::uuid, 'merchant-' || n % 1000, 'Lightsaber', 2500, 'BRL', \
         'credit_card', 'Luke Skywalker', 202510, '1111', 'visa', 1, 1, 'pending_payment', 2, now(), now() \
         FROM generate_series(1, {count}) AS n; \
         INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, \
         payment_date, created_at, updated_at) SELECT encode(substr(uuid_send(id), 1, 8) || int8send(1), 'hex')::uuid, id, 1, \
         customer_id, 'BRL', 5, 125, 2375, 'waiting_funds', now() - interval '1 day', now(), now() FROM transactions; \
         INSERT INTO balances SELECT customer_id, 'BRL', 0, sum(receivable) FROM payables GROUP BY customer_id; \
         ANALYZE"
    )
}

/// The same two updates, in one statement.
const RAW: &str = "WITH paid AS (UPDATE payables SET status = 'paid', updated_at = now() \
    WHERE status = 'waiting_funds' AND payment_date < now() RETURNING transaction_id) \
    UPDATE transactions SET status = 'paid', version = version + 1, waiting_payables = 0, updated_at = now() \
    FROM paid WHERE id = paid.transaction_id AND status = 'pending_payment'";

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Postgres<'_> {
    pub(super) async fn settlement(&mut self) -> anyhow::Result<()> {
        let count = if self.args.quick { 100_000 } else { 1_000_000 };
        eprintln!("settlement of {count} payables: filling …");
        let url = self.migrated().await?;
        let mut connection = PgConnection::connect(&url).await?;
        connection.execute(AssertSqlSafe(fill(count))).await?;
        connection.execute("VACUUM").await?;
        connection.close().await?;
        let copy = self.databases.copy(&url).await?;

        self.databases.checkpoint().await?;
        let mut connection = PgConnection::connect(&copy).await?;
        let begun = Instant::now();
        let updated = connection.execute(RAW).await?.rows_affected();
        let raw = updated as f64 / begun.elapsed().as_secs_f64();
        ensure!(updated == count as u64, "{updated} of {count} were updated");
        connection.close().await?;
        self.databases.drop(&copy).await?;
        self.table.add(Row::new(
            format!("raw SQL, {count} payables and transactions in one statement"),
            format!("{raw:.0} pairs/s"),
        ));

        self.databases.checkpoint().await?;
        let mut job = command(self.psp, self.dir, &Self::settings(&url))?;
        let mut job = job.args(["job", "settle-payables", "--json"]).stdout(Stdio::piped()).spawn()?;
        let mut memory = 0;
        while job.try_wait()?.is_none() {
            memory = memory_of(job.id(), "VmHWM").unwrap_or(memory);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let output = job.wait_with_output()?;
        ensure!(output.status.success(), "settlement failed");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        ensure!(summary["payables"] == count && summary["transactions"] == count, "{summary}");
        let rate = count as f64 / summary["seconds"].as_f64().context("seconds")?;
        let value = format!("{rate:.0} pairs/s, {:.2} × raw", rate / raw);
        let row = Row::new("settlement: the same, with two events each, balances and figures", value);
        self.table.add(row.target("≥ 0.7 ×", rate >= 0.7 * raw));
        let row = Row::new("… RSS of the process, highest", mib(memory));
        self.table.add(row.target("≤ 128 MiB", memory <= 128 << 20));
        self.databases.drop(&url).await
    }
}
