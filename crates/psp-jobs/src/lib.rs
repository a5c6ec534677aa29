//! Jobs: settlement, sweeps, housekeeping and rotation, on a schedule or once.

mod cron;
mod housekeeping;
mod rotate;
mod settle;
mod stalled_orders;
mod sweep;

pub use cron::{CronJob, InvalidSchedule, JobResult, run_cron};
pub use housekeeping::{Shredded, purge_events, purge_idempotency_keys, shred_cards};
pub use rotate::{Rotation, RotationError, rotate_vault};
pub use settle::{JobError, Summary, settle_payables};
pub use stalled_orders::{OrderPlace, StalledOrders, ask_for_stalled_orders};
pub use sweep::{Stalled, StalledError, Sweeps, Swept, Unanswered, ask_for_stalled, sweep_unanswered, sweep_until};
