//! Jobs: settlement and housekeeping, on a schedule or once.

mod cron;
mod housekeeping;
mod settle;

pub use cron::{CronJob, InvalidSchedule, JobResult, run_cron};
pub use housekeeping::{purge_idempotency_keys, sweep_attempts, sweep_until};
pub use settle::{JobError, Summary, settle_payables};
