use metrics::{Counter, Gauge, Histogram};
use psp_domain::DeliveryVerdict;

/// Resolved once: recording must not look names up for every delivery.
pub(crate) struct Metrics {
    delivered: Counter,
    retried: Counter,
    failed: Counter,
    pub(crate) seconds: Histogram,
    pub(crate) latency: Histogram,
    pub(crate) in_flight: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let count = |outcome| metrics::counter!("psp_webhook_deliveries_total", "outcome" => outcome);
        Self {
            delivered: count("delivered"),
            retried: count("retried"),
            failed: count("failed"),
            seconds: metrics::histogram!("psp_webhook_duration_seconds"),
            latency: metrics::histogram!("psp_webhook_latency_seconds"),
            in_flight: metrics::gauge!("psp_webhook_in_flight"),
        }
    }

    pub(crate) fn count(&self, verdict: DeliveryVerdict) {
        let counter = match verdict {
            DeliveryVerdict::Delivered => &self.delivered,
            DeliveryVerdict::RetryAt(_) => &self.retried,
            DeliveryVerdict::Failed => &self.failed,
        };
        counter.increment(1);
    }
}
