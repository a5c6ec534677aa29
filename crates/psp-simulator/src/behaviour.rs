use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How an acquirer behaves. It plays these faults in this order: an outage, an error, a delay, a lost answer.
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
}

/// Not a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("error_rate and lost_rate must be from 0 to 1, latency_ms from 0 to {}", Behaviour::MAX_LATENCY.as_millis())]
pub struct WrongBehaviour;

impl Behaviour {
    /// The longest latency.
    pub const MAX_LATENCY: Duration = Duration::from_mins(2);

    pub(crate) fn checked(self) -> Result<Self, WrongBehaviour> {
        let rates = [self.error_rate, self.lost_rate].iter().all(|rate| (0.0..=1.0).contains(rate));
        if rates && self.latency() <= Self::MAX_LATENCY { Ok(self) } else { Err(WrongBehaviour) }
    }

    pub(crate) fn with(self, change: &BehaviourChange) -> Result<Self, WrongBehaviour> {
        let changed = Self {
            outage: change.outage.unwrap_or(self.outage),
            error_rate: change.error_rate.unwrap_or(self.error_rate),
            latency_ms: change.latency_ms.unwrap_or(self.latency_ms),
            lost_rate: change.lost_rate.unwrap_or(self.lost_rate),
        };
        changed.checked()
    }

    pub(crate) fn latency(self) -> Duration {
        Duration::from_millis(self.latency_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_behaviour_changes_nothing() {
        let calm = Behaviour::default();
        let slow = BehaviourChange { latency_ms: Some(20), ..BehaviourChange::default() };
        assert_eq!(calm.with(&slow).map(Behaviour::latency), Ok(Duration::from_millis(20)));
        for rate in [-0.1, 1.1, f64::NAN] {
            let errors = BehaviourChange { error_rate: Some(rate), ..BehaviourChange::default() };
            let losses = BehaviourChange { lost_rate: Some(rate), ..BehaviourChange::default() };
            assert!(calm.with(&errors).is_err() && calm.with(&losses).is_err(), "{rate}");
        }
        let late = BehaviourChange { latency_ms: Some(120_001), ..BehaviourChange::default() };
        assert_eq!(calm.with(&late), Err(WrongBehaviour));
    }
}
