use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

/// How long a message waits before its next attempt: doubling from `base` up to `max`, plus a random part of up to as much
/// again, so that messages that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The delay after the first attempt.
    pub base: Duration,
    /// The longest delay, without its random part.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { base: Duration::from_secs(1), max: Duration::from_mins(5) }
    }
}

impl RetryPolicy {
    /// The delay after the attempt of that number (from 1).
    pub fn delay(&self, attempt: u32) -> Duration {
        let attempt = attempt.clamp(1, 32) as usize;
        let builder = self.builder().with_max_times(attempt);
        builder.build().nth(attempt - 1).unwrap_or(self.max)
    }

    fn builder(&self) -> ExponentialBuilder {
        ExponentialBuilder::default().with_min_delay(self.base).with_max_delay(self.max).with_factor(2.0).with_jitter()
    }
}

/// Failures of the store inside a handler: a few attempts in place, while the lease is held, because a message must not
/// become a dead letter for the database's sake.
pub(crate) fn in_place() -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(Duration::from_secs(2))
        .with_max_times(8)
        .with_jitter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_longest_and_vary_by_at_most_their_own_length() {
        let policy = RetryPolicy { base: Duration::from_secs(1), max: Duration::from_secs(10) };
        for (attempt, seconds) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (30, 10)] {
            let (least, most) = (Duration::from_secs(seconds), Duration::from_secs(2 * seconds));
            for _ in 0..100 {
                let delay = policy.delay(attempt);
                assert!((least..=most).contains(&delay), "attempt {attempt}: {delay:?}");
            }
        }
    }
}
