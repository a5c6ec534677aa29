use std::fmt;
use std::time::Duration;

use chrono::NaiveDate;
use psp_domain::ports::{SettlementProgress, StoreError};
use psp_domain::usecases::SettlePayables;
use psp_domain::{Money, SettlementRunId};
use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often progress is asked for.
const POLL: Duration = Duration::from_millis(50);
/// How long a run may go without a settled chunk.
const STALL: Duration = Duration::from_mins(1);

/// What a settlement run did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The run.
    pub run_id: SettlementRunId,
    /// The chunks it was cut into.
    pub chunks: u32,
    /// The payables that it paid.
    pub payables: u64,
    /// The transactions that became `paid`.
    pub transactions: u64,
    /// The receivables that it paid, one per currency.
    pub amounts: Vec<Money>,
    /// From planning to the last chunk.
    pub elapsed: Duration,
}

impl Summary {
    /// Alarms look for this line.
    fn log(&self) {
        tracing::info!(
            run = %self.run_id,
            chunks = self.chunks,
            payables = self.payables,
            transactions = self.transactions,
            amounts = ?self.amounts,
            seconds = self.elapsed.as_secs_f64(),
            "payables settled"
        );
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "run           {}", self.run_id)?;
        writeln!(f, "chunks        {}", self.chunks)?;
        writeln!(f, "payables      {}", self.payables)?;
        writeln!(f, "transactions  {}", self.transactions)?;
        for amount in &self.amounts {
            writeln!(f, "amount        {amount}")?;
        }
        write!(f, "seconds       {:.3}", self.elapsed.as_secs_f64())
    }
}

/// Why a run did not end.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The store failed.
    #[error("settlement failed")]
    Store(#[from] StoreError),
    /// Nobody settles the chunks.
    #[error(
        "settlement run {run_id} stands at {settled} of {chunks} chunks: the rest is on the queue payables-settlement; \
         is a worker running, or are there dead letters?"
    )]
    Stalled {
        /// The run.
        run_id: SettlementRunId,
        /// Chunks settled.
        settled: u32,
        /// All its chunks.
        chunks: u32,
    },
}

/// Plans a run for the payables due on or before `date` (today, UTC, where there is none) and waits until consumers of
/// `payables-settlement`, here or elsewhere, have settled its chunks.
///
/// # Errors
/// [`JobError::Stalled`] after a minute without a settled chunk.
pub async fn settle_payables(
    settle: &SettlePayables,
    date: Option<NaiveDate>,
    chunk_size: u32,
    on_progress: impl Fn(&SettlementProgress),
) -> Result<Summary, JobError> {
    let begun = Instant::now();
    let run = settle.plan(date, chunk_size).await?;
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut settled, mut moved) = (0, begun);
    loop {
        ticks.tick().await;
        let progress = settle.progress(run.id).await?.unwrap_or_default();
        on_progress(&progress);
        if progress.settled_chunks >= run.chunks {
            let summary = Summary {
                run_id: run.id,
                chunks: run.chunks,
                payables: progress.payables,
                transactions: progress.transactions,
                amounts: progress.amounts,
                elapsed: begun.elapsed(),
            };
            summary.log();
            return Ok(summary);
        }
        if progress.settled_chunks > settled {
            (settled, moved) = (progress.settled_chunks, Instant::now());
        } else if moved.elapsed() > STALL {
            return Err(JobError::Stalled { run_id: run.id, settled, chunks: run.chunks });
        }
    }
}
