//! Jobs: settlement, housekeeping and rotation, on a schedule or once.

mod cron;
mod housekeeping;
mod rotate;
mod settle;

pub use cron::{CronJob, InvalidSchedule, JobResult, run_cron};
pub use housekeeping::{Shredded, purge_idempotency_keys, shred_cards, sweep_attempts, sweep_until};
pub use rotate::{Rotation, RotationError, rotate_vault};
pub use settle::{JobError, Summary, settle_payables};
