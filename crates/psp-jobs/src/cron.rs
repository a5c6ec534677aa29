//! Schedules. `tokio-cron-scheduler` says when; everything that it leaves open is decided here: its closure only gives a
//! tick, a run that finds its predecessor at work is skipped, and stopping waits for the run under way.

use std::sync::Arc;
use std::time::Duration;

use croner::parser::{CronParser, Seconds};
use psp_domain::ports::{Clock, Leadership};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

/// What a run gives back; the error's text is logged.
pub type JobResult = Result<(), Box<dyn std::error::Error + Send + Sync>>;

type Run = Arc<dyn Fn() -> std::pin::Pin<Box<dyn Future<Output = JobResult> + Send>> + Send + Sync>;

/// A job and its schedule.
#[derive(Clone)]
pub struct CronJob {
    name: &'static str,
    expression: String,
    run: Run,
}

/// An expression that is no schedule.
#[derive(Debug, thiserror::Error)]
#[error("\"{expression}\" is not a cron expression of 5 fields (minute hour day month weekday) or 6 (seconds first)")]
pub struct InvalidSchedule {
    expression: String,
}

impl CronJob {
    /// A job on a cron expression of 5 or 6 fields, in UTC.
    ///
    /// # Errors
    /// [`InvalidSchedule`].
    pub fn new<F>(
        name: &'static str,
        expression: &str,
        run: impl Fn() -> F + Send + Sync + 'static,
    ) -> Result<Self, InvalidSchedule>
    where
        F: Future<Output = JobResult> + Send + 'static,
    {
        // The scheduler wants seconds.
        let fields = expression.split_whitespace().collect::<Vec<_>>();
        let with_seconds = if fields.len() == 5 { format!("0 {}", fields.join(" ")) } else { fields.join(" ") };
        let parsed = CronParser::builder().seconds(Seconds::Required).build().parse(&with_seconds);
        if parsed.is_err() {
            return Err(InvalidSchedule { expression: expression.to_owned() });
        }
        Ok(Self { name, expression: with_seconds, run: Arc::new(move || Box::pin(run())) })
    }
}

/// Runs the jobs on their schedules until stopped; then waits for those at work, at most `grace`. Where several processes
/// do, only the one that leads at a tick runs its job.
///
/// # Errors
/// When the scheduler cannot be started.
pub async fn run_cron(
    jobs: Vec<CronJob>,
    clock: Arc<dyn Clock>,
    leadership: Option<Arc<dyn Leadership>>,
    grace: Duration,
    stop: CancellationToken,
) -> Result<(), JobSchedulerError> {
    let mut scheduler = JobScheduler::new().await?;
    let mut workers = JoinSet::new();
    for job in jobs {
        // One place: a tick that comes while the job runs waits; more than one is skipped.
        let (tick, ticks) = mpsc::channel(1);
        let name = job.name;
        let schedule = Job::new_async(job.expression.as_str(), move |_, _| {
            let tick = tick.clone();
            Box::pin(async move {
                if tick.try_send(()).is_err() {
                    tracing::warn!(job = name, "skipped: the previous run is still at work");
                    metrics::counter!("psp_job_runs_total", "job" => name, "outcome" => "skipped").increment(1);
                }
            })
        })?;
        scheduler.add(schedule).await?;
        workers.spawn(run_on_ticks(job, ticks, Arc::clone(&clock), leadership.clone(), stop.clone()));
    }
    scheduler.start().await?;
    stop.cancelled().await;
    let shut = scheduler.shutdown().await;
    let all = async { while workers.join_next().await.is_some() {} };
    if timeout(grace, all).await.is_err() {
        tracing::warn!("a scheduled job did not end in time");
    }
    shut
}

/// Runs a job at each tick, one run after the other. A panic fails that run only.
async fn run_on_ticks(
    job: CronJob,
    mut ticks: mpsc::Receiver<()>,
    clock: Arc<dyn Clock>,
    leadership: Option<Arc<dyn Leadership>>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            tick = ticks.recv() => if tick.is_none() { return },
        }
        if let Some(leadership) = &leadership
            && stop.run_until_cancelled(leads(&**leadership, job.name)).await != Some(true)
        {
            continue;
        }
        let begun = Instant::now();
        let run = tokio::spawn((job.run)()).await;
        let failure = match run {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // What a panic says may hold what a client sent.
            Err(_panic) => Some("panicked".to_owned()),
        };
        let outcome = if failure.is_none() { "done" } else { "failed" };
        metrics::counter!("psp_job_runs_total", "job" => job.name, "outcome" => outcome).increment(1);
        metrics::histogram!("psp_job_duration_seconds", "job" => job.name).record(begun.elapsed().as_secs_f64());
        if let Some(error) = failure {
            tracing::error!(job = job.name, error, "the job failed");
        } else {
            #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit 52 bits")]
            let now = clock.now().timestamp() as f64;
            metrics::gauge!("psp_job_last_success_timestamp_seconds", "job" => job.name).set(now);
        }
    }
}

/// How often who leads is asked for when nobody can tell, and the pause between: a restart of the database must not cost
/// a day's tick.
const ASK_AGAIN: (u32, Duration) = (24, Duration::from_secs(5));

/// Whether this process leads. Whoever cannot tell asks again for a while, and then does not.
async fn leads(leadership: &dyn Leadership, job: &'static str) -> bool {
    let mut asked = 0;
    let leads = loop {
        asked += 1;
        match leadership.lead().await {
            Ok(leads) => break leads,
            Err(error) => {
                tracing::error!(job, error = &error as &dyn std::error::Error, "nobody can tell who leads");
                if asked >= ASK_AGAIN.0 {
                    break false;
                }
                tokio::time::sleep(ASK_AGAIN.1).await;
            }
        }
    };
    metrics::gauge!("psp_scheduler_leads").set(f64::from(u8::from(leads)));
    if !leads {
        tracing::debug!(job, "skipped: another process leads");
        metrics::counter!("psp_job_runs_total", "job" => job, "outcome" => "not_leading").increment(1);
    }
    leads
}
