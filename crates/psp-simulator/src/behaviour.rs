use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an acquirer behaves. It plays these faults in this order: an outage, an error, an answer that comes later, a delay, a
/// lost answer; and then those of callbacks.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Behaviour {
    /// Refuses everything with 503, having taken nothing.
    pub outage: bool,
    /// The part of the requests that is answered 503, having taken nothing: 0 to 1.
    pub error_rate: f64,
    /// How long every answer takes after the request was taken, in milliseconds.
    pub latency_ms: u64,
    /// The part of the requests that is taken, and its connection closed instead of an answer: 0 to 1.
    pub lost_rate: f64,
    /// The part of the authorizations that is answered `pending` and decided later: 0 to 1.
    pub pending_rate: f64,
    /// How long after a pending answer it is decided and called back, in milliseconds.
    pub callback_delay_ms: u64,
    /// The part of the callbacks that is sent twice: 0 to 1.
    pub duplicate_rate: f64,
    /// The part of the callbacks that names one minor unit too much first, and the right amount after the delay: 0 to 1.
    pub wrong_amount_rate: f64,
    /// The part of the callbacks that is never sent: 0 to 1.
    pub forget_rate: f64,
}

/// What is to change of a [`Behaviour`].
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "the fields are those of Behaviour")]
pub struct BehaviourChange {
    pub outage: Option<bool>,
    pub error_rate: Option<f64>,
    pub latency_ms: Option<u64>,
    pub lost_rate: Option<f64>,
    pub pending_rate: Option<f64>,
    pub callback_delay_ms: Option<u64>,
    pub duplicate_rate: Option<f64>,
    pub wrong_amount_rate: Option<f64>,
    pub forget_rate: Option<f64>,
}

/// Not a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("every rate must be from 0 to 1, latency_ms and callback_delay_ms from 0 to {}", Behaviour::MAX_DELAY.as_millis())]
pub struct WrongBehaviour;

impl Behaviour {
    /// The longest latency, and the longest delay of a callback.
    pub const MAX_DELAY: Duration = Duration::from_mins(2);

    pub(crate) fn checked(self) -> Result<Self, WrongBehaviour> {
        let rates = [
            self.error_rate,
            self.lost_rate,
            self.pending_rate,
            self.duplicate_rate,
            self.wrong_amount_rate,
            self.forget_rate,
        ];
        let are_rates = rates.iter().all(|rate| (0.0..=1.0).contains(rate));
        let are_delays = [self.latency(), self.callback_delay()].iter().all(|delay| *delay <= Self::MAX_DELAY);
        if are_rates && are_delays { Ok(self) } else { Err(WrongBehaviour) }
    }

    pub(crate) fn with(self, change: &BehaviourChange) -> Result<Self, WrongBehaviour> {
        let changed = Self {
            outage: change.outage.unwrap_or(self.outage),
            error_rate: change.error_rate.unwrap_or(self.error_rate),
            latency_ms: change.latency_ms.unwrap_or(self.latency_ms),
            lost_rate: change.lost_rate.unwrap_or(self.lost_rate),
            pending_rate: change.pending_rate.unwrap_or(self.pending_rate),
            callback_delay_ms: change.callback_delay_ms.unwrap_or(self.callback_delay_ms),
            duplicate_rate: change.duplicate_rate.unwrap_or(self.duplicate_rate),
            wrong_amount_rate: change.wrong_amount_rate.unwrap_or(self.wrong_amount_rate),
            forget_rate: change.forget_rate.unwrap_or(self.forget_rate),
        };
        changed.checked()
    }

    pub(crate) fn latency(self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }

    pub(crate) fn callback_delay(self) -> Duration {
        Duration::from_millis(self.callback_delay_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_behaviour_changes_nothing() {
        let calm = Behaviour::default();
        let none = BehaviourChange::default();
        let slow = BehaviourChange { latency_ms: Some(20), callback_delay_ms: Some(30), ..none };
        let delays = calm.with(&slow).map(|slow| (slow.latency(), slow.callback_delay()));
        assert_eq!(delays, Ok((Duration::from_millis(20), Duration::from_millis(30))));
        for rate in [-0.1, 1.1, f64::NAN].map(Some) {
            for wrong in [
                BehaviourChange { error_rate: rate, ..none },
                BehaviourChange { lost_rate: rate, ..none },
                BehaviourChange { pending_rate: rate, ..none },
                BehaviourChange { duplicate_rate: rate, ..none },
                BehaviourChange { wrong_amount_rate: rate, ..none },
                BehaviourChange { forget_rate: rate, ..none },
            ] {
                assert_eq!(calm.with(&wrong), Err(WrongBehaviour), "{wrong:?}");
            }
        }
        for late in [
            BehaviourChange { latency_ms: Some(120_001), ..none },
            BehaviourChange { callback_delay_ms: Some(120_001), ..none },
        ] {
            assert_eq!(calm.with(&late), Err(WrongBehaviour));
        }
    }
}
