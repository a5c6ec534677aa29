use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use metrics::{Counter, Gauge, Histogram};
use psp_domain::QueueName;
use psp_domain::ports::{Delivery, Queue, QueueError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::RetryPolicy;

/// What a consumer may use.
#[derive(Debug, Clone, Copy)]
pub struct ConsumerOptions {
    /// The most messages in hand.
    pub concurrency: usize,
    /// How long one `receive` waits for messages.
    pub wait: Duration,
    /// How long one message may take; it is retried later then.
    pub handler_timeout: Duration,
    /// The delays between attempts.
    pub retry: RetryPolicy,
    /// How long messages in hand may take after the stop; then they are left to their lease.
    pub grace: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            concurrency: 128,
            wait: Duration::from_secs(20),
            handler_timeout: Duration::from_mins(2),
            retry: RetryPolicy::default(),
            grace: Duration::from_secs(20),
        }
    }
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It is done.
    Done,
    /// It comes back after a delay.
    Retry(String),
    /// No attempt can succeed: put it aside.
    Dead(String),
}

/// The work of one message.
pub type Job = BoxFuture<'static, Disposition>;

/// Turns messages into work.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Loads what a batch needs, at once, and returns the work of each message, in order.
    async fn prepare(&self, deliveries: &[Delivery]) -> Vec<Job>;
}

/// How long a claim that is under way when the stop comes may take to arrive.
pub(crate) const LAST_CLAIM: Duration = Duration::from_millis(200);
/// What part of the grace period the last claim may take before it, and the acknowledgements after it.
const LAST_PART: u32 = 8;
/// The most acknowledgements of one write.
const MAX_ACKS: usize = 512;

/// Handles the messages of a queue until stopped. Then takes no more, finishes those in hand within the grace period, and
/// acknowledges them.
pub async fn consume(
    queue: Arc<dyn Queue>,
    name: QueueName,
    handler: Arc<dyn Handler>,
    options: ConsumerOptions,
    stop: CancellationToken,
) {
    let (done, finished) = mpsc::channel(options.concurrency.max(1));
    let acknowledger = tokio::spawn(acknowledge(Arc::clone(&queue), finished));
    let (metrics, abandon) = (Metrics::of(name), CancellationToken::new());
    let consumer = Arc::new(Consumer { queue, name, handler, options, done, metrics, abandon: abandon.clone() });
    let tasks = TaskTracker::new();
    consumer.receive_until(&stop, &tasks).await;
    tasks.close();
    if timeout(options.grace, tasks.wait()).await.is_err() {
        tracing::warn!(queue = %name, left = tasks.len(), "messages in hand are left to their leases");
        abandon.cancel();
        tasks.wait().await;
    }
    // The channel closes with the last holder of the consumer.
    drop(consumer);
    if timeout(options.grace / LAST_PART, acknowledger).await.is_err() {
        tracing::warn!(queue = %name, "acknowledgements were not written in time: messages will come again");
    }
}

struct Consumer {
    queue: Arc<dyn Queue>,
    name: QueueName,
    handler: Arc<dyn Handler>,
    options: ConsumerOptions,
    done: mpsc::Sender<Delivery>,
    metrics: Metrics,
    /// Ends the work of the messages in hand, wherever it is.
    abandon: CancellationToken,
}

/// Resolved once: recording must not look names up for every message.
struct Metrics {
    done: Counter,
    retried: Counter,
    dead: Counter,
    seconds: Histogram,
    in_flight: Gauge,
}

impl Metrics {
    fn of(queue: QueueName) -> Self {
        let count = |outcome| metrics::counter!("psp_messages_total", "queue" => queue.as_str(), "outcome" => outcome);
        Self {
            done: count("done"),
            retried: count("retried"),
            dead: count("dead"),
            seconds: metrics::histogram!("psp_message_duration_seconds", "queue" => queue.as_str()),
            in_flight: metrics::gauge!("psp_messages_in_flight", "queue" => queue.as_str()),
        }
    }
}

impl Consumer {
    async fn receive_until(self: &Arc<Self>, stop: &CancellationToken, tasks: &TaskTracker) {
        let room = Arc::new(Semaphore::new(self.options.concurrency.max(1)));
        let mut failures = 0;
        while let Some(permits) = take_room(&room, stop).await {
            match self.receive(permits.len(), stop).await {
                Ok(deliveries) => {
                    failures = 0;
                    if !deliveries.is_empty() {
                        let batch = Arc::clone(self).handle_batch(deliveries, permits, tasks.clone());
                        tasks.spawn(self.abandon.clone().run_until_cancelled_owned(batch));
                    }
                }
                Err(error) => {
                    failures += 1;
                    let delay = self.options.retry.delay(failures).min(Duration::from_secs(30));
                    tracing::error!(queue = %self.name, error = &error as &dyn std::error::Error, ?delay, "receiving failed");
                    let _ = timeout(delay, stop.cancelled()).await;
                }
            }
        }
    }

    async fn receive(&self, max: usize, stop: &CancellationToken) -> Result<Vec<Delivery>, QueueError> {
        let mut receive = self.queue.receive(self.name, max, self.options.wait);
        tokio::select! {
            received = &mut receive => received,
            // Messages that are just being claimed would stay invisible for a while if nobody took them.
            () = stop.cancelled() => timeout(LAST_CLAIM.min(self.options.grace / LAST_PART), receive).await.unwrap_or(Ok(Vec::new())),
        }
    }

    async fn handle_batch(
        self: Arc<Self>,
        deliveries: Vec<Delivery>,
        permits: Vec<OwnedSemaphorePermit>,
        tasks: TaskTracker,
    ) {
        let prepared = AssertUnwindSafe(self.handler.prepare(&deliveries)).catch_unwind().await;
        let jobs = prepared.unwrap_or_else(|_| deliveries.iter().map(|_| panicked()).collect());
        for ((delivery, job), permit) in deliveries.into_iter().zip(jobs).zip(permits) {
            let consumer = Arc::clone(&self);
            tasks.spawn(async move {
                consumer.metrics.in_flight.increment(1.0);
                consumer.abandon.run_until_cancelled(consumer.handle(delivery, job)).await;
                consumer.metrics.in_flight.decrement(1.0);
                drop(permit);
            });
        }
    }

    async fn handle(&self, delivery: Delivery, job: Job) {
        let begun = Instant::now();
        let Some(disposition) = self.run(&delivery, job).await else {
            tracing::warn!(queue = %self.name, message = %delivery.message.id, "the lease was lost: another worker has the message");
            return;
        };
        self.metrics.seconds.record(begun.elapsed().as_secs_f64());
        let message = delivery.message.id;
        let (aggregate, count) = (delivery.message.aggregate_id, delivery.receive_count);
        let written = match disposition {
            Disposition::Done => {
                tracing::debug!(queue = %self.name, %message, %aggregate, count, "done");
                self.metrics.done.increment(1);
                // The receiver lives as long as this consumer.
                let _ = self.done.send(delivery).await;
                Ok(())
            }
            Disposition::Retry(reason) => {
                let delay = self.options.retry.delay(count);
                tracing::warn!(queue = %self.name, %message, %aggregate, count, reason, ?delay, "will be retried");
                self.metrics.retried.increment(1);
                self.queue.retry(&delivery, delay, &reason).await
            }
            Disposition::Dead(reason) => {
                tracing::error!(queue = %self.name, %message, %aggregate, count, reason, "is a dead letter");
                self.metrics.dead.increment(1);
                self.queue.dead_letter(&delivery, &reason).await
            }
        };
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::error!(queue = %self.name, %message, error, "left to its lease");
        }
    }

    /// Runs the work of a message, keeping its lease; `None` when the lease was lost. A panic is a failed attempt.
    async fn run(&self, delivery: &Delivery, job: Job) -> Option<Disposition> {
        let job = AssertUnwindSafe(job).catch_unwind();
        // Beside the job, never instead of it: both may wait for one lock, and whoever has its turn must be able to take it.
        tokio::select! {
            biased;
            ended = job => Some(ended.unwrap_or_else(|_| Disposition::Retry(PANICKED.into()))),
            () = sleep(self.options.handler_timeout) => Some(Disposition::Retry("the handler took too long".into())),
            () = self.keep_lease(delivery) => None,
        }
    }

    /// Extends a lease again and again; returns when it is lost.
    async fn keep_lease(&self, delivery: &Delivery) {
        let lease = self.queue.visibility_timeout();
        let mut pause = lease / 2;
        loop {
            sleep(pause).await;
            match self.queue.extend(delivery).await {
                Ok(true) => pause = lease / 2,
                Ok(false) => return,
                Err(error) => {
                    // Again while the lease still holds.
                    pause = lease / 8;
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(queue = %self.name, message = %delivery.message.id, error, "extending failed");
                }
            }
        }
    }
}

const PANICKED: &str = "the handler panicked";

fn panicked() -> Job {
    Box::pin(std::future::ready(Disposition::Retry(PANICKED.into())))
}

/// All the room there is, at least for one message; `None` once stopped.
async fn take_room(room: &Arc<Semaphore>, stop: &CancellationToken) -> Option<Vec<OwnedSemaphorePermit>> {
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => return None,
        permit = Arc::clone(room).acquire_owned() => permit.ok()?,
    };
    let more = std::iter::from_fn(|| Arc::clone(room).try_acquire_owned().ok());
    Some(std::iter::once(first).chain(more).collect())
}

/// Acknowledges what has finished, in batches: while one is written, the next one gathers.
async fn acknowledge(queue: Arc<dyn Queue>, mut finished: mpsc::Receiver<Delivery>) {
    let mut batch = Vec::new();
    while finished.recv_many(&mut batch, MAX_ACKS).await > 0 {
        if let Err(error) = queue.ack(&batch).await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, messages = batch.len(), "acknowledging failed: the messages will come again");
        }
        batch.clear();
    }
}
