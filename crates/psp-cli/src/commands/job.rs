use std::sync::Arc;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use psp_domain::QueueName;
use psp_domain::ports::Queue;
use psp_jobs::Summary;
use tokio_util::sync::CancellationToken;

use crate::cli::Job;
use crate::wiring::Wiring;

/// Runs a job once.
pub(crate) async fn run(wiring: Wiring, job: Job) -> anyhow::Result<()> {
    let outcome = match job {
        Job::SettlePayables { date, json } => settle(&wiring, date, json).await,
        Job::PurgeIdempotencyKeys => purge(&wiring).await,
    };
    wiring.close().await;
    outcome
}

/// Plans a run and settles its chunks here, beside whatever workers there are.
async fn settle(wiring: &Wiring, date: Option<chrono::NaiveDate>, json: bool) -> anyhow::Result<()> {
    let settle = wiring.settle();
    let stop = CancellationToken::new();
    let handler = psp_worker::settlement_handler(settle.clone());
    let queue = Arc::clone(&wiring.store) as Arc<dyn Queue>;
    let options = wiring.consumer_options();
    let consumer =
        tokio::spawn(psp_worker::consume(queue, QueueName::PayablesSettlement, handler, options, stop.clone()));
    // Drawn on a terminal only.
    let bar = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} chunks, {msg} payables")?);
    let summary = psp_jobs::settle_payables(&settle, date, wiring.settings.settlement_chunk_size, |progress| {
        bar.set_length(progress.chunks.into());
        bar.set_position(progress.settled_chunks.into());
        bar.set_message(progress.payables.to_string());
    })
    .await;
    bar.finish_and_clear();
    stop.cancel();
    consumer.await.context("the consumer")?;
    print(&summary?, json);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
fn print(summary: &Summary, json: bool) {
    if !json {
        println!("{summary}");
        return;
    }
    let amounts: Vec<_> = summary
        .amounts
        .iter()
        .map(|amount| serde_json::json!({ "amount": amount.minor(), "currency": amount.currency() }))
        .collect();
    let body = serde_json::json!({
        "run_id": summary.run_id,
        "chunks": summary.chunks,
        "payables": summary.payables,
        "transactions": summary.transactions,
        "amounts": amounts,
        "seconds": summary.elapsed.as_secs_f64(),
    });
    println!("{body}");
}

#[expect(clippy::print_stdout, reason = "the command's answer")]
async fn purge(wiring: &Wiring) -> anyhow::Result<()> {
    let keys = psp_jobs::purge_idempotency_keys(&*wiring.store, &*wiring.sources.clock).await?;
    println!("{keys} expired idempotency keys deleted");
    Ok(())
}
