use std::sync::Arc;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};

use crate::SettlementRunId;
use crate::ports::{SettledChunk, SettlementChunk, SettlementProgress, SettlementStore, StoreError};
use crate::usecases::Sources;

/// Settles due payables: a run is cut into chunks on the `payables-settlement` queue, and each chunk is settled with
/// set-based writes in one database transaction. Two runs for one date pay once.
#[derive(Clone)]
pub struct SettlePayables {
    store: Arc<dyn SettlementStore>,
    sources: Sources,
}

/// A planned run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettlementRun {
    /// Its id.
    pub id: SettlementRunId,
    /// The chunks that were put on the queue.
    pub chunks: u32,
}

/// The end of a UTC day: payables with a payment date before it are due on that day.
///
/// ```
/// use psp_domain::usecases::due_before;
/// let day = "2026-02-28".parse()?;
/// assert_eq!(due_before(day).to_rfc3339(), "2026-03-01T00:00:00+00:00");
/// # Ok::<(), chrono::ParseError>(())
/// ```
pub fn due_before(date: NaiveDate) -> DateTime<Utc> {
    date.checked_add_days(Days::new(1)).unwrap_or(NaiveDate::MAX).and_time(NaiveTime::MIN).and_utc()
}

impl SettlePayables {
    /// The number of payables of one chunk.
    pub const CHUNK_SIZE: u32 = 1_000;

    /// The use case over its ports.
    pub fn new(store: Arc<dyn SettlementStore>, sources: Sources) -> Self {
        Self { store, sources }
    }

    /// Plans a run for the payables due on or before `date` (today where there is none).
    ///
    /// # Errors
    /// [`StoreError`]: nothing was planned.
    pub async fn plan(&self, date: Option<NaiveDate>, chunk_size: u32) -> Result<SettlementRun, StoreError> {
        let now = self.sources.clock.now();
        let id = SettlementRunId(self.sources.ids.next_id());
        let due = due_before(date.unwrap_or_else(|| now.date_naive()));
        let chunks = self.store.plan_run(id, due, chunk_size, now).await?;
        Ok(SettlementRun { id, chunks })
    }

    /// Settles one chunk; `None` when there is no such chunk.
    ///
    /// # Errors
    /// [`StoreError`]: nothing of the chunk was settled.
    pub async fn settle(&self, chunk: SettlementChunk) -> Result<Option<SettledChunk>, StoreError> {
        self.store.settle_chunk(chunk, self.sources.clock.now()).await
    }

    /// How far a run is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn progress(&self, run: SettlementRunId) -> Result<Option<SettlementProgress>, StoreError> {
        self.store.progress(run).await
    }
}
