use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use uuid::Uuid;

/// The time.
pub trait Clock: Send + Sync {
    /// Now, UTC, in whole milliseconds.
    fn now(&self) -> DateTime<Utc>;
}

/// Fresh ids.
pub trait IdGenerator: Send + Sync {
    /// A UUIDv7, greater than every one that this generator gave before.
    fn next_id(&self) -> Uuid;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the ambient clock enters")]
    fn now(&self) -> DateTime<Utc> {
        let now = Utc::now();
        now.duration_trunc(TimeDelta::milliseconds(1)).unwrap_or(now)
    }
}

/// UUIDv7 with the monotonic counter of the `uuid` crate.
#[derive(Debug, Clone, Copy, Default)]
pub struct UuidV7Generator;

impl IdGenerator for UuidV7Generator {
    #[expect(clippy::disallowed_methods, reason = "the one place where ambient ids enter")]
    fn next_id(&self) -> Uuid {
        Uuid::now_v7()
    }
}
