use anyhow::Context;
use chrono::NaiveDate;
use indicatif::{ProgressBar, ProgressStyle};
use psp_domain::QueueName;
use psp_jobs::{OrderPlace, Summary, Unanswered};
use psp_worker::RelayOptions;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::answer;
use crate::cli::Job;
use crate::wiring::Wiring;

/// Runs a job once.
pub(crate) async fn run(wiring: Wiring, job: Job) -> anyhow::Result<()> {
    let outcome = match job {
        Job::SettlePayables { date, chunk_size, json } => {
            let chunk_size = chunk_size.unwrap_or(wiring.settings.settlement_chunk_size);
            settle(&wiring, date, chunk_size, json).await
        }
        Job::SweepAttempts => sweep(&wiring).await,
        Job::PurgeIdempotencyKeys => purge(&wiring).await,
        Job::ShredCards => shred(&wiring).await,
        Job::PurgeEvents => purge_events(&wiring).await,
    };
    wiring.close().await;
    outcome
}

/// Plans a run and settles its chunks here, beside whatever workers there are.
async fn settle(wiring: &Wiring, date: Option<NaiveDate>, chunk_size: u32, json: bool) -> anyhow::Result<()> {
    let settle = wiring.settle();
    let stop = CancellationToken::new();
    let handler = psp_worker::settlement_handler(settle.clone());
    let (queue, relay) = (wiring.queue().await?, wiring.relay().await?);
    let (name, mut parts) = (QueueName::PayablesSettlement, JoinSet::new());
    parts.spawn(psp_worker::consume(queue, name, handler, wiring.consumer_options(name), stop.clone()));
    if let Some((outbox, broker)) = relay {
        let options = RelayOptions { retry: wiring.retry_policy(), ..RelayOptions::default() };
        parts.spawn(psp_worker::relay(outbox, broker, name, options, stop.clone()));
    }
    // Drawn on a terminal only.
    let bar = ProgressBar::new(0)
        .with_style(ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} chunks, {msg} payables")?);
    let summary = psp_jobs::settle_payables(&settle, date, chunk_size, |progress| {
        bar.set_length(progress.chunks.into());
        bar.set_position(progress.settled_chunks.into());
        bar.set_message(progress.payables.to_string());
    })
    .await;
    bar.finish_and_clear();
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        ended.context("the consumer")?;
    }
    print(&summary?, json)
}

fn print(summary: &Summary, json: bool) -> anyhow::Result<()> {
    if !json {
        return answer(summary);
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
    answer(body)
}

async fn purge(wiring: &Wiring) -> anyhow::Result<()> {
    let keys = psp_jobs::purge_idempotency_keys(&*wiring.store.keys, &*wiring.sources.clock).await?;
    answer(format_args!("{keys} expired idempotency keys deleted"))
}

async fn purge_events(wiring: &Wiring) -> anyhow::Result<()> {
    let (events, retention) = (&*wiring.store.events, wiring.settings.event_retention);
    let purged = psp_jobs::purge_events(events, &*wiring.sources.clock, retention).await?;
    answer(format_args!("{purged} events deleted"))
}

async fn sweep(wiring: &Wiring) -> anyhow::Result<()> {
    let sweeps = wiring.sweeps();
    let mut asked = [0; 2];
    for (what, asked) in Unanswered::ALL.into_iter().zip(&mut asked) {
        let swept = psp_jobs::sweep_unanswered(&sweeps, what).await?;
        swept.warn_if_overdue(what);
        *asked = swept.asked;
    }
    let [attempts, refunds] = asked;
    let (mut stalled, mut after) = (0, None);
    loop {
        let batch = psp_jobs::ask_for_stalled(&sweeps, after).await?;
        (stalled, after) = (stalled + batch.count, batch.last);
        if after.is_none() {
            break;
        }
    }
    let (mut orders, mut place) = (0, OrderPlace::default());
    loop {
        let batch = psp_jobs::ask_for_stalled_orders(&sweeps, place).await?;
        orders += batch.count;
        match batch.next {
            Some(next) => place = next,
            None => break,
        }
    }
    answer(format_args!(
        "{attempts} unresolved attempts are asked for, {refunds} pending refunds, \
         {stalled} transactions whose message was lost, {orders} orders"
    ))
}

async fn shred(wiring: &Wiring) -> anyhow::Result<()> {
    let (cards, tokens) = (&*wiring.store.sealed_cards, &*wiring.store.tokens);
    let retention = wiring.settings.card_retention;
    let shredded = psp_jobs::shred_cards(cards, tokens, &*wiring.sources.clock, retention).await?;
    answer(format_args!("{} sealed cards erased, {} expired tokens", shredded.cards, shredded.tokens))
}
