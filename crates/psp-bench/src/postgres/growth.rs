use std::time::Instant;

use anyhow::ensure;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use super::Postgres;
use crate::client::{Client, Payment, get};
use crate::product::Product;
use crate::table::Row;

/// What is asked; a payment where there is no path.
const REQUESTS: [(&str, Option<&str>); 4] = [
    ("GET /transactions?limit=100", Some("/transactions?limit=100")),
    ("GET /payables", Some("/payables")),
    ("GET /balance", Some("/balance")),
    ("POST /transactions", None),
];
/// How often each is asked in a round.
const TIMES: usize = 200;
/// How often the sizes take turns.
const ROUNDS: usize = 10;
/// The customer whose tables grow.
const CUSTOMER: &str = "merchant";

/// That many rows of the customer.
fn fill(count: usize) -> String {
    format!(
        "INSERT INTO transactions (id, customer_id, description, amount, currency, payment_method, card_holder_name, \
         card_expiry, card_last_four, card_brand, installments, waiting_payables, status, version, created_at, updated_at) \
         SELECT encode(int8send(n) || int8send(0), 'hex')::uuid, '{CUSTOMER}', 'Lightsaber', 2500, 'BRL', 'credit_card', \
         'Luke Skywalker', 202510, '1111', 'visa', 1, 1, 'pending_payment', 2, now(), now() \
         FROM generate_series(1, {count}) AS n; \
         INSERT INTO payables (id, transaction_id, installment, customer_id, currency, fee_percent, fee, receivable, status, \
         payment_date, created_at, updated_at) SELECT encode(int8send(n) || int8send(1), 'hex')::uuid, \
         encode(int8send(n) || int8send(0), 'hex')::uuid, 1, '{CUSTOMER}', 'BRL', 5, 125, 2375, 'waiting_funds', \
         now() + interval '30 days', now(), now() FROM generate_series(1, {count}) AS n; \
         INSERT INTO balances VALUES ('{CUSTOMER}', 'BRL', 0, {count} * 2375::bigint)"
    )
}

impl Postgres<'_> {
    /// The time of each request at three sizes: on one connection, one after the other. The sizes are databases of their own,
    /// measured in turns, so that whatever else slows the machine slows all of them.
    pub(super) async fn growth(&mut self) -> anyhow::Result<()> {
        let sizes = if self.args.quick { [1_000, 10_000, 100_000] } else { [1_000, 100_000, 3_000_000] };
        let (mut urls, mut processes, mut times) = (Vec::new(), Vec::new(), Vec::new());
        for size in sizes {
            eprintln!("growth: {size} rows of one customer …");
            let url = self.migrated().await?;
            let mut connection = PgConnection::connect(&url).await?;
            connection.execute(AssertSqlSafe(fill(size))).await?;
            connection.execute("VACUUM ANALYZE").await?;
            processes.push(Product::start(self.psp, self.dir, "api", &Self::settings(&url)).await?);
            times.push([const { Vec::new() }; REQUESTS.len()]);
            urls.push(url);
        }
        self.databases.checkpoint().await?;
        for round in 0..ROUNDS {
            for (psp, times) in processes.iter().zip(&mut times) {
                // The first round warms caches and plans.
                measure(&psp.address, times, round > 0).await?;
            }
        }
        for (number, (name, _)) in REQUESTS.iter().enumerate() {
            let medians: Vec<_> = times.iter_mut().map(|times| median(&mut times[number])).collect();
            let (least, most) =
                medians.iter().fold((f64::MAX, 0.0_f64), |(least, most), &t| (least.min(t), most.max(t)));
            let texts: Vec<_> = medians.iter().map(|time| format!("{time:.2}")).collect();
            let name = format!("{name} at {} / {} / {} rows: p50", sizes[0], sizes[1], sizes[2]);
            let row = Row::new(name, format!("{} ms, {:.2} ×", texts.join(" / "), most / least));
            self.table.add(row.target("≤ 1.3 ×", most <= 1.3 * least));
        }
        for (mut psp, url) in processes.into_iter().zip(urls) {
            psp.stop().await?;
            self.databases.drop(&url).await?;
        }
        Ok(())
    }
}

/// Asks each request a number of times; the times in milliseconds.
async fn measure(address: &str, times: &mut [Vec<f64>; REQUESTS.len()], keep: bool) -> anyhow::Result<()> {
    let mut client = Client::connect(address).await?;
    let mut payment = Payment::of("other");
    for ((_, path), times) in REQUESTS.iter().zip(times) {
        let request = path.map(|path| get(path, CUSTOMER));
        for _ in 0..TIMES {
            let begun = Instant::now();
            let (status, _) = match &request {
                Some(request) => client.ask(request).await?,
                None => client.ask(payment.next()).await?,
            };
            ensure!(status == if request.is_some() { 200 } else { 201 }, "answered {status}");
            if keep {
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(())
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 2]
}
