//! Group commit: a decorator over [`Store`] that makes one commit serve many writers.
//!
//! While one commit runs, the writes that arrive wait in a bounded queue; the next commit takes all of them, up to
//! [`BatchOptions::max_batch`]. There is no artificial delay: a lone write is committed at once. A full queue answers
//! [`StoreError::Overloaded`] at once. A caller that goes away cancels nothing: what was accepted is written.
//!
//! The writer has a thread of its own. Every statement of a commit is a turn between it and the database; on the callers'
//! runtime each turn would queue behind the requests that wait for that very commit.
//!
//! ```
//! use std::sync::Arc;
//! use psp_batch::{BatchOptions, BatchingStore};
//! # use psp_domain::{ports::{Store, StoreError}, ChangeSet, Verdict};
//! # struct Inner;
//! # #[async_trait::async_trait]
//! # impl Store for Inner {
//! #     async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
//! #         Ok(vec![Verdict::Applied; changes.len()])
//! #     }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), StoreError> {
//! let store = BatchingStore::new(Arc::new(Inner), BatchOptions::default()).expect("a thread");
//! assert_eq!(store.apply_all(vec![]).await?, vec![]);
//! store.close().await;
//! # Ok(())
//! # }
//! ```

use std::io;
use std::sync::Arc;
use std::thread;

use async_trait::async_trait;
use psp_domain::ports::{Store, StoreError};
use psp_domain::{ChangeSet, Verdict};
use tokio::sync::{Mutex, mpsc, oneshot};

/// The limits of a [`BatchingStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchOptions {
    /// The most change sets of one commit.
    pub max_batch: usize,
    /// The most change sets that wait.
    pub max_waiting: usize,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self { max_batch: 256, max_waiting: 4096 }
    }
}

/// A change set and where its verdict goes.
struct Waiting {
    change: ChangeSet,
    verdict: oneshot::Sender<Result<Verdict, StoreError>>,
}

/// A [`Store`] that gathers the writes of many callers into few commits of another.
pub struct BatchingStore {
    queue: mpsc::Sender<Waiting>,
    /// Tells the writer to take no more and end.
    stop: mpsc::Sender<()>,
    /// Resolves when the writer's thread has ended.
    writer: Mutex<Option<oneshot::Receiver<()>>>,
}

impl BatchingStore {
    /// Starts the writer's thread.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn new(inner: Arc<dyn Store>, options: BatchOptions) -> io::Result<Arc<Self>> {
        let (queue, waiting) = mpsc::channel(options.max_waiting.max(1));
        let (stop, mut stopped) = mpsc::channel(1);
        let (ended, writer) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("batch-writer".into()).spawn(move || {
            runtime.block_on(async {
                write_batches(inner, waiting, &mut stopped, options.max_batch.max(1)).await;
                let _ = ended.send(());
                // Connections that were opened here need this runtime until everything is closed.
                while stopped.recv().await.is_some() {}
            });
        })?;
        Ok(Arc::new(Self { queue, stop, writer: Mutex::new(Some(writer)) }))
    }

    /// Writes what waits and ends. Later writes answer [`StoreError::Unavailable`].
    pub async fn close(&self) {
        let _ = self.stop.try_send(());
        if let Some(ended) = self.writer.lock().await.take()
            && ended.await.is_err()
        {
            tracing::error!("the batch writer died");
        }
    }

    /// Returns when the writer has ended, which it does only once closed, or when it died.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }

    fn enqueue(&self, change: ChangeSet) -> Result<oneshot::Receiver<Result<Verdict, StoreError>>, StoreError> {
        let (verdict, answer) = oneshot::channel();
        match self.queue.try_send(Waiting { change, verdict }) {
            Ok(()) => Ok(answer),
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::counter!("psp_batch_overloaded_total").increment(1);
                Err(StoreError::Overloaded)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StoreError::Unavailable("the store is closing".into())),
        }
    }
}

#[async_trait]
impl Store for BatchingStore {
    async fn apply(&self, change: ChangeSet) -> Result<Verdict, StoreError> {
        // A lost answer means that the writer died in the middle of a commit.
        self.enqueue(change)?.await.unwrap_or_else(|lost| Err(StoreError::OutcomeUnknown(Box::new(lost))))
    }

    /// Each change set joins the common batches on its own; the order of the input is kept.
    async fn apply_all(&self, changes: Vec<ChangeSet>) -> Result<Vec<Verdict>, StoreError> {
        let permits = self.queue.try_reserve_many(changes.len()).map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(()) => StoreError::Unavailable("the store is closing".into()),
        })?;
        let enqueue = |(permit, change): (mpsc::Permit<'_, Waiting>, ChangeSet)| {
            let (verdict, answer) = oneshot::channel();
            permit.send(Waiting { change, verdict });
            answer
        };
        let answers: Vec<_> = permits.zip(changes).map(enqueue).collect();
        let mut verdicts = Vec::with_capacity(answers.len());
        for answer in answers {
            verdicts.push(answer.await.unwrap_or_else(|lost| Err(StoreError::OutcomeUnknown(Box::new(lost))))?);
        }
        Ok(verdicts)
    }
}

/// Commits batch after batch until told to stop, then what still waits.
async fn write_batches(
    inner: Arc<dyn Store>,
    mut waiting: mpsc::Receiver<Waiting>,
    stopped: &mut mpsc::Receiver<()>,
    max_batch: usize,
) {
    let sizes = metrics::histogram!("psp_batch_size");
    let mut batch = Vec::with_capacity(max_batch);
    loop {
        tokio::select! {
            biased;
            // Closing lets `recv_many` hand out what waits, and then 0.
            _ = stopped.recv(), if !waiting.is_closed() => { waiting.close(); continue }
            count = waiting.recv_many(&mut batch, max_batch) => if count == 0 { return },
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch has far fewer than 2^52 change sets")]
        sizes.record(batch.len() as f64);
        let (changes, callers): (Vec<_>, Vec<_>) = batch.drain(..).map(|w| (w.change, w.verdict)).unzip();
        answer(callers, inner.apply_all(changes).await);
    }
}

/// Gives every caller its verdict, or every caller the failure. One that went away is passed over.
fn answer(callers: Vec<oneshot::Sender<Result<Verdict, StoreError>>>, outcome: Result<Vec<Verdict>, StoreError>) {
    match outcome {
        Ok(verdicts) => {
            for (caller, verdict) in callers.into_iter().zip(verdicts) {
                let _ = caller.send(Ok(verdict));
            }
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, callers = callers.len(), "a commit failed");
            let error = Arc::new(error);
            for caller in callers {
                let _ = caller.send(Err(share(&error)));
            }
        }
    }
}

/// The same failure for one more caller.
fn share(error: &Arc<StoreError>) -> StoreError {
    let cause = Box::new(Arc::clone(error));
    match **error {
        StoreError::Unavailable(_) => StoreError::Unavailable(cause),
        StoreError::Overloaded => StoreError::Overloaded,
        StoreError::OutcomeUnknown(_) => StoreError::OutcomeUnknown(cause),
        StoreError::Damaged(ref what) => StoreError::Damaged(what.clone()),
    }
}
