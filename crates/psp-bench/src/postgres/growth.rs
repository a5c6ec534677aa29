use std::time::Instant;

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::Postgres;
use crate::client::{Client, Payment, get};
use crate::product::Product;
use crate::table::Row;

/// Requests of each kind at each size.
const REQUESTS: usize = 1_000;
/// The customer whose tables grow.
const CUSTOMER: &str = "merchant";

/// Rows `from` to `to` of the customer.
fn fill(from: usize, to: usize) -> String {
    format!(
        "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, \
         card_expiry, card_last_four, card_brand, installments, waiting_payables, status, version, created_at, updated_at) \
         SELECT encode(int8send(n) || int8send(0), 'hex')::uuid, '{CUSTOMER}', 'Lightsaber', 2500, 'BRL', 'credit_card', \
         'Luke Skywalker', 202510, '1111', 'visa', 1, 1, 'pending_payment', 2, now(), now() \
         FROM generate_series({from} + 1, {to}) AS n; \
         INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, \
         payment_date, created_at, updated_at) SELECT encode(int8send(n) || int8send(1), 'hex')::uuid, \
         encode(int8send(n) || int8send(0), 'hex')::uuid, 1, '{CUSTOMER}', 'BRL', 5, 125, 2375, 'waiting_funds', \
         now() + interval '30 days', now(), now() FROM generate_series({from} + 1, {to}) AS n; \
         INSERT INTO balances AS b VALUES ('{CUSTOMER}', 'BRL', 0, ({to} - {from}) * 2375::bigint) \
         ON CONFLICT (customer_id, currency) DO UPDATE SET waiting_funds = b.waiting_funds + excluded.waiting_funds"
    )
}

impl Postgres<'_> {
    /// The time of each request at three sizes: on one connection, one after the other.
    pub(super) async fn growth(&mut self) -> anyhow::Result<()> {
        let sizes = if self.args.quick { [1_000, 30_000, 100_000] } else { [1_000, 100_000, 3_000_000] };
        let url = self.migrated().await?;
        let mut psp = Product::start(self.psp, self.dir, "api", &Self::settings(&url)).await?;
        let mut medians: Vec<Vec<f64>> = Vec::new();
        let mut filled = 0;
        for size in sizes {
            eprintln!("growth: {size} rows of one customer …");
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute(AssertSqlSafe(fill(filled, size))).await?;
            connection.execute("VACUUM ANALYZE").await?;
            filled = size;
            self.databases.checkpoint().await?;
            medians.push(measure(&psp.address).await?);
        }
        let names = ["GET /transactions?limit=100", "GET /payables", "GET /balance", "POST /transactions"];
        for (number, name) in names.iter().enumerate() {
            let times: Vec<_> = medians.iter().map(|at_size| at_size[number]).collect();
            let (least, most) = times.iter().fold((f64::MAX, 0.0_f64), |(least, most), &t| (least.min(t), most.max(t)));
            let texts: Vec<_> = times.iter().map(|time| format!("{time:.2}")).collect();
            let name = format!("{name} at {} / {} / {} rows: p50", sizes[0], sizes[1], sizes[2]);
            let row = Row::new(name, format!("{} ms, {:.2} ×", texts.join(" / "), most / least));
            self.table.add(row.target("≤ 1.3 ×", most <= 1.3 * least));
        }
        psp.stop().await?;
        self.databases.drop(&url).await
    }
}

/// The median of each request, in milliseconds.
async fn measure(address: &str) -> anyhow::Result<Vec<f64>> {
    let mut client = Client::connect(address).await?;
    let mut payment = Payment::of("other");
    let requests = ["/transactions?limit=100", "/payables", "/balance"]
        .map(|path| get(path, CUSTOMER))
        .into_iter()
        .map(Some)
        .chain([None]);
    let mut medians = Vec::new();
    for request in requests {
        let mut times = Vec::with_capacity(REQUESTS);
        for round in 0..REQUESTS + REQUESTS / 10 {
            let begun = Instant::now();
            let (status, _) = match &request {
                Some(request) => client.ask(request).await?,
                None => client.ask(payment.next()).await?,
            };
            ensure!(status == if request.is_some() { 200 } else { 201 }, "answered {status}");
            // The first ones warm caches and plans.
            if round >= REQUESTS / 10 {
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        times.sort_unstable_by(f64::total_cmp);
        medians.push(times[times.len() / 2]);
    }
    Ok(medians)
}
