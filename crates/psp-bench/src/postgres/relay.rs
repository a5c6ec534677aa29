use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, ensure};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
use tokio::task::LocalSet;

use super::Postgres;
use crate::client::Client;
use crate::product::Product;
use crate::table::Row;

/// Messages that are sent.
const MESSAGES: usize = 10_000;
/// Entries of one request.
const ENTRIES: usize = 10;
/// Requests at once, as many as the relay has.
const CONCURRENCY: usize = 8;

/// Events that wait to be relayed.
fn fill() -> String {
    format!(
        "INSERT INTO outbox (id, kind, aggregate_id, sequence, customer_id, body, sent_at, queue, visible_at) \
         SELECT gen_random_uuid(), 'transaction.created', gen_random_uuid(), 1, 'merchant', \
         '{{\"status\":\"processing\",\"amount\":2500,\"currency\":\"BRL\"}}', now(), 'transactions', now() \
         FROM generate_series(1, {MESSAGES})"
    )
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
impl Postgres<'_> {
    /// `psp relay` against a loop that only sends the same messages.
    pub(super) async fn relay(&mut self) -> anyhow::Result<()> {
        eprintln!("relay of {MESSAGES} messages …");
        let url = self.migrated().await?;
        let settings = self.settings_with_sqs(&url, "bench-bare-")?;
        let endpoint = std::env::var("PSP_TEST_SQS_ENDPOINT")?;
        let address = endpoint.strip_prefix("http://").context("an http:// endpoint")?.to_owned();
        let begun = Instant::now();
        send_bare(&address, "bench-bare-transactions").await?;
        let bare = MESSAGES as f64 / begun.elapsed().as_secs_f64();
        self.table.add(Row::new("bare loop of SendMessageBatch, 8 at once (moto)", format!("{bare:.0} messages/s")));

        drop(settings);
        let settings = self.settings_with_sqs(&url, "bench-relay-")?;
        let mut psp = Product::start(self.psp, self.dir, "relay", &settings).await?;
        let mut connection = PgConnection::connect(&url).await?;
        connection.execute(AssertSqlSafe(fill())).await?;
        connection.execute("SELECT pg_notify('psp_queue', 'transactions')").await?;
        let took = self.databases.drain(&url).await?;
        let rate = MESSAGES as f64 / took.as_secs_f64();
        let row = Row::new(
            "relay from the outbox, to the last mark",
            format!("{rate:.0} messages/s, {:.2} × bare", rate / bare),
        );
        self.table.add(row.target("≥ 0.8 ×", rate >= 0.8 * bare));
        psp.stop().await?;
        self.databases.drop(&url).await
    }
}

/// Sends messages like the relay's, on several connections.
async fn send_bare(address: &str, queue: &str) -> anyhow::Result<()> {
    let request = Rc::new(batch(address, queue));
    let left = Rc::new(Cell::new(MESSAGES / ENTRIES));
    let local = LocalSet::new();
    local
        .run_until(async {
            let mut tasks = Vec::new();
            for _ in 0..CONCURRENCY {
                let (mut client, left) = (Client::connect(address).await?, Rc::clone(&left));
                let request = Rc::clone(&request);
                tasks.push(tokio::task::spawn_local(async move {
                    while left.get() > 0 {
                        left.set(left.get() - 1);
                        let (status, body) = client.ask(&request).await?;
                        ensure!(status == 200, "answered {status}: {}", String::from_utf8_lossy(body));
                    }
                    Ok(())
                }));
            }
            for task in tasks {
                task.await??;
            }
            anyhow::Ok(())
        })
        .await
}

/// A request of `SendMessageBatch` in the JSON protocol; the server of the benchmark checks no signature.
fn batch(address: &str, queue: &str) -> Vec<u8> {
    let text = |value: &str| serde_json::json!({ "DataType": "String", "StringValue": value });
    let entries: Vec<_> = (0..ENTRIES)
        .map(|id| {
            serde_json::json!({
                "Id": id.to_string(),
                "MessageBody": "{\"status\":\"processing\",\"amount\":2500,\"currency\":\"BRL\"}",
                "MessageAttributes": {
                    "id": text("01a1fc23-adfc-74b8-ab63-7bfa62344961"),
                    "kind": text("transaction.created"),
                    "aggregate_id": text("01a1fc23-adfc-74b8-ab63-7bfa62344962"),
                    "traceparent": text("00-01a1fc23adfc74b8ab637bfa62344962-ab637bfa62344961-01"),
                },
            })
        })
        .collect();
    let url = format!("http://{address}/123456789012/{queue}");
    let body = serde_json::json!({ "QueueUrl": url, "Entries": entries }).to_string();
    format!(
        "POST / HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/x-amz-json-1.0\r\n\
         x-amz-target: AmazonSQS.SendMessageBatch\r\nauthorization: AWS4-HMAC-SHA256 \
         Credential=bench/20261121/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
